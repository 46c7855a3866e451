"""The switch: catch up until little is left, hold the writers, drain, rename all tables at once, release.

What is held, and in which order, depends on the database; see ``docs/concepts/cutover.md``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from projection_rebuild.authoring.external import ExternalProjector
from projection_rebuild.dialects.base import FenceDied, Manners, PauseTooLong, TablesBusy, TablesChanged
from projection_rebuild.errors import CloneError, Interrupted, StepOrderError, SwapNotPossible, VerificationFailed
from projection_rebuild.ledger import RecordChanges, Retired, Run, RunState
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import BEGINNING, HIGHEST, Place, is_before
from projection_rebuild.model.refusals import foreign_old
from projection_rebuild.model.results import LeftBehind, SwapResult, by_parts
from projection_rebuild.replay.catch_up import CatchUp
from projection_rebuild.rows.types import row_type
from projection_rebuild.run import jobs
from projection_rebuild.run.context import Context
from projection_rebuild.shadow.live_tables import Readiness, refuse_at_once, refuse_replaced
from projection_rebuild.shadow.retire import drop_retired, drop_within
from projection_rebuild.spec.live_writer import LiveWriter
from projection_rebuild.verification.fresh_proof import look_before_switch


class _Pause:
    """The time for which writers are held.

    :param longest: for how long they may be
    """

    def __init__(self, longest: timedelta) -> None:
        self._longest = longest.total_seconds()
        self.parts: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        """Begins now, and not before: until then nobody was held."""
        self.began = self._last = time.monotonic()
        self.until = self.began + self._longest

    def left(self) -> float:
        """Seconds for which they may still be held."""
        return self.until - time.monotonic()

    def ended(self, part: str) -> float:
        """Notes that a part has ended; returns the whole time until now."""
        now = time.monotonic()
        self.parts[part], self._last = now - self._last, now
        return now - self.began

    @contextmanager
    def told(self) -> Iterator[None]:
        """Says where the time has gone, if it is not enough."""
        try:
            yield
        except PauseTooLong:
            self.ended("then")
            raise PauseTooLong(by_parts(self.parts)) from None

    def stay_in_time(self) -> None:
        """Looks at the clock.

        :raises PauseTooLong: the time is up
        """
        if self.left() <= 0:
            raise PauseTooLong


class _JobGotIn(Exception):
    """A job has come to its end while the tables were held against it; this attempt is undone."""


class _ProgramsBehind(Exception):
    """A projector that is a program has events left, and cannot be called while the tables are held; this attempt is undone."""


class _JobsLeft(Exception):
    """Jobs of the application did not end within this attempt; it is undone."""


class _QueueTooLong(Exception):
    """Jobs of the application are so far behind that the drain would take too long; nobody has been held."""


class _JobCameBack(Exception):
    """A job is left for an event that green holds already; this attempt is undone."""


def swap(context: Context, stopped: Callable[[], bool]) -> SwapResult:
    """Switches all tables of the run at once; called again after it has, it says so and does nothing.

    :param stopped: asked before each attempt
    :raises Interrupted: ``stopped`` said so
    :raises VerificationFailed: events were missed, by the count that is taken while the writers are held; or rows have lost their
        parents since verification
    :raises Diverged: green is no longer what the events make
    :raises SwapNotPossible: not within the attempts and the longest pause; everything is as it was
    :raises StepOrderError: the run is not verified
    """
    with context.dialect.connect() as connection:
        context.ledger.create(connection)
        run = context.ledger.runs.get(connection, context.run_id, requires=RunState.VERIFIED)
        tables = context.switched_sets(context.plan_of(run))
        if done := switched_already(context, connection, tables):
            until = time.monotonic() + context.spec.swap.max_pause.total_seconds()
            _finish_at_once(context, connection, tables, _left_over(context, connection, tables), until)
            return done
        refuse_at_once(context, connection, tables, run)
        _superseded(context, connection, tables)
        # Refuses what has been changed, before anybody is held or anything is dropped.
        readiness = Readiness(context, connection, tables)
        readiness.look()
        try:
            result = _attempt_until_done(context, connection, tables, readiness, stopped)
        except CloneError:
            # Changed since then. Where DDL commits by itself the ledger says already that the switch has begun.
            switched_already(context, connection, tables)
            raise
    context.log(result.describe())
    return result


def switched_already(context: Context, connection: sa.Connection, tables: list[TableSet]) -> SwapResult | None:
    """What an earlier attempt did, if it came past the switch, however it ended."""
    run = context.ledger.runs.get(connection, context.run_id)
    if run.state.in_doubt:
        run = _find_side(context, connection, tables)
    return run.swap_result if run.state.has_switched else None


def _find_side(context: Context, connection: sa.Connection, tables: list[TableSet]) -> Run:
    """After a crash within a switch that cannot be rolled back: the tables themselves say on which side it is.

    :raises SwapNotPossible: another worker is still at it
    """
    dialect, ledger = context.dialect, context.ledger
    with dialect.alone(connection, context.run_id, 2 * context.spec.swap.max_pause) as alone:
        if not alone:
            raise SwapNotPossible(f"another worker of the run {context.run_id} is within its switch; retry when it has ended")
        run = ledger.runs.get(connection, context.run_id)
        if not run.state.in_doubt:
            # It was, until now.
            return run
        left = [table for table in tables if dialect.table_exists(connection, table.schema, table.green)]
        with dialect.transaction(connection):
            if left:
                context.log("the last switch did not happen; trying again")
                ledger.owned_tables.forget_retired(connection, [table.old for table in tables])
                _back_to_settled(context, connection, run)
            else:
                context.log("the last switch had happened before its task was stopped")
                _mark_switched(context, connection, tables, _after_a_crash(context, connection, run))
        return ledger.runs.get(connection, context.run_id)


def _back_to_settled(context: Context, connection: sa.Connection, run: Run) -> None:
    """Green was drained beyond the settled head, past appends that were still open: those are looked for once more."""
    left = run.left_behind
    plan = context.plan_of(run)
    plan = plan.model_copy(update={"already": sorted({*(plan.already or ()), *left.above})})
    context.ledger.checkpoints.rewind(connection, context.run_id, left.settled)
    context.ledger.runs.move(connection, context.run_id, RunState.VERIFIED, plan=plan)


def _after_a_crash(context: Context, connection: sa.Connection, run: Run) -> SwapResult:
    """A statement that waits may go on when its client is gone, while the fence ends: what was appended then is in doubt."""
    plan = context.plan_of(run)
    announced = run.swap_result.model_copy(
        update={"left_on_old": context.dialect.left_on_old(connection, context.switched_sets(plan))}
    )
    at_once = _is_polite(announced.attempts) and not _tables_first(announced.attempts, _takes_done(context, plan))
    if context.dialect.holds_tables or not _needs_fence(context, plan) or at_once:
        return announced
    doubtful = _appended_since(context, plan, run.left_behind)
    return announced.model_copy(update={"in_doubt": doubtful})


def _mark_switched(context: Context, connection: sa.Connection, tables: list[TableSet], result: SwapResult | None = None) -> None:
    """:param result: what the switch did; None: as it was announced"""
    changes = RecordChanges() if result is None else RecordChanges(swap=result)
    greens = [table.green for table in tables]
    context.ledger.owned_tables.forget_greens(connection, greens)
    # In a rollback, green was a retired table; it is live now.
    context.ledger.owned_tables.forget_retired(connection, greens)
    runs = context.ledger.runs
    if runs.get(connection, context.run_id).state.is_reconciled:
        # A retry of this step, and then reconcile, came between the renames and here.
        runs.amend(connection, context.run_id, **changes)
    else:
        runs.move(connection, context.run_id, RunState.SWITCHED, **changes)


def _left_over(context: Context, connection: sa.Connection, tables: list[TableSet]) -> list[str]:
    """What is done right after the switch, where that commits by itself; elsewhere reconcile does it."""
    return context.dialect.after_switch(connection, tables) if context.dialect.ddl_commits else []


def _finish_at_once(
    context: Context, connection: sa.Connection, tables: list[TableSet], statements: Sequence[str], until: float
) -> None:
    """What could not be part of the switch follows while the writers are still held; what cannot be had in time, reconcile does.

    :param until: by the monotonic clock, when the writers have waited long enough
    """
    dialect, shortest = context.dialect, context.spec.swap.lock_timeout
    try:
        for statement in statements:
            left = until - time.monotonic()
            if left <= 0:
                raise PauseTooLong
            dialect.run_at_work(connection, tables, statement, max(shortest, timedelta(seconds=left)))
    except (sa.exc.DBAPIError, TablesBusy, PauseTooLong) as error:
        if isinstance(error, sa.exc.DBAPIError) and not dialect.lock_was_refused(error):
            raise
        context.log("foreign keys and the names of constraints could not be put right at once; reconcile does it")
        # The last statements would have made these settings anew.
        dialect.set_up(connection)


def _superseded(context: Context, connection: sa.Connection, tables: list[TableSet]) -> list[Retired]:
    """What earlier runs have retired under the names that blue is about to take, children first.

    :raises StepOrderError: somebody else's table is there
    """
    found = []
    for table in reversed(tables):
        if not context.dialect.table_exists(connection, table.schema, table.old):
            context.ledger.owned_tables.forget_retired(connection, [table.old])
            continue
        known = context.ledger.owned_tables.retired(connection, old=table.old)
        if not known:
            raise StepOrderError(foreign_old(table.old))
        found.append(known[0])
    return found


def _drops_within(context: Context) -> bool:
    """Whether superseded tables go in the transaction of the switch, so that they stay if it fails.

    Elsewhere a drop commits by itself, or all writers would wait for it, and a large table takes long.
    """
    return not context.dialect.ddl_commits and not context.dialect.one_writer


def _refuse_foreign(context: Context, connection: sa.Connection, old: Retired) -> None:
    """One that was not dropped is somebody else's, unless its own run has dropped it meanwhile."""
    if context.dialect.table_exists(connection, context.schema, old.old):
        raise StepOrderError(foreign_old(old.old))


