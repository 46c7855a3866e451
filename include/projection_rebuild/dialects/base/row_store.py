"""Rows: written, found and compared by their keys."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa

from projection_rebuild.dialects.base.sessions import Sessions
from projection_rebuild.model.column_kinds import ColumnKind
from projection_rebuild.rows.types import Key, RowType, Values
from projection_rebuild.rows.values import PORTABLE_BINDS, Convert, bound, bound_keys, loaded

KEYS_PER_STATEMENT = 500
"""Row keys in one IN list: far below every database's limit on bound values, and enough to make round trips cheap."""


class RowStore(Sessions):
    """Writes and reads rows of a table, in the caller's transaction."""

    rows_per_transaction: ClassVar[int | None] = None
    """How many rows a replay writes at once at most; None: as many as it likes."""

    binds: ClassVar[dict[type, Convert]] = PORTABLE_BINDS
    reads_offsets: ClassVar[bool] = True
    """Whether a column of times takes every text that tells an offset (``Z``, ``+02:00``)."""

    def given(self, value: Any) -> Any:
        """A value of a row as the driver takes it for a column of any type, which the database then makes its own of."""
        convert = self.binds.get(type(value))
        return value if convert is None else convert(value)

    def insert_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> None:
        """Inserts rows in the caller's transaction; a key that is there already is the database's error."""
        self._insert(connection, schema, table, kind, bound(kind, rows, self.binds))

    def _insert(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        """Rows as the driver takes them."""
        marks = ", ".join([self._mark] * len(kind.columns))
        self._many(connection, f"INSERT INTO {self.qualified(schema, table)} ({self._list(kind.columns)}) VALUES ({marks})", rows)

    def load_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        """Inserts many rows the fastest way that this database has, in the caller's transaction."""
        self.insert_rows(connection, schema, table, kind, rows)

    def update_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        """Sets the columns of rows that exist, found by their key.

        :returns: how many it has found, at least; all of them where there is nothing to set
        """
        if set(kind.columns) > set(kind.key):
            return self._many(connection, *self._update(schema, table, kind, rows))
        return len(rows)

    def _update(self, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> tuple[str, list[Values]]:
        """The statement, and its values for each row."""
        changed = [name for name in kind.columns if name not in kind.key]
        order = [kind.columns.index(name) for name in (*changed, *kind.key)]
        sets = ", ".join(f"{self.quote(name)} = {self._mark}" for name in changed)
        statement = f"UPDATE {self.qualified(schema, table)} SET {sets} WHERE {self._key_match(kind)}"
        return statement, [tuple(row[at] for at in order) for row in bound(kind, rows, self.binds)]

    def check_deferred(self, connection: sa.Connection) -> None:
        """Checks now what would otherwise be checked at the commit, whose error nobody could tell from a lost connection's."""

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        """As :meth:`update_rows`, the fastest way that this database has."""
        return self.update_rows(connection, schema, table, kind, rows)

    def set_column(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, key: Key, column: str, value: Any
    ) -> None:
        """Sets one column of one row, found by its key."""
        found = bound_keys(kind, [column, *kind.key], [(value, *key)], self.binds)
        statement = (
            f"UPDATE {self.qualified(schema, table)} SET {self.quote(column)} = {self._mark} WHERE {self._key_match(kind)}"
        )
        self._many(connection, statement, found)

    def highest(self, connection: sa.Connection, schema: str | None, table: str, column: str) -> Any:
        """The highest value of a column, as the driver gives it."""
        return self._execute(connection, f"SELECT max({self.quote(column)}) FROM {self.qualified(schema, table)}").scalar()

    def delete_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, keys: Sequence[Key]) -> int:
        """Deletes rows by their key.

        :returns: how many
        """
        statement = f"DELETE FROM {self.qualified(schema, table)} WHERE {self._key_match(kind)}"
        return self._many(connection, statement, bound_keys(kind, kind.key, keys, self.binds))

    def select_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, keys: Iterable[Key], *, lock: bool = False
    ) -> Iterator[Values]:
        """The rows that exist among these keys; ``lock``: against other writers until the transaction ends."""
        wanted = bound_keys(kind, kind.key, list(keys), self.binds)
        yield from self._select(connection, schema, table, kind, kind.key, wanted, lock)

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
        """The rows whose column has one of these values; None is NULL."""
        given = [*values]
        if None in given:
            # Nothing is equal to NULL, so that no list of values finds it.
            missing = f"SELECT {self._read_list(kind)} FROM {self.qualified(schema, table)} WHERE {self.quote(column)} IS NULL"
            found = self._execute(connection, missing + (self.row_lock if lock else ""))
            yield from loaded(kind, [tuple(row) for row in found])
        wanted = bound_keys(kind, [column], [(value,) for value in given if value is not None], self.binds)
        yield from self._select(connection, schema, table, kind, [column], wanted, lock)

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
        columns: Sequence[str],
        wanted: Sequence[Key],
        lock: bool,
    ) -> Iterator[Values]:
        """The rows in which these columns have one of the wanted values."""
        left = f"({self._list(columns)})" if len(columns) > 1 else self.quote(columns[0])
        mark = "(" + ", ".join([self._mark] * len(columns)) + ")" if len(columns) > 1 else self._mark
        head = f"SELECT {self._read_list(kind)} FROM {self.qualified(schema, table)} WHERE {left} IN "
        for start in range(0, len(wanted), KEYS_PER_STATEMENT):
            some = wanted[start : start + KEYS_PER_STATEMENT]
            statement = head + self._values_list(mark, len(some)) + (self.row_lock if lock else "")
            flat = [value for each in some for value in each]
            yield from loaded(kind, [tuple(row) for row in self._execute(connection, statement, *flat)])

    def _read_list(self, kind: RowType) -> str:
        """What is selected of a row, in the order of its columns."""
        return self._list(kind.columns)

    def _values_list(self, mark: str, count: int) -> str:
        return "(" + ", ".join([mark] * count) + ")"

    def _key_match(self, kind: RowType) -> str:
        return " AND ".join(f"{self.quote(name)} = {self._mark}" for name in kind.key)

    def _many(self, connection: sa.Connection, statement: str, rows: Sequence[Values]) -> int:
        """How many rows it has come to, as far as the driver tells."""
        return self.execute_many(connection, statement, rows).rowcount if rows else 0


