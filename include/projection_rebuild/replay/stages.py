"""Stages: a rebuild in waves over several nights, each projector replayed within the windows of its stage only.

A window's end is a stop like any other: what is folded is committed, and the next window goes on at the checkpoint. EventFilter a program
that would have to begin anew is not cut short by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from projection_rebuild.errors import Interrupted, StepOrderError
from projection_rebuild.ledger import RunState
from projection_rebuild.model.results import ReplayResult
from projection_rebuild.replay.shards import replay_all
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import open_step
from projection_rebuild.traffic.low_traffic import closing, next_opening

DONE = "stages"
"""The note of what :func:`replay_stages` has brought to its end: checkpoint tokens by projector."""


@dataclass(frozen=True)
class Closed:
    """The windows of a stage are closed, and its projector is not replayed to the end.

    :param opens: when one opens next, in UTC
    """

    projector: str
    stage: str
    opens: datetime

    def describe(self) -> str:
        """One line for a log."""
        return (
            f"{self.projector}: outside the window of the stage {self.stage}, which opens at {self.opens:%a %Y-%m-%d %H:%M} UTC"
        )


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def replay_in_stage(
    context: Context, name: str, stopped: Callable[[], bool], now: Callable[[], datetime] = utc_now
) -> ReplayResult | Closed:
    """Replays a projector as :func:`~projection_rebuild.replay.projector_replay.replay` does, while a window of its stage is open.

    A projector without a stage, a stage without windows, and a run that is not to wait are replayed at any time.

    :param now: the clock
    :raises Interrupted: ``stopped`` said so
    """
    stage = context.spec.stage_of(name)
    with open_step(context, requires=RunState.PLANNED) as step:
        run = step.run
        waits = not (run.record.options.replay_now or run.state.has_switched)
    if stage is None or stage.any_time or not waits:
        return replay_all(context, name, stopped)
    zone, moment = context.spec.zone, now()
    opens = next_opening(stage, zone, moment)
    if opens > moment:
        return Closed(name, stage.name, opens)
    closes = closing(stage, zone, moment)
    try:
        return replay_all(context, name, stopped, lambda: closes is not None and now() >= closes)
    except Interrupted:
        if stopped() or closes is None:
            raise
        context.log(f"{name}: the window of the stage {stage.name} has ended")
        return Closed(name, stage.name, next_opening(stage, zone, max(closes, now())))


def replay_stages(context: Context, stopped: Callable[[], bool], now: Callable[[], datetime] = utc_now) -> Closed | None:
    """Replays the projectors of a run, stage after stage, as far as the windows allow; called again, it goes on.

    For those who schedule it themselves: call it when a window opens, and verify once it gives None.

    :returns: what is waited for; None: all are replayed
    :raises StepOrderError: the spec has no stages
    :raises Interrupted: ``stopped`` said so
    """
    if not context.spec.stages:
        raise StepOrderError("this spec has no `stages`; replay its projectors one by one")
    for stage in context.spec.stages:
        with open_step(context) as step:
            chosen = step.plan.projectors
            tokens = {name: each.token for name, each in step.ledger.checkpoints.of_projectors().items()}
            noted = step.ledger.signals.all().get(DONE)
        # By checkpoint: once the tables are cloned anew, nothing is done any more.
        done = dict(noted.value) if noted else {}
        # In the order of the plan: by their dependencies.
        for name in (
            each for each in chosen if each in stage.projectors and (each not in done or done[each] != tokens.get(each))
        ):
            result = replay_in_stage(context, name, stopped, now)
            if isinstance(result, Closed):
                return result
            context.log(result.describe())
            done[name] = tokens.get(name)
            with open_step(context) as step:
                step.ledger.signals.send(DONE, done)
    return None
