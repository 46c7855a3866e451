"""The step ``atomic_swap``: it prepares the cutover, and makes attempts at the swap until one succeeds.

The database decides what an attempt locks, and in which order; see ``docs/concepts/cutover.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import sqlalchemy as sa
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from projection_rebuild.cutover import left_overs, preparation, retired_names, undone, waits
from projection_rebuild.cutover.attempt import Attempt
from projection_rebuild.cutover.pause import Pause
from projection_rebuild.cutover.recovery import switched_already
from projection_rebuild.dialects.base import TablesChanged
from projection_rebuild.errors import CloneError, Interrupted, SwapNotPossible
from projection_rebuild.ledger import RunState
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.results import SwapResult
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.shadow.live_tables import Readiness, refuse_at_once
from projection_rebuild.verification.fresh_proof import look_before_switch


def swap(context: Context, stopped: Callable[[], bool]) -> SwapResult:
    """Swaps all tables of the run at once. Called again after the swap, it only returns the result.

    :param stopped: returns whether the worker must stop; called before each attempt, and while a program works
    :returns: what the swap did, with its pause in seconds
    :raises Interrupted: ``stopped`` returned True; blue is live and untouched
    :raises VerificationFailed: green lacks events, by the count within the pause; or rows have lost their parents since
        the verification
    :raises Diverged: green no longer matches its events
    :raises SwapNotPossible: no attempt succeeded within ``swap.attempts`` and ``swap.max_pause``; nothing has changed
    :raises StepOrderError: the run is not verified
    """
    with open_step(context, requires=RunState.VERIFIED, migrates=True) as step:
        run = step.run
        tables = step.switched_tables
        if done := switched_already(step, tables):
            _finish(step, tables)
            return done
        refuse_at_once(step, tables, run)
        retired_names.superseded(step, tables)
        # Refuses tables that have changed before the engine holds writers or drops tables.
        readiness = Readiness(step, tables)
        readiness.look()
        try:
            result = _attempt_until_done(step, tables, readiness, stopped)
        except CloneError:
            # The tables changed after that. Where DDL commits by itself, the ledger already has the swap as begun, and
            # this call corrects it.
            switched_already(step, tables)
            raise
    context.log(result.describe())
    return result


def _finish(step: Step, tables: list[TableSet]) -> None:
    """Executes the statements after the swap for a worker that was stopped between the two."""
    cutover, pause = step.dialect.cutover, Pause(step.spec.swap.max_pause)
    run = partial(cutover.run_at_work, step.connection, tables)
    left_overs.finish_at_once(step, cutover.left_over(step.connection, tables), run, pause.left)


def _attempt_until_done(step: Step, tables: list[TableSet], readiness: Readiness, stopped: Callable[[], bool]) -> SwapResult:
    """Does the long work first, then makes attempts until one succeeds or none can help any more."""
    counted = preparation.count_ahead(step, stopped)
    waits.wait_for_snapshots(step)
    waits.wait_for_maintenance(step, tables, stopped)
    preparation.refuse_orphans(step, stopped)
    look_before_switch(step.context)
    retired_names.drop_before(step, tables)
    retrying = Retrying(
        stop=stop_after_attempt(step.spec.swap.attempts),
        wait=wait_random_exponential(multiplier=0.05, max=2),
        retry=retry_if_exception(partial(undone.can_be_retried, step.context)),
        before_sleep=_attempt_log(step.context),
    )
    try:
        for attempt in retrying:
            with attempt:
                step.dialect.renew(step.connection)
                # Where the swap commits by itself, the previous attempt may have failed after it.
                if done := switched_already(step, tables):
                    return done
                if stopped():
                    raise Interrupted(
                        "the switch was stopped between two attempts; blue is live and untouched, a retry tries again"
                    )
                readiness.look()
                with readiness.held():
                    number = attempt.retry_state.attempt_number
                    return Attempt(step, tables, counted, readiness, number).run(stopped)
    except RetryError as error:
        step.dialect.renew(step.connection)
        if done := switched_already(step, tables):
            return done
        raise _given_up(step, tables, error.last_attempt.exception()) from None
    raise AssertionError("tenacity ends in a result or an error")


LOG_EVERY = 10
"""Every how many attempts the engine logs a reason that stays the same."""


def _attempt_log(context: Context) -> Callable[[RetryCallState], None]:
    """A callback that logs why an attempt was undone: for a new reason, and at every :data:`LOG_EVERY`-th attempt."""
    last = ""

    def log(state: RetryCallState) -> None:
        nonlocal last
        why = undone.reason(context, state.outcome.exception() if state.outcome else None)
        if why != last or state.attempt_number % LOG_EVERY == 0:
            context.log(
                f"attempt {state.attempt_number} of {context.spec.swap.attempts} at the switch was undone: {why}; trying again"
            )
        last = why

    return log


def _given_up(step: Step, tables: list[TableSet], last: BaseException | None) -> BaseException:
    """The error that the step raises after the last attempt.

    :param last: the error that ended the last attempt
    """
    if isinstance(last, TablesChanged) and isinstance(last.__cause__, sa.exc.DBAPIError):
        # A look at the tables need not show what the database did not find, so its own error explains more.
        return last.__cause__
    why = undone.reason(step.context, last)
    if at_work := waits.maintenance(step, tables):
        why += f" (now at work there: {'; '.join(at_work)})"
    return SwapNotPossible(
        f"no switch within {step.spec.swap.attempts} attempts: at the last one {why}. Blue is live and untouched, green stays. Look for "
        "long queries and idle transactions on these tables, then retry; or raise swap.attempts or swap.max_pause"
    )
