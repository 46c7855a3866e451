"""What could not be part of the swap, and follows it while the writers are still held."""

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
    """Executes these statements; what cannot be had in time, reconcile does.

    :param run: executes one, within a time
    :param left: the seconds for which the writers may still wait
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
        # The last statements would have made these settings anew.
        dialect.set_up(step.connection)
