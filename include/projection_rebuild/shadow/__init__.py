"""Makes green tables like the live ones, and drops retired ones."""
