"""Plain data about a run: names, positions, limits, the plan, findings, and the results of its steps."""
