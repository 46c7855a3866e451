"""What a person says to a run while it goes on, and giving it up. Each word is a note in the ledger that the next step looks at.

Notes by name: ``swap_now`` (do not wait for low traffic), ``approval`` (whether the switch may happen, for one verification),
``traffic`` (the last look of the gate, by the gate itself), ``stood_down`` (why it ends without a switch), ``pause`` (replays stand
still as long as it is there), ``throttle`` (limits that count instead of the spec's).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projection_rebuild.errors import CutoverBegun, SpecError, StepOrderError
from projection_rebuild.ledger import Note, Run, RunState
from projection_rebuild.model import limits
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.spec.replay import ThrottleSection

SWAP_NOW, APPROVAL, TRAFFIC, STOOD_DOWN = "swap_now", "approval", "traffic", "stood_down"
PAUSE, THROTTLE = "pause", "throttle"


def swap_now(context: Context, by: str, reason: str) -> None:
    """The switch no longer waits for low traffic; counts at any time before it, also while it is being waited for.

    :param by: who says so
    :raises SpecError: the reason cannot be kept
    :raises StepOrderError: there is no such run, or it has switched, or it was given up
    """
    by, reason = limits.shown(by, limits.NAME), limits.word(reason, "the reason")
    with open_step(context) as step:
        _before_its_switch(step)
        step.ledger.signals.send(SWAP_NOW, {"reason": reason}, by=by)
    context.log(f"swap now, says {by}")


def pause(context: Context, by: str, reason: str) -> None:
    """All replays of the run commit what they have, and wait; also those that begin later.

    :param by: who says so
    :raises SpecError: the reason cannot be kept
    :raises StepOrderError: there is no such run, or it has switched, or it was given up
    """
    by, reason = limits.shown(by, limits.NAME), limits.word(reason, "the reason")
    with open_step(context) as step:
        _before_its_switch(step)
        step.ledger.signals.send(PAUSE, {"reason": reason}, by=by)
    context.log(f"paused by {by}")


def resume(context: Context, by: str) -> None:
    """Replays that were paused go on.

    :param by: who says so
    :raises StepOrderError: there is no such run, or it was given up
    """
    by = limits.shown(by, limits.NAME)
    with open_step(context, requires=RunState.PLANNED) as step:
        step.ledger.signals.clear(PAUSE)
    context.log(f"resumed by {by}")


def set_limits(context: Context, given: Mapping[str, Any] | None, by: str) -> ThrottleSection:
    """Other limits for the replays of this run, from their next look on.

    :param given: keys of the spec's section ``throttle``; what is left out stays as the spec says. None: all as the spec says
    :param by: who says so
    :returns: what counts now
    :raises SpecError: names the key that cannot be used
    :raises StepOrderError: there is no such run, or it has switched, or it was given up
    """
    by = limits.shown(by, limits.NAME)
    if given is not None and not isinstance(given, Mapping):
        raise SpecError("the limits cannot be used: give them as a mapping, such as {'max_active_sessions': 3}")
    limits.check(given, "the limits")
    wanted = ThrottleSection.parse(context.spec.throttle.model_dump(mode="json") | dict(given or {}))
    with open_step(context) as step:
        _before_its_switch(step)
        if given is None:
            step.ledger.signals.clear(THROTTLE)
        else:
            value = wanted.model_dump(mode="json", include=set(given))
            step.ledger.signals.send(THROTTLE, value, by=by)
    context.log(f"limits of the replays set by {by}")
    return wanted


def decide(context: Context, approved: bool, by: str, reason: str) -> None:
    """Approves or rejects the switch, for what the last verification found and for no later one.

    :param by: who says so
    :raises SpecError: the reason cannot be kept
    :raises StepOrderError: there is no such run, it is not verified, has switched, or was given up
    """
    by, reason = limits.shown(by, limits.NAME), limits.word(reason, "the reason")
    with open_step(context) as step:
        run = _before_its_switch(step)
        if not run.state.is_verified:
            raise StepOrderError(f"the run {context.run_id} is {run.state}, not yet verified; there is nothing to decide about")
        value = {"approved": approved, "verification": run.record.verification_id, "reason": reason}
        step.ledger.signals.send(APPROVAL, value, by=by)
    context.log(f"the switch is {'approved' if approved else 'rejected'} by {by}")


def decision(run: Run, notes: dict[str, Note]) -> Note | None:
    """What was decided about a run's last verification; None: nothing yet, whatever was said about an earlier one."""
    said = notes.get(APPROVAL)
    return said if said and said.value.get("verification") == run.record.verification_id else None


def approval_needed(context: Context) -> bool:
    """Whether a person has to approve the switch of this run, by its own choice or else by its spec.

    :raises StepOrderError: the run is not verified
    """
    with open_step(context) as step:
        options = step.ledger.runs.get(requires=RunState.VERIFIED).record.options
    return context.spec.swap.approval if options.approval is None else options.approval


def decided(context: Context) -> Note | None:
    """What was decided about the run's last verification, if anything was: its value has ``approved`` and ``reason``."""
    with open_step(context, requires=RunState.VERIFIED) as step:
        run = step.run
        return decision(run, step.ledger.signals.all())


def abandon(context: Context) -> None:
    """Gives up a run that will not go on: its claims are free again, its green tables stay for inspection.

    :raises StepOrderError: there is no such run, or it has come to its switch, or was given up already
    """
    with open_step(context) as step, context.dialect.transaction(step.connection):
        step.ledger.runs.move(RunState.ABANDONED)
        step.ledger.checkpoints.fence()
        step.ledger.claims.release()


def stand_down(context: Context, reason: str) -> None:
    """Gives up a run that is to end without its switch, by a rule or a decision; blue stays live, green stays for inspection.

    :raises StepOrderError: there is no such run, it has switched, or it was given up already
    """
    with open_step(context) as step:
        _before_its_switch(step)
        # It may name a person, in whatever characters.
        said = {"reason": limits.shown(reason, limits.REASON)}
        step.ledger.signals.send(STOOD_DOWN, said)
    abandon(context)


def _before_its_switch(
    step: Step,
) -> Run:
    run = step.ledger.runs.get()
    if run.state.has_begun_switch:
        raise CutoverBegun(f"the run {step.run_id} is {run.state}: its switch has begun, there is nothing left to say about it")
    return run
