"""Replays one projector, from its checkpoint to the head, and builds its indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from projection_rebuild.errors import NotReplayed
from projection_rebuild.ledger import RunState, refuse_within_switch
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import BEGINNING, Place, is_before, said
from projection_rebuild.model.results import ReplayResult
from projection_rebuild.replay import partial
from projection_rebuild.replay.foreign_reads import readable_to, reads_of_run
from projection_rebuild.replay.indexes import index, index_lookups
from projection_rebuild.replay.partial_copy import prepare
from projection_rebuild.replay.unit import ReplayUnit, unit_of
from projection_rebuild.run.context import Context
from projection_rebuild.run.jobs import heads_of
from projection_rebuild.run.progress import ProgressLog
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.traffic.throttle import Throttle


def replay(context: Context, name: str, stopped: Callable[[], bool], closed: Callable[[], bool] = lambda: False) -> ReplayResult:
    """Replays one projector from its checkpoint to the head, and builds the indexes of its green tables.

    :param name: the projector's
    :param stopped: whether the worker has to stop
    :param closed: whether its window has ended; then it stops, but never within a call of a program that would have to
        begin anew
    :raises Interrupted: the worker had to stop, or the window has ended; a retry goes on
    :raises StepOrderError: the tables are not cloned
    """
    projector = context.projector(name)
    with open_step(context, requires=RunState.CLONED, migrates=True) as step:
        run = step.run
        refuse_within_switch(run)
        first = step.ledger.checkpoints.of_projectors().get(name)
        if run.state.has_switched:
            context.log(f"{name}: this run has switched already; there is nothing to replay")
            position = first.position if first else BEGINNING
            return ReplayResult(name, 0, position, 0.0, position)
        if first is None:
            raise NotReplayed(f"{name} has no checkpoint in the run {context.run_id}; run clone_tables again")
        plan = step.plan
        first = prepare(step, plan, first)
        context.log(f"{name}: {'beginning at' if first.position is None else 'resuming at'} {said(first.position)}")
        progress = ProgressLog(context, first, name)
        throttle = Throttle(context, name, step.connection, lambda: stopped() or closed())
        selection = partial.open_selection(step, plan, first)
        if first.position is not None:
            index_lookups(step, projector)
        unit: ReplayUnit = unit_of(step, plan, first, selection, stopped)
        began = unit.begin()
        with unit.at_work():
            for head in _heads(step, plan, unit):
                unit.replay_to(head, throttle, progress)
        unit.finish(throttle.stopped, progress)
        index(step, projector)
    last = unit.checkpoint
    return ReplayResult(name, last.events - began.events, last.position, last.seconds - began.seconds, began.position)


def _heads(step: Step, plan: Plan, unit: ReplayUnit) -> Iterable[Place]:
    """The heads to which a unit replays, in order.

    A projector that reads tables of the run goes no further than their owners.
    """
    if not reads_of_run(step.context, plan, unit.projector):
        return heads_of(step.context, lambda: unit.checkpoint.position)
    owners, first = readable_to(step, plan, unit.projector), unit.checkpoint.position
    return [first if is_before(owners, first) else owners]
