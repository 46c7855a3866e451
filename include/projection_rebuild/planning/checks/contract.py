"""The live writer's contract."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from projection_rebuild.model.findings import Finding, refusal
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check
from projection_rebuild.spec.live_writer import ConsumerTable, LiveWriter


@check(Scope.TABLES, "live_writer")
def kept(planned: PreflightInput) -> Iterator[Finding]:
    """A contract that two databases cannot keep."""
    writer = planned.context.spec.live_writer
    if planned.context.one_database:
        return
    if writer.contract is LiveWriter.TRANSACTIONAL:
        yield refusal(
            "live_writer",
            "events and read models are in two databases, where no transaction writes both",
            "declare the contract as checkpointed or detached",
        )
    if writer.jobs_left is not None:
        yield refusal(
            "live_writer.jobs_left",
            "events and read models are in two databases, where no transaction appends an event together with its job: an event "
            "that is seen before its job would be in green, and its job would project it once more",
            "declare the contract as checkpointed, or give drain_check",
        )


@check(Scope.TABLES, "live_writer")
def consumers(planned: PreflightInput) -> Iterator[Finding]:
    """Whether the table of the consumers' positions matches the spec, and holds exactly this run's projectors."""
    if declared := planned.context.spec.live_writer.checkpoint:
        yield from _unlike(planned, declared)


def _unlike(planned: PreflightInput, declared: ConsumerTable) -> Iterator[Finding]:
    """Refusals of a table that does not match its declaration in the spec."""
    dialect, connection, about = planned.dialect, planned.connection, "live_writer.checkpoint"
    table = planned.context.table_set(declared.table)
    if not dialect.inspector.table_exists(connection, table.schema, table.blue):
        yield refusal(about, f"there is no table {table.blue} beside the read models", "correct its name")
        return
    columns = dialect.inspector.columns(connection, table.schema, table.blue)
    missing = [name for name in (declared.name_column, declared.position_column) if name not in columns]
    if missing:
        yield refusal(about, f"{table.blue} has no column {', '.join(missing)}", "correct the columns' names")
        return
    query = sa.select(sa.column(declared.name_column, sa.String)).select_from(sa.table(table.blue, schema=table.schema))
    consumers = {str(name) for name in connection.execute(query).scalars()}
    expected = {declared.names.get(name, "") for name in planned.projectors}
    if consumers != expected:
        yield refusal(
            about,
            f"{table.blue} has rows of {sorted(consumers)}, the projectors of this run are {sorted(expected)}; it is switched as a whole",
            "choose all of its projectors, and name each in live_writer.checkpoint.names",
        )
