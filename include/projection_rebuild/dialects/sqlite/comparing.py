"""Compares columns and texts as SQLite stores them."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from projection_rebuild.dialects.base import Comparing
from projection_rebuild.dialects.sqlite.row_store import SqliteRowStore
from projection_rebuild.model.column_kinds import ColumnKind


class SqliteComparing(SqliteRowStore, Comparing):
    """See :class:`Comparing`."""

    def differs(self, left: str, right: str) -> str:
        return f"{left} IS NOT {right}"

    def exact_bytes(self, quoted: str, kind: ColumnKind) -> str:
        # With a file in UTF-16, a BLOB would have the bytes of UTF-16.
        return f"CAST({quoted} AS BLOB)" if self._writes_utf8 else f"CAST({quoted} AS TEXT) COLLATE BINARY"

    def as_stored(self, quoted: str, kind: ColumnKind) -> str:
        # The driver raises an error for text that is no UTF-8, and quotes the text in it.
        return f"CAST({quoted} AS BLOB)" if kind in (ColumnKind.TEXT, ColumnKind.JSON) and self._writes_utf8 else quoted

    def plain_field(self, quoted: str, kind: ColumnKind, field: str) -> str:
        name = field.replace("'", "''")
        # A path would find the first of two fields of the same name; handlers get the last.
        return (
            f"(SELECT CAST(value AS TEXT) FROM json_each(CAST({quoted} AS TEXT)) WHERE key = '{name}' ORDER BY id DESC LIMIT 1)"
        )

    def temporary(self, schema: str | None, name: str) -> str:
        return f"temp.{self.quote(name)}"

    def make_temporary(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], name: str
    ) -> list[str]:
        declared = {column.name: column.type for column in self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})")}
        collations = self._collations(connection, table)
        body = [
            " ".join([self.quote(name), declared.get(name) or "", f"COLLATE {collations[name]}" if name in collations else ""])
            for name in columns
        ]
        return [f"CREATE TABLE {self.temporary(schema, name)} (projection_rebuild_row INTEGER PRIMARY KEY, {', '.join(body)})"]

    def _collations(self, connection: sa.Connection, table: str) -> dict[str, str]:
        """The collations of indexed columns, by column. SQLite's catalogs do not show those of other columns."""
        indexes = [index.name for index in self._execute(connection, f"PRAGMA index_list({self.quote(table)})")]
        columns = [column for name in indexes for column in self._execute(connection, f"PRAGMA index_xinfo({self.quote(name)})")]
        return {column.name: self.quote(column.coll) for column in columns if column.name is not None and column.key}
