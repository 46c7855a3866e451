"""Takes tables on MariaDB without making a client the victim of a deadlock."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta

import sqlalchemy as sa

from projection_rebuild.dialects.base import LockWaits, TablesBusy
from projection_rebuild.dialects.mysql import moment
from projection_rebuild.dialects.mysql.base import ACCESS_DENIED, number_of


def wait_in_the_queue(dialect: LockWaits, connection: sa.Connection, statement: str, timeout: timedelta) -> None:
    """Executes a statement that waits in the queue for its tables, since clients read them all the time.

    :param timeout: the longest wait
    :raises TablesBusy: an open transaction might become the victim of a deadlock, or the account cannot see whether one
        is open
    """
    dialect.limit_lock_wait(connection, timeout)
    time.sleep(moment.STALE)
    # The server's own watchdog: it works even if this process is gone.
    watched = f"SET STATEMENT max_statement_time = {timeout.total_seconds():.3f} FOR {statement}"
    try:
        taken = moment.Moment(connection, moment.no_transactions()).take_at_once(watched)
    except dialect.engine.dialect.loaded_dbapi.Error as error:
        if number_of(error) != ACCESS_DENIED:
            raise
        taken = False
    if not taken:
        raise TablesBusy


def without_waiting(
    dialect: LockWaits, connection: sa.Connection, statement: str, seconds: float, again: Callable[[], object] = lambda: None
) -> None:
    """Retries a statement until it gets its locks at once, since MariaDB's shortest wait but none is one second.

    :param seconds: how long to retry; then it raises the last error
    :param again: called before each retry
    """
    deadline = time.monotonic() + seconds
    dialect.run(connection, "SET SESSION lock_wait_timeout = 0")
    refused = False
    while True:
        try:
            if refused:
                again()
            dialect.run(connection, statement)
            return
        except sa.exc.DBAPIError as error:
            if not dialect.is_lock_timeout(error) or time.monotonic() > deadline:
                raise
        refused = True
        time.sleep(random.uniform(*moment.GLANCES))  # noqa: S311 - spreads retries, guards nothing
