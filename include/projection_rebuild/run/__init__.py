"""A run while it goes on: what its steps share, the signals of operators, its progress, its record and its report."""
