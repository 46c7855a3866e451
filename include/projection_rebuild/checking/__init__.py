"""The same events, projected in every way, must give the same rows."""