def _attempt_until_done(
    context: Context, connection: sa.Connection, tables: list[TableSet], readiness: Readiness, stopped: Callable[[], bool]
) -> SwapResult:
    counted = _count_ahead(context, connection, stopped)
    _wait_for_snapshots(context, connection)
    _wait_for_maintenance(context, connection, tables, stopped)
    _refuse_orphans(context, connection, stopped)
    look_before_switch(context)
    if not _drops_within(context):
        # As late as can be: a switch that is refused before costs nobody his rollback.
        for each in _superseded(context, connection, tables):
            context.log(f"dropping {each.old}, retired by the run {each.run_id}: its name is needed")
            if not drop_retired(context, connection, each):
                _refuse_foreign(context, connection, each)
    bounds = context.spec.swap
    retrying = Retrying(
        stop=stop_after_attempt(bounds.attempts),
        wait=wait_random_exponential(multiplier=0.05, max=2),
        retry=retry_if_exception(
            lambda error: (
                isinstance(error, (*_REASONS, PauseTooLong, TablesBusy))
                or context.dialect.lock_was_refused(error)
                or context.dialect.was_cut(error)
            )
        ),
        before_sleep=_telling(context),
    )
    try:
        for attempt in retrying:
            with attempt:
                context.dialect.renew(connection)
                # The last one may have failed after its switch, where that commits by itself.
                if done := switched_already(context, connection, tables):
                    return done
                if stopped():
                    raise Interrupted(
                        "the switch was stopped between two attempts; blue is live and untouched, a retry tries again"
                    )
                readiness.look()
                with readiness.held():
                    number = attempt.retry_state.attempt_number
                    return _Attempt(context, connection, tables, counted, readiness, number).run(stopped)
    except RetryError as error:
        context.dialect.renew(connection)
        if done := switched_already(context, connection, tables):
            return done
        raise _given_up(context, connection, tables, error.last_attempt.exception()) from None
    raise AssertionError("tenacity ends in a result or an error")


