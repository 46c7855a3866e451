"""A partial rebuild: whether projectors can select the part, and whether the other rows can be copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from projection_rebuild.model.findings import Finding, refusal
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check
from projection_rebuild.replay.partial import look


@check(Scope.EVENTS, "the part")
def chosen(planned: PreflightInput) -> Iterable[Finding]:
    """A part without events, or one that a projector cannot select."""
    return [] if planned.part is None else look(planned.step, planned.part, planned.projectors)


@check(Scope.EXISTING_TABLES, "the part")
def copied(planned: PreflightInput) -> Iterator[Finding]:
    """Tables whose structure changes, so that rows cannot be copied."""
    changed = planned.schema_change.definitions
    if planned.part is not None and changed:
        problem = f"the structure of {', '.join(changed)} changes, so that no rows can be copied"
        yield refusal("since, until, aggregates", problem, "rebuild these projectors as a whole")
