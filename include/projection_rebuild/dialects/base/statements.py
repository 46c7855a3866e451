"""Writes names into statements, executes statements, and classifies their errors."""

from __future__ import annotations

import re
import threading
from abc import ABC
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa

from projection_rebuild.errors import ConnectionLost
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.outcomes import TablesBusy
from projection_rebuild.errors.trouble import Kind

DENIALS = frozenset({Kind.DENIED, Kind.READ_ONLY, Kind.MISSING, Kind.SQL})
"""The kinds of errors that a retry cannot help until an operator has changed something."""

_TOKENS = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|%s|%""")
"""Quoted texts and names, marks, and other percent signs. A doubled quote ends one quoted text and begins the next."""


class Statements(ABC):
    """Writes and executes statements.

    :param engine: the SQLAlchemy engine of the database
    :param known_as: the name of the connection in messages: its id
    """

    max_identifier: ClassVar[int]
    """The longest name, in bytes (MySQL: characters)."""

    ddl_commits: ClassVar[bool]
    """Whether each DDL statement commits by itself, so that a swap cannot be rolled back."""

    one_writer: ClassVar[bool] = False
    """Whether a transaction that writes keeps all others from writing."""

    database: ClassVar[str]
    """The dialect of SQL: ``postgresql``, ``mysql``, ``mariadb`` or ``sqlite``."""

    def __init__(self, engine: sa.Engine, known_as: str = "the database") -> None:
        self.engine = engine
        self.known_as = known_as
        self._sessions: dict[sa.Connection, int] = {}
        self._cancelling = threading.RLock()
        self._mark = "?" if engine.dialect.paramstyle == "qmark" else "%s"

    @property
    def mark(self) -> str:
        """The placeholder of a bound value in a statement for this driver."""
        return self._mark

    def quote(self, name: str) -> str:
        """An identifier, always quoted."""
        return '"' + name.replace('"', '""') + '"'

    def qualified(self, schema: str | None, table: str) -> str:
        """A table's name with its schema, quoted."""
        return f"{self.quote(schema)}.{self.quote(table)}" if schema else self.quote(table)

    def _list(self, names: Iterable[str]) -> str:
        return ", ".join(self.quote(name) for name in names)

    def run(self, connection: sa.Connection, statement: str) -> None:
        """Executes one of the statements that other methods return."""
        self._execute(connection, statement)

    def execute(self, connection: sa.Connection, statement: str, values: Sequence[Any] = ()) -> sa.CursorResult[*tuple[Any, ...]]:
        """Executes a statement, which is written as for a shell, except for the marks of its bound values."""
        if not values:
            # Without values the driver must not format the statement.
            return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        return connection.exec_driver_sql(self._for_driver(statement, len(values)), tuple(values))

    def execute_many(
        self, connection: sa.Connection, statement: str, rows: Sequence[Sequence[Any]]
    ) -> sa.CursorResult[*tuple[Any, ...]]:
        """Executes a statement once for each row of bound values; ``rows`` has at least one."""
        return connection.exec_driver_sql(self._for_driver(statement, len(rows[0])), list(rows))

    def _for_driver(self, statement: str, marks: int) -> str:
        """A statement with bound values as its driver takes it.

        A driver that formats statements needs all other percent signs doubled.

        :param marks: the number of marks in the statement
        """
        if self._mark == "?" or statement.count("%") == marks:
            return statement
        return _TOKENS.sub(lambda token: token[0] if token[0] == self._mark else token[0].replace("%", "%%"), statement)

    def _execute(self, connection: sa.Connection, statement: str, *values: Any) -> sa.CursorResult[*tuple[Any, ...]]:
        return self.execute(connection, statement, values)

    def _version(self, connection: sa.Connection) -> tuple[int, ...]:
        """The server's version."""
        return tuple(part for part in connection.dialect.server_version_info or () if isinstance(part, int))

    @staticmethod
    def kind_of(error: BaseException | None) -> Kind | None:
        """The kind of a database's error; None: it is no error of a database."""
        trouble = None if error is None else trouble_of(error)
        return None if trouble is None else trouble.kind

    refusals: ClassVar[frozenset[Kind]] = frozenset({Kind.BUSY})
    """The kinds of errors of statements that could not get a lock."""

    def is_lock_timeout(self, error: BaseException | None) -> bool:
        """Whether a statement failed only because it could not get a lock in time, so that a retry can help."""
        return isinstance(error, TablesBusy) or self.kind_of(error) in self.refusals

    def is_disconnect(self, error: BaseException) -> bool:
        """Whether a connection has ended with all that it had not committed, so that another one can retry.

        False where DDL commits by itself: the server may still execute a statement of the lost connection.
        """
        return not self.ddl_commits and died(error)

    def names_changed(self, error: BaseException | None) -> bool:
        """Whether a statement failed because another client has dropped or taken a name in it meanwhile."""
        return self.kind_of(error) is Kind.MISSING

    def is_permission_error(self, error: BaseException) -> bool:
        """Whether a statement failed because an object or a privilege is missing, so that it would fail again."""
        return self.kind_of(error) in DENIALS


def died(error: BaseException) -> bool:
    """Whether an open connection has ended: one of the engine, or one to the event store."""
    return isinstance(error, ConnectionLost) or (isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated)
