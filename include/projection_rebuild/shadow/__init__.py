"""Making green tables like the live ones, and dropping retired ones."""
