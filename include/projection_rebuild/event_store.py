"""Reading the event store: settled heads, and pages of events in the order of their positions."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name

from include.projection_rebuild import pyeventsourcing
from include.projection_rebuild.boundary import reading
from include.projection_rebuild.dialects import Dialect
from include.projection_rebuild.dialects.base import Fence
from include.projection_rebuild.errors import FallingBehind
from include.projection_rebuild.events import Event, Undecodable
from include.projection_rebuild.findings import Finding
from include.projection_rebuild.partition import Shard
from include.projection_rebuild.presets import Preset
from include.projection_rebuild.spec import EventStoreSection

PATIENCE = timedelta(seconds=60)
"""How long a settle waits for appends in flight before it says so and the step is retried."""

PAGES_PER_STATEMENT = 10
"""A statement costs a round trip and a plan; a result that is open for long costs the server a snapshot."""

FIRST_PAGE = 100
"""Events in the first page of their types, before it is known how large their payloads are."""

PAGE_TEXT = 2_000_000
"""About so many characters of payloads in a page at most; decoded they take several times as much memory."""

ROUNDS_WITHOUT_GAIN = 10
"""So often in a row a round of catching up may leave as much to do as the one before."""


LOOKED_FOR_HOLES = 50_000
"""So many positions below the newest one are looked at for holes; what is older is no append on its way."""

PAYLOAD = 3
"""Its place among the columns that are read."""

OPTIONAL = {f"columns.{key}" for key in ("recorded_at", "version", "type_version", "metadata")}


@dataclass(frozen=True)
class Only:
    """Which events are read of those that a projector handles.

    :param streams: of these aggregates; at most a few thousand, since each is a bound value
    :param since: recorded from here on
    :param until: recorded before
    """

    streams: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None


EVERYTHING = Only()


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
        self._table = sa.table(quoted_name(section.table, quote=True), schema=self._schema)
        self._position = _column(columns.position, sa.BigInteger())
        self._type = _column(columns.type, sa.String())
        self._stream = sa.cast(_column(columns.stream), sa.Text)
        self._only = [
            _column(name).is_(None) if value is None else _column(name) == value for name, value in section.only.items()
        ]
        # As text: the driver's own objects for uuid, time and JSON cost several times what orjson takes for all of them.
        payload = _column(columns.payload)
        python = section.preset is Preset.PYEVENTSOURCING
        self._decode = pyeventsourcing.decoder(section.mapper) if python else _events
        self._plain = [
            self._position,
            self._stream,
            self._type,
            payload if python else sa.cast(payload, sa.Text),
            _optional(columns.recorded_at),
            _column(columns.version) if columns.version else sa.null(),
            _column(columns.type_version) if columns.type_version else sa.literal_column("1"),
        ]
        self._metadata = _optional(columns.metadata)
        self._whole = 0
        self._page_sizes: dict[tuple[str, ...], int] = {}
        self._longest_wait: timedelta | None = None
        self._raw_stream: sa.ColumnClause[Any] = _column(columns.stream)
        self._recorded_at: sa.ColumnClause[Any] | None = _column(columns.recorded_at) if columns.recorded_at else None

    @property
    def table(self) -> str:
        """The table's name."""
        return self._section.table

    def preflight(self) -> list[Finding]:
        """Whether table and columns are there as configured, and may be read and locked."""
        section = self._section
        about = f"event store {section.table}"
        with self.dialect.connect() as connection:
            if too_old := self.dialect.too_old(connection):
                return too_old
            if not sa.inspect(connection).has_table(section.table, schema=self._schema):
                problem = f"there is no table {section.table} in {section.conn_id}"
                return [Finding(about=about, problem=problem, remedy="correct event_store.table", refuses=True)]
            there = set(self.dialect.columns(connection, self._schema, section.table))
            wanted = {f"columns.{key}": column for key, column in section.columns.model_dump().items() if column is not None}
            wanted |= {f"only.{column}": column for column in section.only}
            present = [column for column in wanted.values() if column in there]
            found = self.dialect.preflight_events(connection, self._schema, section.table, present)
            found += self._unindexed(connection)
        missing = {key: column for key, column in wanted.items() if column not in there}
        return found + [
            Finding(
                about=about,
                problem=f"it has no column {column}",
                remedy=f"correct event_store.{key}" + (" (null if it has none)" if key in OPTIONAL else ""),
                refuses=True,
            )
            for key, column in missing.items()
        ]

    def _unindexed(self, connection: sa.Connection) -> Iterator[Finding]:
        inspector, table, position = sa.inspect(connection), self._section.table, self._section.columns.position
        leading: list[Sequence[str | None]] = [
            each["column_names"][:1] for each in inspector.get_indexes(table, schema=self._schema)
        ]
        leading += [each["column_names"][:1] for each in inspector.get_unique_constraints(table, schema=self._schema)]
        leading.append(inspector.get_pk_constraint(table, schema=self._schema)["constrained_columns"][:1])
        if [position] not in leading:
            yield Finding(
                about=f"event store {table}",
                problem=f"no index begins with {position}, so that each page of events reads the whole table",
                remedy=f"CREATE INDEX ON {table} ({position})",
            )

    def settled_head(self, patience: timedelta = PATIENCE) -> int:
        """The highest position below which no event can appear any more; 0 for an empty store.

        :raises SettleTimeout: appends in flight did not end in time
        """
        with reading(self._section.table):
            head = self.dialect.settle(self._schema, self._section.table, self._section.columns.position, patience)
            self._wait_for_holes(head)
        return head

    def _wait_for_holes(self, head: int) -> None:
        """A hole is an append that was given up, or one that is on its way; only time tells, and the count before the switch."""
        patience = self._section.wait_for_holes
        if patience is None or head == 0:
            return
        deadline = time.monotonic() + patience.total_seconds()
        count, first = sa.select(sa.func.count()).select_from(self._table), sa.select(sa.func.min(self._position))
        with self.dialect.connect() as connection:
            lowest = int(connection.execute(first.select_from(self._table)).scalar_one()) - 1
            lowest = max(lowest, self._whole, head - LOOKED_FOR_HOLES)
            there = count.where(self._position > lowest, self._position <= head)
            while connection.execute(there).scalar_one() < head - lowest and time.monotonic() < deadline:
                time.sleep(0.1)
        self._whole = head

    def heads(self, position: Callable[[], int], small: int) -> Iterator[int]:
        """Settled heads to replay to, one after the other, until what appeared meanwhile is a small backlog.

        :param position: how far the replay has come; asked anew for each head
        :param small: the backlog, in positions, after which no further head is given
        :raises FallingBehind: events are appended faster than they are replayed
        """
        behind, without_gain = None, 0
        while behind is None or behind > small:
            head = self.settled_head()
            left = head - position()
            without_gain = without_gain + 1 if behind is not None and left >= behind else 0
            if without_gain >= ROUNDS_WITHOUT_GAIN:
                raise FallingBehind(
                    f"events are appended faster than they are replayed: {left:,} positions are left after {ROUNDS_WITHOUT_GAIN} rounds "
                    "without gain. What is done is kept; retry in a quieter hour, or raise replay.batch_events"
                )
            behind = left
            yield head

    @contextmanager
    def in_a_hurry(self, longest: timedelta) -> Iterator[None]:
        """Within it no reading waits for a lock for longer: while tables are held, whoever is waited for may wait for these tables."""
        self._longest_wait = longest
        try:
            yield
        finally:
            self._longest_wait = None

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        with reading(self._section.table), self.dialect.connect() as connection:
            if self._longest_wait is not None:
                self.dialect.limit_lock_wait(connection, self._longest_wait)
            yield connection

    def newest(self) -> int:
        """The highest position that is visible now, settled or not."""
        with self._connected() as connection:
            return self.dialect.newest_position(connection, self._schema, self._section.table, self._section.columns.position)

    def estimate(self) -> int:
        """About how many events there are, without counting them."""
        with self._connected() as connection:
            return self.dialect.row_estimate(connection, self._schema, self._section.table)

    def maintenance(self) -> list[str]:
        """What is in the way of a fence for as long as it lasts; see :meth:`Dialect.maintenance`."""
        with self._connected() as connection:
            return self.dialect.maintenance(connection, self._schema, [self._section.table])

    def fence(self, timeout: timedelta, longest: timedelta) -> AbstractContextManager[Fence]:
        """Holds appends back while the context lasts; see :meth:`Dialect.fence`."""
        return self.dialect.fence(self._schema, self._section.table, timeout, longest)

    @property
    def knows_times(self) -> bool:
        """Whether it keeps when events were recorded."""
        return self._recorded_at is not None

    def counts(self, after: int, upto: int, only: Only = EVERYTHING) -> dict[str, int]:
        """How many events of each type lie above one position and up to another."""
        query = (
            sa.select(self._type, sa.func.count())
            .select_from(self._table)
            .where(self._position > after, self._position <= upto, *self._filter(only))
            .group_by(self._type)
        )
        with self._connected() as connection:
            return {str(event_type): int(count) for event_type, count in connection.execute(query)}

    def types(self) -> list[str]:
        """The event types that occur, sorted; reads the whole type column, so only for a plan."""
        with self._connected() as connection:
            found = connection.execute(sa.select(self._type).select_from(self._table).where(*self._only).distinct()).scalars()
            return sorted(str(each) for each in found)

    def find(self, positions: Sequence[int], *, metadata: bool = False) -> list[Event]:
        """The events at these positions, in their order."""
        query = (
            sa.select(*self._plain, *([self._metadata] if metadata else []))
            .select_from(self._table)
            .where(self._position.in_(positions), *self._only)
            .order_by(self._position)
        )
        with self._connected() as connection:
            return self._decode([tuple(row) for row in connection.execute(query)])

    def last_positions(
        self, streams: Sequence[str], upto: int, types: Sequence[str], *, without: Collection[int] = ()
    ) -> dict[str, int]:
        """Where the last event of each stream is, of these types and up to a position, those ``without`` left out."""
        query = (
            sa.select(self._stream, sa.func.max(self._position))
            .select_from(self._table)
            .where(
                self._stream.in_(streams),
                self._position <= upto,
                self._type.in_(types),
                self._position.not_in(without),
                *self._only,
            )
            .group_by(self._stream)
        )
        with self._connected() as connection:
            return {str(stream): int(position) for stream, position in connection.execute(query)}

    def streams(self, after: int, upto: int, types: Sequence[str], only: Only = EVERYTHING) -> set[str]:
        """The aggregates that have events of these types above one position and up to another."""
        query = (
            sa.select(self._stream)
            .select_from(self._table)
            .where(self._position > after, self._position <= upto, self._type.in_(types), *self._filter(only))
            .distinct()
        )
        with self._connected() as connection:
            return {found or "" for found in connection.execute(query).scalars()}

    def relation(self, after: int, upto: int, types: Sequence[str], *, without: Collection[int] = ()) -> str:
        """SQL for a subquery: the events of these types above ``after`` and up to ``upto``, those ``without`` left out.

        Its columns are ``position``, ``stream``, ``type``, ``payload``, ``recorded_at``, ``version``, ``type_version`` and
        ``metadata``, of the types that they have in the store; null where it has no such column.
        """
        names = self._section.columns.model_dump()
        columns = [(_column(column) if column else sa.null()).label(name) for name, column in names.items()]
        wanted = (self._position > after, self._position <= upto, self._type.in_(types), *self._only)
        query = sa.select(*columns).select_from(self._table).where(*wanted)
        if without:
            query = query.where(self._position.not_in(without))
        compiled = query.compile(dialect=self.dialect.engine.dialect, compile_kwargs={"literal_binds": True})
        # Compiled for a driver that formats its statements.
        text = str(compiled)
        return f"({text.replace('%%', '%') if compiled.preparer._double_percents else text})"

    def _partition(self, field: str | None) -> sa.ColumnElement[str]:
        """Where an event belongs, as text; empty where it does not say."""
        text = self._stream if field is None else self.dialect.json_field(_column(self._section.columns.payload), field)
        return sa.func.coalesce(text, sa.literal_column("''"), type_=sa.Text)

    @property
    def has_json(self) -> bool:
        """Whether the database can look into payloads."""
        return self._section.preset is not Preset.PYEVENTSOURCING

    def shard_of(self, partition: str, count: int) -> int:
        """In which of so many shards a partition is."""
        with reading(self._section.table), self.dialect.connect() as connection:
            number = self.dialect.shard_number(sa.cast(sa.literal(partition), sa.Text), count)
            return int(connection.execute(sa.select(number)).scalar_one())

    def pages(
        self,
        after: int,
        upto: int,
        types: Sequence[str],
        *,
        size: int,
        metadata: bool = False,
        only: Only = EVERYTHING,
        shard: Shard | None = None,
        seen: set[str] | None = None,
    ) -> Generator[tuple[list[Event], int], None, None]:
        """Pages of events of these types above ``after`` and up to ``upto``, each with the position that it reaches.

        By keyset, a few pages in each statement: while a page is worked on, the database makes the next one, and no snapshot is
        held for long. The last page reaches ``upto`` itself, even if it is empty. What cannot be decoded is an
        :class:`Undecodable`.

        :param size: events in a page at most; fewer where payloads are large
        :param shard: only the events of this one
        :param seen: is given the partitions of the shard's events that are read
        """
        of = tuple(types)
        columns = [*self._plain, *([self._metadata] if metadata else [])]
        query = (
            sa.select(*columns).select_from(self._table).where(self._type.in_(types), self._position <= upto, *self._filter(only))
        )
        query = query.order_by(self._position)
        if shard is not None:
            belongs = self._partition(shard.field)
            query = query.add_columns(belongs).where(self.dialect.is_in_shard(belongs, shard.number, shard.count))
        with self._connected() as connection:
            while after < upto:
                read, at_once = 0, min(size, self._page_sizes.get(of, FIRST_PAGE))
                limit = at_once * PAGES_PER_STATEMENT if of in self._page_sizes else at_once
                some = query.where(self._position > after).limit(limit)
                with closing(self.dialect.read(connection, some, at_once)) as pages:
                    for rows in pages:
                        read, after = read + len(rows), rows[-1][0]
                        self._page_sizes[of] = max(1, PAGE_TEXT * len(rows) // (1 + sum(len(row[PAYLOAD] or "") for row in rows)))
                        yield self._decode(rows if shard is None else _taken_off(rows, seen)), after
                if read < limit:
                    after = upto
                    yield [], after

    def _filter(self, only: Only) -> list[sa.ColumnElement[bool]]:
        found = [*self._only]
        if only.streams is not None:
            # Without a type, so that the database takes the values for what the column is, and finds its index.
            values = sa.bindparam(None, list(only.streams), type_=sa.types.NullType(), expanding=True)
            found.append(self._raw_stream.in_(values))
        if self._recorded_at is not None:
            found += [~self.dialect.before(self._recorded_at, only.since)] if only.since else []
            found += [self.dialect.before(self._recorded_at, only.until)] if only.until else []
        return found


def _taken_off(rows: Sequence[tuple[Any, ...]], seen: set[str] | None) -> list[tuple[Any, ...]]:
    """The rows without their last column, the partition."""
    if seen is not None:
        seen.update(row[-1] for row in rows)
    return [row[:-1] for row in rows]


def _column(name: str, kind: sa.types.TypeEngine[Any] | None = None) -> sa.ColumnClause[Any]:
    return sa.column(quoted_name(name, quote=True), kind)


def _optional(column: str | None) -> sa.ColumnElement[Any]:
    return sa.cast(_column(column), sa.Text) if column else sa.null()


def _events(rows: Sequence[tuple[Any, ...]]) -> list[Event]:
    # In one go: this is run for each event of each projector.
    loads = orjson.loads
    try:
        return [
            Event(
                position,
                stream or "",
                event_type,
                loads(payload),
                recorded_at or "",
                version,
                None,
                number if number.__class__ is int else _version(number),
            )
            for position, stream, event_type, payload, recorded_at, version, number in rows
        ]
    except (TypeError, ValueError):
        # With metadata, or with one that cannot be decoded.
        return [_event(row) for row in rows]


def _event(row: tuple[Any, ...]) -> Event:
    position, stream, event_type, payload, recorded_at, version, type_version, *metadata = row
    try:
        decoded = orjson.loads(payload)
        meta = orjson.loads(metadata[0]) if metadata and metadata[0] else None
    except (orjson.JSONDecodeError, TypeError) as error:
        return Undecodable(
            position=position, stream=stream or "", type=event_type, cause=f"it is not JSON ({type(error).__name__})"
        )
    number = type_version if type_version.__class__ is int else _version(type_version)
    return Event(position, stream or "", event_type, decoded, recorded_at or "", version, meta, number)


def _version(stored: Any) -> int | str:
    """A type's version as stores keep it: a number, its text, a name, or nothing for the first one."""
    text = "1" if stored is None else str(stored)
    return int(text) if text.isdecimal() else text
