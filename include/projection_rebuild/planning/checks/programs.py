"""Projectors that are programs, with transactions of their own."""

from __future__ import annotations

from collections.abc import Iterator

from projection_rebuild.authoring.external import ExternalProjector, OnRetry
from projection_rebuild.model.findings import Finding, refusal
from projection_rebuild.model.names import GREEN_SUFFIX, TableSet
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check


@check(Scope.REPLAY, "programs")
def endless(planned: PreflightInput) -> Iterator[Finding]:
    """Programs in a stage whose single call does not end when the stage's window closes."""
    for name in [] if planned.options.replay_now else planned.projectors:
        projector, stage = planned.context.projector(name), planned.context.spec.stage_of(name)
        if stage is None or stage.any_time or not issubclass(projector, ExternalProjector):
            continue
        if projector.on_retry is OnRetry.RESTART and projector.batch_positions is None:
            problem = f"one call does all of its work, and does not end when the window of the stage {stage.name} closes"
            yield refusal(name, problem, "set its batch_positions, take the windows out, or let the run have replay_now")


@check(Scope.EXISTING_TABLES, "programs")
def tables(planned: PreflightInput) -> Iterator[Finding]:
    """Tables that a program cannot find, and foreign keys that no transaction of one program can keep."""
    context = planned.context
    owners = {table: name for name in planned.projectors for table in context.projector(name).tables()}
    programs = {name for name in planned.projectors if issubclass(context.projector(name), ExternalProjector)}
    for table in planned.existing:
        owner = owners.get(table.blue)
        if owner in programs and table.green != table.blue + GREEN_SUFFIX:
            problem = (
                f"{owner} is a program, which finds its tables by the suffix {GREEN_SUFFIX}, and this name is too long for it"
            )
            yield refusal(table.blue, problem, "give the table a shorter name")
        yield from _split_keys(planned, table, owners, programs)


def _split_keys(planned: PreflightInput, table: TableSet, owners: dict[str, str], programs: set[str]) -> Iterator[Finding]:
    """Refusals of foreign keys between the tables of a program and those of another projector.

    :param owners: the projector by table
    :param programs: the names of the projectors that are programs
    """
    owner = owners.get(table.blue)
    for parent in sorted(planned.dialect.dependents.parents(planned.connection, table.schema, table.blue)):
        other = owners.get(parent)
        if owner and other and owner != other and {owner, other} & programs:
            yield refusal(
                table.blue,
                f"it has a foreign key to {parent}, which is filled by {other}, and it is filled by {owner}; one of these is a program, so "
                "that no transaction writes both",
                "rebuild them in two runs, let one program fill both, or drop the foreign key",
            )
