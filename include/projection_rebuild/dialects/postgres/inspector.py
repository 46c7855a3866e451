"""Reads the properties of tables on PostgreSQL."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import Inspector, TableSize
from projection_rebuild.dialects.postgres.base import PostgresBase
from projection_rebuild.model.column_kinds import ColumnKind, ColumnType
from projection_rebuild.rows.shapes import Holds, Shape

_FIND_ALL = """SELECT c.oid, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = ANY(%s)"""

# For a domain, its base type.
_COLUMN_TYPES = """
SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, base.typname AS base, base.typtype AS typtype,
       coalesce(l.collisdeterministic, true) AND base.typname IN ('text', 'varchar') AS compares_bytes, NOT a.attnotnull AS nullable
  FROM pg_catalog.pg_attribute a
  CROSS JOIN LATERAL (
       WITH RECURSIVE under(oid) AS (
            SELECT a.atttypid UNION SELECT t.typbasetype FROM pg_catalog.pg_type t JOIN under u ON t.oid = u.oid WHERE t.typtype = 'd')
       SELECT t.typname, t.typtype FROM pg_catalog.pg_type t JOIN under u ON t.oid = u.oid WHERE t.typtype <> 'd') base
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
 WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped"""

# For a domain, its base type, with the length that the lowest domain declares. The type citext compares like a nondeterministic
# collation.
_SHAPES = """
SELECT a.attname AS name, base.typname AS base, base.typtype AS typtype, base.typmod AS typmod, NOT a.attnotnull AS nullable,
       CASE WHEN base.typname = 'citext' THEN 'type citext' WHEN NOT l.collisdeterministic THEN 'collation ' || l.collname END AS alike
  FROM pg_catalog.pg_attribute a
  CROSS JOIN LATERAL (
       WITH RECURSIVE under(oid, typmod) AS (
            SELECT a.atttypid, a.atttypmod
            UNION SELECT t.typbasetype, t.typtypmod FROM pg_catalog.pg_type t JOIN under u ON t.oid = u.oid WHERE t.typtype = 'd')
       SELECT t.typname, t.typtype, u.typmod FROM under u JOIN pg_catalog.pg_type t ON t.oid = u.oid WHERE t.typtype <> 'd') base
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
 WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"""

_SIZE = """SELECT coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)), 0) FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s"""

_HOLDS = {
    **dict.fromkeys(("int2", "int4", "int8"), Holds.WHOLE),
    **dict.fromkeys(("text", "varchar", "name", "citext"), Holds.TEXT),
    "bpchar": Holds.PADDED,
    "numeric": Holds.DECIMAL,
    "float4": Holds.SINGLE,
    "float8": Holds.DOUBLE,
    "date": Holds.DATE,
    "timestamp": Holds.MOMENT,
    "timestamptz": Holds.ZONED,
    "uuid": Holds.UUID,
    "bytea": Holds.BYTES,
    "json": Holds.JSON,
    "jsonb": Holds.SORTED_JSON,
}

_KINDS = {
    **dict.fromkeys(("int2", "int4", "int8"), ColumnKind.WHOLE),
    **dict.fromkeys(("numeric", "float4", "float8", "money"), ColumnKind.NUMBER),
    **dict.fromkeys(("text", "varchar", "name", "citext"), ColumnKind.TEXT),
    # The server ignores trailing blanks in comparisons, but returns them.
    "bpchar": ColumnKind.PADDED,
    **dict.fromkeys(("timestamp", "timestamptz", "date"), ColumnKind.TIME),
    **dict.fromkeys(("json", "jsonb"), ColumnKind.JSON),
    "uuid": ColumnKind.UUID,
    "bytea": ColumnKind.BYTES,
}

_RELATIONS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table", "S": "sequence"}


class PostgresInspector(PostgresBase, Inspector):
    """See :class:`Inspector`."""

    def default_schema(self, connection: sa.Connection) -> str | None:
        schema = self._execute(connection, "SELECT pg_catalog.current_schema()").scalar()
        return None if schema is None else str(schema)

    def relation_kind(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        query = "SELECT relkind FROM pg_catalog.pg_class WHERE oid = %s"
        kind = self._execute(connection, query, self._oid(connection, schema, table)).scalar()
        return None if kind is None else _RELATIONS.get(kind, "relation that holds no rows")

    def columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[str]:
        # Not by SQLAlchemy's reflection, which warns of each type that it does not know.
        query = (
            "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        return [name for (name,) in self._execute(connection, query, self._oid(connection, schema, table))]

    def column_types(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, ColumnType]:
        columns = self._execute(connection, _COLUMN_TYPES, self._oid(connection, schema, table))
        return {column.name: ColumnType(column.type, _kind(column), column.compares_bytes, column.nullable) for column in columns}

    def shapes(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, Shape]:
        columns = self._execute(connection, _SHAPES, self.qualified(schema, table))
        return {column.name: _shape(column) for column in columns}

    def outline(self, connection: sa.Connection, schema: str | None, table: str) -> Hashable:
        # The driver prepares frequent statements, and the server refuses a prepared SELECT * once the columns have changed.
        driver: Any = connection.connection.driver_connection
        threshold, driver.prepare_threshold = driver.prepare_threshold, None
        try:
            return super().outline(connection, schema, table)
        finally:
            driver.prepare_threshold = threshold

    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        estimate = self._execute(
            connection, "SELECT reltuples FROM pg_catalog.pg_class WHERE oid = %s", self._oid(connection, schema, table)
        ).scalar()
        # -1 means never analyzed: the table is small or new, so a count is cheap enough.
        return int(estimate) if estimate is not None and estimate >= 0 else self.row_count(connection, schema, table)

    def table_bytes(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return int(self._execute(connection, _SIZE, schema, table).scalar_one())

    def table_size(self, connection: sa.Connection, schema: str | None, table: str) -> TableSize | None:
        # The server counts rows as they are written. If those counts were reset, the estimate of ANALYZE remains.
        query = """SELECT coalesce(nullif(pg_catalog.pg_stat_get_live_tuples(c.oid), 0), greatest(c.reltuples, 0))::bigint,
                   pg_catalog.pg_total_relation_size(c.oid) FROM pg_catalog.pg_class c WHERE c.oid = %s"""
        size = self._execute(connection, query, self._oid(connection, schema, table)).one_or_none()
        return None if size is None else TableSize(int(size[0]), int(size[1]))

    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        oid = self._oid(connection, schema, table)
        return str(oid) if oid else None

    def identities(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> dict[str, str | None]:
        # One query, since writers may be waiting.
        oids = {name: str(oid) for oid, name in self._execute(connection, _FIND_ALL, schema, list(tables))}
        return {table: oids.get(table) for table in tables}


def _shape(column: Any) -> Shape:
    holds, typmod = _HOLDS.get(column.base, Holds.OTHER), column.typmod
    shape = Shape(holds, nullable=column.nullable, alike=column.alike, rounds_from=2000, drops_offsets=holds is Holds.MOMENT)
    if typmod < 0:
        return shape
    if holds is Holds.DECIMAL:
        # The scale is a signed number of eleven bits.
        scale = (((typmod - 4) & 0x7FF) ^ 1024) - 1024
        return replace(shape, precision=(typmod - 4) >> 16 & 0xFFFF, scale=scale)
    if holds in (Holds.MOMENT, Holds.ZONED):
        return replace(shape, digits=typmod)
    return replace(shape, length=typmod - 4) if holds in (Holds.TEXT, Holds.PADDED) else shape


def _kind(column: Any) -> ColumnKind:
    return ColumnKind.ENUM if column.typtype == "e" else _KINDS.get(column.base, ColumnKind.OTHER)
