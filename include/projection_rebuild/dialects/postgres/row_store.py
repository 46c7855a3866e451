"""Writes and reads rows on PostgreSQL: COPY for many rows, and arrays for lookups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from projection_rebuild.dialects.base import KEYS_PER_STATEMENT, RowStore
from projection_rebuild.dialects.postgres.base import PostgresBase
from projection_rebuild.rows.bulk import FORMATS, as_text, slices
from projection_rebuild.rows.types import Key, RowType, Values
from projection_rebuild.rows.values import PORTABLE_BINDS, bound, loaded

FEW_ROWS = 20
"""Up to this number, one statement per row is cheaper than a temporary table."""

_FORMATS = {**FORMATS, bool: lambda value: "t" if value else "f"}


class PostgresRowStore(PostgresBase, RowStore):
    """See :class:`RowStore`."""

    # COPY ignores an offset if the column has none; a bound value must be in the session's zone, which is UTC. A float goes as text in
    # its shortest form: the server's cast from float to numeric drops two digits, and COPY does not.
    binds = PORTABLE_BINDS | {
        float: lambda value: repr(value).removesuffix(".0"),
        datetime: lambda value: value.astimezone(UTC) if value.tzinfo else value,
    }

    def given(self, value: Any) -> Any:
        # As text, which the server reads by the column's type; a text column would refuse a number.
        if isinstance(value, datetime):
            return (value.astimezone(UTC) if value.tzinfo else value).isoformat(sep=" ")
        if isinstance(value, (bool, int, float, Decimal, date, UUID)):
            return str(value)
        return super().given(value)

    def load_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        self._copy(connection, self.qualified(schema, table), kind, rows)

    def check_deferred(self, connection: sa.Connection) -> None:
        self._execute(connection, "SET CONSTRAINTS ALL IMMEDIATE")

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        changed = [name for name in kind.columns if name not in kind.key]
        if len(rows) <= FEW_ROWS or not changed:
            return self.update_rows(connection, schema, table, kind, rows)
        target = self.qualified(schema, table)
        self._execute(connection, "DROP TABLE IF EXISTS pg_temp.projection_rebuild_update")
        self._execute(
            connection,
            "CREATE TEMPORARY TABLE projection_rebuild_update ON COMMIT DROP AS "
            f"SELECT {self._list(kind.columns)} FROM {target} WITH NO DATA",
        )
        self._copy(connection, "pg_temp.projection_rebuild_update", kind, rows)
        sets = ", ".join(f"{self.quote(name)} = n.{self.quote(name)}" for name in changed)
        match = " AND ".join(f"t.{self.quote(name)} = n.{self.quote(name)}" for name in kind.key)
        return self._execute(
            connection, f"UPDATE {target} t SET {sets} FROM pg_temp.projection_rebuild_update n WHERE {match}"
        ).rowcount

    def _copy(self, connection: sa.Connection, target: str, kind: RowType, rows: Sequence[Values]) -> None:
        if not rows:
            return
        statement = f"COPY {target} ({self._list(kind.columns)}) FROM STDIN"
        driver: Any = connection.connection.driver_connection
        for batch in slices(bound(kind, rows, self.binds)):
            text = as_text(batch, _FORMATS)
            with driver.cursor() as cursor, cursor.copy(statement) as copy:
                if text is not None:
                    copy.write(text)
                    continue
                # Only the driver can write some of these types.
                for row in batch:
                    copy.write_row(row)

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
        types = {} if lock or len(wanted) <= FEW_ROWS else self._array_types(connection, schema, table)
        if not types.keys() >= {*columns}:
            yield from super()._select(connection, schema, table, kind, columns, wanted, lock)
            return
        # Planning a list of hundreds of pairs takes as long as executing it; an array avoids that.
        arrays = ", ".join(f"%s::{types[name]}" for name in columns)
        match = " AND ".join(f"t.{self.quote(name)} = k.k{at}" for at, name in enumerate(columns))
        listed = ", ".join(f"t.{self.quote(name)}" for name in kind.columns)
        names = ", ".join(f"k{at}" for at in range(len(columns)))
        statement = f"SELECT {listed} FROM unnest({arrays}) AS k({names}) JOIN {self.qualified(schema, table)} t ON {match}"
        for start in range(0, len(wanted), KEYS_PER_STATEMENT):
            arrays_of_keys = [list(values) for values in zip(*wanted[start : start + KEYS_PER_STATEMENT], strict=True)]
            yield from loaded(kind, [tuple(row) for row in self._execute(connection, statement, *arrays_of_keys)])

    def _array_types(self, connection: sa.Connection, schema: str | None, table: str) -> Mapping[str, str]:
        """The array types of a table's columns, without length: with one, the server would cut a longer key and find a row by it."""
        query = """SELECT a.attname, pg_catalog.format_type(a.atttypid, -1) || '[]' FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"""
        columns = self._execute(connection, query, self.qualified(schema, table))
        return {name: str(kind) for name, kind in columns}
