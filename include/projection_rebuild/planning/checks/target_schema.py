"""Another structure for the tables, where the spec names one."""

from __future__ import annotations

from projection_rebuild.model.findings import Finding
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check


@check(Scope.TABLES, "structure")
def works(planned: PreflightInput) -> list[Finding]:
    """Whether the database accepts the new structure, and whether views, keys and row classes work with it."""
    return planned.schema_change.findings
