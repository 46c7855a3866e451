"""Connections to a database, set up for our work."""

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
"""In a connection's ``info``: its session has been checked, and is ours alone."""


@dataclass(frozen=True)
class Refusal:
    """Why a connection cannot be had, or cannot be worked with.

    :param reason: one clause, without addresses, accounts or values
    :param remedy: what a person can do
    :param retryable: whether the same connection may work later
    """

    reason: str
    remedy: str
    retryable: bool = False


class Sessions(Statements):
    """Opens connections, looks whether their sessions are ours alone, and sets them up."""

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A connection set up for our work: READ COMMITTED, UTC, each statement committed unless in a transaction.

        :raises ConnectionRefused: it cannot be had, or its session is not ours alone, or it is less safe than it was configured
        """
        with self._open().execution_options(isolation_level="AUTOCOMMIT") as connection, _closed_at_error(connection):
            self._sign_on(connection)
            try:
                yield connection
            finally:
                self._sessions.pop(connection, None)

    def reach(self) -> None:
        """Connects for a moment and sets nothing, so that SQLAlchemy knows the server.

        :raises ConnectionRefused: as :meth:`connect`
        """
        with self._open() as connection, _closed_at_error(connection):
            self._check_session(connection)

    def renew(self, connection: sa.Connection) -> None:
        """If the server has ended this connection, another one takes its place."""
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
        """What the driver means by the error with which a connection could not be made."""

    @abstractmethod
    def why_not_ours(self, connection: sa.Connection) -> Refusal | None:
        """Why nothing may be set on a new connection, such as a pooler that shares sessions; None: it is as it was configured.

        It only looks: what it does leaves nothing on the session that another client could meet.
        """

    def _check_session(self, connection: sa.Connection) -> None:
        """Once for each connection to the server, before anything is set on it."""
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
        """Session settings of a new connection: those that the module beside the dialect's own lists, and docs/reference/sessions.md shows."""

    @abstractmethod
    def session(self, connection: sa.Connection) -> list[str]:
        """Statements that make the same settings in a shell, as they stand."""

    @staticmethod
    def on_connect(driver: Any) -> None:
        """Settings of a driver's new connection that SQLAlchemy's own first questions need."""

    def check_live(self, connection: sa.Connection) -> None:
        """Whether the application's session writes and reads rows as ours do, for the moment of :meth:`times_in_utc`.

        :raises SessionError: a setting of it that would change rows; nothing has been written
        """

    @contextmanager
    def times_in_utc(self, connection: sa.Connection) -> Iterator[None]:
        """Within it the application's session has its times in UTC, as ours have; then it has its own time zone again, also after an error."""
        yield

    @contextmanager
    def transaction(self, connection: sa.Connection) -> Iterator[None]:
        """One explicit transaction on a connection of :meth:`connect`."""
        self._execute(connection, self.begin)
        try:
            yield
            # Within: where it is refused (SQLite, for a reader's sake), the transaction is still open.
            self._execute(connection, "COMMIT")
        except BaseException:
            # On a lost connection the server has rolled back by itself; the error that matters is the first one.
            with suppress(sa.exc.SQLAlchemyError):
                self._execute(connection, "ROLLBACK")
            raise

    begin: ClassVar[str] = "BEGIN"

    @contextmanager
    def ddl_transaction(self, connection: sa.Connection) -> Iterator[None]:
        """As :meth:`transaction`, around DDL; where each statement of it commits by itself, there is nothing to be around it."""
        with nullcontext() if self.ddl_commits else self.transaction(connection):
            yield

    def read(self, connection: sa.Connection, query: sa.Select[Any], size: int) -> Generator[list[tuple[Any, ...]], None, None]:
        """A query's rows as the driver makes them, so many at a time.

        Where the database can, it makes the next ones while the caller works on some.
        """
        # All at once, and past SQLAlchemy's rows: a statement that stays open would be in the way of a writer in the same file.
        with connection.execute(query) as result:
            cursor: Any = result.cursor
            rows = cursor.fetchall()
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    @abstractmethod
    def session_id(self, connection: sa.Connection) -> int | None:
        """What :meth:`cancel` needs to know of a connection; None where a statement cannot be cancelled."""

    @abstractmethod
    def cancel(self, session_id: int) -> None:
        """Ends the statement that another connection of ours is executing."""

    def cancel_all(self) -> None:
        """Ends every statement that connections of this object are executing; callable from another thread."""
        # One at a time, or each would end the statement by which the other ends one.
        with self._cancelling:
            for session in list(self._sessions.values()):
                self.cancel(session)


class LockWaits(Sessions):
    """Bounds what a statement takes of the server."""

    @abstractmethod
    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        """The longest wait for a table lock from here on; databases round it up to what they can."""

    @abstractmethod
    def usual_lock_wait(self, connection: sa.Connection) -> None:
        """From here on the longest wait for a table lock is that of our sessions' settings."""

    @contextmanager
    def short_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> Iterator[None]:
        """Waits no longer than this for a table lock; after it, as long as usual."""
        self.limit_lock_wait(connection, timeout)
        try:
            yield
        finally:
            # A connection that was cut has no settings any more.
            with suppress(sa.exc.SQLAlchemyError):
                self.usual_lock_wait(connection)

    def allow_memory(self, connection: sa.Connection, mib: int) -> None:
        """Lets each sort and hash of the transaction take so much memory of the server, where that can be said."""


@contextmanager
def _closed_at_error(connection: sa.Connection) -> Iterator[None]:
    """A connection whose work failed does not go back to the pool: what it may still hold (a lock, a setting) ends with it."""
    try:
        yield
    except BaseException:
        connection.invalidate()
        raise


def own_port(descriptor: int) -> str | None:
    """The port that this end of a connection has; None: it is no internet socket.

    :param descriptor: the connection's
    """
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        name = copy.getsockname()
        return str(name[1]) if copy.family in (socket.AF_INET, socket.AF_INET6) else None
