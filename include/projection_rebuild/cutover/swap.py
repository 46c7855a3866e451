"""The swap: catch up until little is left, hold the writers, drain, rename all tables at once, release; again, as
long as it helps.

What is held, and in which order, depends on the database; see ``docs/concepts/cutover.md``.
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
    """Swaps all tables of the run at once; called again after it has, it says so and does nothing.

    :param stopped: asked before each attempt
    :raises Interrupted: ``stopped`` said so
    :raises VerificationFailed: events were missed, by the count that is taken while the writers are held; or rows
        have lost their parents since verification
    :raises Diverged: green is no longer what the events make
    :raises SwapNotPossible: not within the attempts and the longest pause; everything is as it was
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
        # Refuses what has been changed, before anybody is held or anything is dropped.
        readiness = Readiness(step, tables)
        readiness.look()
        try:
            result = _attempt_until_done(step, tables, readiness, stopped)
        except CloneError:
            # Changed since then. Where DDL commits by itself the ledger says already that the swap has begun.
            switched_already(step, tables)
            raise
    context.log(result.describe())
    return result


def _finish(step: Step, tables: list[TableSet]) -> None:
    """What the worker has left to do that swapped these tables and was stopped right after it."""
    cutover, pause = step.dialect.cutover, Pause(step.spec.swap.max_pause)
    run = partial(cutover.run_at_work, step.connection, tables)
    left_overs.finish_at_once(step, cutover.left_over(step.connection, tables), run, pause.left)


def _attempt_until_done(step: Step, tables: list[TableSet], readiness: Readiness, stopped: Callable[[], bool]) -> SwapResult:
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
        before_sleep=_telling(step.context),
    )
    try:
        for attempt in retrying:
            with attempt:
                step.dialect.renew(step.connection)
                # The last one may have failed after its swap, where that commits by itself.
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


TOLD_EVERY = 10
"""Attempts that failed for the same reason, between two words about it."""


def _telling(context: Context) -> Callable[[RetryCallState], None]:
    """Says why attempts fail: at the first one, where the reason is another one, and now and then."""
    last = ""

    def tell(state: RetryCallState) -> None:
        nonlocal last
        why = undone.reason(context, state.outcome.exception() if state.outcome else None)
        if why != last or state.attempt_number % TOLD_EVERY == 0:
            context.log(
                f"attempt {state.attempt_number} of {context.spec.swap.attempts} at the switch was undone: {why}; trying again"
            )
        last = why

    return tell


def _given_up(step: Step, tables: list[TableSet], last: BaseException | None) -> BaseException:
    """What is said when no attempt has succeeded.

    :param last: what the last one ended with
    """
    if isinstance(last, TablesChanged) and isinstance(last.__cause__, sa.exc.DBAPIError):
        # What the database did not find need not be anything that a look sees.
        return last.__cause__
    why = undone.reason(step.context, last)
    if at_work := waits.maintenance(step, tables):
        why += f" (now at work there: {'; '.join(at_work)})"
    return SwapNotPossible(
        f"no switch within {step.spec.swap.attempts} attempts: at the last one {why}. Blue is live and untouched, green stays. Look for "
        "long queries and idle transactions on these tables, then retry; or raise swap.attempts or swap.max_pause"
    )
