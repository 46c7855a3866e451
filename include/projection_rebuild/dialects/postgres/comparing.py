"""Compares columns and texts as PostgreSQL stores them."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from projection_rebuild.dialects.base import Comparing
from projection_rebuild.dialects.postgres.row_store import PostgresRowStore
from projection_rebuild.model.column_kinds import ColumnKind


class PostgresComparing(PostgresRowStore, Comparing):
    """See :class:`Comparing`."""

    def differs(self, left: str, right: str) -> str:
        # As text: json and some other types have no equality operator.
        return f"{left}::text IS DISTINCT FROM {right}::text"

    def same(self, left: str, right: str) -> str:
        return f"{left}::text = {right}::text"

    def exact_bytes(self, quoted: str, kind: ColumnKind) -> str:
        return quoted if kind is ColumnKind.BYTES else f"pg_catalog.convert_to({quoted}::text, 'UTF8')"

    def as_stored(self, quoted: str, kind: ColumnKind) -> str:
        return f"{quoted}::text" if kind in (ColumnKind.JSON, ColumnKind.TIME) else quoted

    def temporary(self, schema: str | None, name: str) -> str:
        return f"pg_temp.{self.quote(name)}"

    def make_temporary(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], name: str
    ) -> list[str]:
        temporary, like = self.temporary(schema, name), self.qualified(schema, table)
        return [
            f"CREATE TEMPORARY TABLE {self.quote(name)} AS SELECT 0::bigint AS projection_rebuild_row, {self._list(columns)} FROM {like} WITH NO DATA",
            f"CREATE UNIQUE INDEX ON {temporary} (projection_rebuild_row)",
        ]

    def plain_field(self, quoted: str, kind: ColumnKind, field: str) -> str:
        text = f"pg_catalog.convert_from({quoted}, 'UTF8')::json" if kind is ColumnKind.BYTES else f"{quoted}::json"
        name = field.replace("'", "''")
        return f"({quoted if kind is ColumnKind.JSON else text} ->> '{name}')"
