"""The checks of a plan, one module per subject. A new subject is imported here, and has its place in ``SUBJECTS``."""

from projection_rebuild.planning.checks import (
    contract,
    cutover,
    dependents,
    event_store,
    foreign_keys,
    live_tables,
    names,
    partial,
    programs,
    projectors,
    server,
    shape,
    space,
    target_schema,
    traffic,
)
from projection_rebuild.planning.checks.registry import registered

SUBJECTS = (
    event_store,
    names,
    target_schema,
    shape,
    contract,
    server,
    dependents,
    foreign_keys,
    live_tables,
    space,
    cutover,
    traffic,
    projectors,
    programs,
    partial,
)
"""The modules of checks. Within one scope, an operator reads their findings in this order."""

CHECKS = tuple(check for subject in SUBJECTS for check in registered(subject.__name__))

__all__ = ["CHECKS", "SUBJECTS"]
