"""The chosen projectors: whether the spec has them, their order, and how the engine can replay them."""

from __future__ import annotations

from collections.abc import Iterator

from projection_rebuild.errors import PlanError
from projection_rebuild.model.findings import Finding, refusal, refusal_of
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check
from projection_rebuild.replay.set_based import ineligible_because
from projection_rebuild.replay.shards import why_whole
from projection_rebuild.spec.projectors import shared_tables


@check(Scope.CHOICE, "projectors")
def unknown(planned: PreflightInput) -> Iterator[Finding]:
    """Chosen names that the spec does not have."""
    known = planned.context.projectors
    if missing := [name for name in planned.options.projectors or () if name not in known]:
        yield refusal("projectors", f"{', '.join(missing)} is unknown", f"this spec has {', '.join(known)}")


@check(Scope.CHOICE, "projectors")
def unordered(planned: PreflightInput) -> Iterator[Finding]:
    """Projectors that depend on each other in a circle, or on one that the spec does not list."""
    try:
        planned.context.projectors.order()
    except PlanError as error:
        yield refusal_of(error)


@check(Scope.CHOICE, "projectors")
def owners(planned: PreflightInput) -> Iterator[Finding]:
    """Tables that two projectors own."""
    return shared_tables(planned.context.projectors.values())


@check(Scope.REPLAY, "projectors")
def undivided(planned: PreflightInput) -> Iterator[Finding]:
    """Projectors with shards in the options or the spec that the engine cannot divide into shards."""
    for name in planned.projectors:
        reason = why_whole(planned.context, planned.context.projector(name))
        if reason is not None and (planned.options.shards or planned.context.spec.replay.shards_of(name)) > 1:
            problem = f"it is replayed as a whole and not in shards: {reason}"
            yield Finding(about=name, problem=problem, remedy="nothing has to be done")


@check(Scope.TABLES, "projectors")
def sql(planned: PreflightInput) -> Iterator[Finding]:
    """Projectors whose SQL the engine cannot use."""
    for name in planned.projectors:
        projector = planned.context.projector(name)
        reason = ineligible_because(planned.context, projector)
        if projector.has_handlers():
            if reason and planned.context.spec.replay.set_based:
                problem = f"{reason}, so that it is replayed by its handlers and not by its SQL"
                yield Finding(about=name, problem=problem, remedy="this is only slower")
            continue
        if reason is None:
            reason = planned.dialect.cutover.sql_reads_no_events
        if reason is not None:
            problem = f"it has no handlers, and its SQL cannot be used: {reason or 'it has none for this database'}"
            yield refusal(name, problem, "give it handlers as well")
