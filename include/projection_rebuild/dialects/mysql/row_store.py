"""Writes, reads and copies rows on MySQL and MariaDB."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from tempfile import NamedTemporaryFile
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import Comparing, KeyList, PartialCopy
from projection_rebuild.dialects.mysql.base import SYNTAX_ERROR, MySQLBase, number_of
from projection_rebuild.dialects.mysql.inspector import FILES_REFUSED
from projection_rebuild.model.column_kinds import ColumnKind
from projection_rebuild.model.names import TableSet
from projection_rebuild.rows.bulk import FORMATS, as_text, slices
from projection_rebuild.rows.types import RowType, Values
from projection_rebuild.rows.values import PORTABLE_BINDS, bound, plain_type

_AS_IT_STANDS = (
    "SET @projection_rebuild_mode = @@SESSION.sql_mode, SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
    "SET SESSION sql_mode = @projection_rebuild_mode",
)
"""Before and after a statement that copies rows into a table like their own."""

MANY_ROWS = 200
"""The number of rows from which on a file is faster than INSERT."""

MANY_UPDATES = 20
"""The number of rows from which on the engine looks for a faster way to update them."""

LONGEST_MESSAGE = 64 * 1024
"""The most bytes in a message of several statements, as the driver's limit for inserts; a single one may be longer."""

_FORMATS = {**FORMATS, bool: lambda value: "1" if value else "0"}


