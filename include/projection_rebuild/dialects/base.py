"""What the engine asks of a database, verb by verb; one subclass per database family, the verbs in the same order.

Methods that return statements do not execute them: a step runs them one by one (and a dry run prints them). They read
the catalogs each time, so that after a crash they return just what is still missing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import Any, ClassVar

import sqlalchemy as sa

from include.projection_rebuild.names import TableSet
from include.projection_rebuild.rows import Key, RowType, Values
from include.projection_rebuild.values import PORTABLE_BINDS, Convert, bound, loaded

KEYS_PER_STATEMENT = 500
"""Row keys in one IN list: far below every database's limit on bound values, and enough to make round trips cheap."""


class Dialect(ABC):
    """The verbs of one database family.

    :param engine: the SQLAlchemy engine of the database; its preparer quotes every identifier
    """

    max_identifier: ClassVar[int]
    """Bytes (MySQL: characters) in a name."""

    ddl_commits: ClassVar[bool]
    """True where each DDL statement commits by itself, so that a switch cannot be rolled back."""

    one_writer: ClassVar[bool] = False
    """True where a transaction that writes keeps all others from writing."""

    binds: ClassVar[dict[type, Convert]] = PORTABLE_BINDS

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._quote = engine.dialect.identifier_preparer.quote_identifier
        self._sessions: set[int] = set()
        self._mark = "?" if engine.dialect.paramstyle == "qmark" else "%s"

    # Naming -----------------------------------------------------------------------------------------------------

    def quote(self, name: str) -> str:
        """An identifier, quoted always; with doubled percent signs where the driver formats its statements."""
        return self._quote(name)

    def qualified(self, schema: str | None, table: str) -> str:
        """A table's name with its schema, quoted."""
        return f"{self.quote(schema)}.{self.quote(table)}" if schema else self.quote(table)

    def _list(self, names: Iterable[str]) -> str:
        return ", ".join(self.quote(name) for name in names)

    # Connections ------------------------------------------------------------------------------------------------

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A connection set up for our work: READ COMMITTED, UTC, each statement committed unless in a transaction."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            self.set_up(connection)
            session = self.session_id(connection)
            if session is None:
                yield connection
                return
            self._sessions.add(session)
            try:
                yield connection
            finally:
                self._sessions.discard(session)

    @abstractmethod
    def set_up(self, connection: sa.Connection) -> None:
        """Session settings of a new connection."""

    @contextmanager
    def transaction(self, connection: sa.Connection) -> Iterator[None]:
        """One explicit transaction on a connection of :meth:`connect`."""
        self._execute(connection, self.begin)
        try:
            yield
        except BaseException:
            # On a lost connection the server has rolled back by itself; the error that matters is the first one.
            with suppress(sa.exc.DBAPIError):
                self._execute(connection, "ROLLBACK")
            raise
        self._execute(connection, "COMMIT")

    begin: ClassVar[str] = "BEGIN"

    def run(self, connection: sa.Connection, statement: str) -> None:
        """Executes one of the statements that the verbs below return."""
        self._execute(connection, statement)

    def _execute(self, connection: sa.Connection, statement: str, *values: Any) -> sa.CursorResult[*tuple[Any, ...]]:
        return connection.exec_driver_sql(statement, tuple(values))

    @abstractmethod
    def lock_was_refused(self, error: BaseException) -> bool:
        """Whether a statement failed only because a lock could not be had in time, so that trying again can help."""

    @abstractmethod
    def session_id(self, connection: sa.Connection) -> int | None:
        """What :meth:`cancel` needs to know of a connection; None where a statement cannot be cancelled."""

    @abstractmethod
    def cancel(self, session_id: int) -> None:
        """Ends the statement that another connection of ours is executing."""

    def cancel_all(self) -> None:
        """Ends every statement that connections of this object are executing; callable from another thread."""
        for session in list(self._sessions):
            self.cancel(session)

    @abstractmethod
    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        """The longest wait for a table lock from here on; databases round it up to what they can."""

    # Looking at tables ------------------------------------------------------------------------------------------

    def table_exists(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        """Whether there is a table (not a view) of this name."""
        return sa.inspect(connection).has_table(table, schema=schema) and table not in self._views(connection, schema)

    def _views(self, connection: sa.Connection, schema: str | None) -> list[str]:
        return sa.inspect(connection).get_view_names(schema=schema)

    def unique_keys(self, connection: sa.Connection, schema: str | None, table: str) -> list[set[str]]:
        """The sets of columns that are unique in a table: its primary key, unique constraints and whole unique indexes."""
        inspector = sa.inspect(connection)
        primary = set(inspector.get_pk_constraint(table, schema=schema)["constrained_columns"])
        constraints = [set(each["column_names"]) for each in inspector.get_unique_constraints(table, schema=schema)]
        indexes = [
            {str(name) for name in each["column_names"]}
            for each in inspector.get_indexes(table, schema=schema)
            if each["unique"] and not any("where" in option for option in each.get("dialect_options", {}))
        ]
        return [primary, *constraints, *indexes]

    def default_schema(self, connection: sa.Connection) -> str | None:
        """The schema that a spec without one means; None where a connection has just one."""
        return None

    def columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[str]:
        """The column names of a table, in their order."""
        return [each["name"] for each in sa.inspect(connection).get_columns(table, schema=schema)]

    def row_count(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        """The exact number of rows."""
        return int(self._execute(connection, f"SELECT count(*) FROM {self.qualified(schema, table)}").scalar_one())

    @abstractmethod
    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        """About how many rows there are, from statistics, without reading the table."""

    @abstractmethod
    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        """What stays the same when a table is renamed, and differs for a new table of its name.

        None if there is no such table, or where we may not know; the ledger's word alone counts then.
        """

    @abstractmethod
    def cannot_carry(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Objects on the blue tables that a rebuild would lose or break, each with its reason and remedy."""

    @abstractmethod
    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        """The tables that foreign keys of this table point to, itself left out."""

    @abstractmethod
    def active_sessions(self, connection: sa.Connection) -> int | None:
        """Sessions of this database that are executing a statement, ours left out; None where nobody counts them."""

    # Making green -----------------------------------------------------------------------------------------------

    @abstractmethod
    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that make an empty green table like blue, with its key, without secondary indexes and foreign keys."""

    @abstractmethod
    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that give green the indexes it still lacks, under names of its own."""

    @abstractmethod
    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        """Statements that give green the foreign keys it still lacks, to the green tables of the run where there are."""

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        """Foreign keys that rows of green violate, where the database does not say so by itself in :meth:`constrain_green`."""
        return []

    @abstractmethod
    def analyze(self, schema: str | None, table: str) -> str:
        """The statement that refreshes a table's statistics."""

    def drop_table(self, schema: str | None, table: str) -> str:
        """The statement that drops a table and nothing beside it."""
        return f"DROP TABLE {self.qualified(schema, table)}"

    # Switching --------------------------------------------------------------------------------------------------

    @abstractmethod
    def hold(self, connection: sa.Connection, tables: Sequence[TableSet], timeout: timedelta) -> AbstractContextManager[None]:
        """Holds the blue tables for the switch, in one transaction where DDL can be rolled back; commits at the end."""

    @abstractmethod
    def switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that rename blue to old and green to blue, all tables at once, with what hangs on their names."""

    def run_switch(self, connection: sa.Connection, statements: Sequence[str], timeout: timedelta) -> None:
        """Executes the statements of :meth:`switch`; none of them waits longer than ``timeout`` for a lock."""
        for statement in statements:
            self._execute(connection, statement)

    @abstractmethod
    def after_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that put right, once nobody waits any more, what could not be renamed within the switch."""

    # Rows -------------------------------------------------------------------------------------------------------

    def insert_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> None:
        """Inserts rows in the caller's transaction; a key that is there already is the database's error."""
        marks = ", ".join([self._mark] * len(kind.columns))
        statement = f"INSERT INTO {self.qualified(schema, table)} ({self._list(kind.columns)}) VALUES ({marks})"
        self._many(connection, statement, bound(kind, rows, self.binds))

    def load_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        """Inserts many rows the fastest way that this database has, in the caller's transaction."""
        self.insert_rows(connection, schema, table, kind, rows)

    def update_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> None:
        """Sets the columns of rows that exist, found by their key."""
        changed = [name for name in kind.columns if name not in kind.key]
        if not changed:
            return
        order = [kind.columns.index(name) for name in (*changed, *kind.key)]
        sets = ", ".join(f"{self.quote(name)} = {self._mark}" for name in changed)
        statement = f"UPDATE {self.qualified(schema, table)} SET {sets} WHERE {self._key_match(kind)}"
        self._many(connection, statement, [tuple(row[at] for at in order) for row in bound(kind, rows, self.binds)])

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> None:
        """As :meth:`update_rows`, the fastest way that this database has."""
        self.update_rows(connection, schema, table, kind, rows)

    def delete_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, keys: Sequence[Key]) -> None:
        """Deletes rows by their key."""
        self._many(connection, f"DELETE FROM {self.qualified(schema, table)} WHERE {self._key_match(kind)}", keys)

    def select_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, keys: Iterable[Key], *, lock: bool = False
    ) -> Iterator[Values]:
        """The rows that exist among these keys; ``lock``: against other writers until the transaction ends."""
        left = f"({self._list(kind.key)})" if len(kind.key) > 1 else self.quote(kind.key[0])
        mark = "(" + ", ".join([self._mark] * len(kind.key)) + ")" if len(kind.key) > 1 else self._mark
        yield from self._select(connection, schema, table, kind, left, mark, list(keys), lock)

    def select_where(
        self,
        connection: sa.Connection,
        schema: str | None,
        table: str,
        kind: RowType,
        column: str,
        values: Iterable[Any],
        *,
        lock: bool = False,
    ) -> Iterator[Values]:
        """The rows whose column has one of these values."""
        yield from self._select(
            connection, schema, table, kind, self.quote(column), self._mark, [(value,) for value in values], lock
        )

    def insert_if_absent(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, row: Values) -> None:
        """Inserts one row unless its key is there; waits for a concurrent writer of that key."""
        marks = ", ".join([self._mark] * len(kind.columns))
        values = bound(kind, [row], self.binds)[0]
        into = f"INTO {self.qualified(schema, table)} ({self._list(kind.columns)}) VALUES ({marks})"
        self._execute(connection, self._absent_insert(into, kind), *values)

    def _absent_insert(self, into: str, kind: RowType) -> str:
        return f"INSERT {into} ON CONFLICT ({self._list(kind.key)}) DO NOTHING"

    row_lock: ClassVar[str] = " FOR UPDATE"

    def _select(
        self,
        connection: sa.Connection,
        schema: str | None,
        table: str,
        kind: RowType,
        left: str,
        mark: str,
        wanted: list[tuple[Any, ...]],
        lock: bool,
    ) -> Iterator[Values]:
        head = f"SELECT {self._list(kind.columns)} FROM {self.qualified(schema, table)} WHERE {left} IN "
        for start in range(0, len(wanted), KEYS_PER_STATEMENT):
            some = wanted[start : start + KEYS_PER_STATEMENT]
            statement = head + self._values_list(mark, len(some)) + (self.row_lock if lock else "")
            flat = [value for each in some for value in each]
            yield from loaded(kind, [tuple(row) for row in self._execute(connection, statement, *flat)])

    def _values_list(self, mark: str, count: int) -> str:
        return "(" + ", ".join([mark] * count) + ")"

    def _key_match(self, kind: RowType) -> str:
        return " AND ".join(f"{self.quote(name)} = {self._mark}" for name in kind.key)

    def _many(self, connection: sa.Connection, statement: str, rows: Sequence[Values]) -> None:
        if rows:
            connection.exec_driver_sql(statement, list(rows))

    # Comparing --------------------------------------------------------------------------------------------------

    @abstractmethod
    def differs(self, left: str, right: str) -> str:
        """A condition: two columns differ, NULL being equal to NULL."""

    # The event store --------------------------------------------------------------------------------------------

    @abstractmethod
    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> int:
        """The highest position below which nothing can commit any more; 0 for an empty store.

        :raises SettleTimeout: appends in flight did not end within ``patience``
        """

    @abstractmethod
    def fence(self, schema: str | None, table: str, timeout: timedelta) -> AbstractContextManager[None]:
        """Holds appends back as long as the context lasts; within it every append is visible or has not begun."""

    def newest_position(self, connection: sa.Connection, schema: str | None, table: str, position_column: str) -> int:
        """The highest position that is visible now."""
        statement = f"SELECT max({self.quote(position_column)}) FROM {self.qualified(schema, table)}"
        return int(self._execute(connection, statement).scalar() or 0)
