"""Copies the rows outside the part of a partial rebuild, on SQLite."""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.dialects.base import PartialCopy
from projection_rebuild.dialects.sqlite.base import SqliteBase
from projection_rebuild.model.names import TableSet


class SqlitePartialCopy(SqliteBase, PartialCopy):
    """See :class:`PartialCopy`."""

    def as_text(self, expression: str) -> str:
        return f"CAST({expression} AS TEXT)"

    def _stored_columns(self, connection: sa.Connection, table: TableSet) -> list[str]:
        # A hidden value of 2 or 3 marks a generated column.
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(table.blue)})")
        return [column[1] for column in columns if column[6] == 0]
