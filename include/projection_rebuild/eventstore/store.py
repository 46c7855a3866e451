"""Reads the event store: its high-water mark, and pages of events in the order of their positions."""

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
"""How long :meth:`EventStore.settled_head` waits for appends in flight before it raises, and the step is retried."""

PAGES_PER_STATEMENT = 10
"""More pages save round trips and query plans; fewer pages keep the server's snapshot short."""

FIRST_PAGE = 100
"""Events in the first page of their types, while the engine does not know yet how large their payloads are."""

PAGE_TEXT = 2_000_000
"""The most characters of payloads in a page, roughly; decoded payloads take several times as much memory."""

ROUNDS_WITHOUT_GAIN = 10
"""How many catch-up rounds in a row may leave at least as many events as the round before."""


LOOKED_FOR_HOLES = 50_000
"""How many positions below the newest one are searched for holes; an older hole is no append in flight."""

PAYLOAD = 3
"""The payload's index in a row; see :data:`~projection_rebuild.eventstore.decoding.Row`."""


@dataclass(frozen=True)
class EventFilter:
    """A filter on the events that a projector handles.

    :param streams: only the events of these aggregates; at most a few thousand, since each is a bound value
    :param since: only events recorded at or after this moment
    :param until: only events recorded before this moment
    """

    streams: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None


ALL_EVENTS = EventFilter()


class _LimitedConnections:
    """Connections that consecutive reads reuse, with a limit on their lock waits.

    :param longest: the longest wait of a read for a lock
    """

    def __init__(self, dialect: LockWaits, longest: timedelta) -> None:
        self._dialect = dialect
        self._longest = longest
        # Each connection with the stack that closes it.
        self._idle: list[tuple[sa.Connection, ExitStack]] = []

    def __enter__(self) -> Self:
        self._idle.append(self._opened())
        return self

    def __exit__(self, *error: object) -> None:
        for _, closer in self._idle:
            # All reads are done: a connection that the server has closed is no error, and must not hide the cutover's
            # outcome.
            with suppress(sa.exc.SQLAlchemyError):
                closer.close()

    @contextmanager
    def lent(self) -> Iterator[sa.Connection]:
        """The idle connection; a new one within another read, or after an error, which closes its connection."""
        connection, closer = self._idle.pop() if self._idle else self._opened()
        with ExitStack() as stack:
            stack.push(closer)
            yield connection
            self._idle.append((connection, stack.pop_all()))

    def _opened(self) -> tuple[sa.Connection, ExitStack]:
        with ExitStack() as stack:
            connection = stack.enter_context(self._dialect.connect())
            self._dialect.limit_lock_wait(connection, self._longest)
            return connection, stack.pop_all()


