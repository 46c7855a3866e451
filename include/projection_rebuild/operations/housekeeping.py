"""Finds what dead runs have left in a ledger's database, and removes it by rule: their claims, checkpoints and green tables once
``retention.keep_green`` is over, and retired tables at their own time, whoever's run has made them. What a live run holds stays.

A run is dead when its scheduler says that it is over. For each table that is dropped the housekeeper holds the claim of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from functools import partial

import sqlalchemy as sa
from pydantic import BaseModel

from projection_rebuild.errors import ClaimRefused, FencedOut, StepOrderError
from projection_rebuild.ledger import INTERRUPTED_AT_SWITCH, Retired, Run, RunState
from projection_rebuild.model.names import TableSet
from projection_rebuild.run.context import Context
from projection_rebuild.run.record import keep_run
from projection_rebuild.shadow.clone import drop_leftover
from projection_rebuild.shadow.retire import LOCK_WAIT, drop_retired, when_free


class Leftover(BaseModel):
    """What one run has left.

    :param run_id: the run
    :param state: how far it has come; empty: the ledger does not know it any more
    :param claims: tables that nobody else may rebuild before it is gone; ``greens``: tables; ``old``: retired tables
    :param checkpoints: whether it has some
    :param due: when it may be removed, in UTC; None: not by a rule
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
    """What was found and done."""

    removed: list[Leftover]
    kept: list[Leftover]

    def describe(self) -> str:
        """All of it as lines for a log."""
        lines = [f"removed: {each.describe()}" for each in self.removed] + [f"kept: {each.describe()}" for each in self.kept]
        return "\n".join(lines) or "there is nothing to keep house of"


def survey(context: Context, is_over: Callable[[str], bool], rebuilds: Collection[str]) -> list[Leftover]:
    """What dead runs have left; touches nothing.

    :param is_over: whether a run has ended, by its scheduler; those that it does not know never end
    :param rebuilds: the names of the specs that are in use; runs of others are looked after by whichever spec comes first
    """
    with context.dialect.connect() as connection:
        if not context.ledger.exists(connection):
            return []
        return [*_of_runs(context, connection, is_over, rebuilds), *_of_retired(context, connection, is_over)]


def keep_house(context: Context, is_over: Callable[[str], bool], rebuilds: Collection[str]) -> Housekeeping:
    """Removes what is due of it. Killed and called again it goes on; called beside itself, one of the two waits for its next time."""
    done = Housekeeping(removed=[], kept=[])
    now = datetime.now(UTC)
    for left in survey(context, is_over, rebuilds):
        if left.due is None or left.due > now:
            done.kept.append(left)
            continue
        with context.dialect.connect() as connection:
            # Once more: somebody may have cleared its task since.
            again = not is_over(left.run_id)
            try:
                refusal = "it is at work again" if again else _remove(context, connection, left, is_over)
            except (FencedOut, StepOrderError) as error:
                # It has moved since it was looked at; the others are looked at all the same.
                refusal = str(error)
        if refusal:
            done.kept.append(left.model_copy(update={"why": refusal}))
        else:
            done.removed.append(left)
    context.log(done.describe())
    return done


# What is there ------------------------------------------------------------------------------------------------------


def _of_runs(
    context: Context, connection: sa.Connection, is_over: Callable[[str], bool], rebuilds: Collection[str]
) -> Iterable[Leftover]:
    ledger = context.ledger
    claims, greens = ledger.claims.all(connection), ledger.owned_tables.greens(connection)
    with_checkpoints = ledger.checkpoints.run_ids(connection)
    for run_id in sorted({*claims.values(), *greens.values(), *with_checkpoints}):
        run = ledger.runs.find(connection, run_id)
        elsewhere = run is not None and run.rebuild != context.spec.rebuild and run.rebuild in rebuilds
        # A finished run keeps its checkpoints: they are its record.
        held = run_id in claims.values() or run_id in greens.values()
        gone = run is None or run.state is RunState.ABANDONED
        if elsewhere or not (held or gone) or not is_over(run_id):
            continue
        mine = [name for name, holder in greens.items() if holder == run_id]
        yield Leftover(
            run_id=run_id,
            state=run.state if run else "",
            claims=sorted(table for table, holder in claims.items() if holder == run_id),
            greens=sorted(mine),
            checkpoints=run_id in with_checkpoints,
            due=_due(context, connection, run_id, run, mine),
            why=INTERRUPTED_AT_SWITCH.get(run.state, "") if run else "",
        )


def _due(context: Context, connection: sa.Connection, run_id: str, run: Run | None, greens: list[str]) -> datetime | None:
    if run is not None and run.state in INTERRUPTED_AT_SWITCH:
        return None
    seen = context.ledger.runs.last_seen(connection, run_id) or datetime.min.replace(tzinfo=UTC)
    # What a rollback was about to take back is an old table, and stays as long as one.
    old = [each.drop_after for name in greens for each in context.ledger.owned_tables.retired(connection, old=name)]
    return max([seen + context.spec.retention.keep_green, *old])


def _of_retired(context: Context, connection: sa.Connection, is_over: Callable[[str], bool]) -> Iterable[Leftover]:
    by_run: dict[str, list[Retired]] = {}
    greens = context.ledger.owned_tables.greens(connection)
    for each in context.ledger.owned_tables.retired(connection):
        if each.old not in greens:
            by_run.setdefault(each.run_id, []).append(each)
    for run_id, retired in by_run.items():
        if not is_over(run_id):
            continue
        run = context.ledger.runs.find(connection, run_id)
        torn = run is not None and run.state in INTERRUPTED_AT_SWITCH
        yield Leftover(
            run_id=run_id,
            state=run.state if run else "",
            old=[each.old for each in _children_first(run, retired)],
            due=None if torn else max(each.drop_after for each in retired),
            why=INTERRUPTED_AT_SWITCH[run.state] if run is not None and torn else "",
        )


