"""The switch: catch up until little is left, hold the writers, drain, rename all tables at once, release.

What is held, and in which order, depends on the database; see ``docs/how-it-works.md``.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from pydantic import BaseModel
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from include.projection_rebuild.context import Context
from include.projection_rebuild.errors import StepOrderError, SwapNotPossible, VerificationFailed
from include.projection_rebuild.ledger import Retired, Run, RunState
from include.projection_rebuild.lockstep import Lockstep
from include.projection_rebuild.names import TableSet
from include.projection_rebuild.retire import drop_retired
from include.projection_rebuild.spec import LiveWriter


class SwapResult(BaseModel):
    """What the switch did.

    :param position: F, the head that green was drained to; later events were projected live
    :param pause_seconds: for how long writers were held at most, in the attempt that succeeded
    :param attempts: how many attempts it took
    """

    tables: list[str]
    position: int
    pause_seconds: float
    attempts: int

    def describe(self) -> str:
        """One line for a log."""
        return (
            f"switched {', '.join(self.tables)} at position {self.position:,}; writers were held for "
            f"{self.pause_seconds * 1000:.0f} ms, {self.attempts} attempt{'s' if self.attempts != 1 else ''}"
        )


class _PauseTooLong(Exception):
    """This attempt has held the writers for as long as it may; it is undone."""


class _JobsLeft(Exception):
    """Jobs of the application did not end within this attempt; it is undone."""


def swap(context: Context) -> SwapResult:
    """Switches all tables of the run at once; called again after it has, it says so and does nothing.

    :raises VerificationFailed: events were missed, by the count that is taken while the writers are held
    :raises SwapNotPossible: not within the attempts and the longest pause; everything is as it was
    :raises StepOrderError: the run is not verified
    """
    with context.dialect.connect() as connection:
        run = context.ledger.run(connection, context.run_id, at_least=RunState.VERIFIED)
        tables = context.switched_sets(context.plan_of(run))
        if run.state == RunState.SWITCHING:
            run = _find_side(context, connection, run, tables)
        if run.state.at_least(RunState.SWITCHED):
            return SwapResult.model_validate(run.record["swap"])
        _clear_old_names(context, connection, tables)
        result = _attempt_until_done(context, connection, tables)
    context.log(result.describe())
    return result


def _find_side(context: Context, connection: sa.Connection, run: Run, tables: list[TableSet]) -> Run:
    """After a crash within a switch that cannot be rolled back: the tables themselves say on which side it is."""
    left = [table for table in tables if context.dialect.table_exists(connection, table.schema, table.green)]
    with context.dialect.transaction(connection):
        if left:
            context.log("the last switch did not happen; trying again")
            for table in tables:
                context.ledger.forget_retired(connection, table.old)
            context.ledger.move(connection, context.run_id, RunState.VERIFIED)
        else:
            context.log("the last switch had happened before its task was stopped")
            context.ledger.move(connection, context.run_id, RunState.SWITCHED)
            for table in tables:
                context.ledger.forget_green(connection, table.green)
    return context.ledger.run(connection, context.run_id)


def _clear_old_names(context: Context, connection: sa.Connection, tables: list[TableSet]) -> None:
    """Frees the names that blue is about to take: what an earlier run retired goes now, whatever else is refused."""
    for table in reversed(tables):
        if not context.dialect.table_exists(connection, table.schema, table.old):
            context.ledger.forget_retired(connection, table.old)
            continue
        known = context.ledger.retired(connection, old=table.old)
        if not known:
            raise StepOrderError(foreign_old(table))
        context.log(f"dropping {table.old}, retired by the run {known[0].run_id}: its name is needed")
        if not drop_retired(context, connection, known[0]):
            raise StepOrderError(foreign_old(table))


def foreign_old(table: TableSet) -> str:
    """The refusal of a table in old's place that no run has retired."""
    return f"there is a table {table.old} that no rebuild has retired; rename or drop it yourself, the switch needs its name"


