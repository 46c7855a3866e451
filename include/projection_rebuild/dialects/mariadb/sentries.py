"""Keeps clients from MariaDB's tables until a RENAME has taken them, one after the other.

MariaDB does not rename locked tables, and LOCK TABLES releases all tables at once. A client that waits for the second
table would get it while the RENAME takes the first. Nor can connections lock the tables one by one, since a lock on a parent includes
the children of its foreign keys. So each table has a sentry: a connection whose statement holds the name of the table
and waits for the sentry table, which another connection has locked. If that lock ends because the engine's process has
died, the statement finds that neither name is a view, and ends.

A sentry can go too early: an operator kills it, or a slow machine delays the RENAME at the next table. Where that would
do harm, the RENAME takes one more locked table of the engine at the end, the last sentry table. While it waits there it
has all other tables. Only then the engine checks whether a client came between.
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
"""An empty table that exists during a swap. Servers take locks in the order of names: a sentry has its table before it
waits for this one."""

STEP = 0.002
"""Seconds for a RENAME to wake up and reach the next table."""

WAITING = "Waiting for table metadata lock"
"""The state of a session that waits for a table, in the server's list of sessions."""


def last_sentry_table(table: str) -> str:
    """The name of the last sentry table of a run.

    Servers take locks in the order of names; this name sorts after all tables with sentries. A killed run may leave the
    table behind; the next run with the same first table uses it.

    :param table: the run's first table
    """
    return f"~projection_rebuild_out_{hashlib.sha256(table.encode()).hexdigest()[:16]}"


@contextmanager
def locked(dialect: Sessions, locker: sa.Connection, *sentry_tables: str) -> Iterator[None]:
    """Creates sentry tables, locks them while the context lasts, and then drops each that no other run uses.

    :param locker: the connection that holds the locks
    :param sentry_tables: their quoted names
    :raises TablesBusy: another run has dropped one each time
    """
    _lock(dialect, locker, sentry_tables)
    try:
        yield
    finally:
        # If a table stays, the next run uses it.
        with suppress(sa.exc.SQLAlchemyError):
            dialect.run(locker, "UNLOCK TABLES")
            dialect.run(locker, "SET SESSION lock_wait_timeout = 0")
            for table in reversed(sentry_tables):
                dialect.run(locker, f"DROP TABLE IF EXISTS {table}")


def _lock(dialect: Sessions, locker: sa.Connection, sentry_tables: Sequence[str]) -> None:
    for _ in range(3):
        for table in sentry_tables:
            dialect.run(locker, f"CREATE TABLE IF NOT EXISTS {table} (nothing INT PRIMARY KEY)")
        # The error means that another run has dropped a table meanwhile.
        with suppress(sa.exc.ProgrammingError):
            dialect.run(locker, f"LOCK TABLES {', '.join(f'{table} READ' for table in sentry_tables)}")
            return
    raise TablesBusy


class Sentries:
    """The sentries at all tables of a swap.

    :param watcher: the connection that watches and dismisses them
    :param locker: the connection that holds the sentry tables
    :param last_table: the last sentry table's quoted name; None: a client that comes between does no harm
    """

    def __init__(self, dialect: Sessions, watcher: sa.Connection, locker: sa.Connection, last_table: str | None) -> None:
        self._dialect = dialect
        self._watcher = watcher
        self._locker = locker
        self._last_table = last_table
        self._sentries: list[tuple[int, threading.Thread]] = []
        self.confirmed = last_table is None
        """Whether no client can have come between."""
        self._refusal: Exception | None = None

    def place(self, connection: sa.Connection, table: str, sentry_table: str) -> None:
        """Starts the sentry at a table. Call it for the tables in the order in which a RENAME takes them.

        :param connection: the sentry's own connection
        :param table: the quoted name of the table
        :param sentry_table: the quoted name of the sentry table
        """
        session = int(connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one())
        arguments = [connection, table, sentry_table]
        sentry = threading.Thread(target=self._stand, args=arguments, name=f"sentry at {table}", daemon=True)
        self._sentries.append((session, sentry))
        sentry.start()

    def _stand(self, connection: sa.Connection, table: str, sentry_table: str) -> None:
        # A kill ends it; or an error does, if the sentry table becomes free.
        with suppress(sa.exc.SQLAlchemyError):
            self._dialect.run(connection, f"DROP VIEW {table}, {sentry_table}")

    def wait_until_placed(self, until: float) -> None:
        """Returns once each sentry waits, for its table or at the sentry table.

        :param until: the latest time, by the monotonic clock
        :raises TablesBusy: a sentry does not wait by then
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
        """The RENAME, extended by the last sentry table, which keeps its name."""
        if self._last_table is None:
            return rename
        aside = f"{self._last_table[:-1]}_{self._last_table[-1]}"
        return f"{rename}, {self._last_table} TO {aside}, {aside} TO {self._last_table}"

    @contextmanager
    def making_way(self, session: int, until: float, confirm: Callable[[], None] | None) -> Iterator[None]:
        """Dismisses the sentries one by one while the caller executes a RENAME within the context.

        Each sentry goes when the RENAME waits for its table, and has all tables before it.

        :param session: the RENAME's session
        :param until: the latest time for the last sentry to go, by the monotonic clock
        :param confirm: called when the RENAME has all tables, and waits at the last sentry table; if it raises, the
            context raises the same error, and the RENAME has renamed nothing
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
        # Without its watcher it dismisses no sentry: the RENAME reaches its time-out, and dismiss() ends the sentries.
        with suppress(sa.exc.SQLAlchemyError):
            while self._sentries:
                while not (done.is_set() or self._are_waiting([session]) or time.monotonic() > until):
                    time.sleep(STEP / 4)
                self._dismiss_one(*self._sentries.pop(0))
                time.sleep(STEP)
            while self._last_table is not None and not self._is_wanted(self._last_table):
                if done.is_set():
                    return
                time.sleep(STEP / 4)
            if confirm is not None:
                self._let_through(session, confirm)

    def _is_wanted(self, last_table: str) -> bool:
        """Whether the RENAME waits for the last sentry table: then a reader of that table would wait behind it."""
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

    def _dismiss_one(self, session: int, sentry: threading.Thread) -> None:
        while sentry.is_alive():
            try:
                self._dialect.run(self._watcher, f"KILL QUERY {session}")
            except sa.exc.SQLAlchemyError:
                with suppress(sa.exc.SQLAlchemyError, ConnectionRefused):
                    self._dialect.cancel(session)
            # The loop repeats the kill if it came before the statement began.
            sentry.join(STEP)

    def dismiss(self) -> None:
        """Dismisses all sentries that are left, also after an error."""
        while self._sentries:
            self._dismiss_one(*self._sentries.pop(0))
