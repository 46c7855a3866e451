"""Reading the event store: settled heads, and pages of events in the order of their positions."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import orjson
import sqlalchemy as sa

from include.projection_rebuild.dialects import Dialect
from include.projection_rebuild.errors import EventStoreError
from include.projection_rebuild.events import Event
from include.projection_rebuild.spec import EventStoreSection

PATIENCE = timedelta(seconds=60)
"""How long a settle waits for appends in flight before it says so and the step is retried."""


class EventStore:
    """The append-only table of events, read-only for us.

    :param dialect: the database that holds it
    :param section: table and columns as the spec names them
    """

    def __init__(self, dialect: Dialect, section: EventStoreSection) -> None:
        self.dialect = dialect
        self._section = section
        with dialect.connect() as connection:
            self._schema = section.db_schema or dialect.default_schema(connection)
        columns = section.columns
        self._table = sa.table(section.table, schema=self._schema)
        self._position: sa.ColumnClause[int] = sa.column(columns.position, sa.BigInteger)
        self._type: sa.ColumnClause[str] = sa.column(columns.type, sa.String)
        # As text: the driver's own objects for uuid, time and JSON cost several times what orjson takes for all of them.
        self._plain = [
            self._position,
            sa.cast(sa.column(columns.stream), sa.Text),
            self._type,
            sa.cast(sa.column(columns.payload), sa.Text),
            _optional(columns.recorded_at),
            sa.column(columns.version) if columns.version else sa.null(),
        ]
        self._metadata = _optional(columns.metadata)

    def refuse_unreadable(self) -> None:
        """Makes sure that table and columns are there as configured.

        :raises EventStoreError: names what is missing
        """
        section = self._section
        with self.dialect.connect() as connection:
            if not sa.inspect(connection).has_table(section.table, schema=self._schema):
                raise EventStoreError(f"there is no table {section.table} in {section.conn_id}; correct event_store.table")
            there = set(self.dialect.columns(connection, self._schema, section.table))
        for key, column in section.columns.model_dump().items():
            if column is not None and column not in there:
                raise EventStoreError(
                    f"the event store {section.table} has no column {column}; correct event_store.columns.{key}"
                    + (" (null if it has none)" if key in ("recorded_at", "version", "metadata") else "")
                )

    def settled_head(self, patience: timedelta = PATIENCE) -> int:
        """The highest position below which no event can appear any more; 0 for an empty store.

        :raises SettleTimeout: appends in flight did not end in time
        """
        return self.dialect.settle(self._schema, self._section.table, self._section.columns.position, patience)

    def newest(self) -> int:
        """The highest position that is visible now, settled or not."""
        with self.dialect.connect() as connection:
            return self.dialect.newest_position(connection, self._schema, self._section.table, self._section.columns.position)

    def estimate(self) -> int:
        """About how many events there are, without counting them."""
        with self.dialect.connect() as connection:
            return self.dialect.row_estimate(connection, self._schema, self._section.table)

    def fence(self, timeout: timedelta) -> AbstractContextManager[None]:
        """Holds appends back while the context lasts."""
        return self.dialect.fence(self._schema, self._section.table, timeout)

    def counts(self, after: int, upto: int) -> dict[str, int]:
        """How many events of each type lie above one position and up to another."""
        query = (
            sa.select(self._type, sa.func.count())
            .select_from(self._table)
            .where(self._position > after, self._position <= upto)
            .group_by(self._type)
        )
        with self.dialect.connect() as connection:
            return {str(event_type): int(count) for event_type, count in connection.execute(query)}

    def types(self) -> list[str]:
        """The event types that occur, sorted; reads the whole type column, so only for a plan."""
        with self.dialect.connect() as connection:
            found = connection.execute(sa.select(self._type).select_from(self._table).distinct()).scalars()
            return sorted(str(each) for each in found)

    def pages(
        self, after: int, upto: int, types: Sequence[str], *, size: int, metadata: bool = False
    ) -> Generator[tuple[list[Event], int], None, None]:
        """Pages of events of these types above ``after`` and up to ``upto``, each with the position that it reaches.

        By keyset, each page in a statement of its own, so that no snapshot is held while a page is worked on. The last
        page reaches ``upto`` itself, even if it is empty.

        :raises EventStoreError: a payload that is not JSON; names position and type
        """
        with self.dialect.connect() as connection:
            while after < upto:
                query = (
                    sa.select(*self._plain, *([self._metadata] if metadata else []))
                    .select_from(self._table)
                    .where(self._position > after, self._position <= upto, self._type.in_(types))
                    .order_by(self._position)
                    .limit(size)
                )
                rows = connection.execute(query).all()
                after = int(rows[-1][0]) if len(rows) == size else upto
                yield [_event(tuple(row)) for row in rows], after


def _optional(column: str | None) -> sa.ColumnElement[Any]:
    return sa.cast(sa.column(column), sa.Text) if column else sa.null()


def _event(row: tuple[Any, ...]) -> Event:
    position, stream, event_type, payload, recorded_at, version, *metadata = row
    try:
        decoded = orjson.loads(payload)
        meta = orjson.loads(metadata[0]) if metadata and metadata[0] else None
    except (orjson.JSONDecodeError, TypeError) as error:
        raise EventStoreError(f"the event {event_type} at position {position} cannot be decoded: it is not JSON") from error
    return Event(
        position=position,
        stream=stream or "",
        type=event_type,
        payload=decoded,
        recorded_at=recorded_at or "",
        version=version,
        metadata=meta,
    )