class MySQLRowStore(MySQLBase, Comparing, PartialCopy):
    """See :class:`RowStore`, :class:`Comparing` and :class:`PartialCopy`."""

    reads_offsets = False

    # The driver would drop an offset. Columns have none, and the engine's sessions are in UTC.
    binds = PORTABLE_BINDS | {
        datetime: lambda value: value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value,
        # The driver would write NaN like the name of a column; as a text it is a value that the column refuses.
        Decimal: lambda value: value if value.is_finite() else str(value),
    }

    def load_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        # A BIT column would take the digit 1 of a file for a character.
        by_file = len(rows) >= MANY_ROWS and self._takes_files and not self._definition(connection, schema, table).has_bits
        for batch in slices(bound(kind, rows, self.binds)):
            lines = as_text(batch, _FORMATS) if by_file and len(batch) >= MANY_ROWS and self._takes_files else None
            if lines is None or not self._load_text(connection, self.qualified(schema, table), kind, lines, len(batch)):
                self._insert(connection, schema, table, kind, batch)

    def _load_text(self, connection: sa.Connection, target: str, kind: RowType, lines: str, count: int) -> bool:
        """Writes rows by LOAD DATA, in the caller's transaction.

        :param lines: the rows as the text of a file
        :param count: the number of rows
        :returns: whether all rows are in the table; False: none of them is
        """
        self._execute(connection, "SAVEPOINT projection_rebuild_load")
        with NamedTemporaryFile(prefix="projection_rebuild_") as file:
            file.write(lines.encode())
            file.flush()
            path = file.name.replace("\\", "/").replace("'", "''")
            try:
                loaded = self._execute(
                    connection,
                    # Hexadecimal literals mean the same in any sql_mode.
                    f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {target} CHARACTER SET utf8mb4 "
                    f"FIELDS TERMINATED BY 0x09 ESCAPED BY 0x5C LINES TERMINATED BY 0x0A ({self._list(kind.columns)})",
                ).rowcount
            except sa.exc.DBAPIError as error:
                if number_of(error) not in FILES_REFUSED:
                    raise
                self._takes_files, loaded = False, 0
        # In a client's file the server accepts what it refuses elsewhere: it skips rows and cuts values with a warning.
        if loaded == count and not self._execute(connection, "SELECT @@warning_count").scalar_one():
            return True
        self._execute(connection, "ROLLBACK TO SAVEPOINT projection_rebuild_load")
        return False

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        changed = [name for name in kind.columns if name not in kind.key]
        if not changed:
            return len(rows)
        if len(rows) < MANY_UPDATES or not self._has_one_key(connection, schema, table):
            return self._update_in_one_go(connection, schema, table, kind, rows)
        # The driver sends one statement for many rows only for INSERT. Each row exists, so each INSERT is an update.
        marks = ", ".join([self._mark] * len(kind.columns))
        into = f"INSERT INTO {self.qualified(schema, table)} ({self._list(kind.columns)}) VALUES ({marks})"
        sets = ", ".join(f"{self.quote(name)} = VALUES({self.quote(name)})" for name in changed)
        # The driver does not format the part of an INSERT after its values.
        statement = f"{self._for_driver(into, len(kind.columns))} ON DUPLICATE KEY UPDATE {sets}"
        self._execute(connection, "SAVEPOINT projection_rebuild_update")
        # The server counts a changed row as two, and an inserted row as one.
        if connection.exec_driver_sql(statement, list(bound(kind, rows, self.binds))).rowcount == 2 * len(rows):
            return len(rows)
        self._execute(connection, "ROLLBACK TO SAVEPOINT projection_rebuild_update")
        return self._update_in_one_go(connection, schema, table, kind, rows)

    def _has_one_key(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        """Whether an INSERT can only collide with the row of its key, and uses up no AUTO_INCREMENT value."""
        definition = self._definition(connection, schema, table)
        keys = [clause for clause in definition.clauses if clause.startswith(("PRIMARY KEY", "UNIQUE KEY"))]
        return len(keys) == 1 and not definition.counts

    def _update_in_one_go(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        """As :meth:`update_rows`, with many statements in each message to the server."""
        if not self.takes_many:
            return self.update_rows(connection, schema, table, kind, rows)
        statement, values = self._update(schema, table, kind, rows)
        driver: Any = connection.connection.driver_connection
        head = self._for_driver(statement, len(kind.columns)).encode()
        statements, updated = [head % tuple(map(driver.literal, row)) for row in values], 0
        with closing(driver.cursor()) as cursor:
            for message in _messages(statements):
                try:
                    cursor.execute(message)
                    updated += cursor.rowcount
                    while cursor.nextset():
                        updated += cursor.rowcount
                except self.engine.dialect.loaded_dbapi.ProgrammingError as error:
                    if number_of(error) != SYNTAX_ERROR:
                        raise
                    # The connection, or a proxy, accepts only one statement per message, and has executed none.
                    self.takes_many = False
                    return self.update_rows(connection, schema, table, kind, rows)
        return updated

    def _read_list(self, kind: RowType) -> str:
        # The server shows six digits of a single-precision value, and holds more.
        floats = {name for name, annotated in kind.types.items() if plain_type(annotated) is float}
        return ", ".join(f"{self.quote(name)} + 0e0" if name in floats else self.quote(name) for name in kind.columns)

    def _absent_insert(self, into: str, kind: RowType) -> str:
        same = self.quote(kind.key[0])
        return f"INSERT {into} ON DUPLICATE KEY UPDATE {same} = {same}"

    def differs(self, left: str, right: str) -> str:
        return f"NOT ({left} <=> {right})"

    def exact_bytes(self, quoted: str, kind: ColumnKind) -> str:
        return quoted if kind is ColumnKind.BYTES else f"CAST(CONVERT({quoted} USING utf8mb4) AS BINARY)"

    def as_stored(self, quoted: str, kind: ColumnKind) -> str:
        return f"CAST({quoted} AS CHAR)" if kind is ColumnKind.TIME else quoted

    def plain_field(self, quoted: str, kind: ColumnKind, field: str) -> str:
        path = '$."' + field.replace("\\", "\\\\").replace('"', '\\"') + '"'
        literal = path.replace("\\", "\\\\").replace("'", "''")
        text = f"CONVERT({quoted} USING utf8mb4)" if kind is ColumnKind.BYTES else quoted
        return f"JSON_UNQUOTE({self._last_in_text(text, literal)})"

    @abstractmethod
    def _last_in_text(self, text: str, path: str) -> str:
        """The JSON value at a path, as a text of SQL; if an object has the key twice, the last one.

        :param text: the text of an SQL expression
        :param path: the content of an SQL string literal
        """

    def temporary(self, schema: str | None, name: str) -> str:
        return self.qualified(schema, name)

    def make_temporary(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], name: str
    ) -> list[str]:
        like = self.qualified(schema, table)
        return [
            f"CREATE TEMPORARY TABLE {self.temporary(schema, name)} (projection_rebuild_row BIGINT NOT NULL PRIMARY KEY) ENGINE=InnoDB AS "
            # Because of the outer join all columns may be NULL, so that a row may have a key alone.
            f"SELECT 0 AS projection_rebuild_row, {self._list(columns)} FROM (SELECT 1 AS projection_rebuild_one) o LEFT JOIN {like} t ON FALSE LIMIT 0"
        ]

    def drop_temporary(self, schema: str | None, name: str) -> str:
        return f"DROP TEMPORARY TABLE IF EXISTS {self.temporary(schema, name)}"

    def copy_others(self, connection: sa.Connection, table: TableSet, column: str, listed: KeyList) -> None:
        # Values in blue are right by definition, even an id of 0, or a date that today's mode would refuse. READ
        # COMMITTED makes this a consistent read, which locks no row of blue.
        self._execute(connection, _AS_IT_STANDS[0])
        try:
            super().copy_others(connection, table, column, listed)
        finally:
            self._execute(connection, _AS_IT_STANDS[1])

    def as_text(self, expression: str) -> str:
        return f"CONVERT({expression} USING utf8mb4) COLLATE utf8mb4_bin"

    def _stored_columns(self, connection: sa.Connection, table: TableSet) -> list[str]:
        query = """SELECT COLUMN_NAME FROM information_schema.COLUMNS
                   WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s AND COALESCE(GENERATION_EXPRESSION, '') = ''
                   ORDER BY ORDINAL_POSITION"""
        return [name for (name,) in self._execute(connection, query, table.schema, table.blue)]


def _messages(statements: Iterable[bytes]) -> Iterator[bytes]:
    """Joins statements into messages of up to :data:`LONGEST_MESSAGE` bytes; a longer statement is its own message."""
    message: list[bytes] = []
    size = 0
    for statement in statements:
        if message and size + len(statement) > LONGEST_MESSAGE:
            yield b";".join(message)
            message, size = [], 0
        message.append(statement)
        size += len(statement) + 1
    if message:
        yield b";".join(message)
