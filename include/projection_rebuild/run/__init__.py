"""One run at work: what all its steps share, what operators say to it, its progress, its record and its report."""
