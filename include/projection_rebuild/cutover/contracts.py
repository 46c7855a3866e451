"""What each contract of the live writer means for a cutover: whom it has to hold, and what it drains."""

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
    """Whether appends have to wait, beyond what the locks on the read models do."""
    return context.dialect.cutover.needs_fence(_held_back(context, plan), one_database=context.one_database)


def _held_back(context: Context, plan: Plan) -> HeldBack:
    match context.spec.live_writer.contract:
        case LiveWriter.CHECKPOINTED:
            return HeldBack.NOBODY
        case LiveWriter.DETACHED:
            return HeldBack.JOBS if jobs_may_be_left(context, plan) else HeldBack.APPENDS
        case LiveWriter.TRANSACTIONAL:
            # What a program has committed cannot be undone with an attempt, so there must be no append in flight
            # below it.
            return HeldBack.APPENDS if _has_programs(context, plan) else HeldBack.PROJECTIONS


def _has_programs(context: Context, plan: Plan) -> bool:
    return any(issubclass(context.projector(name), ExternalProjector) for name in plan.projectors)


def jobs_may_be_left(context: Context, plan: Plan) -> bool:
    """Whether it is known which events have jobs left, so that green can have all others: a job that is left
    projects into the new tables.

    What a program has done cannot be taken back with an attempt, so there must be nothing left to be done by
    others.
    """
    return context.spec.live_writer.jobs_left is not None and not _has_programs(context, plan)


def _types_of(context: Context, plan: Plan) -> frozenset[str]:
    """The types of events that the projectors of a run handle."""
    return frozenset(event_type for name in plan.projectors for event_type in context.projector(name).stored_types())


def appended_since(context: Context, plan: Plan, left: LeftBehind) -> int:
    """Events beyond those of green that may have been projected into the tables that are retired now, where
    nothing held them back."""
    types = _types_of(context, plan)
    listed = context.store.listed(left.settled, context.store.settled_head())
    above = frozenset(left.above)
    return sum(event_type in types for position, event_type in listed.items() if position not in above)


@contextmanager
def _beside(context: Context) -> Iterator[sa.Connection]:
    """A connection that looks at jobs: one that holds the tables may not look at others on MySQL."""
    with open_step(context) as step:
        context.dialect.limit_lock_wait(step.connection, context.spec.swap.lock_timeout)
        yield step.connection


def wait_for_jobs(context: Context, pause: Pause, until: float) -> None:
    """Behind the fence no job is added, so the ones that are left come to their end, or the attempt does.

    :param until: by the clock of ``pause``; a moment that is over: just look
    :raises JobsLeft: they have not ended
    """
    if context.spec.live_writer.contract is not LiveWriter.DETACHED:
        return
    with _beside(context) as connection:
        while jobs.are_left(Step(context, connection)):
            if pause.is_past(until):
                raise JobsLeft
            time.sleep(0.005)


def set_consumers(step: Step, tables: list[TableSet], position: Place) -> None:
    """Gives the consumers of the new tables the position that those have reached; without any event, their own.

    :param tables: of the run; that of the consumers is the last one
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
    """What one attempt applies to green while the writers are held.

    :param counted: the long count, taken before
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
        """See :func:`jobs_may_be_left`."""
        return jobs_may_be_left(self._step.context, self._plan)

    def refuse_long_queue(self) -> None:
        """Nobody is to wait while more is drained than a swap begins with.

        :raises QueueTooLong: more has come since the first event whose job is left
        """
        store, most = self._step.context.store, self._step.spec.swap.small_backlog
        if self.jobs_may_be_left and store.count(self._projectors.position, store.newest(), most=most + 1) > most:
            raise QueueTooLong

    def apply(self, held: HeldTables, pause: Pause) -> tuple[Place, LeftBehind]:
        """Applies what was appended since the catch-up; by the contract nobody can project it into blue any more.

        :returns: the place up to which green holds the events, and what it has beyond the settled ones
        """
        settled = position = self._projectors.position
        above: list[int] = []
        if self.jobs_may_be_left and held.keep_others_out:
            return self._apply_done(pause)
        # The consumers of the new tables go on from here, so for them it must be a settled position; the rest is
        # theirs.
        if self._step.spec.live_writer.contract is not LiveWriter.CHECKPOINTED:
            position = self._step.context.store.newest()
            if self._projectors.programs_behind(position):
                raise ProgramsBehind
            above = self._projectors.drain(position)
        else:
            self._projectors.assert_checkpoints_unmoved()
        if self._projectors.programs:
            # The fence has settled it.
            settled, above = position, []
        self._drained(pause)
        stored = Counter(self._counted.by_type) + Counter(self._step.context.store.counts(self._counted.position, position))
        self._refuse(stored)
        return position, LeftBehind(settled=settled, above=above, events=dict(stored))

    def _apply_done(self, pause: Pause) -> tuple[Place, LeftBehind]:
        """The same where it is known which events have jobs left: applies those that have none. The others come to
        the new tables.

        While the tables are held no job ends, so blue holds just the events that were there and whose jobs are
        done after that.
        """
        settled, store = self._projectors.position, self._step.context.store
        listed = store.listed(settled, HIGHEST)
        left = self._jobs_left()
        # What an undone attempt has drained lies above.
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
        """Looks once more which jobs are done: just those whose events green was given.

        :raises JobGotIn: others, so that their events are in blue, and not in green
        """
        listed = self._step.context.store.listed(self._settled, HIGHEST)
        left = self._jobs_left()
        if self._of_run({at: event_type for at, event_type in listed.items() if at not in left}) != self._done:
            raise JobGotIn

    def _jobs_left(self) -> frozenset[int]:
        with _beside(self._step.context) as connection:
            return jobs.positions_left(Step(self._step.context, connection))

    def _of_run(self, events: Mapping[int, str]) -> frozenset[int]:
        types = _types_of(self._step.context, self._plan)
        return frozenset(position for position, event_type in events.items() if event_type in types)

    def _drained(self, pause: Pause) -> None:
        pause.ended("drain")
        pause.stay_in_time()

    def _refuse(self, stored: Mapping[str, int]) -> None:
        """Whether green, which is drained now, may become the live one.

        :param stored: by type, the events that it has to hold
        """
        if missed := self._projectors.miscounted(stored):
            raise VerificationFailed(
                "events appeared below what had been read; blue is live and untouched:\n" + "\n".join(missed)
            )
        if aside := self._projectors.too_many_dead_letters():
            raise VerificationFailed("blue is live and untouched:\n" + "\n".join(aside))
        if orphaned := self._step.dialect.rows_orphaned_by_swap(self._step.connection, self._tables):
            raise VerificationFailed("blue is live and untouched:\n" + "\n".join(orphaned))
