"""Executes the statements that cannot be part of the swap right after it, while the writers still wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import sqlalchemy as sa

from projection_rebuild.dialects.base import PauseTooLong, TablesBusy
from projection_rebuild.run.step import Step


def finish_at_once(
    step: Step,
    statements: Sequence[str],
    run: Callable[[str, timedelta], None],
    left: Callable[[], float],
) -> None:
    """Executes statements right after the swap. If their locks or the time do not suffice, ``reconcile`` does the rest.

    :param run: executes one statement with a lock timeout
    :param left: returns the seconds for which the writers may still wait
    :raises sqlalchemy.exc.DBAPIError: the database refuses a statement, and not because of a lock
    """
    dialect, shortest = step.dialect, step.spec.swap.lock_timeout
    try:
        for statement in statements:
            seconds = left()
            if seconds <= 0:
                raise PauseTooLong
            run(statement, max(shortest, timedelta(seconds=seconds)))
    except (sa.exc.DBAPIError, TablesBusy, PauseTooLong) as error:
        if isinstance(error, sa.exc.DBAPIError) and not dialect.is_lock_timeout(error):
            raise
        step.log("foreign keys and the names of constraints could not be put right at once; reconcile does it")
        # The last statements restore the session's settings, and may not have run.
        dialect.set_up(step.connection)
