"""The record of runs: makes a report of what the ledger holds of a run, keeps it there, and finds the reports of earlier ones.

A kept report outlives what it was made from: checkpoints of dead runs are removed, and a run may be planned anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from projection_rebuild.authoring.fingerprint import source_hash
from projection_rebuild.errors import UnknownRun
from projection_rebuild.ledger import Run
from projection_rebuild.run.context import Context
from projection_rebuild.run.report import Report
from projection_rebuild.run.step import Step, open_step


def report(context: Context) -> Report:
    """What a run has done so far, given up or not.

    :raises StepOrderError: there is no such run
    """
    with open_step(context) as step:
        return made(step, _run(step))


def keep(context: Context) -> Report:
    """Keeps the report of a run as it is now.

    :raises StepOrderError: there is no such run
    """
    with open_step(context) as step:
        return keep_run(step, _run(step))


def keep_run(step: Step, run: Run) -> Report:
    """Keeps the report of any run of this ledger as it is now."""
    kept = made(step, run)
    step.ledger.reports.keep(run, kept.as_json(), kept.as_markdown())
    return kept


def history(context: Context, limit: int) -> list[Report]:
    """The reports of the spec's last runs, newest first; of a run that goes on, as it is now.

    Empty where nothing was ever rebuilt.
    """
    with open_step(context) as step:
        ledger = step.ledger
        if not ledger.exists():
            return []
        rebuild = context.spec.rebuild
        kept = [Report.model_validate(each) for each in ledger.reports.latest(rebuild, limit)]
        known = {(each.run_id, each.started_at): each for each in kept}
        for run in ledger.runs.latest(rebuild, limit):
            before = known.get((run.run_id, run.started_at))
            if before is None or before.state != run.state:
                known[run.run_id, run.started_at] = made(step, run)
    return sorted(known.values(), key=lambda each: each.started_at, reverse=True)[:limit]


def note_code(context: Context, projectors: Iterable[str]) -> None:
    """Records which code is about to work on the rows of these projectors.

    :raises StepOrderError: there is no such run, or it was given up
    :raises SpecError: the spec has been edited since it was planned
    """
    with open_step(context) as step:
        context.plan_of(step.ledger.runs.get())
        for name in projectors:
            projector = context.projector(name)
            step.ledger.reports.add_code(name, version=projector.version, source=source_hash(projector))


def _run(
    step: Step,
) -> Run:
    run = step.ledger.runs.find()
    if run is None:
        raise UnknownRun(f"the ledger has no run {step.run_id}")
    return run


def made(step: Step, run: Run) -> Report:
    """The report of any run of this ledger as it is now."""
    ledger = step.ledger
    return Report.of(
        run,
        ledger.of(run.run_id).checkpoints.of_projectors(),
        ledger.of(run.run_id).reports.code(),
        ledger.of(run.run_id).signals.all(),
    )
