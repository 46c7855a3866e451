"""The foreign keys among the tables."""

from __future__ import annotations

from collections.abc import Iterator

from projection_rebuild.errors import PlanError
from projection_rebuild.model.findings import Finding, refusal_of
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check


@check(Scope.EXISTING_TABLES, "foreign keys")
def circles(planned: PreflightInput) -> Iterator[Finding]:
    """Foreign keys in a circle, so that no order of filling the tables is possible."""
    try:
        _ = planned.filling_order
    except PlanError as error:
        yield refusal_of(error)