TOLD_EVERY = 10
"""Attempts that failed for the same reason, between two words about it."""


def _telling(context: Context) -> Callable[[RetryCallState], None]:
    """Says why attempts fail: at the first one, where the reason is another one, and now and then."""
    last = ""

    def tell(state: RetryCallState) -> None:
        nonlocal last
        why = _reason(context, state.outcome.exception() if state.outcome else None)
        if why != last or state.attempt_number % TOLD_EVERY == 0:
            context.log(
                f"attempt {state.attempt_number} of {context.spec.swap.attempts} at the switch was undone: {why}; trying again"
            )
        last = why

    return tell


def _given_up(context: Context, connection: sa.Connection, tables: list[TableSet], last: BaseException | None) -> BaseException:
    """What is said when no attempt has succeeded.

    :param last: what the last one ended with
    """
    if isinstance(last, TablesChanged) and isinstance(last.__cause__, sa.exc.DBAPIError):
        # What the database did not find need not be anything that a look sees.
        return last.__cause__
    why = _reason(context, last)
    if at_work := _maintenance(context, connection, tables):
        why += f" (now at work there: {'; '.join(at_work)})"
    return SwapNotPossible(
        f"no switch within {context.spec.swap.attempts} attempts: at the last one {why}. Blue is live and untouched, green stays. Look for "
        "long queries and idle transactions on these tables, then retry; or raise swap.attempts or swap.max_pause"
    )


