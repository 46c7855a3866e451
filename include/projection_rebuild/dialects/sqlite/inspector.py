"""Reads the properties of tables on SQLite, and the traffic on them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from functools import partial

import sqlalchemy as sa

from projection_rebuild.dialects.base import Inspector, TrafficProbe
from projection_rebuild.dialects.sqlite import create_table as text
from projection_rebuild.dialects.sqlite import preflight
from projection_rebuild.dialects.sqlite.base import SqliteBase
from projection_rebuild.dialects.sqlite.cutover import folded
from projection_rebuild.model.column_kinds import ColumnKind, ColumnType
from projection_rebuild.rows.shapes import Holds, Shape

_VALUES = {"integer": ColumnKind.WHOLE, "real": ColumnKind.NUMBER, "text": ColumnKind.TEXT, "blob": ColumnKind.BYTES}
"""The kinds of values, by the result of ``typeof``."""

_ROOTS = "SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"


class SqliteInspector(SqliteBase, Inspector, TrafficProbe):
    """See :class:`Inspector` and :class:`TrafficProbe`."""

    has_schemas = False
    fixes_types = False

    def relation_kind(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        query = "SELECT type, sql FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE"
        relation = self._execute(connection, query, table).one_or_none()
        if relation is None or relation.type == "view":
            return None if relation is None else "view"
        return "virtual table" if text.table_name(relation.sql) is None else "table"

    def column_types(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, ColumnType]:
        # SQLite's catalogs do not show a column's collation, so the engine relies on none.
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})").all()
        return {
            column.name: ColumnType(column.type or "no type", _kind(column.type), False, not column.notnull) for column in columns
        }

    def value_kinds(self, connection: sa.Connection, table: str, column: str) -> set[ColumnKind] | None:
        query = f"SELECT DISTINCT typeof({self.quote(column)}) FROM {self.quote(table)}"
        return {_VALUES[name] for name in self._execute(connection, query).scalars() if name != "null"}

    def unique_keys(
        self, connection: sa.Connection, schema: str | None, table: str, *, among_some: bool = False
    ) -> list[set[str]]:
        # Not by SQLAlchemy's reflection, which warns of every index over an expression.
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})")
        keys: list[set[str | None]] = [{column.name for column in columns if column.pk}]
        for index in self._execute(connection, f"PRAGMA index_list({self.quote(table)})").all():
            if index.unique and (among_some or not index.partial):
                parts = self._execute(connection, f"PRAGMA index_info({self.quote(index.name)})")
                keys.append({part.name for part in parts})
        return [{name for name in names if name is not None} for names in keys if None not in names]

    def shapes(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, Shape]:
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})").all()
        unique = preflight.unique_collations(partial(self._execute, connection), self.quote, table)
        alike = {column: f"collation {collation}" for column, collation in unique if collation != "BINARY"}
        return {
            column.name: Shape(_holds(column.type), nullable=not column.notnull, alike=alike.get(column.name))
            for column in columns
        }

    def outline(self, connection: sa.Connection, schema: str | None, table: str) -> Hashable:
        # SQLite's results have no types; schema_version changes with every definition.
        return self._execute(connection, "PRAGMA schema_version").scalar()

    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return self.row_count(connection, schema, table)

    def table_bytes(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return preflight.size(partial(self._execute, connection), table)

    identity_lost_by = "VACUUM"
    identity_untold = "with auto_vacuum SQLite does not show"

    def identities(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> dict[str, str | None]:
        # Without the definition, which the swap compares anyway; and in one query, as writers may be waiting.
        if self._execute(connection, "PRAGMA auto_vacuum").scalar_one():
            return dict.fromkeys(tables)
        pages = {folded(name): page for name, page in self._execute(connection, _ROOTS)}
        return {table: None if (page := pages.get(folded(table))) is None else str(page) for table in tables}

    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        # A rename keeps the root page, but SQLite may give the page to a later table; so the identity has the definition too.
        # VACUUM may move the page, and then the engine refuses a drop, but never drops the wrong table. With auto_vacuum each
        # drop of a table may move the root page of another one, so the identity is the definition alone.
        query = "SELECT rootpage, sql FROM sqlite_master WHERE type = 'table' AND name = ?"
        row = self._execute(connection, query, table).one_or_none()
        moves = self._execute(connection, "PRAGMA auto_vacuum").scalar_one()
        return None if row is None else f"{'' if moves else row[0]}:{hashlib.sha256(text.body(row[1]).encode()).hexdigest()[:16]}"

    def active_sessions(self, connection: sa.Connection) -> int | None:
        return None


def _kind(declared: str) -> ColumnKind:
    """The kind of a column's values, by the words of its declaration; SQLite itself enforces little of it."""
    name = declared.upper()
    for words, kind in (
        (("INT",), ColumnKind.WHOLE),
        (("CHAR", "CLOB", "TEXT", "UUID"), ColumnKind.TEXT),
        (("BLOB", "BINARY", "BYTEA"), ColumnKind.BYTES),
        (("JSON",), ColumnKind.JSON),
        (("DATE", "TIME"), ColumnKind.TIME),
        (("REAL", "FLOA", "DOUB", "NUM", "DEC"), ColumnKind.NUMBER),
    ):
        if any(word in name for word in words):
            return kind
    return ColumnKind.OTHER


def _holds(declared: str) -> Holds:
    """How a column stores values, by its affinity: the first of these words in its declaration decides."""
    name = declared.upper()
    for words, holds in (
        (("INT",), Holds.LOOSE),
        (("CHAR", "CLOB", "TEXT"), Holds.KEPT_TEXT),
        (("BLOB",), Holds.OTHER),
        (("REAL", "FLOA", "DOUB"), Holds.LOOSE_REAL),
    ):
        if any(word in name for word in words):
            return holds
    return Holds.LOOSE if name else Holds.OTHER