class Comparing(RowStore):
    """Compares columns and texts as they are stored, for verification and for the second opinion."""

    @abstractmethod
    def differs(self, left: str, right: str) -> str:
        """A condition: two columns differ, NULL being equal to NULL."""

    def same(self, left: str, right: str) -> str:
        """A condition: two columns are equal, whose types may be different ones."""
        return f"{left} = {right}"

    @abstractmethod
    def exact_bytes(self, quoted: str, kind: ColumnKind) -> str:
        """The bytes of a text in UTF-8, so that no two texts are one, whatever their collation says. Some databases return them as a text."""

    @abstractmethod
    def as_stored(self, quoted: str, kind: ColumnKind) -> str:
        """A column in a form of which the driver makes nothing: JSON and times are text, or bytes that hold it."""

    @abstractmethod
    def temporary(self, schema: str | None, name: str) -> str:
        """The name of a table that only this connection sees, quoted.

        :param schema: that of the table which it is made like
        """

    @abstractmethod
    def make_temporary(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], name: str
    ) -> list[str]:
        """Statements that make an empty temporary table of some of a table's columns, each of its own type and collation.

        It has no constraint, and before these columns a whole number, ``projection_rebuild_row``, by which its rows are found.
        """

    def drop_temporary(self, schema: str | None, name: str) -> str:
        """A statement that drops such a table, if it is there, and nothing that others see."""
        return f"DROP TABLE IF EXISTS {self.temporary(schema, name)}"

    @abstractmethod
    def plain_field(self, quoted: str, kind: ColumnKind, field: str) -> str:
        """A field of a payload of JSON as text, in the shortest way that this database has; the last one, if the payload has it twice.

        Some databases fail on what is no JSON, or no text.
        """
