"""Copies the rows outside the part from blue to green, at the beginning of a partial rebuild.

The application writes blue meanwhile, and a row of blue does not show which events it holds. So green must keep no row
that may have changed during the copy:

* Before the copy, blue holds every event up to a position (``held``).
* All events that the copied rows can hold lie at or below the high-water mark after the copy (``settled``).
* An aggregate or period with events in between joins the part, and is replayed.

Every other row was the same before, during and after the copy. The replay goes on above ``settled`` as in any rebuild.
This needs no snapshot and no lock on blue, and every database runs the same statements.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByAggregate, ByPeriod, SelectedKeys, Selection, without_stream
from projection_rebuild.dialects.base import KeyList
from projection_rebuild.errors import HandlerError, PoisonEvent, SettleTimeout, StoreEmpty
from projection_rebuild.errors.boundary import trouble_at_event, word_for
from projection_rebuild.eventstore.store import ALL_EVENTS, PATIENCE, EventFilter
from projection_rebuild.ledger import Checkpoint
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import BEGINNING, Place, said
from projection_rebuild.replay.partial import bounds, chosen_events, columns_of, declaration, events_of, settled_state
from projection_rebuild.run import jobs
from projection_rebuild.run.step import Step
from projection_rebuild.spec.replay import OnError


def prepare(step: Step, plan: Plan, first: Checkpoint) -> Checkpoint:
    """Copies the rows outside a projector's part, once; does nothing for a whole rebuild.

    :param first: the projector's checkpoint
    :returns: the checkpoint from which the replay goes on
    :raises FencedOut: another worker copies the same rows
    :raises SettleTimeout: appends, or the jobs that project them, did not end in time
    """
    if plan.part is None or settled_state(step, first) is not None:
        return first
    PartialCopy(step, plan.part, first).run()
    return step.ledger.checkpoints.of_projectors()[first.projector]


class PartialCopy:
    """The copy for one projector. After a kill at any moment, the next copy replaces what is there."""

    def __init__(self, step: Step, selection: Selection, first: Checkpoint) -> None:
        self._step = step
        self._selection = selection
        self._first = first
        self._name = first.projector
        self._projector = step.context.projector(self._name)
        self._declared = declaration(self._projector)
        self._types = self._projector.stored_types()

    def run(self) -> None:
        """Copies the rows, and moves the checkpoint's head to the high-water mark after the copy."""
        context, connection, ledger = self._step.context, self._step.connection, self._step.ledger
        began = time.monotonic()
        held = self._held_by_blue()
        # Before the copy: this count misses events that appear below `held` later, so verification finds them.
        count = self._count(BEGINNING, held)
        keys = self._keys(held)
        with context.dialect.transaction(connection):
            part_id = ledger.partial_rebuilds.begin(self._first)
            ledger.partial_rebuilds.add_keys(part_id, sorted(keys.listed))
        listed = KeyList(context.schema, ledger.partial_rebuilds.key_table, part_id)
        context.log(f"{self._name}: copying all rows but those of {self._what(keys)}")
        with context.dialect.transaction(connection):
            ledger.partial_rebuilds.hold(self._name, part_id)
            for table, column in self._tables():
                context.dialect.run(connection, f"DELETE FROM {context.dialect.qualified(table.schema, table.green)}")
                context.dialect.partial_copy.copy_others(connection, table, column, listed)
        settled = context.store.settled_head()
        if settled is None:
            raise StoreEmpty(
                f"the event store is empty, so no part of {self._name} can be rebuilt. The live tables are untouched; "
                "find out where its events are, then clear plan and what follows"
            )
        count += self._count(held, settled)
        changed = self._keys_between(held, settled) - set(keys.listed)
        keys = replace(keys, listed={*keys.listed, *changed})
        count -= self._count(BEGINNING, settled, events_of(self._declared, keys))
        with context.dialect.transaction(connection):
            ledger.partial_rebuilds.hold(self._name, part_id, settled=settled)
            ledger.partial_rebuilds.add_keys(part_id, sorted(changed))
            for table, column in self._tables() if changed else ():
                context.dialect.partial_copy.delete_listed(connection, table, column, listed)
            # The events that the copied rows hold count as handled; the replay will count those of the part.
            ledger.checkpoints.advance(
                self._first, position=self._first.position, head=settled, events=count, seconds=time.monotonic() - began
            )
        context.log(f"{self._name}: copied as of {said(settled)}; replaying {self._what(keys)}")
        self._finish_tables()

    def _finish_tables(self) -> None:
        """Builds indexes and statistics before the replay, which looks rows up among the copied ones."""
        for table, _ in self._tables():
            for statement in self._step.dialect.shadow.index_green(self._step.connection, table):
                self._step.dialect.run(self._step.connection, statement)
            for statement in self._step.dialect.shadow.analyze(self._step.connection, table):
                self._step.dialect.run(self._step.connection, statement)

    def _tables(self) -> Iterator[tuple[TableSet, str]]:
        return columns_of(self._step.context, self._projector, self._declared)

    def _what(self, keys: SelectedKeys) -> str:
        if isinstance(self._declared, ByAggregate):
            return f"{len(keys.listed):,} aggregates"
        outside = sum(not keys.in_range(period) for period in keys.listed)
        return f"the periods {keys.first or ''}..{keys.last or ''}" + (f" and {outside:,} others" if outside else "")

    def _count(self, after: Place, upto: Place, only: EventFilter = ALL_EVENTS) -> int:
        counts = self._step.context.store.counts(after, upto, only)
        return sum(counts.get(event_type, 0) for event_type in self._types)

    # Which rows -----------------------------------------------------------------------------------------------------

    def _held_by_blue(self) -> Place:
        """A place up to which blue certainly holds every event."""
        context, writer = self._step.context, self._step.spec.live_writer
        consumers = writer.checkpoint
        if consumers is not None:
            table = sa.table(consumers.table, schema=context.schema)
            position: sa.ColumnClause[int] = sa.column(consumers.position_column, sa.BigInteger)
            name: sa.ColumnClause[str] = sa.column(consumers.name_column, sa.String)
            own = sa.select(position).select_from(table).where(name == consumers.names[self._name])
            # NULL: this consumer has not begun.
            consumed = self._step.connection.execute(own).scalar_one()
            return None if consumed is None else int(consumed)
        head = jobs.replayable_head(context)
        if writer.drain_check is not None:
            self._wait_for_jobs(PATIENCE)
        return head

    def _wait_for_jobs(self, patience: timedelta) -> None:
        """Waits for a moment without jobs: then all events appended before the wait have been projected.

        :raises SettleTimeout: that moment did not come in time
        """
        deadline, logged = time.monotonic() + patience.total_seconds(), False
        while jobs.are_left(self._step):
            if time.monotonic() > deadline:
                raise SettleTimeout(
                    f"live_writer.drain_check did not give 0 within {patience.total_seconds():.0f} s, so it is not known which events the "
                    f"rows outside the part of {self._name} hold. Retry in a quieter moment, or set live_writer.jobs_left instead, which "
                    "gives the position of each job's event, so that no such moment is needed"
                )
            if not logged:
                self._step.log(f"{self._name}: waiting for a moment without jobs (live_writer.drain_check)")
                logged = True
            time.sleep(0.02)

    def _keys(self, held: Place) -> SelectedKeys:
        """The aggregates or periods of the part before the copy."""
        declared = self._declared
        if isinstance(declared, ByPeriod):
            keys = bounds(self._step.context, declared, self._selection)
            periods = {
                period
                for table, column in self._tables()
                for period in self._step.dialect.partial_copy.distinct(self._step.connection, table.schema, table.blue, column)
            }
            return replace(keys, listed={period for period in periods if keys.in_range(period)})
        named, timed = self._selection.aggregates, self._selection.since or self._selection.until
        if declared.of is None and named is not None and timed is None:
            # The names alone decide: the replay also replaces rows of an aggregate whose events are gone.
            return SelectedKeys(set(named))
        return SelectedKeys(self._keys_between(BEGINNING, held, chosen_events(self._selection)))

    def _keys_between(self, after: Place, upto: Place, only: EventFilter = ALL_EVENTS) -> set[str]:
        """The aggregates or periods that have events above one place and up to another.

        :raises PartError: an event has no stream, which would identify its aggregate
        """
        declared, store = self._declared, self._step.context.store
        if isinstance(declared, ByAggregate) and declared.of is None:
            streams = store.streams(after, upto, self._types, only)
            if None in streams:
                raise without_stream()
            return {stream for stream in streams if stream is not None}
        pages = store.pages(
            after,
            upto,
            self._types,
            size=self._step.spec.replay.batch_events,
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
                if self._step.spec.replay.on_error is OnError.DEAD_LETTER:
                    # The replay reads the event again, and makes it a dead letter.
                    continue
                if isinstance(error, PoisonEvent):
                    raise
                # Without the chain: an exception's text may quote the payload.
                raise HandlerError(self._name, event.type, event.position, word_for(error)) from None
