"""Finds and removes what dead runs have left in a ledger's database.

A run is dead if its scheduler says that it is over. Housekeeping removes claims, checkpoints and green tables of dead
runs once ``retention.keep_green`` is over. It removes each retired table at that table's own time, whichever run has
retired it. It leaves what a live run holds. It claims each table for a run before it drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from functools import partial

from pydantic import BaseModel

from projection_rebuild.errors import ClaimRefused, FencedOut, StepOrderError
from projection_rebuild.ledger import INTERRUPTED_AT_SWITCH, Retired, Run, RunState
from projection_rebuild.model.names import TableSet
from projection_rebuild.run.context import Context
from projection_rebuild.run.record import keep_run
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.shadow.clone import drop_leftover
from projection_rebuild.shadow.retire import LOCK_WAIT, drop_retired, when_free


class Leftover(BaseModel):
    """What one run has left.

    :param run_id: the run
    :param state: the run's state; empty: the ledger does not know the run any more
    :param claims: tables that the run still claims, so that no other run may rebuild them
    :param greens: green tables
    :param old: retired tables
    :param checkpoints: whether the run has checkpoints
    :param due: when housekeeping may remove it, in UTC; None: no rule removes it
    :param why: why it stays, if it stays
    """

    run_id: str
    state: str
    claims: list[str] = []
    greens: list[str] = []
    old: list[str] = []
    checkpoints: bool = False
    due: datetime | None
    why: str = ""

    def describe(self) -> str:
        """One line for a log."""
        parts = [
            f"{what} {', '.join(names)}"
            for what, names in (("claims on", self.claims), ("green", self.greens), ("old", self.old))
            if names
        ] + (["checkpoints"] if self.checkpoints else [])
        when = f", until {self.due:%Y-%m-%d %H:%M} UTC" if self.due else ""
        return f"{self.run_id} ({self.state or 'unknown'}): {'; '.join(parts)}{when}{f'; {self.why}' if self.why else ''}"


class Housekeeping(BaseModel):
    """What housekeeping has removed, and what it has kept."""

    removed: list[Leftover]
    kept: list[Leftover]

    def describe(self) -> str:
        """Lines for a log."""
        lines = [f"removed: {leftover.describe()}" for leftover in self.removed] + [
            f"kept: {leftover.describe()}" for leftover in self.kept
        ]
        return "\n".join(lines) or "no dead run has left anything"


def survey(context: Context, is_over: Callable[[str], bool], rebuilds: Collection[str]) -> list[Leftover]:
    """What dead runs have left; changes nothing.

    :param is_over: whether a run has ended, by its scheduler; a run that the scheduler does not know never ends
    :param rebuilds: the names of the specs in use; the first spec whose housekeeping runs takes care of all other runs
    """
    with open_step(context) as step:
        if not step.ledger.exists():
            return []
        return [*_of_runs(step, is_over, rebuilds), *_of_retired(step, is_over)]


def keep_house(context: Context, is_over: Callable[[str], bool], rebuilds: Collection[str]) -> Housekeeping:
    """Removes the leftovers that are due.

    After a crash the next call goes on. If two calls meet at a table, one of them leaves it to its next time.

    :param is_over: see :func:`survey`
    :param rebuilds: see :func:`survey`
    """
    result = Housekeeping(removed=[], kept=[])
    now = datetime.now(UTC)
    for leftover in survey(context, is_over, rebuilds):
        if leftover.due is None or leftover.due > now:
            result.kept.append(leftover)
            continue
        with open_step(context) as step:
            # Checked again: an operator may have cleared a task of the run since the survey.
            revived = not is_over(leftover.run_id)
            try:
                refusal = "it is at work again" if revived else _remove(step, leftover, is_over)
            except (FencedOut, StepOrderError) as error:
                # The run has moved since the survey. Its error must not stop the removal of other leftovers.
                refusal = str(error)
        if refusal:
            result.kept.append(leftover.model_copy(update={"why": refusal}))
        else:
            result.removed.append(leftover)
    context.log(result.describe())
    return result


# Finding leftovers --------------------------------------------------------------------------------------------------


def _of_runs(step: Step, is_over: Callable[[str], bool], rebuilds: Collection[str]) -> Iterable[Leftover]:
    ledger = step.ledger
    claims, greens = ledger.claims.all(), ledger.owned_tables.greens()
    with_checkpoints = ledger.checkpoints.run_ids()
    for run_id in sorted({*claims.values(), *greens.values(), *with_checkpoints}):
        run = ledger.of(run_id).runs.find()
        elsewhere = run is not None and run.rebuild != step.spec.rebuild and run.rebuild in rebuilds
        # A finished run keeps its checkpoints: they are part of its record.
        holds_tables = run_id in claims.values() or run_id in greens.values()
        gone = run is None or run.state is RunState.ABANDONED
        if elsewhere or not (holds_tables or gone) or not is_over(run_id):
            continue
        own_greens = [name for name, holder in greens.items() if holder == run_id]
        yield Leftover(
            run_id=run_id,
            state=run.state if run else "",
            claims=sorted(table for table, holder in claims.items() if holder == run_id),
            greens=sorted(own_greens),
            checkpoints=run_id in with_checkpoints,
            due=_due(step, run_id, run, own_greens),
            why=INTERRUPTED_AT_SWITCH.get(run.state, "") if run else "",
        )


def _due(step: Step, run_id: str, run: Run | None, greens: list[str]) -> datetime | None:
    if run is not None and run.state in INTERRUPTED_AT_SWITCH:
        return None
    seen = step.ledger.of(run_id).runs.last_seen() or datetime.min.replace(tzinfo=UTC)
    # The green table of a rollback is an old table, and stays as long as an old table does.
    deadlines = [retired.drop_after for name in greens for retired in step.ledger.owned_tables.retired(old=name)]
    return max([seen + step.spec.retention.keep_green, *deadlines])


def _of_retired(step: Step, is_over: Callable[[str], bool]) -> Iterable[Leftover]:
    by_run: dict[str, list[Retired]] = {}
    greens = step.ledger.owned_tables.greens()
    for table in step.ledger.owned_tables.retired():
        if table.old not in greens:
            by_run.setdefault(table.run_id, []).append(table)
    for run_id, retired in by_run.items():
        if not is_over(run_id):
            continue
        run = step.ledger.of(run_id).runs.find()
        interrupted = run is not None and run.state in INTERRUPTED_AT_SWITCH
        yield Leftover(
            run_id=run_id,
            state=run.state if run else "",
            old=[table.old for table in _children_first(run, retired)],
            due=None if interrupted else max(table.drop_after for table in retired),
            why=INTERRUPTED_AT_SWITCH[run.state] if run is not None and interrupted else "",
        )


def _children_first(run: Run | None, retired: list[Retired]) -> list[Retired]:
    order = run.plan.tables if run else []
    return sorted(retired, key=lambda table: order.index(table.table) if table.table in order else -1, reverse=True)


# Removing leftovers -------------------------------------------------------------------------------------------------


def _remove(step: Step, leftover: Leftover, is_over: Callable[[str], bool]) -> str:
    """Removes a leftover; returns why it stays, or an empty text."""
    return _drop_old(step, leftover, is_over) if leftover.old else _abandon(step, leftover)


def _abandon(step: Step, leftover: Leftover) -> str:
    ledger = step.ledger
    run = ledger.of(leftover.run_id).runs.find()
    dead = run is None or run.state is RunState.ABANDONED
    if run is not None and not run.state.is_over:
        dead = True
        with step.dialect.transaction(step.connection):
            ledger.of(leftover.run_id).runs.move(RunState.ABANDONED)
            ledger.of(leftover.run_id).checkpoints.fence()
    if dead and (run := ledger.of(leftover.run_id).runs.find()) is not None:
        # The report is made from the checkpoints, so it is kept before they go.
        keep_run(step, run)
    tables = _tables_of(step.context, run, leftover.greens)
    unknown = sorted(set(leftover.greens) - {table.green for table in tables})
    refusals = [f"no spec in use has a table for {', '.join(unknown)}; drop it yourself"] if unknown else []
    for table in tables:
        refusals += _dropped(step, leftover.run_id, table)
    if refusals:
        return "; ".join(refusals)
    with step.dialect.transaction(step.connection):
        ledger.of(leftover.run_id).claims.release()
        if dead:
            ledger.of(leftover.run_id).checkpoints.remove()
    return ""


def _tables_of(context: Context, run: Run | None, greens: Collection[str]) -> list[TableSet]:
    """The tables that own these green tables, children first; for an unknown run, among this spec's own tables."""
    if run is not None:
        names = run.plan.tables
    else:
        names = [table for projector in context.projectors.values() for table in projector.tables()]
    consumers = context.spec.live_writer.checkpoint
    sets = map(context.table_set, [*names, *([consumers.table] if consumers else [])])
    return [table for table in reversed(list(sets)) if table.green in greens]


