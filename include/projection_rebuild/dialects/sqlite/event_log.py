"""The event store on SQLite: up to where it is settled, and its fence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from projection_rebuild.dialects.base import EventLog, Fence
from projection_rebuild.dialects.sqlite.base import SqliteBase
from projection_rebuild.model.positions import Place


class SqliteEventLog(SqliteBase, EventLog):
    """See :class:`EventLog`."""

    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> Place:
        # One writer at a time hands out positions in the order of commits: what is visible is settled.
        with self.connect() as connection:
            return self.newest_position(connection, schema, table, position_column)

    @contextmanager
    def fence(
        self, schema: str | None, table: str, timeout: timedelta, longest: timedelta = timedelta(seconds=2)
    ) -> Iterator[Fence]:
        with self.connect() as connection:
            self.limit_lock_wait(connection, timeout)
            with self.transaction(connection):
                yield Fence(lambda: self._still_there(connection))
