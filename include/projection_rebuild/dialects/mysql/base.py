"""Connections to MySQL and MariaDB, and the definitions of their tables."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import sqlalchemy as sa
from MySQLdb.cursors import SSCursor

from projection_rebuild.dialects.base import LockWaits, Refusal
from projection_rebuild.dialects.base.settings import Setting
from projection_rebuild.dialects.mysql import connection as connecting
from projection_rebuild.dialects.mysql import create_table as text
from projection_rebuild.dialects.mysql import session as ours
from projection_rebuild.errors import ConnectionRefused, SessionError
from projection_rebuild.errors.trouble import Kind
from projection_rebuild.model.names import TableSet

ACCESS_DENIED, TABLE_ACCESS_DENIED, NO_SUCH_THREAD, NO_SUCH_TABLE = 1227, 1142, 1094, 1146

SYNTAX_ERROR = 1064

TABLE_TYPES = ("BASE TABLE", "SYSTEM VERSIONED")

_BACKTICKS = (
    f"SET @projection_rebuild_mode = @@SESSION.sql_mode, SESSION sql_mode = {ours.sql_mode(without=['ANSI_QUOTES'])}",
    "SET SESSION sql_mode = @projection_rebuild_mode",
)
"""Before and after a statement that has to show names in backticks, whatever the server's mode."""

_IN_UTC = (
    f"SET @projection_rebuild_zone = @@SESSION.time_zone, SESSION time_zone = '{ours.ZONE}'",
    "SET SESSION time_zone = @projection_rebuild_zone",
)
"""Before and after the engine's work in a session of the application."""