def _reason(context: Context, cause: BaseException | None) -> str:
    """Why an attempt has failed."""
    if isinstance(cause, PauseTooLong):
        return f"the pause grew too long (ms: {cause})"
    if cause is not None and context.dialect.was_cut(cause):
        return "the connection that held the tables was cut, by the server if nothing was heard of it for swap.max_pause"
    if isinstance(cause, _JobsLeft) and context.spec.live_writer.jobs_left is not None:
        return "live_writer.jobs_left gave events, and the tables could not be held against their jobs"
    return next((why for kind, why in _REASONS.items() if isinstance(cause, kind)), "the tables could not be locked in time")


_REASONS: dict[type[Exception], str] = {
    _JobsLeft: "live_writer.drain_check never gave 0. A queue that is never empty needs live_writer.jobs_left in its place, which tells the "
    "events of its jobs",
    _QueueTooLong: "more than swap.small_backlog events had come since the first one whose job is left (live_writer.jobs_left): look for a job "
    "that hangs, or raise it",
    _JobCameBack: "a job was left for an event that green holds (live_writer.jobs_left). If it is one that had failed and is tried again, "
    "clear clone_tables and what follows",
    _JobGotIn: "a job had come to the tables before they were renamed",
    _ProgramsBehind: "events were appended faster than a program that has to handle them can be called",
    FenceDied: "the connection that holds appends back was cut",
    TablesChanged: "the tables, or what hangs on them, had been changed since they were looked at",
}
"""Why an attempt at the switch is undone, but for locks."""


def _needs_fence(context: Context, plan: Plan) -> bool:
    """Whether appends have to wait, beyond what the locks on the read models do."""
    programs = _has_programs(context, plan)
    match context.spec.live_writer.contract:
        case LiveWriter.CHECKPOINTED:
            # Old and new tables each have a consumer's position of their own; an event that is appended meanwhile is
            # above both.
            return False
        case LiveWriter.DETACHED:
            # An event that is appended now would be projected by a job at any later time. Where there is but one writer,
            # the switch itself is the fence. Nor is there need for one where green takes the events whose jobs are done.
            if _takes_done(context, plan) and context.dialect.holds_tables:
                return False
            return not (context.one_database and context.dialect.one_writer)
        case LiveWriter.TRANSACTIONAL if programs:
            # What a program has committed cannot be undone with an attempt, so there must be no append in flight below it.
            return not (context.one_database and context.dialect.one_writer)
        case LiveWriter.TRANSACTIONAL:
            return not (context.one_database and context.dialect.holds_tables)


def _has_programs(context: Context, plan: Plan) -> bool:
    return any(issubclass(context.projector(name), ExternalProjector) for name in plan.projectors)


def _takes_done(context: Context, plan: Plan) -> bool:
    """Whether it is known which events have jobs left, so that green can have all others: a job that is left projects into the new tables.

    What a program has done cannot be taken back with an attempt, so there must be nothing left to be done by others.
    """
    return context.spec.live_writer.jobs_left is not None and not _has_programs(context, plan)


def _is_polite(attempt: int) -> bool:
    """Only every fifth attempt waits in the queue: tables that are always being read never have a free moment."""
    return attempt % 5 != 0


def _tables_first(attempt: int, takes_done: bool) -> bool:
    """Behind a fence the last jobs can end, but clients that have read the tables wait there and do not let go of them. With the
    tables taken first those clients come to their end, but no job does. So every other attempt begins with the tables; the first one does
    where jobs may be left."""
    return attempt % 2 == (1 if takes_done else 0)


def _types_of(context: Context, plan: Plan) -> frozenset[str]:
    """The types of events that the projectors of a run handle."""
    return frozenset(each for name in plan.projectors for each in context.projector(name).stored_types())


def _appended_since(context: Context, plan: Plan, left: LeftBehind) -> int:
    """Events beyond those of green that may have been projected into the tables that are retired now, where nothing held them back."""
    types = _types_of(context, plan)
    there = context.store.listed(left.settled, context.store.settled_head())
    above = frozenset(left.above)
    return sum(event_type in types for position, event_type in there.items() if position not in above)


MAINTENANCE = timedelta(minutes=2)
"""For how long a switch waits for a vacuum of its tables; whoever retries the step may wait longer."""

RECOUNTED = 10_000
"""So many of the newest events are counted once more while the writers are held."""


@dataclass(frozen=True)
class _Counted:
    """How many events of each type there were up to a place, counted while nobody was held."""

    position: Place
    by_type: dict[str, int]


