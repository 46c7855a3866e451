"""Making green tables, and tables apart, on MySQL and MariaDB."""

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
"""What stands around statements that add foreign keys without reading the table: its rows have been looked at before."""

ROW_FORMATS = ("compact", "dynamic", "redundant")
"""Those that a table can have without saying so."""


class MySQLShadow(MySQLInspector, ShadowTables, TablesApart):
    """See :class:`ShadowTables` and :class:`TablesApart`."""

    @contextmanager
    def try_schema(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], views: Mapping[str, str]
    ) -> Iterator[SchemaTrial]:
        query = partial(self._execute, connection)
        live = tables[0].schema or str(query("SELECT DATABASE()").scalar_one())
        with target_schema.tried(query, live, statements) as place:
            there = [each for each in tables if self.table_exists(connection, place, each.blue)]
            definitions = {each.blue: self._shown(connection, place, each.blue) for each in there}
            unchanged = {
                each.blue
                for each in there
                if text.Definition(definitions[each.blue]).same_as(self._definition(connection, each.schema, each.blue))
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
        # Not LIKE: it gives other names to constraints, fails where these are too long, and its foreign keys' indexes are
        # the server's own, to be dropped and renamed as it likes.
        wanted = self._wanted(connection, table)
        clauses = [
            *self._rows_as_written(wanted),
            *(self._check(self._name_on_green(each.name, table), each) for each in wanted.checks()),
        ]
        if table.target_schema is None and (row_format := self._lost_row_format(connection, table, wanted)):
            wanted = wanted.with_row_format(row_format)
        head = f"CREATE TABLE {self.qualified(table.schema, table.green)}"
        body = ",\n  ".join(clauses)
        return [f"{head} (\n  {body}\n{wanted.options_from_one()}"]

    @abstractmethod
    def _rows_as_written(self, wanted: text.Definition) -> Iterable[str]:
        """The columns and keys of a table to be made, as the server takes them."""

    def _lost_row_format(self, connection: sa.Connection, table: TableSet, blue: text.Definition) -> str | None:
        """The row format of blue, if its definition does not say it and a new table would have another one."""
        if blue.row_format is not None:
            return None
        there = str(self._table_fact(connection, table.schema, table.blue, "ROW_FORMAT") or "")
        usual = str(self._execute(connection, "SELECT @@GLOBAL.innodb_default_row_format").scalar_one())
        return there if there.lower() in ROW_FORMATS and there.lower() != usual.lower() else None

    @abstractmethod
    def _name_on_green(self, check: str, table: TableSet) -> str:
        """What a CHECK of blue is called on green."""

    def _check(self, name: str, check: text.Check) -> str:
        return f"CONSTRAINT {self.quote(name)} CHECK {check.rule}"

    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        there = {index.name: index for index in self._definition(connection, table.schema, table.green).indexes()}
        wanted = self._wanted(connection, table)
        missing = [index for index in wanted.late_indexes() if there.get(index.name) != index]
        names = {index.name for index in wanted.indexes()}
        gone = [name for name in there if name not in names or any(name == index.name for index in missing)]
        plain = [f"ADD {index.clause}" for index in missing if index.kind != "FULLTEXT"]
        plain += [f"DROP INDEX {self.quote(name)}" for name in gone]
        # InnoDB builds one of these at a time.
        fulltext = [f"ADD {index.clause}" for index in missing if index.kind == "FULLTEXT"]
        head = f"ALTER TABLE {self.qualified(table.schema, table.green)}"
        return [f"{head} {adds}" for adds in ([", ".join(plain)] if plain else []) + fulltext]

    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        """Foreign keys among greens. Those to other tables come with the switch: green's rows, which lag behind, would keep the
        application from deleting there what its own rows do not need any more."""
        greens = {each.blue: each.green for each in run}
        wanted = self._wanted(connection, table)
        green = self._definition(connection, table.schema, table.green)
        there = {key.to(key.parent) for key in green.foreign_keys()}
        adds = [
            f"ADD {self._foreign_key(key, table.schema, greens[key.parent])}"
            for key in wanted.foreign_keys()
            if self._beside(key, table.schema, greens) and key.to(greens[key.parent]) not in there
        ]
        if not adds:
            return []
        head = f"ALTER TABLE {self.qualified(table.schema, table.green)}"
        return [UNCHECKED[0], f"{head} {', '.join([*adds, *self._kept(green.keyed())])}", UNCHECKED[1]]

    def _beside(self, key: text.ForeignKey, schema: str | None, tables: Container[str]) -> bool:
        return key.parent_schema in (None, schema) and key.parent in tables

    def _foreign_key(self, key: text.ForeignKey, schema: str | None, parent: str, name: str | None = None) -> str:
        return (
            f"CONSTRAINT {self.quote(name or meanwhile_name(key.name))} FOREIGN KEY {key.columns} REFERENCES "
            f"{self.qualified(key.parent_schema or schema, parent)} {key.parent_columns}{key.actions}"
        )

    def _kept(self, table: text.Keyed) -> list[str]:
        """Indexes that the server has made for a foreign key go and come with it; one that was renamed is the user's own, and stays
        where it is."""
        return [f"RENAME INDEX {name} TO {name}" for name in map(self.quote, table.plain_indexes)]

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        greens = {each.blue: each.green for each in run}
        found = []
        for key in self._wanted(connection, table).foreign_keys():
            parent = greens[key.parent] if self._beside(key, table.schema, greens) else key.parent
            match = " AND ".join(f"p.{self.quote(to)} = c.{self.quote(own)}" for own, to in key.pairs())
            given = " AND ".join(f"c.{self.quote(own)} IS NOT NULL" for own, _ in key.pairs())
            lost = self._execute(
                connection,
                f"SELECT COUNT(*) FROM {self.qualified(table.schema, table.green)} c WHERE {given} AND NOT EXISTS "
                f"(SELECT 1 FROM {self.qualified(key.parent_schema or table.schema, parent)} p WHERE {match})",
            ).scalar_one()
            if lost:
                found.append(f"{key.name} to {key.parent}, {lost:,} rows")
        return found

    @abstractmethod
    def _statistics_since(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Gives green the kinds of statistics that blue has been given since green was filled."""


def meanwhile_name(name: str) -> str:
    made = text.meanwhile(name)
    if made is None:
        raise CloneError(f"{name}: there is no name of {text.LONGEST_NAME} letters like this one; give it a shorter one")
    return made
