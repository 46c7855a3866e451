"""Rebuilds a part of a projector's rows: which rows and events belong to it, and its replay after the copy.

The engine first copies the rows outside the part: see :mod:`projection_rebuild.replay.partial_copy`. Then it replays
the rows of the part from their first event on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByAggregate, ByPeriod, SelectedKeys, Selection, SelectionGuard
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import NotReplayed, StepOrderError
from projection_rebuild.eventstore.store import ALL_EVENTS, EventFilter
from projection_rebuild.ledger import Checkpoint, PartialState
from projection_rebuild.model.findings import Finding
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import BEGINNING, Place, earliest, is_before
from projection_rebuild.replay.foreign_reads import Projects
from projection_rebuild.replay.scope import ReplayScope
from projection_rebuild.rows.types import Rows
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step

FEW_STREAMS = 1_000
"""The most aggregates that a query names; for more, it is cheaper to read all events and skip those of others."""


@dataclass(frozen=True)
class OpenSelection(ReplayScope):
    """The part of one projector, whose other rows are already copied.

    :param declared: how the projector tells its rows apart
    :param keys: the aggregates or periods of the part
    :param settled: the high-water mark after the copy; up to it only the part's events are applied, above it all events
    :param only: the events to read up to ``settled``
    """

    declared: ByAggregate | ByPeriod
    keys: SelectedKeys
    settled: Place
    only: EventFilter

    def ranges(self, after: Place, upto: Place) -> Iterator[tuple[Place, Place, EventFilter]]:
        if is_before(after, self.settled):
            yield after, earliest([upto, self.settled]), self.only
            after = self.settled
        yield after, upto, ALL_EVENTS

    def of(self, projector: Projects) -> Projects:
        return _WithinSelection(projector, self)


class _WithinSelection:
    """A projector that gets the part's events up to the high-water mark, and all events above it."""

    def __init__(self, projector: Projects, selection: OpenSelection) -> None:
        self._projector = projector
        self._selection = selection

    def project(self, event: Event, rows: Rows) -> None:
        if is_before(self._selection.settled, event.position):
            self._projector.project(event, rows)
            return
        key = self._selection.declared.key(event)
        if key in self._selection.keys:
            self._projector.project(event, SelectionGuard(rows, self._selection.declared.rows, key))


# Planning -------------------------------------------------------------------------------------------------------------


def look(step: Step, selection: Selection, projectors: list[str]) -> Iterator[Finding]:
    """Findings for a part that cannot be rebuilt as the options select it."""
    timed = selection.since is not None or selection.until is not None
    if timed and (problem := step.context.store.without_times()):
        yield Finding(about="since, until", problem=problem, remedy="or choose aggregates, or rebuild as a whole", refuses=True)
        return
    if step.context.store.newest() is None:
        problem = "the event store is empty, so the rows of a part cannot be determined"
        yield Finding(about="since, until, aggregates", problem=problem, remedy="rebuild as a whole", refuses=True)
        return
    for name in projectors:
        declared = step.context.projector(name).part
        if declared is None:
            problem = f"{name} does not declare how to tell its rows apart, so no part of them can be rebuilt"
            remedy = "set its `part` (ByAggregate or ByPeriod), leave it out, or rebuild it as a whole"
            yield Finding(about="since, until, aggregates", problem=problem, remedy=remedy, refuses=True)
        elif isinstance(declared, ByPeriod) and selection.aggregates is not None:
            problem = f"{name} keeps its rows by period, and one period holds the events of many aggregates"
            yield Finding(about="aggregates", problem=problem, remedy="leave it out, or choose since and until", refuses=True)
        elif not step.context.projector(name).has_handlers():
            problem = f"{name} has only SQL, and whose an event is, handlers tell"
            yield Finding(about="since, until, aggregates", problem=problem, remedy="rebuild it as a whole", refuses=True)
        elif isinstance(declared, ByAggregate) and declared.of is None and _has_strays(step.context, name):
            problem = f"{name} tells its rows apart by the stream of their events, and some of its events have no stream"
            yield Finding(about="since, until, aggregates", problem=problem, remedy="rebuild it as a whole", refuses=True)
    yield from _nothing_chosen(step, selection, projectors)


def _has_strays(context: Context, projector: str) -> bool:
    """Whether a projector has events without a stream."""
    return context.store.has_strays(context.projector(projector).stored_types())


