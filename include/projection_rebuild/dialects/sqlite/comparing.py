"""Comparing columns and texts as SQLite stores them."""

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
        # A file in UTF-16 hands its bytes over in that.
        return f"CAST({quoted} AS BLOB)" if self._writes_utf8 else f"CAST({quoted} AS TEXT) COLLATE BINARY"

    def as_stored(self, quoted: str, kind: ColumnKind) -> str:
        # Of a text that is no UTF-8 the driver makes an error that quotes it.
        return f"CAST({quoted} AS BLOB)" if kind in (ColumnKind.TEXT, ColumnKind.JSON) and self._writes_utf8 else quoted

    def plain_field(self, quoted: str, kind: ColumnKind, field: str) -> str:
        name = field.replace("'", "''")
        # By its path the first one would be found.
        return (
            f"(SELECT CAST(value AS TEXT) FROM json_each(CAST({quoted} AS TEXT)) WHERE key = '{name}' ORDER BY id DESC LIMIT 1)"
        )

    def temporary(self, schema: str | None, name: str) -> str:
        return f"temp.{self.quote(name)}"

    def make_temporary(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], name: str
    ) -> list[str]:
        declared = {each.name: each.type for each in self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})")}
        collations = self._collations(connection, table)
        body = [
            " ".join([self.quote(each), declared.get(each) or "", f"COLLATE {collations[each]}" if each in collations else ""])
            for each in columns
        ]
        return [f"CREATE TABLE {self.temporary(schema, name)} (projection_rebuild_row INTEGER PRIMARY KEY, {', '.join(body)})"]

    def _collations(self, connection: sa.Connection, table: str) -> dict[str, str]:
        """Of the columns that an index tells it of; those of the others stand in no catalog."""
        indexes = [each.name for each in self._execute(connection, f"PRAGMA index_list({self.quote(table)})")]
        columns = [each for name in indexes for each in self._execute(connection, f"PRAGMA index_xinfo({self.quote(name)})")]
        return {each.name: self.quote(each.coll) for each in columns if each.name is not None and each.key}
