"""The low-traffic gate's look: asks the databases, judges, and notes for whoever watches what was seen. The waiting is elsewhere."""

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
    """One look at the traffic, and at whether somebody has said "swap now" meanwhile.

    :param waiting: what the look before has kept
    :raises StepOrderError: the run is not verified, or was given up while it waited
    :raises Diverged: green is no longer what the events make
    """
    section = context.spec.low_traffic
    with open_step(context, requires=RunState.VERIFIED) as step:
        run = step.run
        look_again(context)
        said = step.ledger.signals.all().get(SWAP_NOW)
        if said or run.record.options.swap_now:
            who = f"{said.by} said" if said else "chosen for this run"
            return Verdict(Outcome.PASS, f"swap now ({who}): not waiting for low traffic", waiting)
        tables = step.tables
        seen = traffic(step, tables, waiting.earlier)
        found = judge(section, context.spec.window_zone, seen, waiting)
        step.ledger.signals.send(TRAFFIC, _noted(found))
    return found


def _noted(found: Verdict) -> dict[str, object]:
    """``outcome``, ``message``, ``since``, ``quiet_since``, ``opens``, ``closes`` and ``probes`` (see :class:`Probe`)."""
    return {
        "outcome": found.outcome,
        "message": found.message,
        "since": found.waiting.since,
        "quiet_since": found.waiting.quiet_since,
        "opens": found.opens,
        "closes": found.closes,
        "probes": [asdict(each) for each in found.probes],
    }
