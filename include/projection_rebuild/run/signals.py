"""Signals: what an operator sends to a run while it goes on. Each is a note in the ledger, which the next step reads.

The notes, by name:

* ``swap_now``: do not wait for low traffic
* ``approval``: whether the swap may happen, for one verification
* ``traffic``: the last look of the low-traffic gate; the gate itself writes it
* ``stood_down``: why the run ends without a swap
* ``pause``: replays wait while this note exists
* ``throttle``: limits that replace those of the spec
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
    """Lets the cutover begin without low traffic. The signal counts at any time before it, even during the wait.

    :param by: the name of the operator
    :raises SpecError: the reason is beyond :mod:`projection_rebuild.model.limits`
    :raises StepOrderError: the ledger has no such run, its cutover has begun, or an operator gave it up
    """
    by, reason = limits.shown(by, limits.NAME), limits.word(reason, "the reason")
    with open_step(context) as step:
        _before_its_switch(step)
        step.ledger.signals.send(SWAP_NOW, {"reason": reason}, by=by)
    context.log(f"swap now, says {by}")


def pause(context: Context, by: str, reason: str) -> None:
    """Makes all replays of the run commit their work and wait, even replays that begin later.

    :param by: the name of the operator
    :raises SpecError: the reason is beyond :mod:`projection_rebuild.model.limits`
    :raises StepOrderError: the ledger has no such run, its cutover has begun, or an operator gave it up
    """
    by, reason = limits.shown(by, limits.NAME), limits.word(reason, "the reason")
    with open_step(context) as step:
        _before_its_switch(step)
        step.ledger.signals.send(PAUSE, {"reason": reason}, by=by)
    context.log(f"paused by {by}")


def resume(context: Context, by: str) -> None:
    """Lets paused replays continue.

    :param by: the name of the operator
    :raises StepOrderError: the ledger has no such run, or an operator gave it up
    """
    by = limits.shown(by, limits.NAME)
    with open_step(context, requires=RunState.PLANNED) as step:
        step.ledger.signals.clear(PAUSE)
    context.log(f"resumed by {by}")


def set_limits(context: Context, given: Mapping[str, Any] | None, by: str) -> ThrottleSection:
    """Replaces the limits of the run's replays, from their next check of the limits on.

    :param given: keys of the spec's section ``throttle`` with their values; the spec decides the others. None: the spec
        decides all
    :param by: the name of the operator
    :returns: the limits that count now
    :raises SpecError: a value is not allowed; names its key
    :raises StepOrderError: the ledger has no such run, its cutover has begun, or an operator gave it up
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
    """Approves or rejects the swap. The decision counts for the last verification and for no later one.

    :param by: the name of the operator
    :raises SpecError: the reason is beyond :mod:`projection_rebuild.model.limits`
    :raises StepOrderError: the ledger has no such run, the run is not verified, its cutover has begun, or an operator
        gave it up
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
    """The decision about a run's last verification; None: no operator has decided about that one.

    :param notes: the notes of the run, by name
    """
    note = notes.get(APPROVAL)
    return note if note and note.value.get("verification") == run.record.verification_id else None


def approval_needed(context: Context) -> bool:
    """Whether an operator must approve the swap of this run, by the run's options or else by its spec.

    :raises StepOrderError: the run is not verified
    """
    with open_step(context) as step:
        options = step.ledger.runs.get(requires=RunState.VERIFIED).record.options
    return context.spec.swap.approval if options.approval is None else options.approval


def decided(context: Context) -> Note | None:
    """The decision about the run's last verification; None: no operator has decided yet.

    The value of the note has ``approved`` and ``reason``.

    :raises StepOrderError: the run is not verified
    """
    with open_step(context, requires=RunState.VERIFIED) as step:
        run = step.run
        return decision(run, step.ledger.signals.all())


def abandon(context: Context) -> None:
    """Gives up a run. Releases its claims; its green tables stay for inspection.

    :raises StepOrderError: the ledger has no such run, its cutover has begun, or an operator gave it up before
    """
    with open_step(context) as step, context.dialect.transaction(step.connection):
        step.ledger.runs.move(RunState.ABANDONED)
        step.ledger.checkpoints.fence()
        step.ledger.claims.release()


def stand_down(context: Context, reason: str) -> None:
    """Gives up a run that must end without its swap, by a rule or a decision, and records the reason.

    Blue stays live; green stays for inspection.

    :raises StepOrderError: the ledger has no such run, its cutover has begun, or an operator gave it up before
    """
    with open_step(context) as step:
        _before_its_switch(step)
        # The reason may have a person's name in any characters.
        step.ledger.signals.send(STOOD_DOWN, {"reason": limits.shown(reason, limits.REASON)})
    abandon(context)


def _before_its_switch(
    step: Step,
) -> Run:
    """The run, if its swap has not begun.

    :raises CutoverBegun: the swap has begun
    """
    run = step.ledger.runs.get()
    if run.state.has_begun_switch:
        raise CutoverBegun(
            f"the run {step.run_id} is {run.state}: its switch has begun, so that no signal can change it any more"
        )
    return run
