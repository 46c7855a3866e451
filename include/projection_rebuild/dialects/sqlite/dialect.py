"""SQLite: one writer at a time and transactional DDL, so a switch is one BEGIN IMMEDIATE transaction."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect, Manners, Scratch
from projection_rebuild.dialects.sqlite.apart import SqliteTablesApart, file_apart
from projection_rebuild.dialects.sqlite.comparing import SqliteComparing
from projection_rebuild.dialects.sqlite.cutover import Schema, Switch
from projection_rebuild.dialects.sqlite.dependents import SqliteDependents
from projection_rebuild.dialects.sqlite.event_expressions import SqliteEventExpressions
from projection_rebuild.dialects.sqlite.event_log import SqliteEventLog
from projection_rebuild.dialects.sqlite.inspector import SqliteInspector
from projection_rebuild.dialects.sqlite.partial_copy import SqlitePartialCopy
from projection_rebuild.dialects.sqlite.preflight import SqlitePreflight
from projection_rebuild.dialects.sqlite.shadow import SqliteShadow
from projection_rebuild.model.names import TableSet


class SqliteDialect(
    SqliteInspector,
    SqliteDependents,
    SqlitePreflight,
    SqliteShadow,
    SqliteTablesApart,
    SqliteComparing,
    SqlitePartialCopy,
    SqliteEventLog,
    SqliteEventExpressions,
    Dialect,
):
    """See :class:`Dialect`. There is one schema per file."""

    one_writer = True

    @contextmanager
    def scratch(self, name: str) -> Iterator[Scratch]:
        """A file of its own. See :meth:`Dialect.scratch`."""
        with file_apart(name) as engine:
            yield Scratch(SqliteDialect(engine, self.known_as), None)

    # Switching --------------------------------------------------------------------------------------------------

    @contextmanager
    def hold(
        self, connection: sa.Connection, tables: Sequence[TableSet], manners: Manners, beside: Sequence[str]
    ) -> Iterator[None]:
        self.limit_lock_wait(connection, manners.timeout)
        try:
            with self.transaction(connection):
                yield
        finally:
            # A switch that was given up may have left it on.
            with suppress(sa.exc.SQLAlchemyError):
                self._execute(connection, "PRAGMA writable_schema = 0")

    def take_back(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return Switch(Schema.of(connection), tables, self.quote).take_back()

    def snapshots(self, connection: sa.Connection) -> dict[Hashable, str]:
        # A reader of the write-ahead log sees tables and rows of its time, names included.
        return {}

    def abandoned(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        found, schema = [], Schema.of(connection)
        greens = {schema.table(each.blue).name: each.green for each in tables}
        ours = {*greens, *greens.values()}
        for child in (each for each in schema.children() if each not in ours):
            for parent, pairs in self._pairs(connection, child, connection, schema.find):
                green = greens.get(parent)
                if green and (lost := self._lost(connection, child, green, pairs, unless=parent)):
                    found.append(
                        f"{lost:,} rows of {child} refer to rows of {parent} that {green} does not have; correct the projector, or "
                        f"delete them from {child}"
                    )
        return found

    def before_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        # Blue may have been given an index since the clone. What is only planned gets all of them.
        made = [table for table in tables if self._find(connection, table.green)]
        statements = [each for table in made for each in self.index_green(connection, table)]
        return statements + [each for table in made for each in self._statistics_since(connection, table)]

    def _statistics_since(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statistics for green, where blue has been given some since green was filled."""
        if "sqlite_stat1" not in self._statistics(connection):
            return []
        query = "SELECT count(*) FILTER (WHERE tbl = ?), count(*) FILTER (WHERE tbl = ?) FROM sqlite_stat1"
        blue, green = self._execute(connection, query, self._table(connection, table.blue).name, table.green).one()
        return self.analyze(connection, table) if blue and not green else []

    def switch(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> list[str]:
        switch = Switch(Schema.of(connection), tables, self.quote)
        if not planned:
            switch.refuse_changes()
        return switch.statements()

    def after_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return []
