"""The dependent objects of the tables."""

from __future__ import annotations

from projection_rebuild.model.findings import Finding
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check


@check(Scope.EXISTING_TABLES, "what hangs on the tables")
def unsupported(planned: PreflightInput) -> list[Finding]:
    """Objects that a rebuild would lose or break; the database knows their kinds."""
    return planned.dialect.dependents.unsupported_objects(planned.connection, planned.existing)
