"""Drops the tables that a run has retired, one at a time, each only if it is still the same table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from tenacity import RetryError, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from projection_rebuild.errors import HeldByRollback, LockNotHad
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.trouble import Kind, Trouble
from projection_rebuild.ledger import Retired, RunState
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step, open_step

LOCK_WAIT = timedelta(milliseconds=500)
"""How long one attempt waits for the lock of a table: readers queue behind it meanwhile."""

PATIENCE = timedelta(minutes=2)
"""For how long :func:`when_free` makes attempts."""

LOOK_AGAIN = timedelta(minutes=1)
"""The time between two checks whether a rollback is over."""


def drop_due(context: Context, is_over: Callable[[str], bool]) -> datetime:
    """When the tables that this run retired may be dropped, in UTC; now if it has none.

    :param is_over: whether the run with this id is over
    :raises StepOrderError: the run has not swapped
    """
    with open_step(context, requires=RunState.SWITCHED) as step:
        retired = step.ledger.owned_tables.retired(run_id=context.run_id)
        held = _rollback_at_work(step, retired, is_over)
    now = datetime.now(UTC)
    return max([table.drop_after for table in retired] + ([now + LOOK_AGAIN] if held else []), default=now)


def _rollback_at_work(step: Step, retired: list[Retired], is_over: Callable[[str], bool]) -> str | None:
    """The run that is about to make this run's old tables live again; None: no run is."""
    for table in retired:
        holder = step.ledger.claims.holder(table.table)
        run = step.ledger.of(holder).runs.find() if holder and not is_over(holder) else None
        if run is not None and run.plan.rolls_back == step.run_id:
            return holder
    return None


def drop_old(context: Context, is_over: Callable[[str], bool]) -> list[str]:
    """Drops the tables that this run retired.

    Tables that a later run has retired under the same names are not this run's, and stay.

    :param is_over: whether the run with this id, which has claimed the tables, is over
    :returns: the names that were dropped
    :raises StepOrderError: the run has not swapped
    :raises HeldByRollback: a rollback is making these tables live again
    """
    with open_step(context, requires=RunState.SWITCHED) as step:
        run = step.run
        retired = step.ledger.owned_tables.retired(run_id=context.run_id)
        if holder := _rollback_at_work(step, retired, is_over):
            raise HeldByRollback(f"the rollback {holder} is taking these tables back; they stay until it is over")
        order = run.plan.tables
        # Children first: the database drops no parent while a foreign key points to it.
        retired.sort(key=lambda table: order.index(table.table) if table.table in order else -1, reverse=True)
        dropped = [table.old for table in retired if drop_retired(step, table)]
        with context.dialect.transaction(step.connection):
            step.ledger.runs.move(RunState.FINISHED, dropped=dropped)
    return dropped


def drop_retired(step: Step, retired: Retired) -> bool:
    """Drops one retired table if it is still the table that was retired.

    :returns: whether it was dropped; False: it was gone, or another table has its name and stays
    :raises LockNotHad: see :func:`when_free`
    """
    dialect = step.dialect
    exists = dialect.inspector.table_exists(step.connection, step.schema, retired.old)
    if exists:
        same = [False]

        def attempt() -> None:
            # Before each attempt: meanwhile the table may have become live again, and another one may have its name.
            same[0] = _is_the_same(step, retired)
            if same[0]:
                with dialect.short_lock_wait(step.connection, LOCK_WAIT):
                    _drop(step, retired)
                step.log(f"dropped {retired.old}")

        when_free(step.context, [retired.old], attempt)
        if not same[0]:
            step.log(f"{retired.old} is not the table that was retired as such; it stays. Drop it yourself if nobody needs it")
            return False
    step.ledger.owned_tables.forget_retired([retired.old])
    return exists


def drop_within(step: Step, retired: Retired) -> bool:
    """Drops one retired table as :func:`drop_retired` does, at once and in the caller's transaction.

    The caller removes it from the ledger.
    """
    same = _is_the_same(step, retired)
    if same:
        _drop(step, retired)
    return same


def _is_the_same(step: Step, retired: Retired) -> bool:
    return retired.identity in (None, step.dialect.inspector.identity(step.connection, step.schema, retired.old))


def _drop(step: Step, retired: Retired) -> None:
    for statement in step.dialect.shadow.drop_table(step.connection, step.context.table_set(retired.table), retired.old):
        step.dialect.run(step.connection, statement)


def when_free(context: Context, tables: Sequence[str], action: Callable[[], None]) -> None:
    """Repeats an action on tables until it gets their locks.

    Each attempt waits briefly, so that no reader queues behind it.

    :param tables: their names, for the message
    :param action: one attempt, which limits its lock wait itself
    :raises LockNotHad: other sessions have used the tables for :data:`PATIENCE`
    """
    refused = context.dialect.is_lock_timeout
    retrying = Retrying(
        stop=stop_after_delay(PATIENCE), wait=wait_random_exponential(multiplier=0.1, max=5), retry=retry_if_exception(refused)
    )
    try:
        retrying(action)
    except RetryError as error:
        trouble = trouble_of(error.last_attempt.exception() or error)
        code = trouble.code if trouble else ""
    else:
        return
    text = f"somebody has used {', '.join(tables)} for {PATIENCE.total_seconds():g} s"
    raise LockNotHad(Trouble(Kind.BUSY, code, text))
