"""Reads SQLite's schema: tables, their indexes and their foreign keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.sqlite.base import SqliteBase
from projection_rebuild.dialects.sqlite.cutover import Schema, Stored, gone, of_definition
from projection_rebuild.model.names import TableSet


class SqliteCatalog(SqliteBase):
    """Reads ``sqlite_master`` for the subjects that create or compare tables."""

    def _find(self, connection: sa.Connection, table: str) -> Stored | None:
        # SQLite treats Orders and orders as the same name; the row has the spelling of the definition.
        query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
        row = self._execute(connection, query, table).one_or_none()
        return None if row is None else Stored(*row)

    def _table(self, connection: sa.Connection, table: str) -> Stored:
        stored = self._find(connection, table)
        if stored is None:
            raise gone(table)
        return stored

    def _stored(self, connection: sa.Connection, kind: str, table: str) -> list[Stored]:
        query = """SELECT type, name, tbl_name, sql FROM sqlite_master
                   WHERE type = ? AND tbl_name = ? COLLATE NOCASE AND sql IS NOT NULL ORDER BY rowid"""
        return [Stored(*row) for row in self._execute(connection, query, kind, table)]

    def _indexes(self, connection: sa.Connection, table: str) -> list[Stored]:
        """The indexes that have a CREATE INDEX statement. Those of a table's keys have none, and follow the table's name."""
        return self._stored(connection, "index", table)

    def _wanted(self, connection: sa.Connection, table: TableSet) -> tuple[Stored, list[Stored]]:
        """The definition that green needs, and its indexes, under live names: from the target schema, or blue's."""
        if table.target_schema is None:
            return self._table(connection, table.blue), self._indexes(connection, table.blue)
        return of_definition(table.blue, table.target_schema.definition)

    def _foreign_keys(self, connection: sa.Connection, table: str) -> list[tuple[str, list[tuple[str, str]]]]:
        """The parent of each key, with its pairs of columns (own column, parent's column)."""
        return self._pairs(connection, table, connection, partial(self._find, connection))

    def _target_keys(self, connection: sa.Connection, table: TableSet) -> list[tuple[str, list[tuple[str, str]]]]:
        """As :meth:`_foreign_keys`, for a table of a target schema, which is not live yet; its parents are live."""
        wanted, _ = self._wanted(connection, table)
        memory = sa.create_engine("sqlite://")
        with memory.connect() as apart:
            self._execute(apart, wanted.sql)
            keys = self._pairs(apart, table.blue, connection, partial(self._find, connection))
        memory.dispose()
        return keys

    def _pairs(
        self, connection: sa.Connection, table: str, parents: sa.Connection, find: Callable[[str], Stored | None]
    ) -> list[tuple[str, list[tuple[str, str]]]]:
        """See :meth:`_foreign_keys`.

        :param connection: the database that has the child table
        :param parents: the database that has the parents
        :param find: finds a parent in ``parents`` by its name
        """
        parts_by_key: dict[int, list[Any]] = {}
        for key in self._execute(connection, f"PRAGMA foreign_key_list({self.quote(table)})"):
            parts_by_key.setdefault(key[0], []).append(key)
        parents_and_pairs = []
        for parts in parts_by_key.values():
            parent = find(parts[0][2])
            if parent is not None:
                # A key that names no parent columns refers to the parent's primary key.
                implied = [] if parts[0][4] else sa.inspect(parents).get_pk_constraint(parent.name)["constrained_columns"]
                if not parts[0][4] and len(implied) != len(parts):
                    # SQLite cannot follow this key either. The plan refuses it if a read model has it.
                    continue
                parents_and_pairs.append(
                    (parent.name, [(part[3], part[4] or implied[number]) for number, part in enumerate(parts)])
                )
        return parents_and_pairs

    def _lost(self, connection: sa.Connection, child: str, parent: str, pairs: list[tuple[str, str]], unless: str = "") -> int:
        """Counts the rows of a child without a parent in ``parent``.

        :param unless: another table; rows without a parent there either do not count
        """
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
