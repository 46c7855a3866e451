"""Plain data about a run: names, positions, limits, the plan, findings, and what each step has done."""