def _dropped(step: Step, run_id: str, table: TableSet) -> list[str]:
    """Drops a green table; returns why it stays, or an empty list."""
    ledger = step.ledger
    holder = ledger.claims.holder(table.blue)
    if holder not in (None, run_id):
        return [f"{table.green} is left to the run {holder}, which has claimed {table.blue} and recreates it"]
    if holder is None:
        try:
            ledger.claims.claim([table.blue])
        except ClaimRefused as error:
            return [error.message]
    try:
        when_free(step.context, [table.green], partial(_drop_green, step, run_id, table))
    finally:
        ledger.claims.release()
    return []


def _drop_green(step: Step, run_id: str, table: TableSet) -> None:
    # Checked in each attempt: while housekeeping waits for a reader, another run may take the claim over and create its
    # own table.
    if step.ledger.owned_tables.run_of_green(table.green) == run_id:
        with step.dialect.short_lock_wait(step.connection, LOCK_WAIT):
            drop_leftover(step, table)
        step.ledger.owned_tables.forget_greens([table.green])


def _drop_old(step: Step, leftover: Leftover, is_over: Callable[[str], bool]) -> str:
    ledger = step.ledger
    run = ledger.of(leftover.run_id).runs.find()
    dropped, refusals = [], []
    for retired in _children_first(run, ledger.owned_tables.retired(run_id=leftover.run_id)):
        if retired.old not in leftover.old:
            continue
        if (holder := _in_the_way(step, retired, is_over)) is not None:
            refusals.append(f"{retired.table} is held by the run {holder}")
            continue
        try:
            if drop_retired(step, retired):
                dropped.append(retired.old)
        finally:
            ledger.claims.release()
    if dropped and not refusals and run is not None and run.state is RunState.RECONCILED:
        with step.dialect.transaction(step.connection):
            ledger.of(leftover.run_id).runs.move(RunState.FINISHED, dropped=dropped)
        if (finished := ledger.of(leftover.run_id).runs.find()) is not None:
            keep_run(step, finished)
    return "; ".join(refusals)


def _in_the_way(step: Step, old: Retired, is_over: Callable[[str], bool]) -> str | None:
    """The run that still needs an old table; None: the old table may go.

    Claims the live table first. If another run holds that claim, the old table stays only for a live run, or for a run
    that was about to make it live again.
    """
    try:
        step.ledger.claims.claim([old.table])
    except ClaimRefused:
        holder = step.ledger.claims.holder(old.table) or "that has just ended"
        run = step.ledger.of(holder).runs.find()
        harmless = run is not None and run.state not in INTERRUPTED_AT_SWITCH and run.plan.rolls_back != old.run_id
        return None if harmless and is_over(holder) else holder
    return None
