"""Looking at tables on SQLite, and at who uses them."""

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
"""What ``typeof`` says of a value."""

_ROOTS = "SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"


class SqliteInspector(SqliteBase, Inspector, TrafficProbe):
    """See :class:`Inspector` and :class:`TrafficProbe`."""

    has_schemas = False
    fixes_types = False

    def relation_kind(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        query = "SELECT type, sql FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE"
        found = self._execute(connection, query, table).one_or_none()
        if found is None or found.type == "view":
            return None if found is None else "view"
        return "virtual table" if text.table_name(found.sql) is None else "table"

    def column_types(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, ColumnType]:
        # A column's collation stands in no catalog, so none is relied on.
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})").all()
        return {each.name: ColumnType(each.type or "no type", _kind(each.type), False, not each.notnull) for each in columns}

    def value_kinds(self, connection: sa.Connection, table: str, column: str) -> set[ColumnKind] | None:
        query = f"SELECT DISTINCT typeof({self.quote(column)}) FROM {self.quote(table)}"
        return {_VALUES[name] for name in self._execute(connection, query).scalars() if name != "null"}

    def unique_keys(
        self, connection: sa.Connection, schema: str | None, table: str, *, among_some: bool = False
    ) -> list[set[str]]:
        # SQLAlchemy's reflection warns of every index over an expression.
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})")
        keys: list[set[str | None]] = [{each.name for each in columns if each.pk}]
        for index in self._execute(connection, f"PRAGMA index_list({self.quote(table)})").all():
            if index.unique and (among_some or not index.partial):
                parts = self._execute(connection, f"PRAGMA index_info({self.quote(index.name)})")
                keys.append({part.name for part in parts})
        return [{name for name in names if name is not None} for names in keys if None not in names]

    def shapes(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, Shape]:
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})").all()
        unique = preflight.unique_collations(partial(self._execute, connection), self.quote, table)
        alike = {column: f"collation {collation}" for column, collation in unique if collation != "BINARY"}
        return {each.name: Shape(_holds(each.type), nullable=not each.notnull, alike=alike.get(each.name)) for each in columns}

    def outline(self, connection: sa.Connection, schema: str | None, table: str) -> Hashable:
        # Its results tell no types; the schema's number changes with every definition.
        return self._execute(connection, "PRAGMA schema_version").scalar()

    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return self.row_count(connection, schema, table)

    def table_bytes(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return preflight.size(partial(self._execute, connection), table)

    identity_lost_by = "VACUUM"
    identity_untold = "with auto_vacuum it is not told"

    def identities(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> dict[str, str | None]:
        # Without the definition, which the switch compares by itself; and at once, as writers may be waiting.
        if self._execute(connection, "PRAGMA auto_vacuum").scalar_one():
            return dict.fromkeys(tables)
        pages = {folded(name): page for name, page in self._execute(connection, _ROOTS)}
        return {table: None if (page := pages.get(folded(table))) is None else str(page) for table in tables}

    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        # The root page stays through a rename, but a later table may be given it again; so the definition counts too.
        # VACUUM may move the page, and then a drop is refused, never wrong. With auto_vacuum each drop of a table moves that of another
        # one, and there the definition is all that counts.
        query = "SELECT rootpage, sql FROM sqlite_master WHERE type = 'table' AND name = ?"
        found = self._execute(connection, query, table).one_or_none()
        moves = self._execute(connection, "PRAGMA auto_vacuum").scalar_one()
        return (
            None
            if found is None
            else f"{'' if moves else found[0]}:{hashlib.sha256(text.body(found[1]).encode()).hexdigest()[:16]}"
        )

    def active_sessions(self, connection: sa.Connection) -> int | None:
        return None


def _kind(declared: str) -> ColumnKind:
    """What a column's values are meant to be, by the words of its declaration; SQLite itself binds them to little."""
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
    """What a column makes of values by its affinity, which words in its declaration decide, in this order."""
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
