"""The statements of a swap on SQLite, derived from the schema."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import sqlalchemy as sa

from projection_rebuild.dialects.base import PreparedSwap, SwapStatements
from projection_rebuild.dialects.sqlite.cutover import Schema, Switch
from projection_rebuild.dialects.sqlite.shadow import SqliteShadow
from projection_rebuild.model.names import TableSet


class SqliteSwapStatements(SqliteShadow, SwapStatements):
    """See :class:`SwapStatements`."""

    def before_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        # An operator may have added an index to blue since the clone. A green that is only planned will get all indexes.
        greens = [table for table in tables if self._find(connection, table.green)]
        statements = [statement for table in greens for statement in self.index_green(connection, table)]
        return statements + [statement for table in greens for statement in self._statistics_since(connection, table)]

    def _statistics_since(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statistics for green, if blue was analyzed after green was filled."""
        if "sqlite_stat1" not in self._statistics(connection):
            return []
        query = "SELECT count(*) FILTER (WHERE tbl = ?), count(*) FILTER (WHERE tbl = ?) FROM sqlite_stat1"
        blue, green = self._execute(connection, query, self._table(connection, table.blue).name, table.green).one()
        return self.analyze(connection, table) if blue and not green else []

    def swap_statements(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> PreparedSwap:
        switch = Switch(Schema.of(connection), tables, self.quote)
        if not planned:
            switch.refuse_changes()
        return PreparedSwap(switch.statements())

    def after_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return []

    def restore_names(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return Switch(Schema.of(connection), tables, self.quote).take_back()

    def snapshots(self, connection: sa.Connection) -> dict[Hashable, str]:
        # A reader of the write-ahead log sees the tables, names and rows of its own snapshot.
        return {}

    def rows_orphaned_by_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        orphans, schema = [], Schema.of(connection)
        greens = {schema.table(table.blue).name: table.green for table in tables}
        run_tables = {*greens, *greens.values()}
        for child in (name for name in schema.children() if name not in run_tables):
            for parent, pairs in self._pairs(connection, child, connection, schema.find):
                green = greens.get(parent)
                if green and (lost := self._lost(connection, child, green, pairs, unless=parent)):
                    orphans.append(
                        f"{lost:,} rows of {child} refer to rows of {parent} that {green} does not have; correct the projector, or "
                        f"delete them from {child}"
                    )
        return orphans
