"""Decides whether green may go live: by counts, by a refolded sample, and by the spec's own assertions."""
