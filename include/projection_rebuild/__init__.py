"""Blue/green rebuilds of event-sourced read models: plain Python and SQLAlchemy, usable from a REPL."""

from projection_rebuild import old_paths

old_paths.install()
