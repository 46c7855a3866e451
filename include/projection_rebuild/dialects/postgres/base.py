"""Connections to PostgreSQL, and the base class of all its subjects."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from itertools import islice
from typing import Any

import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from psycopg.types.json import set_json_loads

from projection_rebuild.dialects.base import LockWaits, Refusal
from projection_rebuild.dialects.postgres import connection as connecting
from projection_rebuild.dialects.postgres import session as session_settings
from projection_rebuild.dialects.postgres.catalog import MAX_IDENTIFIER, literal
from projection_rebuild.dialects.postgres.lock_waits import milliseconds
from projection_rebuild.errors import SessionError
from projection_rebuild.rows.values import from_json

NAME_TAKEN = ("42P07", "42710")
"""The SQLSTATEs of a statement whose new name another object has."""

_FIND = """SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s"""


class PostgresBase(LockWaits):
    """See :class:`Sessions` and :class:`LockWaits`."""

    max_identifier = MAX_IDENTIFIER
    ddl_commits = False
    database = "postgresql"

    def __init__(self, engine: sa.Engine, known_as: str = "the database") -> None:
        super().__init__(engine, known_as)
        self._own_sessions = connecting.OwnSessions(engine)

    def why_not_connected(self, error: BaseException) -> Refusal:
        return connecting.why_not_connected(error)

    def why_not_ours(self, connection: sa.Connection) -> Refusal | None:
        return self._own_sessions.why_not(connection)

    def set_up(self, connection: sa.Connection) -> None:
        # Python's own JSON reader turns numbers with a fraction into floats, which may change their value.
        set_json_loads(from_json, connection.connection.driver_connection)
        # One round trip, since the engine also opens connections during a cutover.
        statement, values = session_settings.statement(self._version(connection))
        self._execute(connection, statement, *values)

    def session(self, connection: sa.Connection) -> list[str]:
        statement, values = session_settings.statement(self._version(connection))
        return [statement % tuple(map(literal, values))]

    @staticmethod
    def on_connect(driver: Any) -> None:
        # SQLAlchemy queries the server's version before the engine can set up the session, and expects text.
        if driver.info.parameter_status("client_encoding") != "UTF8":
            driver.pgconn.exec_(b"SET client_encoding TO 'UTF8'")

    def check_live(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        digits = self._execute(connection, "SELECT pg_catalog.current_setting('extra_float_digits')").scalar_one()
        for problem in session_settings.live_problems(driver.info.parameter_status, int(digits)):
            raise SessionError(problem)

    @contextmanager
    def times_in_utc(self, connection: sa.Connection) -> Iterator[None]:
        driver: Any = connection.connection.driver_connection
        before = session_settings.live_values(driver.info.parameter_status)
        if not before:
            yield
            return
        # In a transaction the settings are local: a rollback, also to a savepoint, undoes them. After an error in the transaction
        # that is the only way.
        local = not (driver.autocommit and driver.info.transaction_status == TransactionStatus.IDLE)
        self._set(connection, {name: session_settings.LIVE[name] for name in before}, local=local)
        try:
            yield
        finally:
            if not driver.closed and driver.info.transaction_status != TransactionStatus.INERROR:
                self._set(connection, before, local=local)

    def _set(self, connection: sa.Connection, settings: Mapping[str, str], *, local: bool) -> None:
        parts = ", ".join(["pg_catalog.set_config(%s, %s, %s)"] * len(settings))
        self._execute(connection, f"SELECT {parts}", *(value for setting in settings.items() for value in (*setting, local)))

    def allow_memory(self, connection: sa.Connection, mib: int) -> None:
        # The server's default of 4 MB suits many small queries at a time.
        self._execute(connection, f"SET LOCAL work_mem = '{mib}MB'")

    def session_id(self, connection: sa.Connection) -> int | None:
        return int(self._execute(connection, "SELECT pg_catalog.pg_backend_pid()").scalar_one())

    def cancel(self, session_id: int) -> None:
        with self.connect() as connection:
            self._execute(connection, "SELECT pg_catalog.pg_cancel_backend(%s)", session_id)

    def usual_lock_wait(self, connection: sa.Connection) -> None:
        self._execute(connection, f"SET lock_timeout = '{session_settings.LOCK_WAIT}'")

    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        self._execute(connection, f"SET lock_timeout = {milliseconds(timeout)}")

    def names_changed(self, error: BaseException | None) -> bool:
        # Another session can change a name, a privilege or a comment without a lock on the table.
        state = getattr(getattr(error, "orig", None), "sqlstate", None)
        return super().names_changed(error) or state in NAME_TAKEN or _changed_together(error)

    def read(self, connection: sa.Connection, query: sa.Select[Any], size: int) -> Generator[list[tuple[Any, ...]], None, None]:
        # Without a server-side cursor, which would need a transaction, and with a new query plan for each range.
        compiled = query.compile(dialect=self.engine.dialect, compile_kwargs={"render_postcompile": True})
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, closing(cursor.stream(str(compiled), compiled.params, size=size)) as rows:
            while page := list(islice(rows, size)):
                yield page

    def _execute_all(self, connection: sa.Connection, statements: Sequence[str]) -> None:
        # One round trip for all.
        self._execute(connection, ";\n".join(statements))

    def _oid(self, connection: sa.Connection, schema: str | None, table: str) -> int | None:
        oid: int | None = self._execute(connection, _FIND, schema, table).scalar()
        return oid


def _changed_together(error: BaseException | None) -> bool:
    """Whether two sessions changed one catalog row at the same time. The server has no SQLSTATE for that, only a message."""
    cause = getattr(error, "orig", None)
    message = getattr(getattr(cause, "diag", None), "message_primary", None)
    return getattr(cause, "sqlstate", None) == "XX000" and message in ("tuple concurrently updated", "tuple concurrently deleted")