class MySQLBase(LockWaits):
    """The methods that every subject needs on both servers."""

    # If the server has no time limit for a lock, a watchdog of the engine cancels the statement that waits.
    refusals = frozenset({Kind.BUSY, Kind.CANCELLED})
    max_identifier = text.LONGEST_NAME
    ddl_commits = True
    begin = "START TRANSACTION"

    own_settings: ClassVar[Sequence[Setting]]
    """The settings of the engine's sessions that only this server has."""

    def __init__(self, engine: sa.Engine, known_as: str = "the database") -> None:
        super().__init__(engine, known_as)
        self._own_sessions = connecting.OwnSessions(engine)
        self._takes_files = True
        self.takes_many = True
        """Whether the connections accept several statements in one message, as far as the engine knows."""

    def quote(self, name: str) -> str:
        # Backticks work in any sql_mode.
        return "`" + name.replace("`", "``") + "`"

    def _open(self) -> sa.Connection:
        self._own_sessions.note_tls()
        return super()._open()

    def why_not_connected(self, error: BaseException) -> Refusal:
        return connecting.why_not_connected(error)

    def why_not_ours(self, connection: sa.Connection) -> Refusal | None:
        return self._own_sessions.why_not(connection)

    def set_up(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_character_set("utf8mb4")
        # With completion_type = CHAIN, the end of an earlier transaction on this session has begun another one.
        self._execute(connection, "ROLLBACK AND NO CHAIN NO RELEASE")
        for statement in self._settings(connection):
            self._execute(connection, statement)

    def session(self, connection: sa.Connection) -> list[str]:
        return ["SET NAMES utf8mb4", *self._settings(connection)]

    def _settings(self, connection: sa.Connection) -> list[str]:
        settings = ours.statement(self.own_settings, self._version(connection))
        return ["SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", settings]

    def check_live(self, connection: sa.Connection) -> None:
        for problem in ours.live_problems(partial(self._execute, connection)):
            raise SessionError(problem)

    @contextmanager
    def times_in_utc(self, connection: sa.Connection) -> Iterator[None]:
        self._execute(connection, _IN_UTC[0])
        with ending(lambda: self._execute(connection, _IN_UTC[1])):
            yield

    def read(self, connection: sa.Connection, query: sa.Select[Any], size: int) -> Generator[list[tuple[Any, ...]], None, None]:
        # Unbuffered, and without SQLAlchemy's rows.
        compiled = query.compile(dialect=self.engine.dialect, compile_kwargs={"render_postcompile": True})
        driver: Any = connection.connection.driver_connection
        with closing(driver.cursor(SSCursor)) as cursor:
            cursor.execute(str(compiled), [compiled.params[name] for name in compiled.positiontup or ()])
            while page := list(cursor.fetchmany(size)):
                yield page

    def session_id(self, connection: sa.Connection) -> int:
        return int(self._execute(connection, "SELECT CONNECTION_ID()").scalar_one())

    def cancel(self, session_id: int) -> None:
        try:
            with self.connect() as connection:
                self._execute(connection, f"KILL QUERY {session_id}")
        except sa.exc.DBAPIError as error:
            if number_of(error) != NO_SUCH_THREAD:
                raise

    def usual_lock_wait(self, connection: sa.Connection) -> None:
        self._execute(connection, f"SET SESSION lock_wait_timeout = {ours.TABLE_LOCK_WAIT}")

    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        self._execute(connection, f"SET SESSION lock_wait_timeout = {max(1, math.ceil(timeout.total_seconds()))}")

    def limit_silence(self, connection: sa.Connection, longest: timedelta | None) -> None:
        """Sets how long this connection may be silent before the server ends it, and its locks with it.

        The process may hang, or may have died without closing the connection.

        :param longest: the longest silence that is normal; None: the value of the session settings
        """
        seconds = ours.value("wait_timeout") if longest is None else max(1, math.ceil(1.5 * longest.total_seconds()))
        self._execute(connection, f"SET SESSION wait_timeout = {seconds}")

    @contextmanager
    def named_lock(self, connection: sa.Connection, name: str, patience: timedelta) -> Iterator[bool]:
        """A named lock of the server, which one session of this database has at a time.

        :param patience: how long to wait for another session
        :returns: whether this session has the lock
        """
        database = self._execute(connection, "SELECT DATABASE()").scalar_one()
        key = f"projection_rebuild_{hashlib.sha256(f'{database}/{name}'.encode()).hexdigest()[:32]}"
        if self._execute(connection, "SELECT GET_LOCK(%s, %s)", key, patience.total_seconds()).scalar_one() != 1:
            yield False
            return
        with ending(lambda: self._execute(connection, "DO RELEASE_LOCK(%s)", key)):
            yield True

    @contextmanager
    def killed_after(self, connection: sa.Connection, timeout: timedelta) -> Iterator[None]:
        """Limits how long a statement within the context may take; another connection ends it after ``timeout``."""
        session = self.session_id(connection)
        watchdog = threading.Timer(timeout.total_seconds(), self._cancel_in_time, [session])
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
            watchdog.join()
            self._swallow_late_kill(connection)

    def _cancel_in_time(self, session: Any) -> None:
        # A server that is unreachable has ended the statement already.
        with suppress(sa.exc.SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error, ConnectionRefused):
            self.cancel(session)

    def _swallow_late_kill(self, connection: sa.Connection) -> None:
        """Executes an empty statement, since a kill that came too late for its statement ends the next one."""
        if connection.invalidated:
            return
        try:
            self._execute(connection, "SELECT 1")
        except sa.exc.DBAPIError as error:
            if not self.is_lock_timeout(error):
                raise

    def _if_allowed(self, connection: sa.Connection, query: str, *values: Any) -> Any:
        """The one value of a query; None: no row, or the account lacks the privilege."""
        rows = self._all_if_allowed(connection, query, *values)
        return rows[0][0] if rows else None

    def _all_if_allowed(self, connection: sa.Connection, query: str, *values: Any) -> Sequence[Any]:
        """The rows of a query; none if the account lacks the privilege."""
        try:
            return self._execute(connection, query, *values).all()
        except sa.exc.DBAPIError as error:
            if number_of(error) not in (TABLE_ACCESS_DENIED, ACCESS_DENIED):
                raise
            return []

    def _table_fact(self, connection: sa.Connection, schema: str | None, table: str, fact: str) -> Any:
        query = f"""SELECT {fact} FROM information_schema.TABLES
                    WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"""
        return self._execute(connection, query, schema, table).scalar()

    def _definition(self, connection: sa.Connection, schema: str | None, table: str) -> text.Definition:
        """The definition of a table; an empty one if the table does not exist."""
        return text.Definition(self._shown(connection, schema, table))

    def _shown(self, connection: sa.Connection, schema: str | None, table: str) -> str:
        statement = f"SHOW CREATE TABLE {self.qualified(schema, table)}"
        try:
            shown = str(self._execute(connection, statement).one()[1])
        except sa.exc.DBAPIError as error:
            if number_of(error) == NO_SUCH_TABLE:
                return ""
            raise
        if shown.startswith('CREATE TABLE "'):
            self._execute(connection, _BACKTICKS[0])
            shown = str(self._execute(connection, statement).one()[1])
            self._execute(connection, _BACKTICKS[1])
        return shown

    def _wanted(self, connection: sa.Connection, table: TableSet) -> text.Definition:
        """The definition that green must have, under the live name: that of its target schema, or blue's."""
        if table.target_schema is None:
            return self._definition(connection, table.schema, table.blue)
        return text.Definition(table.target_schema.definition)


@contextmanager
def ending(last: Callable[[], object]) -> Iterator[None]:
    """Calls ``last`` at the end; after an error it suppresses errors of ``last``: the caller needs the first one."""
    try:
        yield
    except BaseException:
        with suppress(sa.exc.SQLAlchemyError):
            last()
        raise
    last()


def number_of(error: BaseException) -> int | None:
    """The server's or driver's number of an error; None: it has none."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return cause.args[0] if cause is not None and cause.args and isinstance(cause.args[0], int) else None
