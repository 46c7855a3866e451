"""Replaying one projector: read a page, fold it into rows in memory, write rows and checkpoint in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.external import ExternalProjector, OnRetry
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import (
    HandlerError,
    Interrupted,
    PartError,
    PoisonEvent,
    ProjectorError,
    RowError,
    StepOrderError,
    TooManyDeadLetters,
)
from projection_rebuild.errors.boundary import trouble_at_event, word_for
from projection_rebuild.eventstore.store import EVERYTHING, Only
from projection_rebuild.ledger import Checkpoint, DeadLetter, RunState, refuse_within_switch
from projection_rebuild.model.positions import BEGINNING, Place, earliest, is_before, just_below, said
from projection_rebuild.model.results import ReplayResult
from projection_rebuild.replay import partial
from projection_rebuild.replay.external.replay import ExternalReplay
from projection_rebuild.replay.foreign_reads import Projects, Reading, readable_to, reading_of, reads_of_run
from projection_rebuild.replay.memory import Memory, collect, collector_off
from projection_rebuild.replay.prefetch import LoadAhead
from projection_rebuild.replay.row_tables import GreenTables, WriteError
from projection_rebuild.replay.set_based import SetError, Sets, why_not
from projection_rebuild.replay.shard_ownership import OF_ANOTHER_SHARD, Ownership
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.types import Changes
from projection_rebuild.run.context import Context
from projection_rebuild.run.jobs import heads_of
from projection_rebuild.run.progress import ProgressLog
from projection_rebuild.shadow.live_tables import refuse_at_once
from projection_rebuild.spec.replay import OnError
from projection_rebuild.traffic.throttle import Throttle, Verdict

PAGE_EVENTS = 2_000
"""Events that are decoded at once: few, so that they take no memory to speak of."""

KEPT_EVENTS = 10_000
"""Events per transaction where each may have to be set aside: they stay in memory until it is committed."""


class ProjectorReplay:
    """One projector on its green tables: the rows in memory, and the checkpoint they belong to.

    :param connection: where rows are loaded and written; the caller opens the transactions
    :param already: positions above the checkpoint that green holds all the same; None: green began empty
    :param part: what is being replayed first, if that is not everything
    :param reading: what its handlers look at beside its own rows
    :param ownership: whose rows it may touch, if it is a shard; None: all
    """

    def __init__(
        self,
        context: Context,
        projector: type[Projector],
        checkpoint: Checkpoint,
        connection: sa.Connection,
        already: Collection[int] | None = None,
        part: partial.OpenPart | None = None,
        reading: Reading | None = None,
        ownership: Ownership | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.projector = projector
        self._context = context
        self._bounds = context.spec.replay
        self._part = part
        self.reading = reading or Reading(projector, GreenTables(context.dialect, connection, context.schema, str))
        self._instance: Projects = self.reading.of(part.of(projector()) if part else projector())
        self._ahead = LoadAhead(self._instance, self.reading)
        self._connection = connection
        self._tables = GreenTables(context.dialect, connection, context.schema, lambda name: context.table_set(name).green)
        self._tables.learn(projector.kinds())
        self._began_empty = already is None
        self._ownership = ownership
        self._already = frozenset(already or ())
        self._memory = Memory(self._bounds.max_memory)
        self._sets_aside = self._bounds.on_error is OnError.DEAD_LETTER
        self._forgets = False
        self._most_events = min(self._bounds.batch_events, KEPT_EVENTS) if self._sets_aside else self._bounds.batch_events
        self._buried = {each.position: each for each in self.recorded_dead_letters()}
        # What has been folded and set aside since the last commit; known only where events may be set aside.
        self._folded: list[Event] = []
        self._last: Event | None = None
        self._new: dict[int, DeadLetter] = {}
        reason = why_not(context, projector)
        # A part is a choice among rows, and a shard among events, that is told by handlers.
        told = ownership is not None or (part is not None and is_before(checkpoint.position, part.settled))
        self._sets = Sets(context, projector, self._already) if reason is None and not told else None
        if self._sets is None and not projector.has_handlers():
            raise ProjectorError(
                f"{projector.name()} has no handlers, and its SQL cannot be used: {reason or 'none for this database'}"
            )
        self._begin_at_checkpoint()

    def _begin_at_checkpoint(self) -> None:
        """What is in memory and not committed, if anything, is forgotten."""
        self._buffer = RowBuffer(
            self._tables,
            complete=self.checkpoint.position is None and self._began_empty,
            classes=self.projector.owns,
            asking=self._ownership.asking if self._ownership else None,
        )
        if self._ownership:
            self._ownership.begin()
        self._folded.clear()
        self._reached = self.checkpoint.position
        self._pending = 0
        self._since = time.monotonic()

    def pages_to(self, place: Place) -> Generator[tuple[list[Event], Place], None, None]:
        """The projector's events above what is folded that green does not hold; see :meth:`EventStore.pages`."""
        # The tables of others may have gone on since it was here last.
        self.reading.renew()
        after = self._reached
        if self._part and is_before(after, self._part.settled):
            yield from self._pages(after, earliest([place, self._part.settled]), self._part.only)
            after = self._part.settled
        yield from self._pages(after, place)

    def _pages(self, after: Place, upto: Place, only: Only = EVERYTHING) -> Generator[tuple[list[Event], Place], None, None]:
        pages = self._context.store.pages(
            after,
            upto,
            self.projector.stored_types(),
            size=min(self._most_events, PAGE_EVENTS),
            metadata=self.projector.needs_metadata,
            only=only,
            shard=self._ownership.shard if self._ownership else None,
            seen=self._ownership.seen if self._ownership else None,
        )
        with closing(pages):
            for events, reached in pages:
                yield [event for event in events if event.position not in self._already] if self._already else events, reached

    def replay_to(self, head: Place, throttle: Throttle, progress: Callable[[Checkpoint], None]) -> None:
        """Replays up to a settled position. What is folded is committed when it is enough: see :class:`ReplaySection`.

        :param throttle: looked at between transactions; nothing is read meanwhile
        :raises Interrupted: the worker was asked to stop; what was folded is committed
        :raises PoisonEvent: an event cannot be projected; everything before it is committed
        """
        self._replay_by_sets(head, throttle, progress)
        try:
            self._replay_whole(head, throttle, progress)
        except PoisonEvent as error:
            # What its handler had done until it failed cannot be told from the rest; so all of it is done again, up to there.
            self._begin_at_checkpoint()
            self._replay_to(just_below(error.position), head, throttle, progress)
            raise

    def _replay_whole(self, head: Place, throttle: Throttle, progress: Callable[[Checkpoint], None]) -> None:
        while True:
            try:
                self._replay_to(head, head, throttle, progress)
                # Where there was nothing to replay, the head may be another one all the same.
                self._commit(head, throttle)
                return
            except WriteError as error:
                self._replay_refused(error, head, throttle, progress)

    def _replay_refused(self, error: WriteError, head: Place, throttle: Throttle, progress: Callable[[Checkpoint], None]) -> None:
        """Replays what the database has refused in ever smaller transactions. All that it takes is committed.

        :raises WriteError: it names the event whose rows are refused
        """
        most, refused = self._most_events, self._reached
        try:
            while self._pending > 1:
                self._most_events = max(1, self._pending // 2)
                self._begin_at_checkpoint()
                # Rows that were new are loaded again from here on.
                self._forgets = self._ownership is None
                try:
                    self._replay_to(refused, head, throttle, progress)
                except WriteError as smaller:
                    error, refused = smaller, self._reached
                else:
                    # It had refused no more than the rows of several events together.
                    return
        finally:
            self._most_events = most
        raise error if self._last is None else error.of(self._last.type, self._last.position) from None

    def _replay_to(self, place: Place, head: Place, throttle: Throttle, progress: Callable[[Checkpoint], None]) -> None:
        verdict: Verdict | None = None
        while is_before(self._reached, place):
            if verdict := verdict or throttle.look():
                self._commit(head, throttle)
                throttle.rest(verdict)
                verdict = None
            if self._forgets:
                # Between two readings: the server gives one up whose rows nobody takes for long.
                self._forgets = False
                index_lookups(self._context, self._connection, self.projector)
            self._since = self._since if self._pending else time.monotonic()
            with closing(self.pages_to(place)) as pages:
                for events, reached in pages:
                    if throttle.stopped():
                        self._commit(head, throttle)
                        raise self._interrupted()
                    self.fold(events)
                    self._reached, self._pending = reached, self._pending + len(events)
                    if reached == place or self._is_enough():
                        self._commit(head, throttle)
                        progress(self.checkpoint)
                    else:
                        # Just to be shown: only a commit counts, and a large batch takes a while.
                        done = self.checkpoint.events + self._pending
                        progress(replace(self.checkpoint, position=reached, head=head, events=done))
                    # A reading that is given up costs its connection; so a look that finds nothing does not end it.
                    if (verdict := self._look_if_due(throttle)) or self._forgets:
                        break

    def _look_if_due(self, throttle: Throttle) -> Verdict | None:
        if not throttle.is_due():
            return None
        # The tables of others may have gone on since the last look.
        self.reading.renew()
        return throttle.look()

    def _replay_by_sets(self, head: Place, throttle: Throttle, progress: Callable[[Checkpoint], None]) -> None:
        """The projector's own SQL, where it has any, range by range; what it cannot take is left to the handlers."""
        if self._sets is None:
            return
        while self._sets is not None and is_before(self._reached, head):
            if verdict := throttle.look():
                throttle.rest(verdict)
            if throttle.stopped():
                raise self._interrupted()
            self._since = time.monotonic()
            bound, count = self._sets.next_range(self._reached, head)
            try:
                with self._context.dialect.transaction(self._connection):
                    moved = self.advance(count, bound, head, 0.0)
                    self._context.dialect.allow_memory(self._connection, self._bounds.max_memory)
                    began = time.monotonic()
                    self.run_sets(bound)
                    self._tables.check()
                    self._sets.took(count, time.monotonic() - began)
                    seconds = time.monotonic() - self._since
                    moved = self._context.ledger.checkpoints.add_elapsed(self._connection, self._context.run_id, moved, seconds)
                    written = time.monotonic()
            except (SetError, WriteError) as error:
                if not self.projector.has_handlers():
                    raise
                # They tell which event it is, or set it aside.
                self._context.log(f"{error.message}; from {said(self._reached)} on, its handlers do the work")
                self._sets = None
            else:
                throttle.committed(time.monotonic() - written)
                self.committed(moved)
                progress(moved)
        self._begin_at_checkpoint()

    def run_sets(self, bound: Place, among: Collection[int] | None = None) -> None:
        """Executes the projector's own SQL for the events from its checkpoint to a place, in the caller's transaction.

        :param among: only those at these positions
        :raises SetError: it cannot take them
        """
        if self._sets is not None:
            self._sets.run(self._connection, self.checkpoint.position, bound, among)

    def _interrupted(self) -> Interrupted:
        return Interrupted(f"{self.projector.name()} was stopped at {said(self.checkpoint.position)}; a retry goes on there")

    def _is_enough(self) -> bool:
        """Whether what is folded has to be committed before more is.

        No clock decides it: a row that is new is inserted once, and updated in each transaction after that, so that a slow machine would
        have more to do.
        """
        most_rows = self._context.dialect.rows_per_transaction
        return (
            self._pending >= self._most_events
            or (most_rows is not None and self._buffer.touched >= most_rows)
            or self._memory_is_full()
        )

    def _memory_is_full(self) -> bool:
        most, rows = self._bounds.max_rows_in_memory, len(self._buffer)
        return (most is not None and rows > most) or self._memory.is_full(rows)

    def _commit(self, head: Place, throttle: Throttle) -> None:
        """Writes what is folded, if anything is."""
        if (self._reached, head) == (self.checkpoint.position, self.checkpoint.head):
            return
        try:
            self._write(self._pending, self._reached, head, throttle)
        except (WriteError, RowError) as error:
            if not self._sets_aside:
                raise
            self._write_in_parts(list(self._folded), error, self._reached, head, throttle)
        if is_before(self._reached, head):
            collect()

    def _write(self, events: int, reached: Place, head: Place, throttle: Throttle) -> None:
        """One transaction: the checkpoint, and the rows that belong to it."""
        asked = self._ownership.check(self._buffer) if self._ownership else []
        changes = self.changes()
        with self._context.dialect.transaction(self._connection):
            moved = self.advance(events, reached, head, time.monotonic() - self._since)
            self._context.ledger.shards.add_asked(self._connection, self._context.run_id, self.projector.name(), asked)
            self._tables.delete(changes)
            self._tables.put(changes)
            self._tables.check()
            written = time.monotonic()
        throttle.committed(time.monotonic() - written)
        self.committed(moved)

    def _write_in_parts(
        self, events: Sequence[Event], error: WriteError | RowError, reached: Place, head: Place, throttle: Throttle
    ) -> None:
        """Finds the event whose rows are refused, by halves, and sets it aside."""
        self.forget()
        if len(events) > 1:
            half = len(events) // 2
            parts: list[tuple[Sequence[Event], Place]] = [
                (events[:half], events[half - 1].position),
                (events[half:], reached),
            ]
        else:
            self._bury(events[0], getattr(error, "cause", type(error).__name__))
            parts = [(events, reached)]
        seen = frozenset(self._ownership.seen) if self._ownership else frozenset()
        for some, position in parts:
            if self._ownership:
                # They come from memory: what is committed is forgotten, and no page is read again.
                self._ownership.seen.update(seen)
            self.fold(some)
            try:
                self._write(len(some), position, head, throttle)
            except (WriteError, RowError) as refused:
                self._write_in_parts(some, refused, position, head, throttle)

    def fold(self, events: Sequence[Event]) -> None:
        """Applies events to the rows in memory; touches the database only to load rows.

        Where the spec says so, an event that cannot be projected is set aside, and nothing of it stays in memory.

        :raises PoisonEvent: an event cannot be projected; the rows in memory are of no use any more
        """
        if not self._sets_aside:
            self._fold(events)
            return
        self._folded += events
        wanted = events
        while True:
            try:
                self._fold([event for event in wanted if event.position not in self._new])
            except PoisonEvent as error:
                # Handlers leave rows half-changed, so all that is not committed is folded anew, without this event.
                self._unfold()
                self._bury(error, error.cause)
                wanted = self._folded
            else:
                return

    def _fold(self, stored: Sequence[Event]) -> None:
        self._last = stored[-1] if stored else self._last
        events = self.projector.upcasters.bring_up_to_date(stored)
        if self.projector.reads or not self._buffer.is_complete:
            self._ahead.load(events, self._buffer)
        project, rows, end_event = self._instance.project, self._buffer, self._buffer.end_event
        for event in events:
            try:
                project(event, rows)
                end_event()
            except PartError:
                raise
            except Exception as error:
                # A row could not be loaded, or the machine failed: that is no fault of the handler's, and a retry can help.
                if trouble := trouble_at_event(error, self.projector.name(), event.type, event.position):
                    raise trouble from None
                # Without the chain: an exception's text may quote the payload.
                also = OF_ANOTHER_SHARD if self._ownership and isinstance(error, RowError) else ""
                raise HandlerError(self.projector.name(), event.type, event.position, word_for(error), also) from None

    def _bury(self, event: Event | PoisonEvent, error: str) -> None:
        event_type = event.type if isinstance(event, Event) else event.event_type
        letter, limit = (
            DeadLetter(self.projector.name(), event.position, event_type, error),
            self._context.spec.replay.max_dead_letters,
        )
        if self.dead_letters >= limit:
            raise TooManyDeadLetters(
                f"{letter.projector} cannot project more than {limit} events, the last one {event_type} at position {event.position} "
                f"({error}); they are listed in projection_rebuild_dead_letters. Correct the handlers and retry the task: it drives them "
                "again and goes on. Or raise replay.max_dead_letters",
                event_type=event_type,
                position=event.position,
                cause=error,
            )
        self._new[event.position] = letter
        self._context.log(f"{letter.projector}: set aside the event {event_type} at position {event.position} ({error})")

    @property
    def dead_letters(self) -> int:
        """How many events below the checkpoint, and of those folded since, have been set aside."""
        return len(self._buried) + len(self._new)

    def recorded_dead_letters(self) -> list[DeadLetter]:
        """What the ledger has of this projector, in order."""
        return self._context.ledger.dead_letters.of_run(self._connection, self._context.run_id, self.projector.name())

    def drive_again(self, letter: DeadLetter, event: Event) -> bool:
        """Projects an event that was set aside, and takes it out of the ledger, in one transaction.

        :returns: whether it could be projected; if not, all is as before
        """
        try:
            self._fold([event])
            with self._context.dialect.transaction(self._connection):
                moved = self.advance(1, self.checkpoint.position, self.checkpoint.head, 0.0)
                self._context.ledger.dead_letters.remove(self._connection, self._context.run_id, letter)
                changes = self.changes()
                self._tables.delete(changes)
                self._tables.put(changes)
                self._tables.check()
        except (PoisonEvent, WriteError, RowError):
            self.forget()
            return False
        del self._buried[letter.position]
        self.committed(moved)
        return True

    def forget(self) -> None:
        """Drops what has not been committed."""
        self._unfold()
        self._folded.clear()

    def _unfold(self) -> None:
        self._buffer.undo()
        if self._ownership:
            self._ownership.asking.clear()

    def advance(self, events: int, reached: Place, head: Place, seconds: float) -> Checkpoint:
        """Moves the checkpoint, in the caller's transaction and before any row is written.

        :param events: how many events were folded, those set aside among them
        :raises FencedOut: another worker has moved it
        """
        ledger, run_id = self._context.ledger, self._context.run_id
        set_aside = [each for position, each in self._new.items() if not is_before(reached, position)]
        handled = events - len(set_aside)
        moved = ledger.checkpoints.advance(
            self._connection, run_id, self.checkpoint, position=reached, head=head, events=handled, seconds=seconds
        )
        ledger.dead_letters.add(self._connection, run_id, set_aside)
        return moved

    def changes(self) -> list[Changes]:
        """What has to be written, in the order of the owned tables."""
        order = self.projector.tables()
        return sorted(self._buffer.changes(), key=lambda change: order.index(change.kind.table))

    @property
    def rows(self) -> RowBuffer:
        """The rows in memory, for whoever reads this projector's."""
        return self._buffer

    @property
    def tables(self) -> GreenTables:
        """Where this projector's rows are written."""
        return self._tables

    def committed(self, moved: Checkpoint) -> None:
        """The transaction that moved the checkpoint and wrote the rows has been committed."""
        self.checkpoint = moved
        for position in [each for each in self._new if not is_before(moved.position, each)]:
            self._buried[position] = self._new.pop(position)
        self._folded.clear()
        self._reached, self._pending, self._since = moved.position, 0, time.monotonic()
        self._buffer.settle()
        if self._ownership:
            self._ownership.begin()
        if self._memory_is_full():
            if self._buffer.is_complete:
                self._say_that_rows_are_loaded_again()
                self._forgets = self._ownership is None
            self._buffer.forget()

    def _say_that_rows_are_loaded_again(self) -> None:
        most = self._bounds.max_rows_in_memory
        limit = f"replay.max_memory ({self._bounds.max_memory} MiB)" if most is None else f"replay.max_rows_in_memory ({most:,})"
        self._context.log(
            f"{self.projector.name()}: its rows take more than {limit} at {said(self._reached)}; from here on those that events touch "
            "are loaded again, which takes several times as long. A higher limit or more `replay.shards` would keep them"
        )


def replay(context: Context, name: str, stopped: Callable[[], bool], closed: Callable[[], bool] = lambda: False) -> ReplayResult:
    """Brings one projector's green tables up to the head, from its checkpoint on, and builds their indexes.

    :param closed: whether its time is over; then it stops, but a program that would have to begin anew only between two calls
    :raises Interrupted: it has stopped
    :raises StepOrderError: the tables are not cloned
    """
    projector = context.projector(name)
    with context.dialect.connect() as connection:
        context.ledger.create(connection)
        run = context.ledger.runs.get(connection, context.run_id, requires=RunState.CLONED)
        refuse_within_switch(run)
        first = context.ledger.checkpoints.of_projectors(connection, context.run_id).get(name)
        if run.state.has_switched:
            context.log(f"{name}: this run has switched already; there is nothing to replay")
            position = first.position if first else BEGINNING
            return ReplayResult(name, 0, position, 0.0, position)
        if first is None:
            raise StepOrderError(f"{name} has no checkpoint in the run {context.run_id}; run clone_tables again")
        plan = context.plan_of(run)
        first = partial.prepare(context, connection, plan, first)
        context.log(f"{name}: {'beginning at' if first.position is None else 'resuming at'} {said(first.position)}")
        progress = ProgressLog(context, first, name)
        throttle = Throttle(context, name, connection, lambda: stopped() or closed())
        if issubclass(projector, ExternalProjector):
            cut = stopped if projector.on_retry is OnRetry.RESTART else throttle.stopped
            began, last = _replay_program(context, projector, first, connection, throttle, progress, cut)
            index(context, connection, projector)
            return ReplayResult(name, last.events - began.events, last.position, last.seconds - began.seconds, began.position)
        part = partial.open_part(context, connection, plan, first)
        if first.position is not None:
            index_lookups(context, connection, projector)
        work = ProjectorReplay(
            context, projector, first, connection, plan.already, part, reading_of(context, connection, plan, projector)
        )
        drive_again(context, work)
        heads: Iterable[Place] = heads_of(context, lambda: work.checkpoint.position)
        if reads_of_run(context, plan, projector):
            owners = readable_to(context, connection, plan, projector)
            heads = [first.position if is_before(owners, first.position) else owners]
        with collector_off():
            for head in heads:
                work.replay_to(head, throttle, progress)
        if throttle.stopped():
            raise Interrupted(f"{name} was stopped before its indexes were made; a retry makes those that are left")
        index(context, connection, projector)
    last = work.checkpoint
    return ReplayResult(name, last.events - first.events, last.position, last.seconds - first.seconds, first.position)


def index(context: Context, connection: sa.Connection, projector: type[Projector], *, statistics: bool = True) -> None:
    """Builds the indexes that a projector's green tables still lack, and their statistics."""
    run = context.ledger.runs.get(connection, context.run_id)
    plan = context.plan_of(run)
    tables = [context.table_set(each, plan) for each in projector.tables()]
    refuse_at_once(context, connection, tables, run)
    for table in tables:
        for statement in context.dialect.index_green(connection, table):
            context.dialect.run(connection, statement)
        for statement in context.dialect.analyze(connection, table) if statistics else ():
            context.dialect.run(connection, statement)


def index_lookups(context: Context, connection: sa.Connection, projector: type[Projector]) -> None:
    """The same before rows are looked up in green by other columns than their keys: each time would read the whole table."""
    if any(kind.lookups for kind in projector.kinds()):
        index(context, connection, projector, statistics=False)


def _replay_program(
    context: Context,
    projector: type[ExternalProjector],
    first: Checkpoint,
    connection: sa.Connection,
    throttle: Throttle,
    progress: ProgressLog,
    cut: Callable[[], bool],
) -> tuple[Checkpoint, Checkpoint]:
    """Where it began, perhaps anew, and where it has come.

    :param cut: whether a call at work is cut short
    """

    def rest() -> None:
        if verdict := throttle.look():
            throttle.rest(verdict)

    work = ExternalReplay(context, projector, first, connection)
    work.begin_anew()
    began = work.checkpoint
    try:
        for head in heads_of(context, lambda: work.checkpoint.position):
            work.replay_to(head, throttle.stopped, progress, rest, cut)
    finally:
        work.cut_short()
    return began, work.checkpoint


def drive_again(context: Context, work: ProjectorReplay) -> None:
    """Projects the events that an earlier attempt has set aside, where that is still right.

    Events of one stream go in their order: one whose stream has gone on without it cannot come late.
    """
    letters = work.recorded_dead_letters()
    if not letters:
        return
    left = {each.position for each in letters}
    events = {each.position: each for each in context.store.find(sorted(left), metadata=work.projector.needs_metadata)}
    streams = sorted({each.stream for each in events.values() if each.stream is not None})
    later = context.store.last_positions(streams, work.checkpoint.position, work.projector.stored_types(), without=left)
    stuck: set[str] = set()
    for letter in letters:
        event = events.get(letter.position)
        if event is None or event.stream in stuck:
            continue
        if event.stream is None:
            context.log(
                f"{letter.projector}: the event at position {letter.position} stays set aside, since it has no stream, so that nobody knows which "
                "later events had to wait for it; to have it, clear clone_tables and what follows"
            )
            continue
        if is_before(event.position, later.get(event.stream)):
            context.log(
                f"{letter.projector}: the event at position {letter.position} stays set aside, since later events of its stream have been "
                "projected without it; to have it, clear clone_tables and what follows"
            )
        elif work.drive_again(letter, event):
            context.log(f"{letter.projector}: the event at position {letter.position}, set aside before, has been projected")
            left.discard(letter.position)
            continue
        stuck.add(event.stream)
