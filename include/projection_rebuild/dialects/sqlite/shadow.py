"""Creates green tables on SQLite, from the text of the blue ones."""

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
        # Its foreign keys refer to green names, even of tables that have no green. A foreign key from green to a live table would
        # keep the application from deleting rows there. The swap restores the live names.
        wanted, _ = self._wanted(connection, table)
        if text.table_name(wanted.sql) is None:
            raise CloneError(f"the definition of {table.blue} in sqlite_master is not a CREATE TABLE; it cannot be copied")
        return [text.with_table_name(text.with_parents(wanted.sql, self._quoted(green_name)), self.quote(table.green))]

    def _quoted(self, rename: text.Rename) -> text.Rename:
        return lambda name: self.quote(rename(name))

    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        existing = {index.name: text.with_index_names(index.sql, "?", "?") for index in self._indexes(connection, table.green)}
        wanted = self._wanted(connection, table)[1]
        definitions = {green_name(index.name): text.with_index_names(index.sql, "?", "?") for index in wanted}
        outdated = [name for name, definition in existing.items() if definitions.get(name) != definition]
        return [
            *(f"DROP INDEX {self.quote(name)}" for name in outdated),
            *(
                text.with_index_names(index.sql, self.quote(green_name(index.name)), self.quote(table.green))
                for index in wanted
                if green_name(index.name) not in existing or green_name(index.name) in outdated
            ),
        ]

    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        # A foreign key is part of the table's text, so create_green has added it.
        return []

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        # PRAGMA foreign_key_check would look for parents under the names in green's definition; a parent outside the run has none.
        greens = {table_set.blue: table_set.green for table_set in run}
        orphans = []
        for parent, pairs in (
            self._foreign_keys(connection, table.blue) if table.target_schema is None else self._target_keys(connection, table)
        ):
            count = self._lost(connection, table.green, greens.get(parent, parent), pairs)
            if count:
                orphans.append(f"({', '.join(own for own, _ in pairs)}) to {parent}, {count:,} rows")
        return orphans

    def analyze(self, connection: sa.Connection, table: TableSet) -> list[str]:
        # If this database was never analyzed, ANALYZE would create tables for statistics, which it did not have before.
        return [f"ANALYZE {self.quote(table.green)}"] if self._statistics(connection) else []
