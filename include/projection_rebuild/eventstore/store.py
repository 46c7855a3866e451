"""Reading the event store: settled heads, and pages of events in the order of their positions."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.partition import Shard
from projection_rebuild.dialects import Dialect
from projection_rebuild.dialects.base import Fence, LockWaits
from projection_rebuild.errors import FallingBehind, PartError, PositionError
from projection_rebuild.errors.boundary import reading
from projection_rebuild.eventstore.columns import EventColumns, as_text
from projection_rebuild.eventstore.contract import Contract
from projection_rebuild.eventstore.decoding import decoder_of
from projection_rebuild.model.findings import Finding
from projection_rebuild.model.positions import BEGINNING, HIGHEST, Place, is_before
from projection_rebuild.spec.presets import Preset
from projection_rebuild.spec.stores import EventStoreSection

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


@dataclass(frozen=True)
class EventFilter:
    """Which events are read of those that a projector handles.

    :param streams: of these aggregates; at most a few thousand, since each is a bound value
    :param since: recorded from here on
    :param until: recorded before
    """

    streams: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None


ALL_EVENTS = EventFilter()


class _Hurry:
    """Connections for readings that follow one on another.

    :param longest: how long each waits for a lock at most
    """

    def __init__(self, dialect: LockWaits, longest: timedelta) -> None:
        self._dialect = dialect
        self._longest = longest
        # Each with what closes it.
        self._idle: list[tuple[sa.Connection, ExitStack]] = []

    def __enter__(self) -> Self:
        self._idle.append(self._opened())
        return self

    def __exit__(self, *error: object) -> None:
        for _, closing_it in self._idle:
            # Nothing is read any more: one that was cut meanwhile is no error, and must not hide what became of the switch.
            with suppress(sa.exc.SQLAlchemyError):
                closing_it.close()

    @contextmanager
    def lent(self) -> Iterator[sa.Connection]:
        """The connection that is idle; another one within another reading, or after an error, which ends the connection it came from."""
        connection, closing_it = self._idle.pop() if self._idle else self._opened()
        with ExitStack() as stack:
            stack.push(closing_it)
            yield connection
            self._idle.append((connection, stack.pop_all()))

    def _opened(self) -> tuple[sa.Connection, ExitStack]:
        with ExitStack() as stack:
            connection = stack.enter_context(self._dialect.connect())
            self._dialect.limit_lock_wait(connection, self._longest)
            return connection, stack.pop_all()


class EventStore:
    """The append-only table of events, read-only for us. A place in it is a position, or None for the beginning.

    :param dialect: the database that holds it
    :param section: table and columns as the spec names them
    :raises SpecError: what decodes the payloads cannot be had
    """

    def __init__(self, dialect: Dialect, section: EventStoreSection) -> None:
        self.dialect = dialect
        self._section = section
        self._decode = decoder_of(section)
        with reading(section.table), dialect.connect() as connection:
            self._schema = section.db_schema or dialect.default_schema(connection)
            types = dialect.column_types(connection, self._schema, section.table)
        self._columns = EventColumns(dialect, section, self._schema, types)
        self._table = self._columns.table
        self._position = self._columns.position
        self._whole: Place = BEGINNING
        self._page_sizes: dict[tuple[str, ...], int] = {}
        self._hurry: _Hurry | None = None

    @property
    def table(self) -> str:
        """The table's name."""
        return self._section.table

    def preflight(self) -> list[Finding]:
        """Whether the store is what the engine takes it for: see :mod:`projection_rebuild.eventstore.contract`."""
        with reading(self._section.table):
            return Contract(self.dialect, self._section, self._schema).findings()

    def without_times(self) -> str | None:
        """Why it cannot be asked which events were recorded since a moment; None: it can."""
        with reading(self._section.table):
            return Contract(self.dialect, self._section, self._schema).without_times()

    def settled_head(self, patience: timedelta = PATIENCE) -> Place:
        """The highest position below which no event can appear any more; the beginning for an empty store.

        :raises SettleTimeout: appends in flight did not end in time
        :raises PositionError: the position is higher than the ledger can keep
        """
        with reading(self._section.table):
            found = self.dialect.settle(self._schema, self._section.table, self._section.columns.position, patience)
            head = _kept(found, self.table)
            self._wait_for_holes(head)
        return head

    def _wait_for_holes(self, head: Place) -> None:
        """A hole is an append that was given up, or one that is on its way; only time tells, and the count before the switch."""
        patience = self._section.wait_for_holes
        if patience is None or head is None:
            return
        deadline = time.monotonic() + patience.total_seconds()
        first = sa.select(sa.func.min(self._position)).select_from(self._table)
        with self.dialect.connect() as connection:
            lowest = max(int(connection.execute(first).scalar_one()), head - LOOKED_FOR_HOLES)
            lowest = lowest if self._whole is None else max(lowest, self._whole)
            there = sa.select(sa.func.count()).select_from(self._table).where(self._position >= lowest, self._position <= head)
            while connection.execute(there).scalar_one() <= head - lowest and time.monotonic() < deadline:
                time.sleep(0.1)
        self._whole = head

    def heads(self, place: Callable[[], Place], small: int, head: Callable[[], Place] | None = None) -> Iterator[Place]:
        """Settled heads to replay to, one after the other, until what appeared meanwhile is a small backlog.

        :param place: how far the replay has come; asked anew for each head
        :param head: tells each of them; None: the settled head
        :param small: the backlog, in events, after which no further head is given
        :raises FallingBehind: events are appended faster than they are replayed
        """
        behind, without_gain = None, 0
        while behind is None or behind > small:
            upto = self.settled_head() if head is None else head()
            # The first backlog may be the whole store; of that it is enough to know that it is large.
            left = self.count(place(), upto, most=small + 1 if behind is None else None)
            without_gain = without_gain + 1 if behind is not None and left >= behind else 0
            if without_gain >= ROUNDS_WITHOUT_GAIN:
                raise FallingBehind(
                    f"events are appended faster than they are replayed: {left:,} events are left after {ROUNDS_WITHOUT_GAIN} rounds "
                    "without gain. What is done is kept; retry in a quieter hour, or raise replay.batch_events"
                )
            behind = left
            yield upto

    @contextmanager
    def in_a_hurry(self, longest: timedelta) -> Iterator[None]:
        """Within it no reading waits for a lock for longer: while tables are held, whoever is waited for may wait for these tables.

        All readings use one connection, which is made here: to set one up takes round trips, and writers wait then.
        """
        with ExitStack() as stack:
            with reading(self._section.table):
                hurry = stack.enter_context(_Hurry(self.dialect, longest))
            self._hurry = hurry
            try:
                yield
            finally:
                self._hurry = None

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        with reading(self._section.table), self.dialect.connect() if self._hurry is None else self._hurry.lent() as connection:
            yield connection

    def newest(self) -> Place:
        """The highest position that is visible now, settled or not; the beginning for an empty store.

        :raises PositionError: it is higher than the ledger can keep
        """
        with self._connected() as connection:
            found = self.dialect.newest_position(connection, self._schema, self._section.table, self._section.columns.position)
            return _kept(found, self.table)

    def first(self) -> Place:
        """The lowest position that is visible now; the beginning for an empty store."""
        with self._connected() as connection:
            found = connection.execute(sa.select(sa.func.min(self._position)).select_from(self._table)).scalar()
            return None if found is None else int(found)

    def count(self, after: Place, upto: Place, *, most: int | None = None) -> int:
        """How many events, of whatever type, lie above one place and up to another.

        :param most: where the count ends; None: nowhere
        """
        events = sa.select(self._position).select_from(self._table).where(*self._columns.between(after, upto)).limit(most)
        with self._connected() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(events.subquery())).scalar_one())

    def place_of(self, number: int, after: Place, upto: Place) -> Place:
        """The position of the event, of whatever type, that is so many events above a place; ``upto`` if there are fewer.

        :param number: from 1
        """
        query = self._in_order(self._columns.between(after, upto)).offset(number - 1).limit(1)
        with self._connected() as connection:
            found = connection.execute(query).scalar()
            return upto if found is None else found

    def place_before(self, number: int, upto: Place) -> Place:
        """A place below which all events lie but so many, counted back from a place; the beginning if there are fewer."""
        query = sa.select(self._position).select_from(self._table).where(*self._columns.between(None, upto))
        with self._connected() as connection:
            found = connection.execute(query.order_by(self._position.desc()).offset(number).limit(1)).scalar()
            return None if found is None else int(found)

    def _in_order(self, conditions: Iterable[sa.ColumnElement[bool]]) -> sa.Select[int]:
        return sa.select(self._position).select_from(self._table).where(*conditions).order_by(self._position)

    def estimate(self) -> int:
        """About how many events there are, without counting them."""
        with self._connected() as connection:
            return self.dialect.row_estimate(connection, self._schema, self._section.table)

    def maintenance(self) -> list[str]:
        """What is in the way of a fence for as long as it lasts; see :meth:`Dialect.maintenance`."""
        with self._connected() as connection:
            return self.dialect.maintenance(connection, self._schema, [self._section.table])

    @contextmanager
    def fence(self, timeout: timedelta, longest: timedelta) -> Iterator[Fence]:
        """Holds appends back while the context lasts; see :meth:`Dialect.fence`."""
        with ExitStack() as stack:
            # Not around what is done meanwhile, whose errors are its own.
            with reading(self._section.table):
                fence = stack.enter_context(self.dialect.fence(self._schema, self._section.table, timeout, longest))
            yield fence
            with reading(self._section.table):
                stack.close()

    def counts(self, after: Place, upto: Place, only: EventFilter = ALL_EVENTS) -> dict[str, int]:
        """How many events of each type lie above one place and up to another."""
        exact = self._columns.exact_type
        query = (
            sa.select(exact, sa.func.count())
            .select_from(self._table)
            .where(*self._columns.between(after, upto), *self._filter(only))
            .group_by(exact)
        )
        with self._connected() as connection:
            return {as_text(event_type): int(count) for event_type, count in connection.execute(query)}

    def listed(self, after: Place, upto: Place) -> dict[int, str]:
        """The types of the events above one place and up to another, by their positions, as one statement sees them."""
        query = sa.select(self._position, self._columns.exact_type).where(
            *self._columns.between(after, upto), *self._columns.only
        )
        with self._connected() as connection:
            return {
                int(position): as_text(event_type) for position, event_type in connection.execute(query.select_from(self._table))
            }

    def types(self) -> list[str]:
        """The event types that occur, sorted; reads the whole type column, so only for a plan."""
        return sorted(self.samples())

    def samples(self) -> dict[str, tuple[int, int]]:
        """The first and the last position of each event type; reads the whole type column, so only for a plan."""
        exact = self._columns.exact_type
        query = sa.select(exact, sa.func.min(self._position), sa.func.max(self._position)).select_from(self._table)
        with self._connected() as connection:
            rows = connection.execute(query.where(*self._columns.only).group_by(exact))
            return {as_text(event_type): (int(first), int(last)) for event_type, first, last in rows if event_type is not None}

    def find(self, positions: Sequence[int], *, metadata: bool = False) -> list[Event]:
        """The events at these positions, in their order."""
        query = (
            sa.select(*self._columns.selected(metadata=metadata))
            .select_from(self._table)
            .where(self._position.in_(positions), *self._columns.only)
            .order_by(self._position)
        )
        with self._connected() as connection:
            return self._decode([tuple(row) for row in connection.execute(query)])

    def last_positions(
        self, streams: Sequence[str], upto: Place, types: Sequence[str], *, without: Collection[int] = ()
    ) -> dict[str, int]:
        """Where the last event of each stream is, of these types and up to a place, those ``without`` left out."""
        exact = self._columns.exact_stream
        query = (
            sa.select(exact, sa.func.max(self._position))
            .select_from(self._table)
            .where(
                *self._columns.of_streams(streams),
                *self._columns.between(None, upto),
                *self._columns.of_types(types),
                self._position.not_in(without),
                *self._columns.only,
            )
            .group_by(exact)
        )
        with self._connected() as connection:
            found = ((self._columns.stream_of(each), position) for each, position in connection.execute(query))
            return {stream: int(position) for stream, position in found if stream is not None}

    def streams(self, after: Place, upto: Place, types: Sequence[str], only: EventFilter = ALL_EVENTS) -> set[str | None]:
        """The aggregates that have events of these types above one place and up to another; None: events without one.

        :raises PartError: what stands for a stream is none of the form that the spec says
        """
        query = (
            sa.select(self._columns.exact_stream)
            .select_from(self._table)
            .where(*self._columns.between(after, upto), *self._columns.of_types(types), *self._filter(only))
            .distinct()
        )
        with self._connected() as connection:
            found = connection.execute(query).scalars().all()
        try:
            return {self._columns.stream_of(each) for each in found}
        except ValueError:
            raise PartError(
                f"a stream of {self.table} is bytes that are no {self._section.stream_format}, so that nobody knows which aggregates there are. "
                "The live tables are untouched: correct event_store.stream_format or the event, or rebuild as a whole"
            ) from None

    def has_strays(self, types: Sequence[str]) -> bool:
        """Whether any event of these types has no stream."""
        strays = (self._columns.no_stream, *self._columns.of_types(types), *self._columns.only)
        query = sa.select(self._position).select_from(self._table).where(*strays).limit(1)
        with self._connected() as connection:
            return connection.execute(query).first() is not None

    def range_of(
        self, number: int, after: Place, upto: Place, types: Sequence[str], without: Collection[int]
    ) -> tuple[Place, int]:
        """The next so many events of these types above a place, those ``without`` left out: up to where they go, and how many there are.

        Its cost depends on the events alone, however far apart their positions are.

        :returns: ``upto`` itself where no more are left
        """
        wanted = (*self._columns.between(after, upto), *self._columns.of_types(types), *self._columns.only)
        some = self._in_order(wanted).limit(number)
        if without:
            some = some.where(self._position.not_in(without))
        events = some.subquery()
        query = sa.select(sa.func.max(events.c[0]), sa.func.count()).select_from(events)
        with self._connected() as connection:
            last, count = connection.execute(query).one()
        return (int(last) if count == number else upto), int(count)

    def relation(
        self,
        after: Place,
        upto: Place,
        types: Sequence[str],
        *,
        without: Collection[int] = (),
        among: Collection[int] | None = None,
    ) -> str:
        """SQL for a subquery: the events of these types above ``after`` and up to ``upto``, those ``without`` left out.

        :param among: only those at these positions

        Its columns are ``position``, ``stream``, ``type``, ``payload``, ``recorded_at``, ``version``, ``type_version`` and
        ``metadata``, of the types that they have in the store, but for bytes, which are text here; null where it has no such column.
        """
        wanted = (*self._columns.between(after, upto), *self._columns.of_types(types), *self._columns.only)
        query = sa.select(*self._columns.for_statements()).select_from(self._table).where(*wanted)
        if without:
            query = query.where(self._position.not_in(without))
        if among is not None:
            query = query.where(self._position.in_(among))
        compiled = query.compile(dialect=self.dialect.engine.dialect, compile_kwargs={"literal_binds": True})
        # Compiled for a driver that formats its statements.
        text = str(compiled)
        return f"({text.replace('%%', '%') if compiled.preparer._double_percents else text})"

    def _partition(self, field: str | None) -> sa.ColumnElement[str]:
        """Where an event belongs, as text; empty where it does not say."""
        text = self._columns.stream_text() if field is None else self._columns.payload_field(field)
        return sa.func.coalesce(text, sa.literal_column("''"), type_=sa.Text)

    @property
    def has_json(self) -> bool:
        """Whether the database can look into payloads."""
        return self._section.preset is not Preset.PYEVENTSOURCING and self._section.decoder is None

    @property
    def divides_by_fields(self) -> bool:
        """Whether the database can divide events by a field of their payloads, whatever these hold."""
        return self.has_json and self._columns.reads_payloads

    def shard_of(self, partition: str, count: int) -> int:
        """In which of so many shards a partition is."""
        with reading(self._section.table), self.dialect.connect() as connection:
            number = self.dialect.shard_number(sa.cast(sa.literal(partition), sa.Text), count)
            return int(connection.execute(sa.select(number)).scalar_one())

    def pages(
        self,
        after: Place,
        upto: Place,
        types: Sequence[str],
        *,
        size: int,
        metadata: bool = False,
        only: EventFilter = ALL_EVENTS,
        shard: Shard | None = None,
        seen: set[str] | None = None,
    ) -> Generator[tuple[list[Event], Place], None, None]:
        """Pages of events of these types above ``after`` and up to ``upto``, each with the place that it reaches.

        By keyset, a few pages in each statement: while a page is worked on, the database makes the next one, and no snapshot is
        held for long. The last page reaches ``upto`` itself, even if it is empty. What cannot be decoded is an
        :class:`Undecodable`.

        :param size: events in a page at most; fewer where payloads are large
        :param shard: only the events of this one
        :param seen: is given the partitions of the shard's events that are read
        """
        of = tuple(types)
        query = (
            sa.select(*self._columns.selected(metadata=metadata))
            .select_from(self._table)
            .where(*self._columns.of_types(types), *self._columns.between(None, upto), *self._filter(only))
            .order_by(self._position)
        )
        if shard is not None:
            belongs = self._partition(shard.field)
            query = query.add_columns(self.dialect.as_bytes(belongs)).where(
                self.dialect.is_in_shard(belongs, shard.number, shard.count)
            )
        with self._connected() as connection:
            while is_before(after, upto):
                read, at_once = 0, min(size, self._page_sizes.get(of, FIRST_PAGE))
                limit = at_once * PAGES_PER_STATEMENT if of in self._page_sizes else at_once
                some = (query if after is None else query.where(self._position > after)).limit(limit)
                with closing(self.dialect.read(connection, some, at_once)) as pages:
                    for rows in pages:
                        read, after = read + len(rows), rows[-1][0]
                        self._page_sizes[of] = max(1, PAGE_TEXT * len(rows) // (1 + sum(len(row[PAYLOAD] or "") for row in rows)))
                        yield self._decode(rows if shard is None else _taken_off(rows, seen)), after
                if read < limit:
                    after = upto
                    yield [], after

    def _filter(self, only: EventFilter) -> list[sa.ColumnElement[bool]]:
        streams = [] if only.streams is None else self._columns.of_streams(only.streams)
        return [*self._columns.only, *streams, *self._columns.recorded(only.since, only.until)]


def _taken_off(rows: Sequence[tuple[Any, ...]], seen: set[str] | None) -> list[tuple[Any, ...]]:
    """The rows without their last column, the partition."""
    if seen is not None:
        # SQLite gives bytes, of which a text cannot always be made; then the event cannot be read either.
        seen.update(row[-1].decode(errors="replace") if isinstance(row[-1], bytes) else row[-1] for row in rows)
    return [row[:-1] for row in rows]


def _kept(found: Place, table: str) -> Place:
    if found is not None and found > HIGHEST:
        raise PositionError(
            f"the event store {table} holds an event at position {found:,}, and rebuilds keep positions up to {HIGHEST:,}. The live tables "
            "are untouched. Give the events positions below that"
        )
    return found
