"""Statements: how names are written in them, how they are executed, and what their errors mean."""

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
"""How statements end that fail again as long as nobody changes something."""

_TOKENS = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|%s|%""")
"""Quoted texts and names, marks, and other percent signs. A quote that is doubled ends one quoted text and begins the next."""


class Statements(ABC):
    """Writes and executes statements.

    :param engine: the SQLAlchemy engine of the database
    :param known_as: how people know the connection, in messages: its id
    """

    max_identifier: ClassVar[int]
    """Bytes (MySQL: characters) in a name."""

    ddl_commits: ClassVar[bool]
    """True where each DDL statement commits by itself, so that a swap cannot be rolled back."""

    one_writer: ClassVar[bool] = False
    """True where a transaction that writes keeps all others from writing."""

    database: ClassVar[str]
    """Which SQL it takes: ``postgresql``, ``mysql``, ``mariadb`` or ``sqlite``."""

    def __init__(self, engine: sa.Engine, known_as: str = "the database") -> None:
        self.engine = engine
        self.known_as = known_as
        self._sessions: dict[sa.Connection, int] = {}
        self._cancelling = threading.RLock()
        self._mark = "?" if engine.dialect.paramstyle == "qmark" else "%s"

    @property
    def mark(self) -> str:
        """What stands for a bound value in a statement of this driver."""
        return self._mark

    def quote(self, name: str) -> str:
        """An identifier, quoted always."""
        return '"' + name.replace('"', '""') + '"'

    def qualified(self, schema: str | None, table: str) -> str:
        """A table's name with its schema, quoted."""
        return f"{self.quote(schema)}.{self.quote(table)}" if schema else self.quote(table)

    def _list(self, names: Iterable[str]) -> str:
        return ", ".join(self.quote(name) for name in names)

    def run(self, connection: sa.Connection, statement: str) -> None:
        """Executes one of the statements that the verbs below return."""
        self._execute(connection, statement)

    def execute(self, connection: sa.Connection, statement: str, values: Sequence[Any] = ()) -> sa.CursorResult[*tuple[Any, ...]]:
        """Executes a statement, written as a shell takes it but for the marks of its bound values."""
        if not values:
            # Then the driver formats nothing.
            return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        return connection.exec_driver_sql(self._for_driver(statement, len(values)), tuple(values))

    def execute_many(
        self, connection: sa.Connection, statement: str, rows: Sequence[Sequence[Any]]
    ) -> sa.CursorResult[*tuple[Any, ...]]:
        """The same once for each row of bound values; there is one row at least."""
        return connection.exec_driver_sql(self._for_driver(statement, len(rows[0])), list(rows))

    def _for_driver(self, statement: str, marks: int) -> str:
        """A statement with bound values as its driver takes it: one that formats statements wants all other percent signs doubled.

        :param marks: how many marks the statement has
        """
        if self._mark == "?" or statement.count("%") == marks:
            return statement
        return _TOKENS.sub(lambda found: found[0] if found[0] == self._mark else found[0].replace("%", "%%"), statement)

    def _execute(self, connection: sa.Connection, statement: str, *values: Any) -> sa.CursorResult[*tuple[Any, ...]]:
        return self.execute(connection, statement, values)

    def _version(self, connection: sa.Connection) -> tuple[int, ...]:
        """The server's."""
        return tuple(each for each in connection.dialect.server_version_info or () if isinstance(each, int))

    @staticmethod
    def kind_of(error: BaseException | None) -> Kind | None:
        """What kind of trouble of a database an error is; None: it is no such error."""
        trouble = None if error is None else trouble_of(error)
        return None if trouble is None else trouble.kind

    refusals: ClassVar[frozenset[Kind]] = frozenset({Kind.BUSY})
    """How statements end that were not given a lock."""

    def is_lock_timeout(self, error: BaseException | None) -> bool:
        """Whether a statement failed only because a lock could not be had in time, so that trying again can help."""
        return isinstance(error, TablesBusy) or self.kind_of(error) in self.refusals

    def is_disconnect(self, error: BaseException) -> bool:
        """Whether a connection has ended, and with it all that it had not committed, so that another one can try again.

        Never where DDL commits by itself: what a connection has left there may still be waiting to be done.
        """
        return not self.ddl_commits and died(error)

    def names_changed(self, error: BaseException | None) -> bool:
        """Whether a statement failed because a name that it speaks of has gone, or has been taken, since it was written."""
        return self.kind_of(error) is Kind.MISSING

    def is_permission_error(self, error: BaseException) -> bool:
        """Whether a statement failed because something does not exist or may not be done, so that it would fail again."""
        return self.kind_of(error) in DENIALS


def died(error: BaseException) -> bool:
    """Whether a connection that was there has ended: one of ours, or one to the event store."""
    return isinstance(error, ConnectionLost) or (isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated)
