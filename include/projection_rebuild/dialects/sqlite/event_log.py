"""The event store on SQLite: its high-water mark and its fence."""

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
        # With one writer at a time, positions follow the order of commits, so the newest visible one is the high-water mark.
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
