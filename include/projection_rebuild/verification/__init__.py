"""Whether green may go live, by counts, by a sample that is folded anew, and by the spec's own assertions."""
