"""Rebuilding a part: rows outside it are copied from blue, those of the part are replayed from their first event on.

Blue is written meanwhile, and a row of blue does not tell which events it holds. So nothing is copied that may have changed
during the copy: blue holds every event up to a position before it (``held``), all that were seen by it lie at or below the
head that is settled after it (``settled``), and whatever has events in between becomes part of the part. Every other row
was the same before, during and after, and the replay goes on above ``settled`` as it does in any rebuild. That needs no
snapshot, no lock on blue, and the same statements on every database.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByAggregate, ByPeriod, Part, PartKeys, PartRows, without_stream
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.dialects.base import KeyList
from projection_rebuild.errors import HandlerError, PoisonEvent, SettleTimeout, StepOrderError
from projection_rebuild.errors.boundary import trouble_at_event, word_for
from projection_rebuild.eventstore.store import ALL_EVENTS, PATIENCE, EventFilter
from projection_rebuild.ledger import Checkpoint, PartState
from projection_rebuild.model.findings import Finding
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import BEGINNING, Place, is_before, said
from projection_rebuild.replay.foreign_reads import Projects
from projection_rebuild.rows.types import Rows
from projection_rebuild.run import jobs
from projection_rebuild.run.context import Context
from projection_rebuild.spec.replay import OnError

FEW_STREAMS = 1_000
"""Up to so many aggregates are asked for by name; beyond, reading every event and passing over those of others is cheaper."""


@dataclass(frozen=True)
class OpenPart:
    """One projector's part, its other rows being copied.

    :param settled: up to here only events of the part are applied, above it all events
    :param only: what has to be read up to there
    """

    declared: ByAggregate | ByPeriod
    keys: PartKeys
    settled: Place
    only: EventFilter

    def of(self, projector: Projects) -> Projects:
        """A projector as it works on this part."""
        return _OfPart(projector, self)


class _OfPart:
    def __init__(self, projector: Projects, part: OpenPart) -> None:
        self._projector = projector
        self._part = part

    def project(self, event: Event, rows: Rows) -> None:
        if is_before(self._part.settled, event.position):
            self._projector.project(event, rows)
            return
        key = self._part.declared.key(event)
        if key in self._part.keys:
            self._projector.project(event, PartRows(rows, self._part.declared.rows, key))


# Planning -------------------------------------------------------------------------------------------------------------


def look(context: Context, connection: sa.Connection, part: Part, projectors: list[str]) -> Iterator[Finding]:
    """Why a part cannot be rebuilt as it was asked for."""
    timed = part.since is not None or part.until is not None
    if timed and (problem := context.store.without_times()):
        yield Finding(about="since, until", problem=problem, remedy="or choose aggregates, or rebuild as a whole", refuses=True)
        return
    if context.store.newest() is None:
        problem = "the event store is empty, so that nothing tells what the rows of a part are"
        yield Finding(about="since, until, aggregates", problem=problem, remedy="rebuild as a whole", refuses=True)
        return
    for name in projectors:
        declared = context.projector(name).part
        if declared is None:
            problem = f"{name} does not declare by what its rows are told apart, so no part of them can be rebuilt"
            remedy = "set its `part` (ByAggregate or ByPeriod), leave it out, or rebuild it as a whole"
            yield Finding(about="since, until, aggregates", problem=problem, remedy=remedy, refuses=True)
        elif isinstance(declared, ByPeriod) and part.aggregates is not None:
            problem = f"{name} keeps its rows by period, and one period is made of the events of many aggregates"
            yield Finding(about="aggregates", problem=problem, remedy="leave it out, or choose since and until", refuses=True)
        elif not context.projector(name).has_handlers():
            problem = f"{name} has only SQL, and whose an event is, handlers tell"
            yield Finding(about="since, until, aggregates", problem=problem, remedy="rebuild it as a whole", refuses=True)
        elif isinstance(declared, ByAggregate) and declared.of is None and _has_strays(context, name):
            problem = f"{name} tells its rows apart by the stream of their events, and some of its events have no stream"
            yield Finding(about="since, until, aggregates", problem=problem, remedy="rebuild it as a whole", refuses=True)
    yield from _nothing_chosen(context, connection, part, projectors)


def _has_strays(context: Context, projector: str) -> bool:
    """Whether any event of a projector has no stream."""
    return context.store.has_strays(context.projector(projector).stored_types())


def _nothing_chosen(context: Context, connection: sa.Connection, part: Part, projectors: list[str]) -> Iterator[Finding]:
    """A name that the store does not know is a mistake; so is a time in which nothing happened, and about which there is nothing."""
    types = sorted({each for name in projectors for each in context.projector(name).stored_types()})
    found = context.store.streams(BEGINNING, context.store.newest(), types, _chosen(part))
    if part.aggregates is not None and (unknown := sorted(set(part.aggregates) - found)):
        some = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        when = " in this time" if part.since or part.until else ""
        problem = f"the store has no event of these projectors{when} for {len(unknown)} of them: {some}"
        yield Finding(about="aggregates", problem=problem, remedy="correct or leave out these names", refuses=True)
    elif not found and not _has_periods(context, connection, part, projectors):
        problem = f"no event of these projectors was recorded ({part.describe()})"
        yield Finding(about="since, until", problem=problem, remedy="correct the time, or begin earlier", refuses=True)


def _has_periods(context: Context, connection: sa.Connection, part: Part, projectors: list[str]) -> bool:
    """Whether blue has a row about the time: the events about a period may have been recorded before it."""
    for projector in map(context.projector, projectors):
        declared = projector.part
        if isinstance(declared, ByPeriod):
            keys = _bounds(context, declared, part)
            for table, column in _columns(context, projector, declared):
                # Without it there is a finding of its own.
                there = context.dialect.table_exists(connection, table.schema, table.blue)
                found = context.dialect.distinct(connection, table.schema, table.blue, column) if there else ()
                if any(map(keys.in_range, found)):
                    return True
    return False


def _columns(context: Context, projector: type[Projector], declared: ByAggregate | ByPeriod) -> Iterator[tuple[TableSet, str]]:
    """The tables of a projector, each with the column that tells whose row it is."""
    for kind in projector.kinds():
        yield context.table_set(kind.table), kind.column(declared.rows[kind.row_class])


def _chosen(part: Part) -> EventFilter:
    streams = None if part.aggregates is None else tuple(part.aggregates)
    return EventFilter(streams=streams, since=part.since, until=part.until)


# Copying --------------------------------------------------------------------------------------------------------------


def prepare(context: Context, connection: sa.Connection, plan: Plan, first: Checkpoint) -> Checkpoint:
    """Copies the rows outside a projector's part, once; does nothing for a whole rebuild.

    :returns: the checkpoint from which the replay goes on
    :raises FencedOut: another worker does the same
    :raises SettleTimeout: appends, or the jobs that project them, did not end in time
    """
    if plan.part is None or _settled(context, connection, first) is not None:
        return first
    _Copy(context, connection, plan.part, first).run()
    return context.ledger.checkpoints.of_projectors(connection, context.run_id)[first.projector]


def open_part(context: Context, connection: sa.Connection, plan: Plan, read: Checkpoint) -> OpenPart | None:
    """The part that is being replayed; None: there is none.

    It stays when all of it is replayed: an event that was set aside may come later.

    :raises StepOrderError: its other rows have not been copied
    """
    if plan.part is None:
        return None
    state = _settled(context, connection, read)
    if state is None or state.settled is None:
        raise StepOrderError(f"the rows outside the part of {read.projector} are not copied; run its replay")
    declared = declaration(context.projector(read.projector))
    listed = context.ledger.partial_rebuilds.keys(connection, state.part_id)
    keys = replace(_bounds(context, declared, plan.part), listed=listed)
    return OpenPart(declared, keys, state.settled, _to_be_read(declared, keys))


def is_copied(context: Context, connection: sa.Connection, read: Checkpoint) -> bool:
    """Whether the rows outside a projector's part are in green."""
    return _settled(context, connection, read) is not None