def _count_ahead(context: Context, connection: sa.Connection, stopped: Callable[[], bool]) -> _Counted:
    """The long count, taken before anybody waits; within the switch only the newest events are left to be counted."""
    projectors = CatchUp(context, connection, context.plan_of(context.ledger.runs.get(connection, context.run_id)))
    projectors.catch_up(stopped)
    position = context.store.place_before(RECOUNTED, projectors.position)
    return _Counted(position, context.store.counts(BEGINNING, position))


def _refuse_orphans(context: Context, connection: sa.Connection, stopped: Callable[[], bool]) -> None:
    """Looks once more at the foreign keys to tables beside the run: nothing has held these to green since it was verified.

    :raises VerificationFailed: rows of green have lost their parents
    """
    plan = context.plan_of(context.ledger.runs.get(connection, context.run_id))
    tables = context.table_sets(plan)
    for look in range(LOOKS):
        if look:
            # What was deleted together with a parent may just not have come to green yet.
            CatchUp(context, connection, plan).catch_up(stopped)
        found = [f"{table.blue}, {each}" for table in tables for each in context.dialect.orphans(connection, table, tables)]
        if not found:
            return
    raise VerificationFailed(
        "rows of green have lost their parents since verification, blue is live and untouched; the foreign keys:\n"
        + "\n".join(found)
        + "\nIf an event tells of it, correct its projector and begin again; otherwise bring the parents back, then retry"
    )


LOOKS = 3
"""How often orphans have to be seen."""


def _wait_for_snapshots(context: Context, connection: sa.Connection) -> None:
    """Lets transactions end that began before green was filled: they would find it empty, and take that for an answer.

    :raises SwapNotPossible: one is still open after ``swap.wait_for_snapshots``
    """
    patience = context.spec.swap.wait_for_snapshots
    if not patience:
        return
    deadline = time.monotonic() + patience.total_seconds()
    older, spoken = context.dialect.snapshots(connection), False
    while older:
        if time.monotonic() > deadline:
            raise SwapNotPossible(
                f"after {patience.total_seconds():g} s there are still transactions that read from a snapshot older than the green tables; "
                f"after the switch they would find these empty: {'; '.join(sorted(older.values()))}. Blue is live and untouched, green "
                "stays. Wait for them or end them, then retry; or change swap.wait_for_snapshots (0s: switch all the same)"
            )
        if not spoken:
            context.log(f"waiting for transactions that are older than the green tables: {'; '.join(sorted(older.values()))}")
            spoken = True
        # InnoDB makes its list of transactions anew only when nobody has read it for a tenth of a second.
        time.sleep(0.15)
        now = context.dialect.snapshots(connection)
        older = {each: what for each, what in older.items() if each in now}


def _maintenance(context: Context, connection: sa.Connection, tables: list[TableSet]) -> list[str]:
    """What holds the tables of the switch, or the event store, until it has ended by itself."""
    names = [name for each in tables for name in (each.blue, each.green)]
    found = context.dialect.maintenance(connection, context.schema, names)
    fenced = _needs_fence(context, context.plan_of(context.ledger.runs.get(connection, context.run_id)))
    return found + (context.store.maintenance() if fenced else [])


def _wait_for_maintenance(
    context: Context, connection: sa.Connection, tables: list[TableSet], stopped: Callable[[], bool]
) -> None:
    """No attempt could succeed while a vacuum goes on: it holds its table for minutes, and nobody is to wait behind us for so long.

    :raises SwapNotPossible: it is still going on after :data:`MAINTENANCE`
    :raises Interrupted: ``stopped`` said so
    """
    deadline, spoken = time.monotonic() + MAINTENANCE.total_seconds(), False
    while at_work := _maintenance(context, connection, tables):
        if stopped():
            raise Interrupted("the switch was stopped before its first attempt; blue is live and untouched, a retry tries again")
        if time.monotonic() > deadline:
            raise SwapNotPossible(
                f"tables of the switch are still being maintained: {'; '.join(at_work)}. Blue is live and untouched, green stays. "
                "Retry when it is done, or end it"
            )
        if not spoken:
            context.log(f"waiting until the tables have been maintained: {'; '.join(at_work)}")
            spoken = True
        time.sleep(0.5)