def _nothing_chosen(step: Step, selection: Selection, projectors: list[str]) -> Iterator[Finding]:
    """A finding for aggregates that the store does not know, or a time without events and rows: both are mistakes."""
    types = sorted({event_type for name in projectors for event_type in step.context.projector(name).stored_types()})
    streams = step.context.store.streams(BEGINNING, step.context.store.newest(), types, chosen_events(selection))
    if selection.aggregates is not None and (unknown := sorted(set(selection.aggregates) - streams)):
        examples = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        when = " in this time" if selection.since or selection.until else ""
        problem = f"the store has no event of these projectors{when} for {len(unknown)} of them: {examples}"
        yield Finding(about="aggregates", problem=problem, remedy="correct or leave out these names", refuses=True)
    elif not streams and not _has_periods(step, selection, projectors):
        problem = f"no event of these projectors was recorded ({selection.describe()})"
        yield Finding(about="since, until", problem=problem, remedy="correct the time, or begin earlier", refuses=True)


def _has_periods(step: Step, selection: Selection, projectors: list[str]) -> bool:
    """Whether blue has a row for the selected time: events about a period may have been recorded before it."""
    for projector in map(step.context.projector, projectors):
        declared = projector.part
        if isinstance(declared, ByPeriod):
            keys = bounds(step.context, declared, selection)
            for table, column in columns_of(step.context, projector, declared):
                # Another finding reports a missing table.
                exists = step.dialect.inspector.table_exists(step.connection, table.schema, table.blue)
                periods = step.dialect.partial_copy.distinct(step.connection, table.schema, table.blue, column) if exists else ()
                if any(map(keys.in_range, periods)):
                    return True
    return False


def columns_of(context: Context, projector: type[Projector], declared: ByAggregate | ByPeriod) -> Iterator[tuple[TableSet, str]]:
    """The tables of a projector, each with the column that holds a row's aggregate or period."""
    for kind in projector.kinds():
        yield context.table_set(kind.table), kind.column(declared.rows[kind.row_class])


def chosen_events(selection: Selection) -> EventFilter:
    """The events that determine which aggregates a part has."""
    streams = None if selection.aggregates is None else tuple(selection.aggregates)
    return EventFilter(streams=streams, since=selection.since, until=selection.until)


def open_selection(step: Step, plan: Plan, read: Checkpoint) -> OpenSelection | None:
    """The part that a run rebuilds of one projector; None: the run rebuilds it whole.

    The part still counts once it is replayed: a dead letter may be retried later.

    :param read: the projector's checkpoint
    :raises StepOrderError: the rows outside the part have not been copied
    """
    if plan.part is None:
        return None
    state = settled_state(step, read)
    if state is None or state.settled is None:
        raise NotReplayed(f"the rows outside the part of {read.projector} are not copied; run its replay")
    declared = declaration(step.context.projector(read.projector))
    listed = step.ledger.partial_rebuilds.keys(state.part_id)
    keys = replace(bounds(step.context, declared, plan.part), listed=listed)
    return OpenSelection(declared, keys, state.settled, events_of(declared, keys))


def is_copied(step: Step, read: Checkpoint) -> bool:
    """Whether the rows outside a projector's part are in green."""
    return settled_state(step, read) is not None


def declaration(projector: type[Projector]) -> ByAggregate | ByPeriod:
    """How a projector tells its rows apart.

    :raises StepOrderError: it no longer declares that; a plan refuses projectors that never did
    """
    if projector.part is None:
        raise StepOrderError(f"{projector.name()} no longer declares its `part`; plan the run anew")
    return projector.part


def settled_state(step: Step, read: Checkpoint) -> PartialState | None:
    """The state of a partial rebuild in the ledger; None: the rows outside the part are not copied."""
    state = step.ledger.partial_rebuilds.find(read.projector)
    return state if state is not None and state.token == read.token and state.settled is not None else None


def bounds(context: Context, declared: ByAggregate | ByPeriod, selection: Selection) -> SelectedKeys:
    """The periods of a part, by first and last; a part of aggregates has no bounds."""
    if isinstance(declared, ByAggregate):
        return SelectedKeys(())
    zone = context.spec.zone
    first = None if selection.since is None else str(declared.at(selection.since.astimezone(zone)))
    last = None if selection.until is None else str(declared.at((selection.until - timedelta(microseconds=1)).astimezone(zone)))
    return SelectedKeys((), first, last)


def events_of(declared: ByAggregate | ByPeriod, keys: SelectedKeys) -> EventFilter:
    """The events that a replay of the part has to read."""
    named = isinstance(declared, ByAggregate) and declared.of is None and len(keys.listed) <= FEW_STREAMS
    return EventFilter(streams=tuple(sorted(keys.listed))) if named else ALL_EVENTS
