"""Copies the rows outside the part of a partial rebuild, on PostgreSQL."""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.dialects.base import KeyList, PartialCopy
from projection_rebuild.dialects.postgres.base import PostgresBase
from projection_rebuild.dialects.postgres.catalog import Catalog
from projection_rebuild.dialects.postgres.cutover import counted_on
from projection_rebuild.model.names import TableSet


class PostgresPartialCopy(PostgresBase, PartialCopy):
    """See :class:`PartialCopy`."""

    overriding = " OVERRIDING SYSTEM VALUE"

    def copy_others(self, connection: sa.Connection, table: TableSet, column: str, listed: KeyList) -> None:
        super().copy_others(connection, table, column, listed)
        # So that replayed rows get ids that no copied row has.
        with Catalog.of(connection) as catalog:
            blue = catalog.find(table.schema, table.blue)
            counting = [counted_on(sequence) for sequence in catalog.sequences(blue.oid) if sequence.identity] if blue else []
        for statement in counting:
            self._execute(connection, statement)

    def as_text(self, expression: str) -> str:
        return f"({expression})::text"

    def _stored_columns(self, connection: sa.Connection, table: TableSet) -> list[str]:
        query = """SELECT attname FROM pg_catalog.pg_attribute
                   WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"""
        return [name for (name,) in self._execute(connection, query, self._oid(connection, table.schema, table.blue))]