def declaration(projector: type[Projector]) -> ByAggregate | ByPeriod:
    """What a projector says about parts of its rows.

    :raises StepOrderError: nothing; a plan refuses it
    """
    if projector.part is None:
        raise StepOrderError(f"{projector.name()} no longer declares its `part`; plan the run anew")
    return projector.part


def _settled(context: Context, connection: sa.Connection, read: Checkpoint) -> PartState | None:
    state = context.ledger.partial_rebuilds.find(connection, context.run_id, read.projector)
    return state if state is not None and state.token == read.token and state.settled is not None else None


class _Copy:
    """The copy for one projector; a kill at any moment leaves what the next one replaces."""

    def __init__(self, context: Context, connection: sa.Connection, part: Part, first: Checkpoint) -> None:
        self._context = context
        self._connection = connection
        self._part = part
        self._first = first
        self._name = first.projector
        self._projector = context.projector(self._name)
        self._declared = declaration(self._projector)
        self._types = self._projector.stored_types()

    def run(self) -> None:
        context, connection, ledger = self._context, self._connection, self._context.ledger
        began = time.monotonic()
        held = self._held_by_blue()
        # Before the copy: an event that appears below `held` afterwards is not counted here, and verification notices.
        count = self._count(BEGINNING, held)
        keys = self._keys(held)
        with context.dialect.transaction(connection):
            part_id = ledger.partial_rebuilds.begin(connection, context.run_id, self._first)
            ledger.partial_rebuilds.add_keys(connection, part_id, sorted(keys.listed))
        listed = KeyList(context.schema, ledger.partial_rebuilds.key_table, part_id)
        context.log(f"{self._name}: copying all rows but those of {self._what(keys)}")
        with context.dialect.transaction(connection):
            ledger.partial_rebuilds.hold(connection, context.run_id, self._name, part_id)
            for table, column in self._tables():
                context.dialect.run(connection, f"DELETE FROM {context.dialect.qualified(table.schema, table.green)}")
                context.dialect.copy_others(connection, table, column, listed)
        settled = context.store.settled_head()
        if settled is None:
            raise StepOrderError(
                f"the event store is empty, so that no part of {self._name} can be rebuilt. The live tables are untouched; "
                "find out where its events are, then clear plan and what follows"
            )
        count += self._count(held, settled)
        changed = self._keys_between(held, settled) - set(keys.listed)
        keys = replace(keys, listed={*keys.listed, *changed})
        count -= self._count(BEGINNING, settled, _to_be_read(self._declared, keys))
        with context.dialect.transaction(connection):
            ledger.partial_rebuilds.hold(connection, context.run_id, self._name, part_id, settled=settled)
            ledger.partial_rebuilds.add_keys(connection, part_id, sorted(changed))
            for table, column in self._tables() if changed else ():
                context.dialect.delete_listed(connection, table, column, listed)
            # The events that the copied rows hold are handled; those of the part are going to be.
            ledger.checkpoints.advance(
                connection,
                context.run_id,
                self._first,
                position=self._first.position,
                head=settled,
                events=count,
                seconds=time.monotonic() - began,
            )
        context.log(f"{self._name}: copied as of {said(settled)}; replaying {self._what(keys)}")
        self._finish_tables()

    def _finish_tables(self) -> None:
        """Now, and not at the end of the replay: rows are looked for among those that were copied."""
        for table, _ in self._tables():
            for statement in self._context.dialect.index_green(self._connection, table):
                self._context.dialect.run(self._connection, statement)
            for statement in self._context.dialect.analyze(self._connection, table):
                self._context.dialect.run(self._connection, statement)

    def _tables(self) -> Iterator[tuple[TableSet, str]]:
        return _columns(self._context, self._projector, self._declared)

    def _what(self, keys: PartKeys) -> str:
        if isinstance(self._declared, ByAggregate):
            return f"{len(keys.listed):,} aggregates"
        beside = sum(not keys.in_range(each) for each in keys.listed)
        return f"the periods {keys.first or ''}..{keys.last or ''}" + (f" and {beside:,} others" if beside else "")

    def _count(self, after: Place, upto: Place, only: EventFilter = ALL_EVENTS) -> int:
        counts = self._context.store.counts(after, upto, only)
        return sum(counts.get(each, 0) for each in self._types)

    # Which rows -----------------------------------------------------------------------------------------------------

    def _held_by_blue(self) -> Place:
        """A place up to which blue holds every event for certain."""
        context, writer = self._context, self._context.spec.live_writer
        consumers = writer.checkpoint
        if consumers is not None:
            table = sa.table(consumers.table, schema=context.schema)
            position: sa.ColumnClause[int] = sa.column(consumers.position_column, sa.BigInteger)
            name: sa.ColumnClause[str] = sa.column(consumers.name_column, sa.String)
            mine = sa.select(position).select_from(table).where(name == consumers.names[self._name])
            # A consumer that has NULL there has not begun.
            found = self._connection.execute(mine).scalar_one()
            return None if found is None else int(found)
        head = jobs.replayable_head(context)
        if writer.drain_check is not None:
            self._wait_for_jobs(PATIENCE)
        return head

    def _wait_for_jobs(self, patience: timedelta) -> None:
        """Once there is none, all events from before have been projected."""
        deadline, spoken = time.monotonic() + patience.total_seconds(), False
        while jobs.are_left(self._context, self._connection):
            if time.monotonic() > deadline:
                raise SettleTimeout(
                    f"live_writer.drain_check did not give 0 within {patience.total_seconds():.0f} s, so it is not known which events the "
                    f"rows outside the part of {self._name} hold; retry in a quieter moment, or give live_writer.jobs_left in its place, which "
                    "tells them apart and has nobody wait"
                )
            if not spoken:
                self._context.log(f"{self._name}: waiting for a moment without jobs (live_writer.drain_check)")
                spoken = True
            time.sleep(0.02)

    def _keys(self, held: Place) -> PartKeys:
        declared = self._declared
        if isinstance(declared, ByPeriod):
            keys = _bounds(self._context, declared, self._part)
            found = {
                period
                for table, column in self._tables()
                for period in self._context.dialect.distinct(self._connection, table.schema, table.blue, column)
            }
            return replace(keys, listed={each for each in found if keys.in_range(each)})
        named, timed = self._part.aggregates, self._part.since or self._part.until
        if declared.of is None and named is not None and timed is None:
            # By name alone: also one whose events are gone has its rows replaced.
            return PartKeys(set(named))
        return PartKeys(self._keys_between(BEGINNING, held, _chosen(self._part)))

    def _keys_between(self, after: Place, upto: Place, only: EventFilter = ALL_EVENTS) -> set[str]:
        """The aggregates or periods that have events above one place and up to another.

        :raises PartError: an event has no stream, by which its aggregate would be told
        """
        declared, store = self._declared, self._context.store
        if isinstance(declared, ByAggregate) and declared.of is None:
            found = store.streams(after, upto, self._types, only)
            if None in found:
                raise without_stream()
            return {each for each in found if each is not None}
        pages = store.pages(
            after,
            upto,
            self._types,
            size=self._context.spec.replay.batch_events,
            metadata=self._projector.needs_metadata,
            only=only,
        )
        with closing(pages):
            return {key for events, _ in pages for key in self._keys_of(events)}

    def _keys_of(self, events: Iterable[Event]) -> Iterator[str]:
        for event in events:
            try:
                yield from map(self._declared.key, self._projector.upcasters.bring_up_to_date([event]))
            except Exception as error:
                if trouble := trouble_at_event(error, self._name, event.type, event.position):
                    raise trouble from None
                if self._context.spec.replay.on_error is OnError.DEAD_LETTER:
                    # The replay meets it again, and sets it aside.
                    continue
                if isinstance(error, PoisonEvent):
                    raise
                # Without the chain: an exception's text may quote the payload.
                raise HandlerError(self._name, event.type, event.position, word_for(error)) from None


def _bounds(context: Context, declared: ByAggregate | ByPeriod, part: Part) -> PartKeys:
    """The periods of a part by their bounds; aggregates have none."""
    if isinstance(declared, ByAggregate):
        return PartKeys(())
    zone = context.spec.zone
    first = None if part.since is None else str(declared.at(part.since.astimezone(zone)))
    last = None if part.until is None else str(declared.at((part.until - timedelta(microseconds=1)).astimezone(zone)))
    return PartKeys((), first, last)


def _to_be_read(declared: ByAggregate | ByPeriod, keys: PartKeys) -> EventFilter:
    named = isinstance(declared, ByAggregate) and declared.of is None and len(keys.listed) <= FEW_STREAMS
    return EventFilter(streams=tuple(sorted(keys.listed))) if named else ALL_EVENTS
