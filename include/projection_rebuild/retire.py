"""Dropping retired tables: only what this run retired, only if it is still that table, one table at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import sqlalchemy as sa
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random_exponential

from include.projection_rebuild.context import Context
from include.projection_rebuild.ledger import Retired, RunState

LOCK_WAIT = timedelta(milliseconds=500)
PATIENCE = timedelta(minutes=2)


def drop_old(context: Context) -> list[str]:
    """Drops the tables that this run retired.

    What a later run has retired under the same names in the meantime is not this run's and stays.

    :returns: the names that were dropped
    :raises StepOrderError: the run has not switched
    """
    with context.dialect.connect() as connection:
        run = context.ledger.run(connection, context.run_id, at_least=RunState.SWITCHED)
        order = context.plan_of(run).tables
        retired = context.ledger.retired(connection, run_id=context.run_id)
        # Children first: a parent cannot go while a foreign key points to it.
        retired.sort(key=lambda each: order.index(each.table) if each.table in order else -1, reverse=True)
        dropped = [each.old for each in retired if drop_retired(context, connection, each)]
        with context.dialect.transaction(connection):
            context.ledger.move(connection, context.run_id, RunState.FINISHED, dropped=dropped)
    return dropped


def drop_retired(context: Context, connection: sa.Connection, retired: Retired) -> bool:
    """Drops one retired table if it is still the one that was retired.

    :returns: whether it was dropped; False: it was gone, or another table has taken its name and stays
    """
    dialect = context.dialect
    there = dialect.table_exists(connection, context.schema, retired.old)
    if there and retired.identity not in (None, dialect.identity(connection, context.schema, retired.old)):
        context.log(f"{retired.old} is not the table that was retired as such; it stays. Drop it yourself if nobody needs it")
        return False
    if there:
        _when_free(context, lambda: _drop(context, connection, retired))
    context.ledger.forget_retired(connection, retired.old)
    return there


def _drop(context: Context, connection: sa.Connection, retired: Retired) -> None:
    context.dialect.limit_lock_wait(connection, LOCK_WAIT)
    context.dialect.run(connection, context.dialect.drop_table(context.schema, retired.old))
    context.log(f"dropped {retired.old}")


def _when_free(context: Context, action: Callable[[], None]) -> None:
    """A drop waits its turn behind readers in short waits, so that no reader queues behind the drop."""
    retry(
        stop=stop_after_delay(PATIENCE),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        retry=retry_if_exception(context.dialect.lock_was_refused),
        reraise=True,
    )(action)()
