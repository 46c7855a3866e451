"""Making green tables on SQLite, from the text of the blue ones."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from projection_rebuild.dialects.base import ShadowTables
from projection_rebuild.dialects.sqlite import create_table as text
from projection_rebuild.dialects.sqlite.catalog import SqliteCatalog
from projection_rebuild.dialects.sqlite.cutover import green_name
from projection_rebuild.errors import CloneError
from projection_rebuild.model.names import TableSet


class SqliteShadow(SqliteCatalog, ShadowTables):
    """See :class:`ShadowTables`."""

    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        # Its foreign keys point to greens, there or not: a foreign key of green to a live table would keep the application
        # from deleting there what green still has. The switch puts the live names in.
        wanted, _ = self._wanted(connection, table)
        if text.table_name(wanted.sql) is None:
            raise CloneError(f"the definition of {table.blue} in sqlite_master is not a CREATE TABLE; it cannot be copied")
        return [text.with_table_name(text.with_parents(wanted.sql, self._quoted(green_name)), self.quote(table.green))]

    def _quoted(self, rename: text.Rename) -> text.Rename:
        return lambda name: self.quote(rename(name))

    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        there = {index.name: text.with_index_names(index.sql, "?", "?") for index in self._indexes(connection, table.green)}
        wanted = self._wanted(connection, table)[1]
        made = {green_name(each.name): text.with_index_names(each.sql, "?", "?") for each in wanted}
        gone = [name for name, said in there.items() if made.get(name) != said]
        return [
            *(f"DROP INDEX {self.quote(name)}" for name in gone),
            *(
                text.with_index_names(index.sql, self.quote(green_name(index.name)), self.quote(table.green))
                for index in wanted
                if green_name(index.name) not in there or green_name(index.name) in gone
            ),
        ]

    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        # A foreign key is part of the table's text and names its parent as it will be called after the switch.
        return []

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        # PRAGMA foreign_key_check would look for parents under the names in the definition, which are still blue.
        greens = {each.blue: each.green for each in run}
        found = []
        for parent, pairs in (
            self._foreign_keys(connection, table.blue) if table.target_schema is None else self._target_keys(connection, table)
        ):
            lost = self._lost(connection, table.green, greens.get(parent, parent), pairs)
            if lost:
                found.append(f"({', '.join(own for own, _ in pairs)}) to {parent}, {lost:,} rows")
        return found

    def analyze(self, connection: sa.Connection, table: TableSet) -> list[str]:
        # Whoever has never analyzed this database gets no statistics now: they would be tables that were not there before.
        return [f"ANALYZE {self.quote(table.green)}"] if self._statistics(connection) else []
