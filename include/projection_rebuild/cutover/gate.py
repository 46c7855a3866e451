"""One look of the low-traffic gate: it measures the traffic, judges it, and records the verdict in the ledger.

The caller does the waiting between two looks.
"""

from __future__ import annotations

from dataclasses import asdict

from projection_rebuild.ledger import RunState
from projection_rebuild.run.context import Context
from projection_rebuild.run.signals import SWAP_NOW, TRAFFIC
from projection_rebuild.run.step import open_step
from projection_rebuild.traffic.low_traffic import Outcome, Verdict, Waiting, judge
from projection_rebuild.traffic.probe import traffic
from projection_rebuild.verification.fresh_proof import look_again


def look_at_traffic(context: Context, waiting: Waiting) -> Verdict:
    """Measures the traffic once, and checks whether an operator has sent "swap now".

    It also takes another sample of green when one is due.

    :param waiting: what the previous look has returned for the next one
    :returns: whether the cutover may begin, and the value of ``waiting`` for the next look
    :raises StepOrderError: the run is not verified, or an operator gave it up while it waited
    :raises Diverged: green no longer matches its events
    """
    section = context.spec.low_traffic
    with open_step(context, requires=RunState.VERIFIED) as step:
        run = step.run
        look_again(context)
        signal = step.ledger.signals.all().get(SWAP_NOW)
        if signal or run.record.options.swap_now:
            who = f"{signal.by} said" if signal else "chosen for this run"
            return Verdict(Outcome.PASS, f"swap now ({who}): not waiting for low traffic", waiting)
        measured = traffic(step, step.tables, waiting.earlier)
        verdict = judge(section, context.spec.window_zone, measured, waiting)
        step.ledger.signals.send(TRAFFIC, _note_of(verdict))
    return verdict


def _note_of(verdict: Verdict) -> dict[str, object]:
    """The value of the note that records a look.

    Its keys are ``outcome``, ``message``, ``since``, ``quiet_since``, ``opens``, ``closes`` and ``probes`` (see
    :class:`Probe`).
    """
    return {
        "outcome": verdict.outcome,
        "message": verdict.message,
        "since": verdict.waiting.since,
        "quiet_since": verdict.waiting.quiet_since,
        "opens": verdict.opens,
        "closes": verdict.closes,
        "probes": [asdict(probe) for probe in verdict.probes],
    }
