"""Writes, reads and compares rows by their keys."""

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
"""Keys in one IN list: far below every database's limit on bound values, and enough to make round trips cheap."""


class RowStore(Sessions):
    """Writes and reads rows of a table, in the caller's transaction."""

    rows_per_transaction: ClassVar[int | None] = None
    """The most rows that a replay writes in one transaction; None: no limit."""

    binds: ClassVar[dict[type, Convert]] = PORTABLE_BINDS
    reads_offsets: ClassVar[bool] = True
    """Whether a column of times accepts every text with an offset (``Z``, ``+02:00``)."""

    def given(self, value: Any) -> Any:
        """A value of a row as the driver takes it for a column of any type; the database converts it to that type."""
        convert = self.binds.get(type(value))
        return value if convert is None else convert(value)

    def insert_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> None:
        """Inserts rows in the caller's transaction.

        :raises sqlalchemy.exc.DBAPIError: a key exists already, or the database refuses a value
        """
        self._insert(connection, schema, table, kind, bound(kind, rows, self.binds))

    def _insert(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        """Inserts rows whose values are as the driver takes them."""
        marks = ", ".join([self._mark] * len(kind.columns))
        self._many(connection, f"INSERT INTO {self.qualified(schema, table)} ({self._list(kind.columns)}) VALUES ({marks})", rows)

    def load_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        """Inserts many rows in the fastest way that this database has, in the caller's transaction."""
        self.insert_rows(connection, schema, table, kind, rows)

    def update_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        """Sets the columns of existing rows, by their key.

        :returns: a lower bound of the number of rows that exist; all of them if the key has all columns
        """
        if set(kind.columns) > set(kind.key):
            return self._many(connection, *self._update(schema, table, kind, rows))
        return len(rows)

    def _update(self, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> tuple[str, list[Values]]:
        """The statement that updates one row, and its values for each row."""
        changed = [name for name in kind.columns if name not in kind.key]
        order = [kind.columns.index(name) for name in (*changed, *kind.key)]
        sets = ", ".join(f"{self.quote(name)} = {self._mark}" for name in changed)
        statement = f"UPDATE {self.qualified(schema, table)} SET {sets} WHERE {self._key_match(kind)}"
        return statement, [tuple(row[index] for index in order) for row in bound(kind, rows, self.binds)]

    def check_deferred(self, connection: sa.Connection) -> None:
        """Checks now the constraints that the database would otherwise check at the commit.

        The engine could not tell a failed check at the commit from a connection that was lost there.
        """

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        """As :meth:`update_rows`, in the fastest way that this database has."""
        return self.update_rows(connection, schema, table, kind, rows)

    def set_column(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, key: Key, column: str, value: Any
    ) -> None:
        """Sets one column of one row, found by its key."""
        rows = bound_keys(kind, [column, *kind.key], [(value, *key)], self.binds)
        statement = (
            f"UPDATE {self.qualified(schema, table)} SET {self.quote(column)} = {self._mark} WHERE {self._key_match(kind)}"
        )
        self._many(connection, statement, rows)

    def highest(self, connection: sa.Connection, schema: str | None, table: str, column: str) -> Any:
        """The highest value of a column, as the driver returns it; None: the table has none."""
        return self._execute(connection, f"SELECT max({self.quote(column)}) FROM {self.qualified(schema, table)}").scalar()

    def delete_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, keys: Sequence[Key]) -> int:
        """Deletes rows by their key.

        :returns: the number of deleted rows
        """
        statement = f"DELETE FROM {self.qualified(schema, table)} WHERE {self._key_match(kind)}"
        return self._many(connection, statement, bound_keys(kind, kind.key, keys, self.binds))

    def select_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, keys: Iterable[Key], *, lock: bool = False
    ) -> Iterator[Values]:
        """The existing rows that have these keys.

        :param lock: lock them against other writers until the transaction ends
        """
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
        """The rows whose column has one of these values; None stands for NULL.

        :param lock: lock them against other writers until the transaction ends
        """
        wanted_values = [*values]
        if None in wanted_values:
            # No value equals NULL, so an IN list cannot find it.
            nulls = f"SELECT {self._read_list(kind)} FROM {self.qualified(schema, table)} WHERE {self.quote(column)} IS NULL"
            rows = self._execute(connection, nulls + (self.row_lock if lock else ""))
            yield from loaded(kind, [tuple(row) for row in rows])
        wanted = bound_keys(kind, [column], [(value,) for value in wanted_values if value is not None], self.binds)
        yield from self._select(connection, schema, table, kind, [column], wanted, lock)

    def insert_if_absent(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, row: Values) -> None:
        """Inserts one row unless its key exists; waits for a concurrent writer of that key."""
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
            batch = wanted[start : start + KEYS_PER_STATEMENT]
            statement = head + self._values_list(mark, len(batch)) + (self.row_lock if lock else "")
            flat = [value for key in batch for value in key]
            yield from loaded(kind, [tuple(row) for row in self._execute(connection, statement, *flat)])

    def _read_list(self, kind: RowType) -> str:
        """The select list for a row, in the order of its columns."""
        return self._list(kind.columns)

    def _values_list(self, mark: str, count: int) -> str:
        return "(" + ", ".join([mark] * count) + ")"

    def _key_match(self, kind: RowType) -> str:
        return " AND ".join(f"{self.quote(name)} = {self._mark}" for name in kind.key)

    def _many(self, connection: sa.Connection, statement: str, rows: Sequence[Values]) -> int:
        """Executes a statement for each row; returns the number of affected rows, as far as the driver reports it."""
        return self.execute_many(connection, statement, rows).rowcount if rows else 0


class Comparing(RowStore):
    """Compares columns and texts as the database stores them, for verification and its sample."""

    @abstractmethod
    def differs(self, left: str, right: str) -> str:
        """A condition: two columns differ; NULL equals NULL."""

    def same(self, left: str, right: str) -> str:
        """A condition: two columns are equal; their types may differ."""
        return f"{left} = {right}"

    @abstractmethod
    def exact_bytes(self, quoted: str, kind: ColumnKind) -> str:
        """The bytes of a text in UTF-8, so that different texts differ, whatever their collation.

        Some databases return them as a text.
        """

    @abstractmethod
    def as_stored(self, quoted: str, kind: ColumnKind) -> str:
        """A column in a form that the driver does not convert: JSON and times as text, or as bytes of a text."""

    @abstractmethod
    def temporary(self, schema: str | None, name: str) -> str:
        """The quoted name of a temporary table, which only this connection sees.

        :param schema: the schema of the table that it resembles
        """

    @abstractmethod
    def make_temporary(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], name: str
    ) -> list[str]:
        """Statements that create an empty temporary table with some columns of a table, their types and collations.

        It has no constraint. Its first column, ``projection_rebuild_row``, is a whole number that identifies a row.
        """

    def drop_temporary(self, schema: str | None, name: str) -> str:
        """A statement that drops a temporary table, if it exists, and never a table that others see."""
        return f"DROP TABLE IF EXISTS {self.temporary(schema, name)}"

    @abstractmethod
    def plain_field(self, quoted: str, kind: ColumnKind, field: str) -> str:
        """A field of a JSON payload as text, by the shortest expression of this database.

        If the payload has the field twice, the last one counts. Some databases fail on a payload that is no JSON, or
        no text.
        """