class EventStore:
    """The append-only table of events, which the engine only reads.

    A place in it is a position, or None for the beginning.

    :param dialect: of the database that holds the store
    :param section: table and columns as the spec names them
    :raises SpecError: the decoder or mapper of the payloads cannot be imported or called
    """

    def __init__(self, dialect: Dialect, section: EventStoreSection) -> None:
        self.dialect = dialect
        self._section = section
        self._decode = decoder_of(section)
        with reading(section.table), dialect.connect() as connection:
            self._schema = section.db_schema or dialect.inspector.default_schema(connection)
            types = dialect.inspector.column_types(connection, self._schema, section.table)
        self._columns = EventColumns(dialect, section, self._schema, types)
        self._table = self._columns.table
        self._position = self._columns.position
        self._whole: Place = BEGINNING
        self._page_sizes: dict[tuple[str, ...], int] = {}
        self._limited: _LimitedConnections | None = None

    @property
    def table(self) -> str:
        """The table's name."""
        return self._section.table

    def preflight(self) -> list[Finding]:
        """Checks the engine's requirements of the store; see :mod:`projection_rebuild.eventstore.contract`."""
        with reading(self._section.table):
            return Contract(self.dialect, self._section, self._schema).findings()

    def without_times(self) -> str | None:
        """Why the store cannot select the events recorded since a moment; None: it can."""
        with reading(self._section.table):
            return Contract(self.dialect, self._section, self._schema).without_times()

    def settled_head(self, patience: timedelta = PATIENCE) -> Place:
        """The high-water mark: the highest position below which no event can appear any more.

        It is the beginning for an empty store.

        :raises SettleTimeout: appends in flight did not end in time
        :raises PositionError: the position is higher than the ledger can store
        """
        with reading(self._section.table):
            highest = self.dialect.events.settle(self._schema, self._section.table, self._section.columns.position, patience)
            head = _kept(highest, self.table)
            self._wait_for_holes(head)
        return head

    def _wait_for_holes(self, head: Place) -> None:
        """Waits until holes are filled, or for ``wait_for_holes``.

        A hole is an append that was rolled back, or one in flight. Only time shows which one it is; the count before the
        swap finds an event that came late.
        """
        patience = self._section.wait_for_holes
        if patience is None or head is None:
            return
        deadline = time.monotonic() + patience.total_seconds()
        first = sa.select(sa.func.min(self._position)).select_from(self._table)
        with self.dialect.connect() as connection:
            lowest = max(int(connection.execute(first).scalar_one()), head - LOOKED_FOR_HOLES)
            lowest = lowest if self._whole is None else max(lowest, self._whole)
            existing = sa.select(sa.func.count()).select_from(self._table).where(self._position >= lowest, self._position <= head)
            while connection.execute(existing).scalar_one() <= head - lowest and time.monotonic() < deadline:
                time.sleep(0.1)
        self._whole = head

    def heads(self, place: Callable[[], Place], small: int, head: Callable[[], Place] | None = None) -> Iterator[Place]:
        """Positions to replay to, one after the other, until only a small backlog has appeared meanwhile.

        :param place: returns how far the replay has come; called anew for each position
        :param head: returns each position; None: the high-water mark
        :param small: the backlog, in events, after which the iteration ends
        :raises FallingBehind: the application appends events faster than the engine replays them
        """
        behind, without_gain = None, 0
        while behind is None or behind > small:
            upto = self.settled_head() if head is None else head()
            # The first backlog may be the whole store. To know that it is large is enough, so the count stops early.
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
        """Limits the lock wait of reads while tables are locked.

        Otherwise a read may wait for a session that itself waits for these tables. All reads use one connection, which
        this method opens first: opening takes round trips, and later on writers would wait for them.

        :param longest: the longest wait of a read for a lock
        """
        with ExitStack() as stack:
            with reading(self._section.table):
                limited = stack.enter_context(_LimitedConnections(self.dialect, longest))
            self._limited = limited
            try:
                yield
            finally:
                self._limited = None

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        with (
            reading(self._section.table),
            self.dialect.connect() if self._limited is None else self._limited.lent() as connection,
        ):
            yield connection

    def newest(self) -> Place:
        """The highest position that is visible now, even above the high-water mark; the beginning for an empty store.

        :raises PositionError: it is higher than the ledger can store
        """
        with self._connected() as connection:
            highest = self.dialect.events.newest_position(
                connection, self._schema, self._section.table, self._section.columns.position
            )
            return _kept(highest, self.table)

    def first(self) -> Place:
        """The lowest position that is visible now; the beginning for an empty store."""
        with self._connected() as connection:
            lowest = connection.execute(sa.select(sa.func.min(self._position)).select_from(self._table)).scalar()
            return None if lowest is None else int(lowest)

    def count(self, after: Place, upto: Place, *, most: int | None = None) -> int:
        """How many events of any type lie above one place and up to another.

        :param most: the number at which the count stops; None: it counts all
        """
        events = sa.select(self._position).select_from(self._table).where(*self._columns.between(after, upto)).limit(most)
        with self._connected() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(events.subquery())).scalar_one())

    def place_of(self, number: int, after: Place, upto: Place) -> Place:
        """The position of the ``number``-th event of any type above a place; ``upto`` if there are fewer events.

        :param number: from 1
        """
        query = self._in_order(self._columns.between(after, upto)).offset(number - 1).limit(1)
        with self._connected() as connection:
            position = connection.execute(query).scalar()
            return upto if position is None else position

    def place_before(self, number: int, upto: Place) -> Place:
        """The place ``number`` events of any type back from another place; the beginning if there are fewer events.

        ``number`` events lie above the returned place and up to ``upto``.
        """
        query = sa.select(self._position).select_from(self._table).where(*self._columns.between(None, upto))
        with self._connected() as connection:
            position = connection.execute(query.order_by(self._position.desc()).offset(number).limit(1)).scalar()
            return None if position is None else int(position)

    def _in_order(self, conditions: Iterable[sa.ColumnElement[bool]]) -> sa.Select[int]:
        return sa.select(self._position).select_from(self._table).where(*conditions).order_by(self._position)

    def estimate(self) -> int:
        """The number of events by the database's statistics, roughly; counts nothing."""
        with self._connected() as connection:
            return self.dialect.inspector.row_estimate(connection, self._schema, self._section.table)

    def maintenance(self) -> list[str]:
        """Which maintenance blocks a fence while it runs; see :meth:`Dialect.maintenance`."""
        with self._connected() as connection:
            return self.dialect.maintenance(connection, self._schema, [self._section.table])

    @contextmanager
    def fence(self, timeout: timedelta, longest: timedelta) -> Iterator[Fence]:
        """Makes appends wait while the context lasts; see :meth:`Dialect.fence`.

        :param timeout: the longest wait for the fence
        :param longest: the longest time that the fence may stand
        """
        with ExitStack() as stack:
            # Not around the yield: errors of the caller's block are no errors of reading.
            with reading(self._section.table):
                fence = stack.enter_context(self.dialect.events.fence(self._schema, self._section.table, timeout, longest))
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
        """The types of the events above one place and up to another, by position, read in one statement."""
        query = sa.select(self._position, self._columns.exact_type).where(
            *self._columns.between(after, upto), *self._columns.only
        )
        with self._connected() as connection:
            return {
                int(position): as_text(event_type) for position, event_type in connection.execute(query.select_from(self._table))
            }

    def types(self) -> list[str]:
        """The event types in the store, sorted; reads the whole type column, so only for a plan."""
        return sorted(self.samples())

    def samples(self) -> dict[str, tuple[int, int]]:
        """The first and the last position of each event type; reads the whole type column, so only for a plan."""
        exact = self._columns.exact_type
        query = sa.select(exact, sa.func.min(self._position), sa.func.max(self._position)).select_from(self._table)
        with self._connected() as connection:
            rows = connection.execute(query.where(*self._columns.only).group_by(exact))
            return {as_text(event_type): (int(first), int(last)) for event_type, first, last in rows if event_type is not None}

    def find(self, positions: Sequence[int], *, metadata: bool = False) -> list[Event]:
        """The events at these positions, in the order of the positions."""
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
        """The position of each stream's last event of these types up to a place; skips the positions in ``without``."""
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
            positions = ((self._columns.stream_of(stream), position) for stream, position in connection.execute(query))
            return {stream: int(position) for stream, position in positions if stream is not None}

    def streams(self, after: Place, upto: Place, types: Sequence[str], only: EventFilter = ALL_EVENTS) -> set[str | None]:
        """The streams of the events of these types between two places; None stands for events without a stream.

        :raises PartError: a stored stream does not have the form that the spec declares
        """
        query = (
            sa.select(self._columns.exact_stream)
            .select_from(self._table)
            .where(*self._columns.between(after, upto), *self._columns.of_types(types), *self._filter(only))
            .distinct()
        )
        with self._connected() as connection:
            stored_streams = connection.execute(query).scalars().all()
        try:
            return {self._columns.stream_of(stored) for stored in stored_streams}
        except ValueError:
            raise PartError(
                f"a stream of {self.table} is bytes that are no {self._section.stream_format}, so the engine cannot list the aggregates. "
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
        """The range of the next ``number`` events of these types above a place, without the positions in ``without``.

        Its cost depends on the events alone, however far apart their positions are.

        :returns: the position of the last of them, and how many there are; ``upto`` as the position if there are fewer
            than ``number``
        """
        conditions = (*self._columns.between(after, upto), *self._columns.of_types(types), *self._columns.only)
        selected = self._in_order(conditions).limit(number)
        if without:
            selected = selected.where(self._position.not_in(without))
        events = selected.subquery()
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
        """SQL of a subquery: the events of these types above ``after`` and up to ``upto``, except ``without``.

        Its columns are ``position``, ``stream``, ``type``, ``payload``, ``recorded_at``, ``version``, ``type_version``
        and ``metadata``. They have their types in the store, except that bytes become text. A column that the store
        lacks is null.

        :param among: only the events at these positions
        """
        conditions = (*self._columns.between(after, upto), *self._columns.of_types(types), *self._columns.only)
        query = sa.select(*self._columns.for_statements()).select_from(self._table).where(*conditions)
        if without:
            query = query.where(self._position.not_in(without))
        if among is not None:
            query = query.where(self._position.in_(among))
        compiled = query.compile(dialect=self.dialect.engine.dialect, compile_kwargs={"literal_binds": True})
        # The compiler doubles percent signs for drivers that format their statements.
        text = str(compiled)
        return f"({text.replace('%%', '%') if compiled.preparer._double_percents else text})"

    def _partition(self, field: str | None) -> sa.ColumnElement[str]:
        """The partition of an event as text; empty if the event names none."""
        text = self._columns.stream_text() if field is None else self._columns.payload_field(field)
        return sa.func.coalesce(text, sa.literal_column("''"), type_=sa.Text)

    @property
    def has_json(self) -> bool:
        """Whether payloads are JSON, so that the database can read their fields."""
        return self._section.preset is not Preset.PYEVENTSOURCING and self._section.decoder is None

    @property
    def divides_by_fields(self) -> bool:
        """Whether the database can divide events by a field of their payloads, for any payload."""
        return self.has_json and self._columns.reads_payloads

    def shard_of(self, partition: str, count: int) -> int:
        """The number of the shard that a partition belongs to, from 0.

        :param count: how many shards divide the projector's events
        """
        with reading(self._section.table), self.dialect.connect() as connection:
            number = self.dialect.expressions.shard_number(sa.cast(sa.literal(partition), sa.Text), count)
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

        Each statement reads a few pages by keyset. The database prepares the next page while the engine projects one,
        and holds no snapshot for long. The last page reaches ``upto`` itself, even if it is empty. An event that cannot
        be decoded becomes an :class:`Undecodable`.

        :param size: the most events in a page; large payloads make pages smaller
        :param shard: only the events of this shard
        :param seen: collects the partitions of the shard's events
        """
        key = tuple(types)
        query = (
            sa.select(*self._columns.selected(metadata=metadata))
            .select_from(self._table)
            .where(*self._columns.of_types(types), *self._columns.between(None, upto), *self._filter(only))
            .order_by(self._position)
        )
        if shard is not None:
            belongs = self._partition(shard.field)
            query = query.add_columns(self.dialect.expressions.as_bytes(belongs)).where(
                self.dialect.expressions.is_in_shard(belongs, shard.number, shard.count)
            )
        with self._connected() as connection:
            while is_before(after, upto):
                read, at_once = 0, min(size, self._page_sizes.get(key, FIRST_PAGE))
                limit = at_once * PAGES_PER_STATEMENT if key in self._page_sizes else at_once
                statement = (query if after is None else query.where(self._position > after)).limit(limit)
                with closing(self.dialect.read(connection, statement, at_once)) as pages:
                    for rows in pages:
                        read, after = read + len(rows), rows[-1][0]
                        self._page_sizes[key] = max(
                            1, PAGE_TEXT * len(rows) // (1 + sum(len(row[PAYLOAD] or "") for row in rows))
                        )
                        yield self._decode(rows if shard is None else _taken_off(rows, seen)), after
                if read < limit:
                    after = upto
                    yield [], after

    def _filter(self, only: EventFilter) -> list[sa.ColumnElement[bool]]:
        streams = [] if only.streams is None else self._columns.of_streams(only.streams)
        return [*self._columns.only, *streams, *self._columns.recorded(only.since, only.until)]


def _taken_off(rows: Sequence[tuple[Any, ...]], seen: set[str] | None) -> list[tuple[Any, ...]]:
    """The rows without their last column, the partition; adds the partitions to ``seen``."""
    if seen is not None:
        # SQLite returns bytes, which may not be valid text; then the event cannot be decoded either.
        seen.update(row[-1].decode(errors="replace") if isinstance(row[-1], bytes) else row[-1] for row in rows)
    return [row[:-1] for row in rows]


def _kept(position: Place, table: str) -> Place:
    if position is not None and position > HIGHEST:
        raise PositionError(
            f"the event store {table} holds an event at position {position:,}, and rebuilds keep positions up to {HIGHEST:,}. The live tables "
            "are untouched. Give the events positions below that"
        )
    return position
