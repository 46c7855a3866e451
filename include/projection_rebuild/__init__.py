"""Blue/green rebuilds of event-sourced read models: plain Python and SQLAlchemy, usable from a REPL."""
