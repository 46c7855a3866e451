"""Keeps everybody from MariaDB's tables until a RENAME has them, one after the other.

MariaDB has no RENAME of locked tables. What LOCK TABLES holds is let go of all at once, so that whoever waits for
a later table has it before the RENAME comes to it; and tables cannot be locked one by one, as the children of
foreign keys are locked with their parent. So each table has a sentry: a connection whose statement has the name of
the table to itself and waits for the sentry table, which another connection has locked. Should that lock end (our
process has died), the statement finds that neither is a view, and ends.

A sentry can go too early: it is killed, or a slow machine lets the RENAME come late to the next table. Where that
would do harm, the RENAME comes last to another table of ours that is locked as well, the last sentry table. Who
waits there has all tables before; so it is then that somebody looks whether anybody came between.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from projection_rebuild.dialects.base import Sessions, TablesBusy
from projection_rebuild.errors import ConnectionRefused

SENTRY_TABLE = "~projection_rebuild_gate"
"""A table that nobody needs, there for as long as a swap takes. Locks are taken in the order of names: a sentry
has its table before it comes to this one."""

STEP = 0.002
"""Seconds that a RENAME has to wake up and come to the next table."""

WAITING = "Waiting for table metadata lock"


def last_sentry_table(table: str) -> str:
    """The name of the last sentry table of the run that has a table. Locks are taken in the order of names: it
    comes after all tables with sentries.

    A run that was killed may leave it behind; the next one with this table uses it.
    """
    return f"~projection_rebuild_out_{hashlib.sha256(table.encode()).hexdigest()[:16]}"


@contextmanager
def locked(dialect: Sessions, locker: sa.Connection, *sentry_tables: str) -> Iterator[None]:
    """Makes sentry tables, keeps them locked, and removes each if no other run is at it.

    :param locker: the connection that holds them
    :param sentry_tables: their quoted names
    :raises TablesBusy: another run removed one again and again
    """
    _lock(dialect, locker, sentry_tables)
    try:
        yield
    finally:
        # If it stays there, the next one uses it.
        with suppress(sa.exc.SQLAlchemyError):
            dialect.run(locker, "UNLOCK TABLES")
            dialect.run(locker, "SET SESSION lock_wait_timeout = 0")
            for table in reversed(sentry_tables):
                dialect.run(locker, f"DROP TABLE IF EXISTS {table}")


def _lock(dialect: Sessions, locker: sa.Connection, sentry_tables: Sequence[str]) -> None:
    for _ in range(3):
        for table in sentry_tables:
            dialect.run(locker, f"CREATE TABLE IF NOT EXISTS {table} (nothing INT PRIMARY KEY)")
        # No such table: another run has removed it since.
        with suppress(sa.exc.ProgrammingError):
            dialect.run(locker, f"LOCK TABLES {', '.join(f'{table} READ' for table in sentry_tables)}")
            return
    raise TablesBusy


class Sentries:
    """The sentries at all tables of a swap.

    :param watcher: a connection from which they are watched and sent away
    :param locker: the connection that holds the sentry tables
    :param last_table: the last sentry table's quoted name; None: nobody does harm by coming between
    """

    def __init__(self, dialect: Sessions, watcher: sa.Connection, locker: sa.Connection, last_table: str | None) -> None:
        self._dialect = dialect
        self._watcher = watcher
        self._locker = locker
        self._last_table = last_table
        self._sentries: list[tuple[int, threading.Thread]] = []
        self.confirmed = last_table is None
        """Whether nobody can have come between."""
        self._refusal: Exception | None = None

    def place(self, connection: sa.Connection, table: str, sentry_table: str) -> None:
        """Sends a sentry to a table, in the order in which a RENAME takes them.

        :param connection: the sentry's own
        :param table: its quoted name, as the sentry table's
        """
        session = int(connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one())
        arguments = [connection, table, sentry_table]
        sentry = threading.Thread(target=self._stand, args=arguments, name=f"sentry at {table}", daemon=True)
        self._sentries.append((session, sentry))
        sentry.start()

    def _stand(self, connection: sa.Connection, table: str, sentry_table: str) -> None:
        # Ends by being killed, or with an error, should the sentry table become free.
        with suppress(sa.exc.SQLAlchemyError):
            self._dialect.run(connection, f"DROP VIEW {table}, {sentry_table}")

    def wait_until_placed(self, until: float) -> None:
        """Until each sentry waits, for its table or at the sentry table.

        :param until: by the monotonic clock
        :raises TablesBusy: that took too long
        """
        while not self._are_waiting([session for session, _ in self._sentries]):
            if time.monotonic() > until:
                raise TablesBusy
            time.sleep(STEP / 4)

    def _are_waiting(self, sessions: Sequence[int]) -> bool:
        query = sa.text("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID IN :ids AND STATE = :waiting")
        bound = query.bindparams(sa.bindparam("ids", expanding=True))
        return len(sessions) == int(self._watcher.execute(bound, {"ids": sessions, "waiting": WAITING}).scalar_one())

    def with_last_table(self, rename: str) -> str:
        """The RENAME, which then comes to the last sentry table in the end, and leaves it as it is."""
        if self._last_table is None:
            return rename
        aside = f"{self._last_table[:-1]}_{self._last_table[-1]}"
        return f"{rename}, {self._last_table} TO {aside}, {aside} TO {self._last_table}"

    @contextmanager
    def making_way(self, session: int, until: float, confirm: Callable[[], None] | None) -> Iterator[None]:
        """Within it a RENAME takes the tables: a sentry goes when the RENAME waits for it, and already has the
        tables before.

        :param session: the RENAME's
        :param until: by the monotonic clock, when all have gone at the latest
        :param confirm: asked when the RENAME has all tables, and waits at the last sentry table; what it raises is
            raised here, and nothing is renamed
        """
        done = threading.Event()
        arguments = [session, until, done, confirm]
        dismisser = threading.Thread(target=self._make_way, args=arguments, name="dismisser of sentries", daemon=True)
        dismisser.start()
        try:
            yield
        except sa.exc.DBAPIError:
            done.set()
            dismisser.join()
            if self._refusal is not None:
                raise self._refusal from None
            raise
        finally:
            done.set()
            dismisser.join()

    def _make_way(self, session: int, until: float, done: threading.Event, confirm: Callable[[], None] | None) -> None:
        # Who has lost his watcher makes no more way: the RENAME runs into its time-out, and the sentries are dismissed.
        with suppress(sa.exc.SQLAlchemyError):
            while self._sentries:
                while not (done.is_set() or self._are_waiting([session]) or time.monotonic() > until):
                    time.sleep(STEP / 4)
                self._send_away(*self._sentries.pop(0))
                time.sleep(STEP)
            while self._last_table is not None and not self._is_wanted(self._last_table):
                if done.is_set():
                    return
                time.sleep(STEP / 4)
            if confirm is not None:
                self._let_through(session, confirm)

    def _is_wanted(self, last_table: str) -> bool:
        """Whether the RENAME waits for the last sentry table: whoever comes to read there would wait behind it."""
        self._dialect.run(self._watcher, "SET SESSION lock_wait_timeout = 0")
        try:
            self._dialect.run(self._watcher, f"SELECT 1 FROM {last_table} LIMIT 0")
        except sa.exc.DBAPIError as error:
            if not self._dialect.is_lock_timeout(error):
                raise
            return True
        return False

    def _let_through(self, session: int, confirm: Callable[[], None]) -> None:
        try:
            confirm()
        except Exception as error:
            # The last sentry table stays locked, so that the RENAME ends with nothing renamed.
            self._refusal = error
            self._dialect.run(self._watcher, f"KILL QUERY {session}")
            return
        self.confirmed = True
        self._dialect.run(self._locker, "UNLOCK TABLES")

    def _send_away(self, session: int, sentry: threading.Thread) -> None:
        while sentry.is_alive():
            try:
                self._dialect.run(self._watcher, f"KILL QUERY {session}")
            except sa.exc.SQLAlchemyError:
                with suppress(sa.exc.SQLAlchemyError, ConnectionRefused):
                    self._dialect.cancel(session)
            # Again, if the statement had not begun when it was struck.
            sentry.join(STEP)

    def dismiss(self) -> None:
        """Sends all away that are left, whatever has happened."""
        while self._sentries:
            self._send_away(*self._sentries.pop(0))
