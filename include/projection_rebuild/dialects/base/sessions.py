"""Opens connections to a database, checks their sessions, and sets them up for the engine."""

from __future__ import annotations

import os
import socket
from abc import abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import sqlalchemy as sa

from projection_rebuild.dialects.base.statements import Statements
from projection_rebuild.errors import ConnectionRefused

CHECKED = "projection_rebuild_checked"
"""A key of a connection's ``info``: the engine has checked that the server session belongs to this connection alone."""


@dataclass(frozen=True)
class Refusal:
    """Why the engine cannot open a connection, or cannot work with it.

    :param reason: one clause, without addresses, accounts or values
    :param remedy: what an operator can do
    :param retryable: whether the same connection may work later
    """

    reason: str
    remedy: str
    retryable: bool = False


class Sessions(Statements):
    """Opens connections, checks that each has a server session to itself, and sets them up."""

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A connection that is set up for the engine: READ COMMITTED, UTC, autocommit.

        :raises ConnectionRefused: the connection fails, shares its session with others, or is less safe than configured
        """
        with self._open().execution_options(isolation_level="AUTOCOMMIT") as connection, _closed_at_error(connection):
            self._sign_on(connection)
            try:
                yield connection
            finally:
                self._sessions.pop(connection, None)

    def reach(self) -> None:
        """Connects and disconnects without setting anything, so that SQLAlchemy knows the server.

        :raises ConnectionRefused: as :meth:`connect`
        """
        with self._open() as connection, _closed_at_error(connection):
            self._check_session(connection)

    def renew(self, connection: sa.Connection) -> None:
        """Connects again if the server has ended this connection."""
        if connection.invalidated:
            connection.rollback()
            self._sign_on(connection)

    def _open(self) -> sa.Connection:
        try:
            return self.engine.connect()
        except (sa.exc.DBAPIError, sa.exc.ArgumentError, TypeError) as error:
            raise self._refused(self.why_not_connected(error)) from error

    def _refused(self, why: Refusal) -> ConnectionRefused:
        return ConnectionRefused(f"{self.known_as} cannot be used: {why.reason}. {why.remedy}", retryable=why.retryable)

    @abstractmethod
    def why_not_connected(self, error: BaseException) -> Refusal:
        """Explains the driver's error with which a connection failed."""

    @abstractmethod
    def why_not_ours(self, connection: sa.Connection) -> Refusal | None:
        """Why the engine may set nothing on a new connection, like a pooler that shares sessions; None: it may.

        It changes nothing of the session, which another client may share.
        """

    def _check_session(self, connection: sa.Connection) -> None:
        """Checks a connection once, before the engine sets anything on it."""
        if connection.info.get(CHECKED):
            return
        try:
            why = self.why_not_ours(connection)
        except sa.exc.DBAPIError as error:
            raise self._refused(self.why_not_connected(error)) from error
        if why is not None:
            raise self._refused(why)
        connection.info[CHECKED] = True

    def _sign_on(self, connection: sa.Connection) -> None:
        self._check_session(connection)
        self.set_up(connection)
        if (session := self.session_id(connection)) is not None:
            self._sessions[connection] = session

    @abstractmethod
    def set_up(self, connection: sa.Connection) -> None:
        """Sets the session settings of a new connection; docs/reference/sessions.md shows the declared lists."""

    @abstractmethod
    def session(self, connection: sa.Connection) -> list[str]:
        """Statements that set the same settings in a shell, complete as they are."""

    @staticmethod
    def on_connect(driver: Any) -> None:
        """Sets what SQLAlchemy's own first queries need on a driver's new connection."""

    def check_live(self, connection: sa.Connection) -> None:
        """Checks that the application's session writes and reads rows as the engine's do, within :meth:`times_in_utc`.

        :raises SessionError: a setting of the session would change rows; nothing has been written
        """

    @contextmanager
    def times_in_utc(self, connection: sa.Connection) -> Iterator[None]:
        """Sets the application's session to UTC, like the engine's sessions, while the context lasts.

        Afterwards the session has its own time zone again, also after an error.
        """
        yield

    @contextmanager
    def transaction(self, connection: sa.Connection) -> Iterator[None]:
        """One explicit transaction on a connection of :meth:`connect`."""
        self._execute(connection, self.begin)
        try:
            yield
            # Within the try block: if the database refuses it (SQLite, because of a reader), the transaction is open.
            self._execute(connection, "COMMIT")
        except BaseException:
            # On a lost connection the server has rolled back by itself; the caller needs the first error.
            with suppress(sa.exc.SQLAlchemyError):
                self._execute(connection, "ROLLBACK")
            raise

    begin: ClassVar[str] = "BEGIN"

    @contextmanager
    def ddl_transaction(self, connection: sa.Connection) -> Iterator[None]:
        """As :meth:`transaction`, around DDL; without effect if each DDL statement commits by itself."""
        with nullcontext() if self.ddl_commits else self.transaction(connection):
            yield

    def read(self, connection: sa.Connection, query: sa.Select[Any], size: int) -> Generator[list[tuple[Any, ...]], None, None]:
        """Pages of a query's rows, as the driver returns them.

        Some databases prepare the next page while the caller works on one.

        :param size: rows per page
        """
        # Fetched at once, and without SQLAlchemy's rows: an open statement would block a writer in the same file.
        with connection.execute(query) as result:
            cursor: Any = result.cursor
            rows = cursor.fetchall()
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    @abstractmethod
    def session_id(self, connection: sa.Connection) -> int | None:
        """The number by which :meth:`cancel` identifies a connection; None: the database cannot cancel statements."""

    @abstractmethod
    def cancel(self, session_id: int) -> None:
        """Ends the statement that another connection of the engine is executing."""

    def cancel_all(self) -> None:
        """Ends every statement that connections of this object are executing; safe to call from another thread."""
        # One call at a time: two calls would end each other's cancelling statements.
        with self._cancelling:
            for session in list(self._sessions.values()):
                self.cancel(session)


class LockWaits(Sessions):
    """Bounds how long a statement waits for locks, and how much memory it takes."""

    @abstractmethod
    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        """Sets the longest wait for a table lock from now on; databases round it up to their own unit."""

    @abstractmethod
    def usual_lock_wait(self, connection: sa.Connection) -> None:
        """Sets the longest wait for a table lock back to the value of the session settings."""

    @contextmanager
    def short_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> Iterator[None]:
        """Limits each wait for a table lock while the context lasts; then the usual limit applies again."""
        self.limit_lock_wait(connection, timeout)
        try:
            yield
        finally:
            # A lost connection has no settings any more.
            with suppress(sa.exc.SQLAlchemyError):
                self.usual_lock_wait(connection)

    def allow_memory(self, connection: sa.Connection, mib: int) -> None:
        """Lets each sort and hash of the transaction use ``mib`` MiB of memory, if the database has such a limit."""


@contextmanager
def _closed_at_error(connection: sa.Connection) -> Iterator[None]:
    """Closes a connection after an error, so that no lock or setting that it may still hold returns to the pool."""
    try:
        yield
    except BaseException:
        connection.invalidate()
        raise


def own_port(descriptor: int) -> str | None:
    """The port of this end of a connection; None: it is no internet socket.

    :param descriptor: the file descriptor of the connection
    """
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        name = copy.getsockname()
        return str(name[1]) if copy.family in (socket.AF_INET, socket.AF_INET6) else None
