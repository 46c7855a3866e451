"""What operators see and tidy: the status of a rebuild, and housekeeping after dead runs."""
