"""The identity of the live tables."""

from __future__ import annotations

from collections.abc import Iterable

from projection_rebuild.model.findings import Finding
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check
from projection_rebuild.shadow import live_tables


@check(Scope.EXISTING_TABLES, "live tables")
def untold(planned: PreflightInput) -> Iterable[Finding]:
    """Tables that the database does not distinguish from others that take their names during the run."""
    return live_tables.untold(planned.step, planned.existing)
