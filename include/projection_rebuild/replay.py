"""Replaying one projector: read a page, fold it into rows in memory, write rows and checkpoint in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from include.projection_rebuild.context import Context
from include.projection_rebuild.errors import HandlerError, Interrupted, StepOrderError
from include.projection_rebuild.events import Event
from include.projection_rebuild.ledger import Checkpoint, RunState
from include.projection_rebuild.projector import Projector
from include.projection_rebuild.rows import Changes, ProbeRows, RowBuffer, Unknown
from include.projection_rebuild.tables import GreenTables

LOG_EVERY = 5.0
"""Seconds between two lines of progress."""


@dataclass(frozen=True)
class ReplayResult:
    """What one call of :func:`replay` did.

    :param events: events handled in this call
    :param position: every event up to here is in green
    :param resumed_from: the checkpoint at which it began; 0: from the beginning
    """

    projector: str
    events: int
    position: int
    seconds: float
    resumed_from: int

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds if self.seconds else 0.0

    def describe(self) -> str:
        """One line for a log."""
        return (
            f"{self.projector}: {self.events:,} events in {self.seconds:.1f} s ({self.rate:,.0f}/s), from position "
            f"{self.resumed_from:,} to {self.position:,}"
        )


class ProjectorReplay:
    """One projector on its green tables: the rows in memory, and the checkpoint they belong to.

    :param connection: where rows are loaded and written; the caller opens the transactions
    """

    def __init__(self, context: Context, projector: type[Projector], checkpoint: Checkpoint, connection: sa.Connection) -> None:
        self.checkpoint = checkpoint
        self.projector = projector
        self._context = context
        self._instance = projector()
        self._connection = connection
        self._tables = GreenTables(context.dialect, connection, context.schema, lambda name: context.table_set(name).green)
        self._buffer = RowBuffer(self._tables, complete=checkpoint.position == 0)

    def pages_to(self, position: int) -> Generator[tuple[list[Event], int], None, None]:
        """The projector's events above its checkpoint; see :meth:`EventStore.pages`."""
        return self._context.store.pages(
            self.checkpoint.position,
            position,
            self.projector.event_types(),
            size=self._context.spec.replay.batch_events,
            metadata=self.projector.needs_metadata,
        )

    def replay_to(self, head: int, stopped: Callable[[], bool], progress: Callable[[Checkpoint], None]) -> None:
        """Replays up to a settled position, one transaction per page.

        :raises Interrupted: ``stopped`` said so, between two transactions
        :raises HandlerError: a handler failed; everything before its event is committed
        """
        started = time.monotonic()
        with closing(self.pages_to(head)) as pages:
            for events, reached in pages:
                if stopped():
                    raise Interrupted(
                        f"{self.projector.name()} was stopped at position {self.checkpoint.position:,}; a retry goes on there"
                    )
                self._replay_page(events, reached, head, started)
                started = time.monotonic()
                progress(self.checkpoint)

    def _replay_page(self, events: Sequence[Event], reached: int, head: int, started: float) -> None:
        try:
            self.fold(events)
        except HandlerError as error:
            # What its handler had done until it failed is forgotten; what came before the event is committed.
            self._buffer.forget()
            before = [event for event in events if event.position < error.position]
            if before:
                self._replay_page(before, before[-1].position, head, started)
            raise
        with self._context.dialect.transaction(self._connection):
            moved = self.advance(len(events), reached, head, time.monotonic() - started)
            changes = self.changes()
            self._tables.delete(changes)
            self._tables.put(changes)
        self.committed(moved)

    def fold(self, events: Sequence[Event]) -> None:
        """Applies events to the rows in memory; touches the database only to load rows.

        :raises HandlerError: a handler failed; the rows in memory are of no use any more
        """
        self._load_ahead(events)
        for event in events:
            try:
                self._instance.project(event, self._buffer)
            except Exception as error:
                # Without the chain: an exception's text may quote the payload.
                raise HandlerError(self.projector.name(), event.type, event.position, error) from None

    def advance(self, events: int, reached: int, head: int, seconds: float) -> Checkpoint:
        """Moves the checkpoint, in the caller's transaction and before any row is written.

        :raises FencedOut: another worker has moved it
        """
        return self._context.ledger.advance(
            self._connection, self._context.run_id, self.checkpoint, position=reached, head=head, events=events, seconds=seconds
        )

    def changes(self) -> list[Changes]:
        """What has to be written, in the order of the owned tables."""
        order = self.projector.tables()
        return sorted(self._buffer.changes(), key=lambda change: order.index(change.kind.table))

    @property
    def tables(self) -> GreenTables:
        """Where this projector's rows are written."""
        return self._tables

    def committed(self, moved: Checkpoint) -> None:
        """The transaction that moved the checkpoint and wrote the rows has been committed."""
        self.checkpoint = moved
        self._buffer.settle()
        if len(self._buffer) > self._context.spec.replay.max_rows_in_memory:
            self._buffer.forget()

    def _load_ahead(self, events: Sequence[Event]) -> None:
        """Finds out which rows the handlers will ask for, and loads them in a few statements instead of one each."""
        if self._buffer.is_complete:
            return
        probe = ProbeRows(self._buffer)
        # A handler shows its next row only when the last one is there; what is deeper than this is loaded one by one.
        for _ in range(3):
            for event in events:
                probe.next_event()
                try:
                    self._instance.project(event, probe)
                except Unknown:
                    continue
                except Exception:  # noqa: S112 - a probe sees rows out of order; the real pass decides what is an error
                    continue
            if not probe.load_wanted():
                return


