"""Finds the events that jobs of the application have not projected yet (contract ``detached``).

The query ``live_writer.jobs_left`` lists an event from its append on, until its job commits the rows. So a visible
event that a later query does not list is in blue. A job projects every other event later, into the table that has the
live name by then. No event is half projected: one job writes its rows in all tables of the run. Green holds an event
only once its job is done. So the queue need never be empty.
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
"""How long a step waits for jobs that are far behind, before it fails and can be retried."""


def are_left(
    step: Step,
) -> bool:
    """Whether jobs are left, by ``jobs_left`` or else ``drain_check``; False if the spec has neither."""
    writer = step.spec.live_writer
    if writer.jobs_left is not None:
        return bool(positions_left(step))
    return writer.drain_check is not None and bool(int(step.connection.execute(sa.text(writer.drain_check)).scalar() or 0))


def positions_left(
    step: Step,
) -> frozenset[int]:
    """The positions of the events whose jobs are not done, by ``live_writer.jobs_left``.

    :raises SpecSqlError: the database refuses the query, or it does not return positions, or it returns one twice
    """
    sql = step.spec.live_writer.jobs_left
    if sql is None:
        return frozenset()
    try:
        positions = [*_positions(step.connection.execute(sa.text(sql)).scalars())]
    except (sa.exc.DBAPIError, sa.exc.ResourceClosedError, ValueError) as error:
        trouble = trouble_of(error)
        if trouble is not None and trouble.kind in MAY_PASS:
            raise
        why = "what it gives are no positions" if trouble is None else trouble.describe()
        raise SpecSqlError(
            f"live_writer.jobs_left cannot be asked: {why}; it must be SQL that gives the positions of the events that jobs have yet to "
            "project. The live tables are untouched"
        ) from None
    if len(left := frozenset(positions)) < len(positions):
        raise SpecSqlError(
            "live_writer.jobs_left gives a position more than once. Once one of two jobs of an event is done, its rows are in the live tables, and "
            "those of the other one are not: neither green nor the job that is left would bring both. Give only the jobs that write the tables "
            "of this rebuild; if there are several of an event, rebuild the tables of each by themselves, or give drain_check. The live tables are "
            "untouched"
        )
    return left


def _positions(values: Iterable[object]) -> Iterable[int]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or value != int(value):
            raise ValueError
        yield int(value)


def wait_for_queue(context: Context) -> None:
    """Waits until at most ``swap.small_backlog`` events have come since the first event whose job is left.

    Then blue, with which verification compares green, holds nearly all events.

    :raises SettleTimeout: more events are there after :data:`PATIENCE`
    """
    if context.spec.live_writer.jobs_left is None:
        return
    deadline, logged, most = time.monotonic() + PATIENCE.total_seconds(), False, context.spec.swap.small_backlog
    while context.store.count(reached := replayable_head(context), context.store.newest(), most=most + 1) > most:
        if not logged:
            context.log(
                f"waiting for jobs: more than {most:,} events have come since {said(reached)}, above which the first one is left"
            )
            logged = True
        if time.monotonic() > deadline:
            raise SettleTimeout(
                f"more than {most:,} events (swap.small_backlog) have come since {said(reached)}, above which the first job is left "
                f"(live_writer.jobs_left), and so it was for {PATIENCE.total_seconds():g} s. Blue is live and untouched. Look for a job that hangs "
                "and end it; or take it out of what jobs_left gives, then green holds its event; or raise swap.small_backlog, which lengthens the pause"
            )
        time.sleep(0.1)


def heads_of(context: Context, place: Callable[[], Place]) -> Iterator[Place]:
    """Yields the positions up to which a replay reads, one after the other; see :meth:`EventStore.heads`."""
    return context.store.heads(place, context.spec.swap.small_backlog, lambda: replayable_head(context))


def replayable_head(context: Context) -> Place:
    """The highest place up to which green may hold the events.

    It is the high-water mark, or lies just below the first event whose job is not done. It never decreases while the
    application keeps the contract: a job that is done stays done.
    """
    # The mark comes first: the later query then lists an event below it, or the event is in blue.
    head = context.store.settled_head()
    if context.spec.live_writer.jobs_left is None:
        return head
    with open_step(context) as step:
        left = positions_left(step)
    first = min(left, default=None)
    return head if first is None or is_before(head, first) else just_below(first)
