"""One attempt at the swap: it catches up, holds the writers, drains, announces the swap, renames, and releases."""

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
    """One attempt at the swap.

    It reads everything anew, so that a failed attempt leaves nothing behind in memory.

    :param tables: the tables that the run swaps
    :param counted: the events that the engine counted before writers had to wait
    :param readiness: the last look at the live tables; their fingerprint must still match at the renames
    :param number: the number of the attempt, from 1
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
        """Catches up while writers continue; then holds the writers, drains and renames.

        :param stopped: returns whether the worker must stop; called while a program works and no writer waits
        :returns: what the swap did, with its pause in seconds
        :raises Exception: any error of the database; nothing has changed then, unless DDL commits by itself and the
            renames have happened
        """
        step, bounds = self._step, self._step.spec.swap
        self._projectors.catch_up(stopped)
        self._drain.refuse_long_queue()
        retired = retired_names.to_be_retired(step, self._tables, self._run)
        superseded = self._cutover.superseded_within(lambda: retired_names.superseded(step, self._tables))
        ahead = self._cutover.prepared_ahead(step.connection, self._tables)
        pause = Pause(bounds.max_pause)
        with self._programs_finished(stopped), pause.parts_in_error(), ExitStack() as stack:
            # Under LOCK TABLES no server detects this deadlock: a client that has opened the event store waits for
            # a table, a FLUSH of the store waits for that client, and the engine's read of the store waits for the
            # FLUSH. So this read has a short timeout.
            stack.enter_context(step.context.store.in_a_hurry(bounds.lock_timeout))
            held, policy = self._hold(stack, pause)
            # From here on the server ends a silent session. The mutex ends with the session.
            if not stack.enter_context(self._cutover.run_mutex(step.connection, step.run_id)):
                raise TablesBusy
            pause.ended("lock")
            # Where DDL can be rolled back, one transaction holds the tables, drains, writes the ledger and renames.
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
        for retired_before in superseded:
            step.log(f"dropped {retired_before.old}, retired by the run {retired_before.run_id}: its name was needed")
        with step.dialect.transaction(step.connection):
            mark_switched(step, self._tables, result)
            self._note_rollback()
        return result

    @contextmanager
    def _programs_finished(self, stopped: Callable[[], bool]) -> Iterator[None]:
        """Lets programs finish that are still at work when the attempt is undone. Writers no longer wait by then."""
        try:
            yield
        finally:
            for program in self._projectors.programs:
                program.finish(stopped, lambda now: None)

    def _call_programs(self, pause: Pause, until: float) -> None:
        """Calls the programs that have events left, while the fence holds appends and before the tables are locked.

        Behind the fence the newest position is the high-water mark, so that a program has time to reach it.

        :param until: the moment by which they must be done, by the clock of ``pause``
        :raises PauseTooLong: a program is still at work then
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
        """Takes the fence if the contract needs one, locks the tables, and waits for jobs to end.

        :param stack: gets the locks and the fence
        :returns: the locked tables, and the lock policy with its fence
        :raises JobsLeft: jobs of the application have not ended in time
        """
        context, policy, jobs_left = self._step.context, self._policy(pause), self._drain.jobs_may_be_left
        began, half = pause.began, pause.half
        tables = self._cutover.lock_tables(self._step.connection, self._tables, policy, context.ledger.tables)
        if policy.lock_order is LockOrder.TABLES_ONLY:
            held = stack.enter_context(tables)
            if not jobs_left:
                contracts.wait_for_jobs(context, pause, until=began)
            return held, policy
        if policy.lock_order is LockOrder.TABLES_FIRST:
            held = stack.enter_context(tables)
            if jobs_left and held.keep_others_out:
                # No job can commit before the swap, so appends need no fence.
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
        """The lock policy of this attempt, without its fence."""
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
            # If the fence comes first, appends wait from there on, and the pause has begun.
            begins=(lambda: None) if order is LockOrder.FENCE_FIRST else pause.begin,
            left=pause.left,
        )

    def _fenced(self, stack: ExitStack, policy: LockPolicy) -> LockPolicy:
        """Takes the fence, and returns the policy with it."""
        bounds = self._step.spec.swap
        return replace(policy, fence=stack.enter_context(self._step.context.store.fence(bounds.lock_timeout, bounds.max_pause)))

    def _looked_at(self) -> tuple[str, ...]:
        """The names of other live tables that handlers read while the tables of the run are locked."""
        projectors = [self._step.context.projector(name) for name in self._plan.projectors]
        names = {row_type(read).table for projector in projectors for read in projector.reads}
        return tuple(sorted(names - {*self._plan.tables}))

    def _swap(self, held: HeldTables, policy: LockPolicy, pause: Pause, ahead: PreparedSwap | None) -> bool:
        """Checks the live tables for the last time, renames, and executes the statements that follow at once.

        :param ahead: the statements, if the database could prepare them before the writers were held
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
        """Records in the ledger what the swap is about to retire.

        After a crash, :mod:`projection_rebuild.cutover.recovery` compares this record with the tables.
        """
        ledger = self._step.ledger
        ledger.claims.assert_held([table.blue for table in self._tables])
        ledger.owned_tables.assert_owns_greens([table.green for table in self._tables])
        ledger.owned_tables.retire(retired)
        begun = SwapResult(tables=self._plan.tables, position=position, pause_seconds=0, attempts=self._number)
        ledger.runs.move(RunState.SWITCHING, swap=begun, left_behind=left_behind)
