"""The names that blue is about to take: what earlier runs have retired under them, and what this run will retire."""

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
    """What earlier runs have retired under the names that blue is about to take, children first.

    :raises StepOrderError: somebody else's table is there
    """
    found = []
    for table in reversed(tables):
        if not step.dialect.inspector.table_exists(step.connection, table.schema, table.old):
            step.ledger.owned_tables.forget_retired([table.old])
            continue
        known = step.ledger.owned_tables.retired(old=table.old)
        if not known:
            raise ForeignOldTable(foreign_old(table.old))
        found.append(known[0])
    return found


def drop_before(step: Step, tables: Sequence[TableSet]) -> None:
    """Drops what has to go before the first attempt.

    :raises StepOrderError: somebody else's table is there
    """
    for retired in step.dialect.cutover.superseded_before(lambda: superseded(step, tables)):
        step.log(f"dropping {retired.old}, retired by the run {retired.run_id}: its name is needed")
        if not drop_retired(step, retired):
            _refuse_foreign(step, retired)


def drop_with_swap(step: Step, superseded: Sequence[Retired]) -> None:
    """Drops what goes in the transaction of the swap.

    :raises StepOrderError: somebody else's table is there
    """
    for retired in superseded:
        if not drop_within(step, retired):
            _refuse_foreign(step, retired)


def _refuse_foreign(step: Step, retired: Retired) -> None:
    """One that was not dropped is somebody else's, unless its own run has dropped it meanwhile."""
    if step.dialect.inspector.table_exists(step.connection, step.schema, retired.old):
        raise ForeignOldTable(foreign_old(retired.old))


def to_be_retired(step: Step, tables: Sequence[TableSet], run: Run) -> list[Retired]:
    """The live tables as the run will retire them."""
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