def _children_first(run: Run | None, retired: list[Retired]) -> list[Retired]:
    order = run.record.plan.tables if run else []
    return sorted(retired, key=lambda each: order.index(each.table) if each.table in order else -1, reverse=True)


# Removing it --------------------------------------------------------------------------------------------------------


def _remove(context: Context, connection: sa.Connection, left: Leftover, is_over: Callable[[str], bool]) -> str:
    """Removes what is due; returns why it stays, if it does."""
    return _drop_old(context, connection, left, is_over) if left.old else _bury(context, connection, left)


def _bury(context: Context, connection: sa.Connection, left: Leftover) -> str:
    ledger = context.ledger
    run = ledger.runs.find(connection, left.run_id)
    dead = run is None or run.state is RunState.ABANDONED
    if run is not None and not run.state.is_over:
        dead = True
        with context.dialect.transaction(connection):
            ledger.runs.move(connection, left.run_id, RunState.ABANDONED)
            ledger.checkpoints.fence(connection, left.run_id)
    if dead and (run := ledger.runs.find(connection, left.run_id)) is not None:
        # Before its checkpoints go, which it is made from.
        keep_run(context, connection, run)
    tables = _tables_of(context, run, left.greens)
    unknown = sorted(set(left.greens) - {each.green for each in tables})
    refusals = [f"no spec in use has a table for {', '.join(unknown)}; drop it yourself"] if unknown else []
    for table in tables:
        refusals += _dropped(context, connection, left.run_id, table)
    if refusals:
        return "; ".join(refusals)
    with context.dialect.transaction(connection):
        ledger.claims.release(connection, left.run_id)
        if dead:
            ledger.checkpoints.remove(connection, left.run_id)
    return ""


def _tables_of(context: Context, run: Run | None, greens: Collection[str]) -> list[TableSet]:
    """The tables whose green ones these are, children first; of a run that nobody knows, by this spec's own tables."""
    if run is not None:
        names = run.record.plan.tables
    else:
        names = [table for projector in context.projectors.values() for table in projector.tables()]
    consumers = context.spec.live_writer.checkpoint
    sets = map(context.table_set, [*names, *([consumers.table] if consumers else [])])
    return [each for each in reversed(list(sets)) if each.green in greens]


def _dropped(context: Context, connection: sa.Connection, run_id: str, table: TableSet) -> list[str]:
    """Drops a green table; returns why it stays, if it does."""
    ledger = context.ledger
    holder = ledger.claims.holder(connection, table.blue)
    if holder not in (None, run_id):
        return [f"{table.green} is left to the run {holder}, which holds {table.blue} and makes it anew"]
    if holder is None:
        try:
            ledger.claims.claim(connection, context.run_id, [table.blue])
        except ClaimRefused as error:
            return [error.message]
    try:
        when_free(context, [table.green], partial(_drop_green, context, connection, run_id, table))
    finally:
        ledger.claims.release(connection, context.run_id)
    return []


def _drop_green(context: Context, connection: sa.Connection, run_id: str, table: TableSet) -> None:
    # Looked at for each attempt: while it waits for a reader, another run may take the claim over and put its own table there.
    if context.ledger.owned_tables.run_of_green(connection, table.green) == run_id:
        with context.dialect.short_lock_wait(connection, LOCK_WAIT):
            drop_leftover(context, connection, table)
        context.ledger.owned_tables.forget_greens(connection, [table.green])


def _drop_old(context: Context, connection: sa.Connection, left: Leftover, is_over: Callable[[str], bool]) -> str:
    ledger = context.ledger
    run = ledger.runs.find(connection, left.run_id)
    dropped, refusals = [], []
    for each in _children_first(run, ledger.owned_tables.retired(connection, run_id=left.run_id)):
        if each.old not in left.old:
            continue
        if (holder := _in_the_way(context, connection, each, is_over)) is not None:
            refusals.append(f"{each.table} is held by the run {holder}")
            continue
        try:
            if drop_retired(context, connection, each):
                dropped.append(each.old)
        finally:
            ledger.claims.release(connection, context.run_id)
    if dropped and not refusals and run is not None and run.state is RunState.RECONCILED:
        with context.dialect.transaction(connection):
            ledger.runs.move(connection, left.run_id, RunState.FINISHED, dropped=dropped)
        if (finished := ledger.runs.find(connection, left.run_id)) is not None:
            keep_run(context, connection, finished)
    return "; ".join(refusals)


def _in_the_way(context: Context, connection: sa.Connection, old: Retired, is_over: Callable[[str], bool]) -> str | None:
    """Claims the table of an old one; or the run that holds it: a live one, or one that was about to make it live again."""
    try:
        context.ledger.claims.claim(connection, context.run_id, [old.table])
    except ClaimRefused:
        holder = context.ledger.claims.holder(connection, old.table) or "that has just ended"
        run = context.ledger.runs.find(connection, holder)
        harmless = run is not None and run.state not in INTERRUPTED_AT_SWITCH and run.record.plan.rolls_back != old.run_id
        return None if harmless and is_over(holder) else holder
    return None
