"""The ``_old`` names: the retired tables of earlier runs that have them, and the tables that this run will retire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from projection_rebuild.errors import ForeignOldTable
from projection_rebuild.ledger import Retired, Run
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.refusals import foreign_old
from projection_rebuild.run.step import Step
from projection_rebuild.shadow.retire import drop_retired, drop_within


def superseded(step: Step, tables: Sequence[TableSet]) -> list[Retired]:
    """The tables that earlier runs have retired under the names that blue is about to get, children first.

    :raises StepOrderError: a table that no run has retired has one of these names
    """
    tables_of_runs = []
    for table in reversed(tables):
        if not step.dialect.inspector.table_exists(step.connection, table.schema, table.old):
            step.ledger.owned_tables.forget_retired([table.old])
            continue
        known = step.ledger.owned_tables.retired(old=table.old)
        if not known:
            raise ForeignOldTable(foreign_old(table.old))
        tables_of_runs.append(known[0])
    return tables_of_runs


def drop_before(step: Step, tables: Sequence[TableSet]) -> None:
    """Drops the retired tables that the database cannot drop together with the swap, before the first attempt.

    :raises StepOrderError: a table that no run has retired has one of these names
    """
    for retired in step.dialect.cutover.superseded_before(lambda: superseded(step, tables)):
        step.log(f"dropping {retired.old}, retired by the run {retired.run_id}: its name is needed")
        if not drop_retired(step, retired):
            _refuse_foreign(step, retired)


def drop_with_swap(step: Step, superseded: Sequence[Retired]) -> None:
    """Drops retired tables in the transaction of the swap.

    :raises StepOrderError: a table that no run has retired has one of these names
    """
    for retired in superseded:
        if not drop_within(step, retired):
            _refuse_foreign(step, retired)


def _refuse_foreign(step: Step, retired: Retired) -> None:
    """Refuses a table that could not be dropped because another program owns it.

    If the table no longer exists, its own run has dropped it meanwhile.

    :raises StepOrderError: the table exists
    """
    if step.dialect.inspector.table_exists(step.connection, step.schema, retired.old):
        raise ForeignOldTable(foreign_old(retired.old))


def to_be_retired(step: Step, tables: Sequence[TableSet], run: Run) -> list[Retired]:
    """The entries of the ledger for the live tables that the run will retire."""
    options, now = run.record.options, datetime.now(UTC)
    keep_old = step.spec.retention.keep_old if options.keep_old is None else options.keep_old
    chosen = step.spec.retention.drop_after if options.drop_after is None else options.drop_after
    kept = chosen if keep_old else timedelta(0)
    return [
        Retired(
            table.blue,
            table.old,
            step.run_id,
            step.dialect.inspector.identity(step.connection, table.schema, table.blue),
            now,
            now + kept,
        )
        for table in tables
    ]
