"""The names that blue is about to take: what earlier runs have retired under them, and what this run will retire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from projection_rebuild.errors import StepOrderError
from projection_rebuild.ledger import Retired, Run
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.refusals import foreign_old
from projection_rebuild.run.context import Context
from projection_rebuild.shadow.retire import drop_retired, drop_within


def superseded(context: Context, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Retired]:
    """What earlier runs have retired under the names that blue is about to take, children first.

    :raises StepOrderError: somebody else's table is there
    """
    found = []
    for table in reversed(tables):
        if not context.dialect.table_exists(connection, table.schema, table.old):
            context.ledger.owned_tables.forget_retired(connection, [table.old])
            continue
        known = context.ledger.owned_tables.retired(connection, old=table.old)
        if not known:
            raise StepOrderError(foreign_old(table.old))
        found.append(known[0])
    return found


def drop_before(context: Context, connection: sa.Connection, tables: Sequence[TableSet]) -> None:
    """Drops what has to go before the first attempt.

    :raises StepOrderError: somebody else's table is there
    """
    for retired in context.dialect.cutover.superseded_before(lambda: superseded(context, connection, tables)):
        context.log(f"dropping {retired.old}, retired by the run {retired.run_id}: its name is needed")
        if not drop_retired(context, connection, retired):
            _refuse_foreign(context, connection, retired)


def drop_with_swap(context: Context, connection: sa.Connection, superseded: Sequence[Retired]) -> None:
    """Drops what goes in the transaction of the swap.

    :raises StepOrderError: somebody else's table is there
    """
    for retired in superseded:
        if not drop_within(context, connection, retired):
            _refuse_foreign(context, connection, retired)


def _refuse_foreign(context: Context, connection: sa.Connection, retired: Retired) -> None:
    """One that was not dropped is somebody else's, unless its own run has dropped it meanwhile."""
    if context.dialect.table_exists(connection, context.schema, retired.old):
        raise StepOrderError(foreign_old(retired.old))


def to_be_retired(context: Context, connection: sa.Connection, tables: Sequence[TableSet], run: Run) -> list[Retired]:
    """The live tables as the run will retire them."""
    options, now = run.record.options, datetime.now(UTC)
    keep_old = context.spec.retention.keep_old if options.keep_old is None else options.keep_old
    chosen = context.spec.retention.drop_after if options.drop_after is None else options.drop_after
    kept = chosen if keep_old else timedelta(0)
    return [
        Retired(
            table.blue,
            table.old,
            context.run_id,
            context.dialect.identity(connection, table.schema, table.blue),
            now,
            now + kept,
        )
        for table in tables
    ]