def _attempt_until_done(context: Context, connection: sa.Connection, tables: list[TableSet]) -> SwapResult:
    counted = _count_ahead(context, connection)
    bounds = context.spec.swap
    retrying = Retrying(
        stop=stop_after_attempt(bounds.attempts),
        wait=wait_random_exponential(multiplier=0.1, max=10),
        retry=retry_if_exception(
            lambda error: isinstance(error, (_PauseTooLong, _JobsLeft)) or context.dialect.lock_was_refused(error)
        ),
    )
    try:
        for attempt in retrying:
            with attempt:
                return _Attempt(context, connection, tables, counted, attempt.retry_state.attempt_number).run()
    except RetryError as error:
        _put_back(context, connection, tables)
        cause = error.last_attempt.exception()
        reasons: dict[type[BaseException] | type[None], str] = {
            _PauseTooLong: "the pause grew too long",
            _JobsLeft: "live_writer.drain_check never gave 0",
        }
        why = reasons.get(type(cause), "the tables could not be locked in time")
        raise SwapNotPossible(
            f"no switch within {bounds.attempts} attempts: at the last one {why}. Blue is live and untouched, green stays. Look for "
            "long queries and idle transactions on these tables, then retry; or raise swap.attempts or swap.max_pause"
        ) from None
    raise AssertionError("tenacity ends in a result or an error")


RECOUNTED = 10_000
"""Positions below the head whose events are counted once more while the writers are held."""


@dataclass(frozen=True)
class _Counted:
    """How many events of each type there were up to a position, counted while nobody was held."""

    position: int
    by_type: dict[str, int]


def _count_ahead(context: Context, connection: sa.Connection) -> _Counted:
    """The long count, taken before anybody waits; within the switch only the newest events are left to be counted."""
    projectors = Lockstep(context, connection, context.plan_of(context.ledger.run(connection, context.run_id)))
    projectors.catch_up()
    position = max(0, projectors.position - RECOUNTED)
    return _Counted(position, context.store.counts(0, position))


def _put_back(context: Context, connection: sa.Connection, tables: list[TableSet]) -> None:
    """Takes back the announcement of a switch that did not happen."""
    with context.dialect.transaction(connection):
        for table in tables:
            context.ledger.forget_retired(connection, table.old)
        context.ledger.move(connection, context.run_id, RunState.VERIFIED)


