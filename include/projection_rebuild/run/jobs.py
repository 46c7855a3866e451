"""Which events the application has yet to project, where jobs do that in transactions of their own (``detached``).

A job leaves the answer of ``live_writer.jobs_left`` in the transaction that commits its rows, and its event came into the answer with the
append. So an event that is visible, and whose position a later answer lacks, is in blue; every other event is projected later, into
whatever table has the live name by then. Between the two there is nothing: one job writes an event's rows in all tables of the run. Green holds an event only once its job is done. Hence a queue need never be empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from decimal import Decimal

import sqlalchemy as sa

from projection_rebuild.errors import SettleTimeout, SpecSqlError
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.trouble import MAY_PASS
from projection_rebuild.model.positions import Place, is_before, just_below, said
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step, open_step

PATIENCE = timedelta(seconds=60)
"""How long jobs that are far behind are waited for before it is said, and the step is retried."""


def are_left(
    step: Step,
) -> bool:
    """Whether any job has something left to do; without jobs none has."""
    writer = step.spec.live_writer
    if writer.jobs_left is not None:
        return bool(positions_left(step))
    return writer.drain_check is not None and bool(int(step.connection.execute(sa.text(writer.drain_check)).scalar() or 0))


def positions_left(
    step: Step,
) -> frozenset[int]:
    """The positions of the events whose jobs are not done.

    :raises SpecSqlError: ``live_writer.jobs_left`` cannot be executed, or gives something else than positions, or two jobs of one event
    """
    sql = step.spec.live_writer.jobs_left
    if sql is None:
        return frozenset()
    try:
        found = [*_positions(step.connection.execute(sa.text(sql)).scalars())]
    except (sa.exc.DBAPIError, sa.exc.ResourceClosedError, ValueError) as error:
        trouble = trouble_of(error)
        if trouble is not None and trouble.kind in MAY_PASS:
            raise
        why = "what it gives are no positions" if trouble is None else trouble.describe()
        raise SpecSqlError(
            f"live_writer.jobs_left cannot be asked: {why}; it must be SQL that gives the positions of the events that jobs have yet to "
            "project. The live tables are untouched"
        ) from None
    if len(left := frozenset(found)) < len(found):
        raise SpecSqlError(
            "live_writer.jobs_left gives a position more than once. Once one of two jobs of an event is done, its rows are in the live tables, and "
            "those of the other one are not: neither green nor the job that is left would bring both. Give only the jobs that write the tables "
            "of this rebuild; if there are several of an event, rebuild the tables of each by themselves, or give drain_check. The live tables are "
            "untouched"
        )
    return left


def _positions(found: Iterable[object]) -> Iterable[int]:
    for each in found:
        if isinstance(each, bool) or not isinstance(each, (int, Decimal)) or each != int(each):
            raise ValueError
        yield int(each)


def wait_for_queue(context: Context) -> None:
    """Waits until no more has come since the first event whose job is left than a switch begins with: what green is compared with holds it.

    :raises SettleTimeout: there is more after :data:`PATIENCE`
    """
    if context.spec.live_writer.jobs_left is None:
        return
    deadline, spoken, most = time.monotonic() + PATIENCE.total_seconds(), False, context.spec.swap.small_backlog
    while context.store.count(reached := replayable_head(context), context.store.newest(), most=most + 1) > most:
        if not spoken:
            context.log(
                f"waiting for jobs: more than {most:,} events have come since {said(reached)}, above which the first one is left"
            )
            spoken = True
        if time.monotonic() > deadline:
            raise SettleTimeout(
                f"more than {most:,} events (swap.small_backlog) have come since {said(reached)}, above which the first job is left "
                f"(live_writer.jobs_left), and so it was for {PATIENCE.total_seconds():g} s. Blue is live and untouched. Look for a job that hangs "
                "and end it; or take it out of what jobs_left gives, then green holds its event; or raise swap.small_backlog, which lengthens the pause"
            )
        time.sleep(0.1)


def heads_of(context: Context, place: Callable[[], Place]) -> Iterator[Place]:
    """The heads that a replay comes to, one after the other; see :meth:`EventStore.heads`."""
    return context.store.heads(place, context.spec.swap.small_backlog, lambda: replayable_head(context))


def replayable_head(context: Context) -> Place:
    """The highest place up to which green may hold the events: it is settled, and below the first event whose job is not done.

    It never goes back while the contract is kept: what was done stays done.
    """
    # In this order: an event that was settled before the jobs were asked for is among them, or in blue.
    head = context.store.settled_head()
    if context.spec.live_writer.jobs_left is None:
        return head
    with open_step(context) as step:
        left = positions_left(step)
    first = min(left, default=None)
    return head if first is None or is_before(head, first) else just_below(first)
