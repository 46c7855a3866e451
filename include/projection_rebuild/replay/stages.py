"""Replays projectors in stages: a rebuild over several nights, each projector only within the windows of its stage.

The end of a window stops a replay as a stop of its worker does. The replay commits the folded events, and goes on at
its checkpoint in the next window. Only a program that would have to begin anew finishes its call first.
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
"""The key of the note that records what :func:`replay_stages` has replayed: checkpoint tokens by projector."""


@dataclass(frozen=True)
class Closed:
    """The result while a stage is outside its windows and its projector is not replayed to the end.

    :param opens: when the next window opens, in UTC
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
    """The current time, in UTC."""
    return datetime.now(UTC)


def replay_in_stage(
    context: Context, name: str, stopped: Callable[[], bool], now: Callable[[], datetime] = utc_now
) -> ReplayResult | Closed:
    """Replays a projector while a window of its stage is open.

    It replays as :func:`~projection_rebuild.replay.projector_replay.replay` does.
    It does so at any time if the projector has no stage, the stage has no windows, or the run must not wait
    (``replay_now``).

    :param name: the projector's
    :param now: returns the current time
    :raises Interrupted: ``stopped`` returned true
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

    Callers with a scheduler of their own call it when a window opens, and verify once it returns None.

    :returns: the projector whose window has to open first; None: all projectors are replayed
    :raises StepOrderError: the spec has no stages
    :raises Interrupted: ``stopped`` returned true
    """
    if not context.spec.stages:
        raise StepOrderError("this spec has no `stages`; replay its projectors one by one")
    for stage in context.spec.stages:
        with open_step(context) as step:
            in_order = step.plan.projectors
            tokens = {name: checkpoint.token for name, checkpoint in step.ledger.checkpoints.of_projectors().items()}
            note = step.ledger.signals.all().get(DONE)
        # By token: a new clone gives each projector another checkpoint, so that it counts as not replayed.
        done = dict(note.value) if note else {}
        # In the order of the plan, which is that of their dependencies.
        for name in (
            name for name in in_order if name in stage.projectors and (name not in done or done[name] != tokens.get(name))
        ):
            result = replay_in_stage(context, name, stopped, now)
            if isinstance(result, Closed):
                return result
            context.log(result.describe())
            done[name] = tokens.get(name)
            with open_step(context) as step:
                step.ledger.signals.send(DONE, done)
    return None