def replay(context: Context, name: str, stopped: Callable[[], bool]) -> ReplayResult:
    """Brings one projector's green tables up to the head, from its checkpoint on, and builds their indexes.

    :raises StepOrderError: the tables are not cloned
    """
    projector = context.projector(name)
    with context.dialect.connect() as connection:
        run = context.ledger.run(connection, context.run_id, at_least=RunState.CLONED)
        first = context.ledger.checkpoints(connection, context.run_id).get(name)
        if run.state.at_least(RunState.SWITCHED):
            context.log(f"{name}: this run has switched already; there is nothing to replay")
            position = first.position if first else 0
            return ReplayResult(name, 0, position, 0.0, position)
        if first is None:
            raise StepOrderError(f"{name} has no checkpoint in the run {context.run_id}; run clone_tables again")
        context.log(f"{name}: {'resuming at' if first.position else 'beginning, checkpoint at'} position {first.position:,}")
        work = ProjectorReplay(context, projector, first, connection)
        _catch_up(context, work, stopped, ProgressLog(context, first))
        for table in map(context.table_set, projector.tables()):
            for statement in context.dialect.index_green(connection, table):
                context.dialect.run(connection, statement)
            context.dialect.run(connection, context.dialect.analyze(table.schema, table.green))
    last = work.checkpoint
    return ReplayResult(name, last.events - first.events, last.position, last.seconds - first.seconds, first.position)


def _catch_up(
    context: Context, work: ProjectorReplay, stopped: Callable[[], bool], progress: Callable[[Checkpoint], None]
) -> None:
    """Rounds of settle and replay, until what appeared meanwhile is a small backlog."""
    behind = None
    while behind is None or behind > context.spec.swap.small_backlog:
        head = context.store.settled_head()
        behind = head - work.checkpoint.position
        work.replay_to(head, stopped, progress)


class ProgressLog:
    """Lines of progress, at most one every few seconds.

    The total is an estimate from the share of positions done, so that nobody has to count a large store.
    """

    def __init__(self, context: Context, first: Checkpoint) -> None:
        self._log = context.log
        self._first = first
        self._started = self._spoken = time.monotonic()

    def __call__(self, now: Checkpoint) -> None:
        """Says how far the replay is."""
        moment = time.monotonic()
        if moment - self._spoken >= LOG_EVERY or now.position >= now.head:
            self._spoken = moment
            self._log(progress_line(now, self._first, moment - self._started))


def progress_line(now: Checkpoint, first: Checkpoint, seconds: float) -> str:
    """``Projector: 42.0 %, 21,000 of about 50,000 events, 9,000/s, 0:00:03 left, at position 42,000 of 100,000``."""
    share = now.position / now.head if now.head else 1.0
    rate = (now.events - first.events) / seconds if seconds else 0.0
    covered = now.position - first.position
    left = timedelta(seconds=round(seconds * (now.head - now.position) / covered)) if covered else None
    total = f"{now.events:,}" if share >= 1 else f"about {round(now.events / share):,}" if share else "?"
    return (
        f"{now.projector}: {share:.1%}, {now.events:,} of {total} events, {rate:,.0f}/s, {left if left is not None else '?'} left, "
        f"at position {now.position:,} of {now.head:,}"
    )
