"""The record of runs: it builds the report of a run from the ledger, stores it there, and finds stored reports.

A stored report outlives its sources: the engine removes checkpoints of dead runs, and an operator may plan a run anew.
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
    """The report of the run as it is now, even if an operator gave it up.

    :raises StepOrderError: the ledger has no such run
    """
    with open_step(context) as step:
        return made(step, _run(step))


def keep(context: Context) -> Report:
    """Stores the report of the run as it is now.

    :raises StepOrderError: the ledger has no such run
    """
    with open_step(context) as step:
        return keep_run(step, _run(step))


def keep_run(step: Step, run: Run) -> Report:
    """Stores the report of any run of this ledger as it is now."""
    kept = made(step, run)
    step.ledger.reports.keep(run, kept.as_json(), kept.as_markdown())
    return kept


def history(context: Context, limit: int) -> list[Report]:
    """The reports of the spec's last runs, newest first. The report of a run that goes on shows it as it is now.

    :param limit: the most reports to return
    :returns: the reports; empty if the spec never had a run
    """
    with open_step(context) as step:
        ledger = step.ledger
        if not ledger.exists():
            return []
        rebuild = context.spec.rebuild
        kept = [Report.model_validate(stored) for stored in ledger.reports.latest(rebuild, limit)]
        known = {(report.run_id, report.started_at): report for report in kept}
        for run in ledger.runs.latest(rebuild, limit):
            before = known.get((run.run_id, run.started_at))
            if before is None or before.state != run.state:
                known[run.run_id, run.started_at] = made(step, run)
    return sorted(known.values(), key=lambda report: report.started_at, reverse=True)[:limit]


def note_code(context: Context, projectors: Iterable[str]) -> None:
    """Records the version and the source hash of the code that is about to write these projectors' rows.

    :param projectors: names of projectors
    :raises StepOrderError: the ledger has no such run, or an operator gave it up
    :raises SpecError: the spec has been edited since the run was planned
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
