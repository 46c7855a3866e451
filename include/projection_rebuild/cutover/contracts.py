"""What each contract of the live writer means for a cutover: which writers it holds, and which events it drains."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa

from projection_rebuild.authoring.external import ExternalProjector
from projection_rebuild.cutover.pause import Pause
from projection_rebuild.cutover.preparation import Counted
from projection_rebuild.cutover.undone import JobCameBack, JobGotIn, JobsLeft, ProgramsBehind, QueueTooLong
from projection_rebuild.dialects.base import HeldBack, HeldTables
from projection_rebuild.errors import VerificationFailed
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import HIGHEST, Place, is_before
from projection_rebuild.model.results import LeftBehind
from projection_rebuild.replay.catch_up import CatchUp
from projection_rebuild.run import jobs
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.spec.live_writer import LiveWriter


def needs_fence(context: Context, plan: Plan) -> bool:
    """Whether the cutover must fence the event store, because the locks on the read models do not hold appends."""
    return context.dialect.cutover.needs_fence(_held_back(context, plan), one_database=context.one_database)


def _held_back(context: Context, plan: Plan) -> HeldBack:
    """Which writers the cutover must hold."""
    match context.spec.live_writer.contract:
        case LiveWriter.CHECKPOINTED:
            return HeldBack.NOBODY
        case LiveWriter.DETACHED:
            return HeldBack.JOBS if jobs_may_be_left(context, plan) else HeldBack.APPENDS
        case LiveWriter.TRANSACTIONAL:
            # An attempt cannot undo what a program has committed, so no append may be in flight below its position.
            return HeldBack.APPENDS if _has_programs(context, plan) else HeldBack.PROJECTIONS


def _has_programs(context: Context, plan: Plan) -> bool:
    return any(issubclass(context.projector(name), ExternalProjector) for name in plan.projectors)


def jobs_may_be_left(context: Context, plan: Plan) -> bool:
    """Whether jobs may be left at the swap: those project their events into the new tables.

    The spec must name their events (``live_writer.jobs_left``), so that green can hold all others. A run with
    programs waits for all jobs, because an attempt cannot undo what a program has committed.
    """
    return context.spec.live_writer.jobs_left is not None and not _has_programs(context, plan)


def _types_of(context: Context, plan: Plan) -> frozenset[str]:
    """The event types that the projectors of a run handle."""
    return frozenset(event_type for name in plan.projectors for event_type in context.projector(name).stored_types())


def appended_since(context: Context, plan: Plan, left: LeftBehind) -> int:
    """The number of events that green may lack because no lock held appends: live writers may have projected them
    into the tables that are retired now.

    :param left: what green held at the swap
    """
    types = _types_of(context, plan)
    listed = context.store.listed(left.settled, context.store.settled_head())
    above = frozenset(left.above)
    return sum(event_type in types for position, event_type in listed.items() if position not in above)


@contextmanager
def _beside(context: Context) -> Iterator[sa.Connection]:
    """A second connection that queries the jobs: on MySQL, a session that has locked tables cannot read others."""
    with open_step(context) as step:
        context.dialect.limit_lock_wait(step.connection, context.spec.swap.lock_timeout)
        yield step.connection


def wait_for_jobs(context: Context, pause: Pause, until: float) -> None:
    """Waits until the jobs of a ``detached`` application have ended. While appends wait, no new job comes.

    :param until: the moment at which the wait ends, by the clock of ``pause``; one in the past: look once
    :raises JobsLeft: jobs are still left then
    """
    if context.spec.live_writer.contract is not LiveWriter.DETACHED:
        return
    with _beside(context) as connection:
        while jobs.are_left(Step(context, connection)):
            if pause.is_past(until):
                raise JobsLeft
            time.sleep(0.005)


def set_consumers(step: Step, tables: list[TableSet], position: Place) -> None:
    """Sets the positions of the consumers in green to the position that the new tables have reached.

    If the store has no event, the positions stay as they are in blue.

    :param tables: the tables that the run swaps; the table of the positions is the last one
    """
    consumers = step.spec.live_writer.checkpoint
    if consumers is None:
        return
    dialect, table = step.dialect, tables[-1]
    blue, green = dialect.qualified(table.schema, table.blue), dialect.qualified(table.schema, table.green)
    columns = [dialect.quote(name) for name in dialect.inspector.columns(step.connection, table.schema, table.blue)]
    column = dialect.quote(consumers.position_column)
    values = [str(int(position)) if name == column and position is not None else name for name in columns]
    dialect.run(step.connection, f"DELETE FROM {green}")
    dialect.run(step.connection, f"INSERT INTO {green} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {blue}")


class Drain:
    """Applies the last events to green, in one attempt and while the writers are held.

    :param tables: the tables that the run swaps
    :param projectors: the projectors of the run; they have caught up
    :param counted: the events that the engine counted before writers had to wait
    """

    def __init__(
        self,
        step: Step,
        plan: Plan,
        tables: list[TableSet],
        projectors: CatchUp,
        counted: Counted,
    ) -> None:
        self._step = step
        self._plan = plan
        self._tables = tables
        self._projectors = projectors
        self._counted = counted
        self._done: frozenset[int] = frozenset()
        self._settled: Place = projectors.position

    @property
    def jobs_may_be_left(self) -> bool:
        """Whether jobs may be left at the swap; see :func:`jobs_may_be_left`."""
        return jobs_may_be_left(self._step.context, self._plan)

    def refuse_long_queue(self) -> None:
        """Refuses the attempt if it would drain more than ``swap.small_backlog`` events while writers wait.

        :raises QueueTooLong: more events have come since the first one whose job is left
        """
        store, most = self._step.context.store, self._step.spec.swap.small_backlog
        if self.jobs_may_be_left and store.count(self._projectors.position, store.newest(), most=most + 1) > most:
            raise QueueTooLong

    def apply(self, held: HeldTables, pause: Pause) -> tuple[Place, LeftBehind]:
        """Applies the events since the catch-up. By its contract no live writer can project them into blue any more.

        :returns: the place up to which green holds the events, and the events that it holds above the high-water mark
        :raises ProgramsBehind: a projector that is a program has events left
        :raises JobCameBack: a job is left for an event that green holds
        :raises PauseTooLong: the drain took too long
        :raises VerificationFailed: green lacks events, has too many dead letters, or the swap would orphan rows
        """
        settled = position = self._projectors.position
        above: list[int] = []
        if self.jobs_may_be_left and held.keep_others_out:
            return self._apply_done(pause)
        # Consumers of the new tables continue from this position, so it must be the high-water mark. They project
        # the later events themselves.
        if self._step.spec.live_writer.contract is not LiveWriter.CHECKPOINTED:
            position = self._step.context.store.newest()
            if self._projectors.programs_behind(position):
                raise ProgramsBehind
            above = self._projectors.drain(position)
        else:
            self._projectors.assert_checkpoints_unmoved()
        if self._projectors.programs:
            # Behind the fence the newest position is the high-water mark.
            settled, above = position, []
        self._drained(pause)
        stored = Counter(self._counted.by_type) + Counter(self._step.context.store.counts(self._counted.position, position))
        self._refuse(stored)
        return position, LeftBehind(settled=settled, above=above, events=dict(stored))

    def _apply_done(self, pause: Pause) -> tuple[Place, LeftBehind]:
        """Applies the events whose jobs are done. The jobs that are left project theirs into the new tables.

        No job can commit while the tables are locked. So blue holds exactly the listed events that have no job left
        when the engine queries the jobs afterwards.
        """
        settled, store = self._projectors.position, self._step.context.store
        listed = store.listed(settled, HIGHEST)
        left = self._jobs_left()
        # An undone attempt may have drained events above the high-water mark.
        ahead = [position for position in self._plan.already or () if is_before(settled, position)]
        if not left.isdisjoint(ahead) or any(not is_before(settled, position) for position in left):
            raise JobCameBack
        position = max(listed, default=settled)
        done = {at: event_type for at, event_type in listed.items() if at not in left}
        self._done, self._settled = self._of_run(done), settled
        above = self._projectors.drain(position, frozenset(done)) + ahead
        self._drained(pause)
        counts = [self._counted.by_type, store.counts(self._counted.position, settled), Counter(done.values())]
        stored = sum(map(Counter, counts), start=Counter[str]())
        self._refuse(stored)
        return position, LeftBehind(settled=settled, above=sorted(above), events=dict(stored))

    def refuse_late_jobs(self) -> None:
        """Checks that the jobs that are done are still exactly those whose events green holds.

        :raises JobGotIn: another job has ended, so that its event is in blue and not in green
        """
        listed = self._step.context.store.listed(self._settled, HIGHEST)
        left = self._jobs_left()
        if self._of_run({at: event_type for at, event_type in listed.items() if at not in left}) != self._done:
            raise JobGotIn

    def _jobs_left(self) -> frozenset[int]:
        """The positions of the events whose jobs are left."""
        with _beside(self._step.context) as connection:
            return jobs.positions_left(Step(self._step.context, connection))

    def _of_run(self, events: Mapping[int, str]) -> frozenset[int]:
        """The positions of the events that the projectors of the run handle.

        :param events: event types by position
        """
        types = _types_of(self._step.context, self._plan)
        return frozenset(position for position, event_type in events.items() if event_type in types)

    def _drained(self, pause: Pause) -> None:
        pause.ended("drain")
        pause.stay_in_time()

    def _refuse(self, stored: Mapping[str, int]) -> None:
        """Refuses a drained green that must not become live.

        :param stored: the number of events that green must hold, by type
        :raises VerificationFailed: it lacks events, has too many dead letters, or the swap would orphan rows
        """
        if missed := self._projectors.miscounted(stored):
            raise VerificationFailed(
                "events appeared below what had been read; blue is live and untouched:\n" + "\n".join(missed)
            )
        if too_many := self._projectors.too_many_dead_letters():
            raise VerificationFailed("blue is live and untouched:\n" + "\n".join(too_many))
        if orphaned := self._step.dialect.rows_orphaned_by_swap(self._step.connection, self._tables):
            raise VerificationFailed("blue is live and untouched:\n" + "\n".join(orphaned))
