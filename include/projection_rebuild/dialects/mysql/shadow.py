"""Creates green tables, and tables in a database of their own, on MySQL and MariaDB."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import sqlalchemy as sa

from projection_rebuild.dialects.base import SchemaTrial, Scratch, ShadowTables, TablesApart
from projection_rebuild.dialects.mysql import create_table as text
from projection_rebuild.dialects.mysql import target_schema
from projection_rebuild.dialects.mysql.inspector import MySQLInspector
from projection_rebuild.errors import CloneError
from projection_rebuild.model.names import TableSet, TargetSchema

UNCHECKED = ("SET SESSION foreign_key_checks = 0", "SET SESSION foreign_key_checks = 1")
"""Before and after statements that add foreign keys without reading the table, whose rows the engine has checked."""

ROW_FORMATS = ("compact", "dynamic", "redundant")
"""The row formats that a table can have although its definition does not name one."""


class MySQLShadow(MySQLInspector, ShadowTables, TablesApart):
    """See :class:`ShadowTables` and :class:`TablesApart`."""

    @contextmanager
    def try_schema(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], views: Mapping[str, str]
    ) -> Iterator[SchemaTrial]:
        query = partial(self._execute, connection)
        live = tables[0].schema or str(query("SELECT DATABASE()").scalar_one())
        with target_schema.tried(query, live, statements) as place:
            created = [table for table in tables if self.table_exists(connection, place, table.blue)]
            definitions = {table.blue: self._shown(connection, place, table.blue) for table in created}
            unchanged = {
                table.blue
                for table in created
                if text.Definition(definitions[table.blue]).same_as(self._definition(connection, table.schema, table.blue))
            }
            refusals = list(target_schema.refusals(query, live, place, list(definitions), views))
            yield SchemaTrial(connection, place, definitions, unchanged, {}, refusals)

    def enter(self, connection: sa.Connection, scratch: Scratch) -> None:
        if scratch.schema:
            self._execute(connection, f"USE {self.quote(scratch.schema)}")

    def apart(self, connection: sa.Connection, table: TableSet, scratch: Scratch) -> list[str]:
        shown = self._shown(connection, table.schema, table.blue)
        if not shown:
            raise CloneError(f"there is no table {table.blue}")
        return self.create_green(
            connection, replace(table, schema=scratch.schema, green=table.blue, target_schema=TargetSchema(shown))
        )

    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        # Not LIKE, which gives constraints other names, and fails if these are too long. The indexes for its foreign
        # keys belong to the server, which may drop and rename them.
        wanted = self._wanted(connection, table)
        clauses = [
            *self._rows_as_written(wanted),
            *(self._check(self._name_on_green(check.name, table), check) for check in wanted.checks()),
        ]
        if table.target_schema is None and (row_format := self._lost_row_format(connection, table, wanted)):
            wanted = wanted.with_row_format(row_format)
        head = f"CREATE TABLE {self.qualified(table.schema, table.green)}"
        body = ",\n  ".join(clauses)
        return [f"{head} (\n  {body}\n{wanted.options_from_one()}"]

    @abstractmethod
    def _rows_as_written(self, wanted: text.Definition) -> Iterable[str]:
        """The clauses of columns and keys with which to create a table."""

    def _lost_row_format(self, connection: sa.Connection, table: TableSet, blue: text.Definition) -> str | None:
        """The row format of blue, if its definition does not name it and a new table would have another one."""
        if blue.row_format is not None:
            return None
        actual = str(self._table_fact(connection, table.schema, table.blue, "ROW_FORMAT") or "")
        default = str(self._execute(connection, "SELECT @@GLOBAL.innodb_default_row_format").scalar_one())
        return actual if actual.lower() in ROW_FORMATS and actual.lower() != default.lower() else None

    @abstractmethod
    def _name_on_green(self, check: str, table: TableSet) -> str:
        """The name on green of a CHECK of blue."""

    def _check(self, name: str, check: text.Check) -> str:
        return f"CONSTRAINT {self.quote(name)} CHECK {check.rule}"

    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        present = {index.name: index for index in self._definition(connection, table.schema, table.green).indexes()}
        wanted = self._wanted(connection, table)
        missing = [index for index in wanted.late_indexes() if present.get(index.name) != index]
        names = {index.name for index in wanted.indexes()}
        gone = [name for name in present if name not in names or any(name == index.name for index in missing)]
        plain = [f"ADD {index.clause}" for index in missing if index.kind != "FULLTEXT"]
        plain += [f"DROP INDEX {self.quote(name)}" for name in gone]
        # InnoDB builds only one full-text index per statement.
        fulltext = [f"ADD {index.clause}" for index in missing if index.kind == "FULLTEXT"]
        head = f"ALTER TABLE {self.qualified(table.schema, table.green)}"
        return [f"{head} {adds}" for adds in ([", ".join(plain)] if plain else []) + fulltext]

    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        """Statements that give green its missing foreign keys to other green tables.

        Foreign keys to other tables follow the swap: green's rows, which lag behind, would keep the application from
        deleting parents that its own rows do not need any more.
        """
        greens = {member.blue: member.green for member in run}
        wanted = self._wanted(connection, table)
        green = self._definition(connection, table.schema, table.green)
        present = {key.to(key.parent) for key in green.foreign_keys()}
        adds = [
            f"ADD {self._foreign_key(key, table.schema, greens[key.parent])}"
            for key in wanted.foreign_keys()
            if self._is_among(key, table.schema, greens) and key.to(greens[key.parent]) not in present
        ]
        if not adds:
            return []
        head = f"ALTER TABLE {self.qualified(table.schema, table.green)}"
        return [UNCHECKED[0], f"{head} {', '.join([*adds, *self._kept(green.keyed())])}", UNCHECKED[1]]

    def _is_among(self, key: text.ForeignKey, schema: str | None, tables: Container[str]) -> bool:
        """Whether a foreign key's parent is one of these tables."""
        return key.parent_schema in (None, schema) and key.parent in tables

    def _foreign_key(self, key: text.ForeignKey, schema: str | None, parent: str, name: str | None = None) -> str:
        return (
            f"CONSTRAINT {self.quote(name or meanwhile_name(key.name))} FOREIGN KEY {key.columns} REFERENCES "
            f"{self.qualified(key.parent_schema or schema, parent)} {key.parent_columns}{key.actions}"
        )

    def _kept(self, table: text.Keyed) -> list[str]:
        """Clauses that keep all plain indexes of a table while an ALTER changes foreign keys.

        The server drops and creates its own index for a foreign key together with the key. A renamed index counts as the
        user's own, and stays in its place.
        """
        return [f"RENAME INDEX {name} TO {name}" for name in map(self.quote, table.plain_indexes)]

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        greens = {member.blue: member.green for member in run}
        violated = []
        for key in self._wanted(connection, table).foreign_keys():
            parent = greens[key.parent] if self._is_among(key, table.schema, greens) else key.parent
            match = " AND ".join(f"p.{self.quote(to)} = c.{self.quote(own)}" for own, to in key.pairs())
            not_null = " AND ".join(f"c.{self.quote(own)} IS NOT NULL" for own, _ in key.pairs())
            orphans = self._execute(
                connection,
                f"SELECT COUNT(*) FROM {self.qualified(table.schema, table.green)} c WHERE {not_null} AND NOT EXISTS "
                f"(SELECT 1 FROM {self.qualified(key.parent_schema or table.schema, parent)} p WHERE {match})",
            ).scalar_one()
            if orphans:
                violated.append(f"{key.name} to {key.parent}, {orphans:,} rows")
        return violated

    @abstractmethod
    def _statistics_since(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that give green the kinds of statistics that blue has received since the replay filled green."""


def meanwhile_name(name: str) -> str:
    """The name of a constraint on green, while blue has the real one.

    :raises CloneError: no such name fits
    """
    temporary_name = text.meanwhile(name)
    if temporary_name is None:
        raise CloneError(f"{name}: there is no name of {text.LONGEST_NAME} letters like this one; give it a shorter one")
    return temporary_name
