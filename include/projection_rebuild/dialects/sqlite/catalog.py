"""What the schema of SQLite says of tables, their indexes and their foreign keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.sqlite.base import SqliteBase
from projection_rebuild.dialects.sqlite.cutover import Schema, Stored, gone, of_definition
from projection_rebuild.model.names import TableSet


class SqliteCatalog(SqliteBase):
    """Reads ``sqlite_master``, for the subjects that make or compare tables."""

    def _find(self, connection: sa.Connection, table: str) -> Stored | None:
        # SQLite takes Orders and orders for the same name; which one it is stands here.
        query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
        found = self._execute(connection, query, table).one_or_none()
        return None if found is None else Stored(*found)

    def _table(self, connection: sa.Connection, table: str) -> Stored:
        found = self._find(connection, table)
        if found is None:
            raise gone(table)
        return found

    def _stored(self, connection: sa.Connection, kind: str, table: str) -> list[Stored]:
        query = """SELECT type, name, tbl_name, sql FROM sqlite_master
                   WHERE type = ? AND tbl_name = ? COLLATE NOCASE AND sql IS NOT NULL ORDER BY rowid"""
        return [Stored(*found) for found in self._execute(connection, query, kind, table)]

    def _indexes(self, connection: sa.Connection, table: str) -> list[Stored]:
        """The indexes that were made by a statement of their own; a table's keys have others, which follow its name."""
        return self._stored(connection, "index", table)

    def _wanted(self, connection: sa.Connection, table: TableSet) -> tuple[Stored, list[Stored]]:
        """The table that green is to be, and its indexes, under live names: those of its target schema, or blue's."""
        if table.target_schema is None:
            return self._table(connection, table.blue), self._indexes(connection, table.blue)
        return of_definition(table.blue, table.target_schema.definition)

    def _foreign_keys(self, connection: sa.Connection, table: str) -> list[tuple[str, list[tuple[str, str]]]]:
        """Parent and pairs of columns, the table's own first."""
        return self._pairs(connection, table, connection, partial(self._find, connection))

    def _target_keys(self, connection: sa.Connection, table: TableSet) -> list[tuple[str, list[tuple[str, str]]]]:
        """As :meth:`_foreign_keys`, of a table that is not live yet; its parents are."""
        wanted, _ = self._wanted(connection, table)
        memory = sa.create_engine("sqlite://")
        with memory.connect() as apart:
            self._execute(apart, wanted.sql)
            found = self._pairs(apart, table.blue, connection, partial(self._find, connection))
        memory.dispose()
        return found

    def _pairs(
        self, connection: sa.Connection, table: str, parents: sa.Connection, find: Callable[[str], Stored | None]
    ) -> list[tuple[str, list[tuple[str, str]]]]:
        """:param find: finds a parent, among ``parents``"""
        keys: dict[int, list[Any]] = {}
        for key in self._execute(connection, f"PRAGMA foreign_key_list({self.quote(table)})"):
            keys.setdefault(key[0], []).append(key)
        found = []
        for parts in keys.values():
            parent = find(parts[0][2])
            if parent is not None:
                # A key that names no columns points to the parent's primary key.
                implied = [] if parts[0][4] else sa.inspect(parents).get_pk_constraint(parent.name)["constrained_columns"]
                if not parts[0][4] and len(implied) != len(parts):
                    # Nobody can follow it, SQLite included; the plan refuses it where it is a read model's.
                    continue
                found.append((parent.name, [(each[3], each[4] or implied[at]) for at, each in enumerate(parts)]))
        return found

    def _lost(self, connection: sa.Connection, child: str, parent: str, pairs: list[tuple[str, str]], unless: str = "") -> int:
        """Rows of a child that have no parent; not those that have none in the table ``unless`` either."""
        match = " AND ".join(f"p.{self.quote(to)} = c.{self.quote(own)}" for own, to in pairs)
        given = " AND ".join(f"c.{self.quote(own)} IS NOT NULL" for own, _ in pairs)
        query = (
            f"SELECT count(*) FROM {self.quote(child)} c WHERE {given} AND NOT EXISTS "
            f"(SELECT 1 FROM {self.quote(parent)} p WHERE {match})"
        )
        if unless:
            query += f" AND EXISTS (SELECT 1 FROM {self.quote(unless)} p WHERE {match})"
        return int(self._execute(connection, query).scalar_one())

    def _statistics(self, connection: sa.Connection) -> list[str]:
        return Schema.of(connection).statistics()