class _Attempt:
    """One attempt at the switch. Reads everything anew, so that a failed one leaves nothing behind in memory."""

    def __init__(
        self,
        context: Context,
        connection: sa.Connection,
        tables: list[TableSet],
        counted: _Counted,
        readiness: Readiness,
        number: int,
    ) -> None:
        self._context = context
        self._connection = connection
        self._tables = tables
        self._counted = counted
        self._readiness = readiness
        self._number = number
        self._run = context.ledger.runs.get(connection, context.run_id)
        self._plan = context.plan_of(self._run)
        self._projectors = CatchUp(context, connection, self._plan)
        self._pause = _Pause(context.spec.swap.max_pause)
        self._done: frozenset[int] = frozenset()
        self._settled: Place = self._projectors.position

    def run(self, stopped: Callable[[], bool]) -> SwapResult:
        """Catches up without holding anybody, then holds, drains and renames.

        :param stopped: asked while a program is at work and nobody is held
        :raises Exception: whatever the database refuses; nothing has changed then
        """
        dialect, bounds = self._context.dialect, self._context.spec.swap
        self._projectors.catch_up(stopped)
        self._refuse_long_queue()
        retired = self._to_be_retired()
        superseded = _superseded(self._context, self._connection, self._tables) if _drops_within(self._context) else []
        # What can be worked out before anybody is held; what is changed after it makes it fail.
        ahead = [] if dialect.ddl_commits else dialect.switch(self._connection, self._tables)
        pause = self._pause = _Pause(bounds.max_pause)
        with self._programs_finished(stopped), pause.told(), ExitStack() as held:
            # Where LOCK TABLES holds the tables, no server sees a circle of ours: somebody who has opened the event store waits for
            # a table, a FLUSH of the store waits for him, and our reading of the store for the FLUSH.
            held.enter_context(self._context.store.in_a_hurry(bounds.lock_timeout))
            manners = self._hold(held, pause)
            # From here on the server ends a session that is silent, and this with it.
            if not held.enter_context(dialect.alone(self._connection, self._context.run_id)):
                raise TablesBusy
            pause.ended("lock")
            # Where DDL can be rolled back, hold() is the one transaction of drain, ledger and renames.
            with dialect.transaction(self._connection) if dialect.ddl_commits else nullcontext():
                position, left_behind = self._drain()
                pause.ended("count")
                pause.stay_in_time()
                self._drop_superseded(superseded)
                self._set_consumers(position)
                self._announce(position, left_behind, retired)
            statements = ahead or dialect.switch(self._connection, self._tables)
            # Where nobody is held, keys and counters may still be changed until the tables are renamed.
            held_still = dialect.holds_tables or manners.fence is not None
            after = dialect.planned_after_switch(self._connection, self._tables) if dialect.ddl_commits and held_still else None
            refuse_replaced(self._context, self._connection, self._tables, self._run)
            self._readiness.confirm()
            fenced = dialect.run_switch(self._connection, self._tables, statements, manners)
            if not dialect.ddl_commits:
                _mark_switched(self._context, self._connection, self._tables)
            pause.ended("rename")
            if after is None:
                after = _left_over(self._context, self._connection, self._tables)
            _finish_at_once(self._context, self._connection, self._tables, after, pause.until)
            pause.ended("after")
        result = SwapResult(
            tables=self._read_models(),
            position=position,
            pause_seconds=pause.ended("release"),
            pause_parts=pause.parts,
            attempts=self._number,
            in_doubt=0 if fenced else _appended_since(self._context, self._plan, left_behind),
            left_on_old=dialect.left_on_old(self._connection, self._tables),
        )
        for each in superseded:
            self._context.log(f"dropped {each.old}, retired by the run {each.run_id}: its name was needed")
        with dialect.transaction(self._connection):
            _mark_switched(self._context, self._connection, self._tables, result)
            self._note_rollback()
        return result

    @contextmanager
    def _programs_finished(self, stopped: Callable[[], bool]) -> Iterator[None]:
        """A program that is still at work when an attempt is given up comes to its end; by then nobody is held any more."""
        try:
            yield
        finally:
            for program in self._projectors.programs:
                program.finish(stopped, lambda now: None)

    def _call_programs(self, until: float) -> None:
        """Behind the fence and before the tables are held: the newest position is settled, and a program may take its time to it.

        :param until: by the monotonic clock, how long
        """
        position = self._context.store.newest()
        if position is None:
            return
        for program in self._projectors.programs_behind(position):
            program.start(position, position)
            while not program.is_done(0.01):
                if time.monotonic() > until:
                    raise PauseTooLong

    def _hold(self, held: ExitStack, pause: _Pause) -> Manners:
        """Takes the fence, where there has to be one, and the tables; the jobs have ended then."""
        dialect, bounds = self._context.dialect, self._context.spec.swap
        fenced = _needs_fence(self._context, self._plan)
        nobody_waits = not fenced or _tables_first(self._number, self._takes_done)
        manners = Manners(
            timeout=bounds.lock_timeout,
            polite=_is_polite(self._number),
            tables_first=fenced and _tables_first(self._number, self._takes_done),
            longest=bounds.max_pause,
            looked_at=self._looked_at(),
            confirm=self._refuse_late_jobs if self._takes_done else None,
            nobody_waits=nobody_waits,
            begins=pause.begin if nobody_waits else lambda: None,
            left=pause.left,
        )
        began = pause.began
        tables = dialect.hold(self._connection, self._tables, manners, self._context.ledger.tables)
        if not fenced:
            held.enter_context(tables)
            if not self._takes_done:
                self._wait_for_jobs(until=began)
            return manners
        if manners.tables_first:
            held.enter_context(tables)
            if self._takes_done and dialect.are_held(self._connection):
                # No job can end before the switch, so appends need not be held.
                return manners
        fence = held.enter_context(self._context.store.fence(bounds.lock_timeout, bounds.max_pause))
        half = began + bounds.max_pause.total_seconds() / 2
        self._wait_for_jobs(until=began if manners.tables_first else half)
        if not manners.tables_first:
            self._call_programs(until=half)
            held.enter_context(tables)
            self._wait_for_jobs(until=began)
        return replace(manners, fence=fence)

    def _looked_at(self) -> tuple[str, ...]:
        """The live tables that handlers look at while the tables of the run are held."""
        projectors = [self._context.projector(name) for name in self._plan.projectors]
        names = {row_type(each).table for projector in projectors for each in projector.reads}
        return tuple(sorted(names - {*self._plan.tables}))

    def _note_rollback(self) -> None:
        if self._plan.rolls_back:
            self._context.ledger.runs.amend(self._connection, self._plan.rolls_back, rolled_back_by=self._context.run_id)

    def _read_models(self) -> list[str]:
        return self._plan.tables

    def _wait_for_jobs(self, until: float) -> None:
        """Behind the fence no job is added, so the ones that are left come to their end, or the attempt does.

        :param until: by the monotonic clock; a moment that is over: just look
        """
        if self._context.spec.live_writer.contract is not LiveWriter.DETACHED:
            return
        with self._beside() as connection:
            while jobs.are_left(self._context, connection):
                if time.monotonic() > until:
                    raise _JobsLeft
                time.sleep(0.005)

    @contextmanager
    def _beside(self) -> Iterator[sa.Connection]:
        """A connection that looks at jobs: one that holds the tables may not look at others on MySQL."""
        with self._context.dialect.connect() as connection:
            self._context.dialect.limit_lock_wait(connection, self._context.spec.swap.lock_timeout)
            yield connection

    def _set_consumers(self, position: Place) -> None:
        """Gives the consumers of the new tables the position that those have reached; without any event, their own."""
        consumers = self._context.spec.live_writer.checkpoint
        if consumers is None:
            return
        dialect, table = self._context.dialect, self._tables[-1]
        blue, green = dialect.qualified(table.schema, table.blue), dialect.qualified(table.schema, table.green)
        columns = [dialect.quote(name) for name in dialect.columns(self._connection, table.schema, table.blue)]
        column = dialect.quote(consumers.position_column)
        values = [str(int(position)) if name == column and position is not None else name for name in columns]
        dialect.run(self._connection, f"DELETE FROM {green}")
        dialect.run(self._connection, f"INSERT INTO {green} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {blue}")

    def _drain(self) -> tuple[Place, LeftBehind]:
        """Applies what was appended since the catch-up; by the contract nobody can project it into blue any more."""
        settled = position = self._projectors.position
        above: list[int] = []
        if self._takes_done and self._context.dialect.are_held(self._connection):
            return self._drain_done()
        # The consumers of the new tables go on from here, so for them it must be a settled position; the rest is theirs.
        if self._context.spec.live_writer.contract is not LiveWriter.CHECKPOINTED:
            position = self._context.store.newest()
            if self._projectors.programs_behind(position):
                raise _ProgramsBehind
            above = self._projectors.drain(position)
        else:
            self._projectors.assert_checkpoints_unmoved()
        if self._projectors.programs:
            # The fence has settled it.
            settled, above = position, []
        self._drained()
        stored = Counter(self._counted.by_type) + Counter(self._context.store.counts(self._counted.position, position))
        self._refuse_drained(stored)
        return position, LeftBehind(settled=settled, above=above, events=dict(stored))

    def _drain_done(self) -> tuple[Place, LeftBehind]:
        """The same where it is known which events have jobs left: applies those that have none. The others come to the new tables.

        While the tables are held no job ends, so blue holds just the events that were there and whose jobs are done after that.
        """
        settled, store = self._projectors.position, self._context.store
        there = store.listed(settled, HIGHEST)
        with self._beside() as connection:
            left = jobs.positions_left(self._context, connection)
        # What an undone attempt has drained lies above.
        ahead = [each for each in self._plan.already or () if is_before(settled, each)]
        if not left.isdisjoint(ahead) or any(not is_before(settled, each) for each in left):
            raise _JobCameBack
        position = max(there, default=settled)
        done = {each: event_type for each, event_type in there.items() if each not in left}
        self._done, self._settled = self._of_run(done), settled
        above = self._projectors.drain(position, frozenset(done)) + ahead
        self._drained()
        counts = [self._counted.by_type, store.counts(self._counted.position, settled), Counter(done.values())]
        stored = sum(map(Counter, counts), start=Counter[str]())
        self._refuse_drained(stored)
        return position, LeftBehind(settled=settled, above=sorted(above), events=dict(stored))

    def _refuse_late_jobs(self) -> None:
        """Looks once more which jobs are done: just those whose events green was given.

        :raises _JobGotIn: others, so that their events are in blue, and not in green
        """
        there = self._context.store.listed(self._settled, HIGHEST)
        with self._beside() as connection:
            left = jobs.positions_left(self._context, connection)
        if self._of_run({each: event_type for each, event_type in there.items() if each not in left}) != self._done:
            raise _JobGotIn

    def _of_run(self, events: Mapping[int, str]) -> frozenset[int]:
        types = _types_of(self._context, self._plan)
        return frozenset(position for position, event_type in events.items() if event_type in types)

    def _drained(self) -> None:
        self._pause.ended("drain")
        self._pause.stay_in_time()

    @property
    def _takes_done(self) -> bool:
        return _takes_done(self._context, self._plan)

    def _refuse_long_queue(self) -> None:
        """Nobody is to wait while more is drained than a switch begins with.

        :raises _QueueTooLong: more has come since the first event whose job is left
        """
        store, most = self._context.store, self._context.spec.swap.small_backlog
        if self._takes_done and store.count(self._projectors.position, store.newest(), most=most + 1) > most:
            raise _QueueTooLong

    def _refuse_drained(self, stored: Mapping[str, int]) -> None:
        """Whether green, which is drained now, may become the live one.

        :param stored: by type, the events that it has to hold
        """
        if missed := self._projectors.miscounted(stored):
            raise VerificationFailed(
                "events appeared below what had been read; blue is live and untouched:\n" + "\n".join(missed)
            )
        if aside := self._projectors.too_many_dead_letters():
            raise VerificationFailed("blue is live and untouched:\n" + "\n".join(aside))
        if abandoned := self._context.dialect.abandoned(self._connection, self._tables):
            raise VerificationFailed("blue is live and untouched:\n" + "\n".join(abandoned))

    def _drop_superseded(self, superseded: list[Retired]) -> None:
        for each in superseded:
            if not drop_within(self._context, self._connection, each):
                _refuse_foreign(self._context, self._connection, each)

    def _to_be_retired(self) -> list[Retired]:
        context = self._context
        options, now = self._run.record.options, datetime.now(UTC)
        keep_old = context.spec.retention.keep_old if options.keep_old is None else options.keep_old
        chosen = context.spec.retention.drop_after if options.drop_after is None else options.drop_after
        kept = chosen if keep_old else timedelta(0)
        return [
            Retired(
                table.blue,
                table.old,
                context.run_id,
                context.dialect.identity(self._connection, table.schema, table.blue),
                now,
                now + kept,
            )
            for table in self._tables
        ]

    def _announce(self, position: Place, left_behind: LeftBehind, retired: list[Retired]) -> None:
        """Writes down what is about to be retired, so that a crash right after it can be told from one right before it."""
        context, ledger = self._context, self._context.ledger
        ledger.claims.assert_held(self._connection, context.run_id, [table.blue for table in self._tables])
        ledger.owned_tables.assert_owns_greens(self._connection, context.run_id, [table.green for table in self._tables])
        ledger.owned_tables.retire(self._connection, retired)
        begun = SwapResult(tables=self._read_models(), position=position, pause_seconds=0, attempts=self._number)
        ledger.runs.move(
            self._connection,
            context.run_id,
            RunState.SWITCHING,
            swap=begun,
            left_behind=left_behind,
        )
