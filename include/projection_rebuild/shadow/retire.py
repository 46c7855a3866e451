"""Dropping retired tables: only what this run retired, only if it is still that table, one table at a time."""

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
PATIENCE = timedelta(minutes=2)
LOOK_AGAIN = timedelta(minutes=1)
"""The time between two looks whether a rollback is over."""


def drop_due(context: Context, is_over: Callable[[str], bool]) -> datetime:
    """When the tables that this run retired may go, in UTC; now if there are none.

    :raises StepOrderError: the run has not switched
    """
    with open_step(context, requires=RunState.SWITCHED) as step:
        retired = step.ledger.owned_tables.retired(run_id=context.run_id)
        held = _rollback_at_work(step, retired, is_over)
    now = datetime.now(UTC)
    return max([each.drop_after for each in retired] + ([now + LOOK_AGAIN] if held else []), default=now)


def _rollback_at_work(step: Step, retired: list[Retired], is_over: Callable[[str], bool]) -> str | None:
    """The run that is about to make this run's old tables live again."""
    for each in retired:
        holder = step.ledger.claims.holder(each.table)
        run = step.ledger.of(holder).runs.find() if holder and not is_over(holder) else None
        if run is not None and run.plan.rolls_back == step.run_id:
            return holder
    return None


def drop_old(context: Context, is_over: Callable[[str], bool]) -> list[str]:
    """Drops the tables that this run retired.

    What a later run has retired under the same names in the meantime is not this run's and stays.

    :param is_over: whether another run has ended that holds the tables
    :returns: the names that were dropped
    :raises StepOrderError: the run has not switched
    :raises HeldByRollback: a rollback is making these tables live again
    """
    with open_step(context, requires=RunState.SWITCHED) as step:
        run = step.run
        retired = step.ledger.owned_tables.retired(run_id=context.run_id)
        if holder := _rollback_at_work(step, retired, is_over):
            raise HeldByRollback(f"the rollback {holder} is taking these tables back; they stay until it is over")
        order = run.plan.tables
        # Children first: a parent cannot go while a foreign key points to it.
        retired.sort(key=lambda each: order.index(each.table) if each.table in order else -1, reverse=True)
        dropped = [each.old for each in retired if drop_retired(step, each)]
        with context.dialect.transaction(step.connection):
            step.ledger.runs.move(RunState.FINISHED, dropped=dropped)
    return dropped


def drop_retired(step: Step, retired: Retired) -> bool:
    """Drops one retired table if it is still the one that was retired.

    :returns: whether it was dropped; False: it was gone, or another table has taken its name and stays
    """
    dialect = step.dialect
    there = dialect.inspector.table_exists(step.connection, step.schema, retired.old)
    if there:
        same = [False]

        def attempt() -> None:
            # Looked at for each attempt: while it waits, the table may become live again, and another one take its name.
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
    return there


def drop_within(step: Step, retired: Retired) -> bool:
    """As :func:`drop_retired`, at once and in the caller's transaction; the ledger is left to the caller."""
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
    """Does something to tables once nobody uses them: in short waits, so that no reader queues behind it.

    :param tables: their names, for the message
    :raises LockNotHad: somebody has used them for too long
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
