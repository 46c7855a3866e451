"""The dialect of SQLite: one writer at a time and transactional DDL, so a swap is one BEGIN IMMEDIATE transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from projection_rebuild.dialects.base import Dialect, Scratch
from projection_rebuild.dialects.sqlite.apart import SqliteTablesApart, file_apart
from projection_rebuild.dialects.sqlite.comparing import SqliteComparing
from projection_rebuild.dialects.sqlite.dependents import SqliteDependents
from projection_rebuild.dialects.sqlite.event_expressions import SqliteEventExpressions
from projection_rebuild.dialects.sqlite.event_log import SqliteEventLog
from projection_rebuild.dialects.sqlite.inspector import SqliteInspector
from projection_rebuild.dialects.sqlite.partial_copy import SqlitePartialCopy
from projection_rebuild.dialects.sqlite.preflight import SqlitePreflight
from projection_rebuild.dialects.sqlite.single_writer import SingleWriterCutover
from projection_rebuild.dialects.sqlite.swap_statements import SqliteSwapStatements


class SqliteDialect(
    SqliteInspector,
    SqliteDependents,
    SqlitePreflight,
    SqliteTablesApart,
    SqliteComparing,
    SqlitePartialCopy,
    SqliteEventLog,
    SqliteEventExpressions,
    SqliteSwapStatements,
    Dialect,
):
    """See :class:`Dialect`. A file has one schema."""

    one_writer = True

    @contextmanager
    def scratch(self, name: str) -> Iterator[Scratch]:
        """Gives a database file for scratch tables. See :meth:`Dialect.scratch`."""
        with file_apart(name) as engine:
            yield Scratch(SqliteDialect(engine, self.known_as), None)

    # Cutting over -----------------------------------------------------------------------------------------------

    @property
    def cutover(self) -> SingleWriterCutover:
        return SingleWriterCutover(self)
