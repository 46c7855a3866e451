"""Looking and tidying: the status of a rebuild, and housekeeping after dead runs."""
