"""The step ``plan``: it checks whether a rebuild can work, estimates its cost, and records the plan."""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:
    from projection_rebuild.moved import names_of

    # Until version 0.3, for code that imports the module of version 0.1.
    __getattr__ = names_of("planning", "planning.planner")