class _Attempt:
    """One attempt at the switch. Reads everything anew, so that a failed one leaves nothing behind in memory."""

    def __init__(
        self, context: Context, connection: sa.Connection, tables: list[TableSet], counted: _Counted, number: int
    ) -> None:
        self._context = context
        self._connection = connection
        self._tables = tables
        self._counted = counted
        self._number = number
        self._run = context.ledger.run(connection, context.run_id)
        self._projectors = Lockstep(context, connection, context.plan_of(self._run))

    def run(self) -> SwapResult:
        """Catches up without holding anybody, then holds, drains and renames.

        :raises Exception: whatever the database refuses; nothing has changed then
        """
        dialect, bounds = self._context.dialect, self._context.spec.swap
        self._projectors.catch_up()
        began = time.monotonic()
        with ExitStack() as held:
            if self._needs_fence():
                held.enter_context(self._context.store.fence(bounds.lock_timeout))
                self._wait_for_jobs(began + bounds.max_pause.total_seconds() / 2)
            held.enter_context(dialect.hold(self._connection, self._tables, bounds.lock_timeout))
            self._wait_for_jobs(until=began)
            # Where DDL can be rolled back, hold() is the one transaction of drain, ledger and renames.
            with dialect.transaction(self._connection) if dialect.ddl_commits else nullcontext():
                position = self._drain()
                self._set_consumers(position)
                self._announce(position)
            if time.monotonic() - began > bounds.max_pause.total_seconds():
                raise _PauseTooLong
            dialect.run_switch(self._connection, dialect.switch(self._connection, self._tables), bounds.lock_timeout)
            if not dialect.ddl_commits:
                self._mark_switched()
        result = SwapResult(
            tables=self._read_models(),
            position=position,
            pause_seconds=time.monotonic() - began,
            attempts=self._number,
        )
        with dialect.transaction(self._connection):
            self._mark_switched(swap=result.model_dump())
        return result

    def _read_models(self) -> list[str]:
        return self._context.plan_of(self._run).tables

    def _needs_fence(self) -> bool:
        """Whether appends have to wait, beyond what the locks on the read models do."""
        context = self._context
        match context.spec.live_writer.contract:
            case LiveWriter.CHECKPOINTED:
                # Old and new tables each have a consumer's position of their own; an event that is appended meanwhile is
                # above both.
                return False
            case LiveWriter.DETACHED:
                # An event that is appended now would be projected by a job at any later time. Where there is but one writer,
                # the switch itself is the fence.
                return not (context.one_database and context.dialect.one_writer)
            case LiveWriter.TRANSACTIONAL:
                return context.dialect.ddl_commits or not context.one_database

    def _wait_for_jobs(self, until: float) -> None:
        """Behind the fence no job is added, so the ones that are left come to their end, or the attempt does.

        :param until: by the monotonic clock; a moment that is over: just look
        """
        check = self._context.spec.live_writer.drain_check
        while check and int(self._connection.execute(sa.text(check)).scalar() or 0):
            if time.monotonic() > until:
                raise _JobsLeft
            time.sleep(0.005)

    def _set_consumers(self, position: int) -> None:
        """Gives the consumers of the new tables the position that those have reached."""
        consumers = self._context.spec.live_writer.checkpoint
        if consumers is None:
            return
        dialect, table = self._context.dialect, self._tables[-1]
        blue, green = dialect.qualified(table.schema, table.blue), dialect.qualified(table.schema, table.green)
        columns = [dialect.quote(name) for name in dialect.columns(self._connection, table.schema, table.blue)]
        values = [str(int(position)) if name == dialect.quote(consumers.position_column) else name for name in columns]
        dialect.run(self._connection, f"DELETE FROM {green}")
        dialect.run(self._connection, f"INSERT INTO {green} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {blue}")

    def _drain(self) -> int:
        """Applies what was appended since the catch-up; by the contract nobody can project it into blue any more."""
        if self._context.spec.live_writer.contract is LiveWriter.CHECKPOINTED:
            # The consumers go on from here, so it must be a settled position; the rest is theirs.
            position = self._projectors.position
        else:
            position = self._context.store.newest()
        self._projectors.drain(position)
        newest = self._context.store.counts(self._counted.position, position)
        stored = Counter(self._counted.by_type) + Counter(newest)
        if missed := self._projectors.miscounted(stored):
            raise VerificationFailed(
                "events appeared below what had been read; blue is live and untouched:\n" + "\n".join(missed)
            )
        return position

    def _announce(self, position: int) -> None:
        """Writes down what is about to be retired, so that a crash right after it can be told from one right before it."""
        context, ledger = self._context, self._context.ledger
        options, now = context.options_of(self._run), datetime.now(UTC)
        keep_old = context.spec.retention.keep_old if options.keep_old is None else options.keep_old
        kept = (options.drop_after or context.spec.retention.drop_after) if keep_old else timedelta(0)
        ledger.holds(self._connection, context.run_id, [table.blue for table in self._tables])
        for table in self._tables:
            identity = context.dialect.identity(self._connection, table.schema, table.blue)
            ledger.retire(self._connection, Retired(table.blue, table.old, context.run_id, identity, now, now + kept))
        begun = SwapResult(tables=self._read_models(), position=position, pause_seconds=0, attempts=self._number)
        ledger.move(self._connection, context.run_id, RunState.SWITCHING, swap=begun.model_dump())

    def _mark_switched(self, **findings: object) -> None:
        for table in self._tables:
            self._context.ledger.forget_green(self._connection, table.green)
        self._context.ledger.move(self._connection, self._context.run_id, RunState.SWITCHED, **findings)
