"""One attempt at the swap: catch up, hold the writers, drain, announce, rename, release."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from projection_rebuild.cutover import contracts, left_overs, retired_names
from projection_rebuild.cutover.pause import Pause
from projection_rebuild.cutover.preparation import Counted
from projection_rebuild.cutover.recovery import mark_switched
from projection_rebuild.dialects.base import HeldTables, LockOrder, LockPolicy, PauseTooLong, PreparedSwap, TablesBusy
from projection_rebuild.ledger import Retired, RunState
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.positions import Place
from projection_rebuild.model.results import LeftBehind, SwapResult
from projection_rebuild.replay.catch_up import CatchUp
from projection_rebuild.rows.types import row_type
from projection_rebuild.run.step import Step
from projection_rebuild.shadow.live_tables import Readiness, refuse_replaced


class Attempt:
    """One attempt at the swap. Reads everything anew, so that a failed one leaves nothing behind in memory.

    :param number: from 1
    """

    def __init__(
        self,
        step: Step,
        tables: list[TableSet],
        counted: Counted,
        readiness: Readiness,
        number: int,
    ) -> None:
        self._step = step
        self._tables = tables
        self._readiness = readiness
        self._number = number
        self._cutover = step.dialect.cutover
        self._run = step.ledger.runs.get()
        self._plan = step.context.plan_of(self._run)
        self._projectors = CatchUp(step, self._plan)
        self._drain = contracts.Drain(step, self._plan, tables, self._projectors, counted)

    def run(self, stopped: Callable[[], bool]) -> SwapResult:
        """Catches up without holding anybody, then holds, drains and renames.

        :param stopped: asked while a program is at work and nobody is held
        :raises Exception: whatever the database refuses; nothing has changed then
        """
        step, bounds = self._step, self._step.spec.swap
        self._projectors.catch_up(stopped)
        self._drain.refuse_long_queue()
        retired = retired_names.to_be_retired(step, self._tables, self._run)
        superseded = self._cutover.superseded_within(lambda: retired_names.superseded(step, self._tables))
        ahead = self._cutover.prepared_ahead(step.connection, self._tables)
        pause = Pause(bounds.max_pause)
        with self._programs_finished(stopped), pause.told(), ExitStack() as stack:
            # Where LOCK TABLES holds the tables, no server sees a circle of ours: somebody who has opened the
            # event store waits for a table, a FLUSH of the store waits for him, and our reading of the store for
            # the FLUSH.
            stack.enter_context(step.context.store.in_a_hurry(bounds.lock_timeout))
            held, policy = self._hold(stack, pause)
            # From here on the server ends a session that is silent, and this with it.
            if not stack.enter_context(self._cutover.run_mutex(step.connection, step.run_id)):
                raise TablesBusy
            pause.ended("lock")
            # Where DDL can be rolled back, what holds the tables is the one transaction of drain, ledger and renames.
            with held.transaction():
                position, left_behind = self._drain.apply(held, pause)
                pause.ended("count")
                pause.stay_in_time()
                retired_names.drop_with_swap(step, superseded)
                contracts.set_consumers(step, self._tables, position)
                self._announce(position, left_behind, retired)
            fenced = self._swap(held, policy, pause, ahead)
        result = SwapResult(
            tables=self._plan.tables,
            position=position,
            pause_seconds=pause.ended("release"),
            pause_parts=pause.parts,
            attempts=self._number,
            in_doubt=0 if fenced else contracts.appended_since(step.context, self._plan, left_behind),
            left_on_old=step.dialect.left_on_old(step.connection, self._tables),
        )
        for dropped in superseded:
            step.log(f"dropped {dropped.old}, retired by the run {dropped.run_id}: its name was needed")
        with step.dialect.transaction(step.connection):
            mark_switched(step, self._tables, result)
            self._note_rollback()
        return result

    @contextmanager
    def _programs_finished(self, stopped: Callable[[], bool]) -> Iterator[None]:
        """A program that is still at work when an attempt is given up comes to its end; by then nobody is held any
        more."""
        try:
            yield
        finally:
            for program in self._projectors.programs:
                program.finish(stopped, lambda now: None)

    def _call_programs(self, pause: Pause, until: float) -> None:
        """Behind the fence and before the tables are held: the newest position is settled, and a program may take
        its time to it.

        :param until: by the clock of ``pause``, how long
        """
        position = self._step.context.store.newest()
        if position is None:
            return
        for program in self._projectors.programs_behind(position):
            program.start(position, position)
            while not program.is_done(0.01):
                if pause.is_past(until):
                    raise PauseTooLong

    def _hold(self, stack: ExitStack, pause: Pause) -> tuple[HeldTables, LockPolicy]:
        """Takes the fence, where there has to be one, and the tables; the jobs have ended then."""
        context, policy, jobs_left = self._step.context, self._policy(pause), self._drain.jobs_may_be_left
        began, half = pause.began, pause.half
        beside = context.ledger.tables
        tables = self._cutover.lock_tables(self._step.connection, self._tables, policy, beside)
        if policy.lock_order is LockOrder.TABLES_ONLY:
            held = stack.enter_context(tables)
            if not jobs_left:
                contracts.wait_for_jobs(context, pause, until=began)
            return held, policy
        if policy.lock_order is LockOrder.TABLES_FIRST:
            held = stack.enter_context(tables)
            if jobs_left and held.keep_others_out:
                # No job can end before the swap, so appends need not be held.
                return held, policy
            policy = self._fenced(stack, policy)
            contracts.wait_for_jobs(context, pause, until=began)
            return held, policy
        fenced = self._fenced(stack, policy)
        contracts.wait_for_jobs(context, pause, until=half)
        self._call_programs(pause, until=half)
        held = stack.enter_context(tables)
        contracts.wait_for_jobs(context, pause, until=began)
        return held, fenced

    def _policy(self, pause: Pause) -> LockPolicy:
        """How this attempt takes its locks; without a fence yet."""
        bounds, jobs_left = self._step.spec.swap, self._drain.jobs_may_be_left
        fenced = contracts.needs_fence(self._step.context, self._plan)
        order = self._cutover.lock_order(self._number, fenced=fenced, jobs_left=jobs_left)
        return LockPolicy(
            timeout=bounds.lock_timeout,
            nowait=self._cutover.nowait(self._number),
            lock_order=order,
            longest=bounds.max_pause,
            looked_at=self._looked_at(),
            confirm=self._drain.refuse_late_jobs if jobs_left else None,
            # Behind a fence, appenders wait already.
            begins=(lambda: None) if order is LockOrder.FENCE_FIRST else pause.begin,
            left=pause.left,
        )

    def _fenced(self, stack: ExitStack, policy: LockPolicy) -> LockPolicy:
        """Takes the fence."""
        bounds = self._step.spec.swap
        return replace(policy, fence=stack.enter_context(self._step.context.store.fence(bounds.lock_timeout, bounds.max_pause)))

    def _looked_at(self) -> tuple[str, ...]:
        """The live tables that handlers look at while the tables of the run are held."""
        projectors = [self._step.context.projector(name) for name in self._plan.projectors]
        names = {row_type(read).table for projector in projectors for read in projector.reads}
        return tuple(sorted(names - {*self._plan.tables}))

    def _swap(self, held: HeldTables, policy: LockPolicy, pause: Pause, ahead: PreparedSwap | None) -> bool:
        """Looks for the last time, renames, and finishes what can be finished at once.

        :param ahead: the statements, where they were worked out before anybody was held
        :returns: whether the fence held until the tables were renamed
        """
        step = self._step
        swap = held.swap_statements() if ahead is None else ahead
        after = held.planned_after(swap, policy)
        refuse_replaced(step, self._tables, self._run)
        self._readiness.confirm(held.fingerprint())
        fenced = held.run_swap(swap.statements, policy)
        self._cutover.record_with_swap(lambda: mark_switched(step, self._tables))
        pause.ended("rename")
        if after is None:
            after = self._cutover.left_over(step.connection, self._tables)
        left_overs.finish_at_once(step, after, held.run_at_work, pause.left)
        pause.ended("after")
        return fenced

    def _note_rollback(self) -> None:
        if self._plan.rolls_back:
            self._step.ledger.of(self._plan.rolls_back).runs.amend(rolled_back_by=self._step.run_id)

    def _announce(self, position: Place, left_behind: LeftBehind, retired: list[Retired]) -> None:
        """Writes down what is about to be retired, so that a crash right after it can be told from one right
        before it."""
        ledger = self._step.ledger
        ledger.claims.assert_held([table.blue for table in self._tables])
        ledger.owned_tables.assert_owns_greens([table.green for table in self._tables])
        ledger.owned_tables.retire(retired)
        begun = SwapResult(tables=self._plan.tables, position=position, pause_seconds=0, attempts=self._number)
        ledger.runs.move(RunState.SWITCHING, swap=begun, left_behind=left_behind)
