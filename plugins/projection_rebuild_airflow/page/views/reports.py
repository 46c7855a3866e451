"""Parts of a run's report in words, for the views of open runs and of the history."""

from __future__ import annotations

from projection_rebuild.api import Report, RunState, Said
from projection_rebuild_airflow.ids import dag_run_of
from projection_rebuild_airflow.page.seen import Seen
from projection_rebuild_airflow.page.words import moment, span


def title_of(report: Report) -> str:
    """The kind of a run: a rebuild, or the rollback of another run."""
    return f"Rollback of {short_name(report.plan.rolls_back)}" if report.plan.rolls_back else "Rebuild"


def short_name(ledger_run: str | None) -> str:
    """The name of a run without the id of its DAG; empty: no run."""
    dag_run = dag_run_of(ledger_run or "")
    return (dag_run.run_id if dag_run else "") or ledger_run or ""


def facts_of(seen: Seen, report: Report) -> list[str]:
    """The projectors of a run, who started it and why, and the decisions of people since."""
    facts = [", ".join(report.plan.projectors)]
    if report.by:
        facts.append(f"Started by {report.by}")
    if report.reason:
        facts.append(f"Why: {report.reason}")
    return facts + [_decision(seen, signal) for signal in report.notes if signal.by]


def _decision(seen: Seen, signal: Said) -> str:
    decision = signal.name.replace("_", " ")
    if "approved" in signal.value:
        decision = "approved" if signal.value["approved"] else "rejected"
    why = f": {signal.value['reason']}" if signal.value.get("reason") else ""
    return f"{decision.capitalize()} by {signal.by}, {moment(signal.at, seen.spec.zone)}{why}"


def outcome_of(report: Report) -> list[str]:
    """The results of a run: its swap, the reconciliation, the durations of phases, and the versions of projectors."""
    outcome = []
    if report.swap and RunState.SWITCHED in report.moved:
        outcome.append(f"Switch: {report.swap.describe()}")
    if report.reconciliation:
        outcome.append(f"After the switch: {report.reconciliation.describe()}")
    if report.durations:
        outcome.append("Took: " + ", ".join(f"{phase} {span(duration)}" for phase, duration in report.durations.items()))
    if report.code:
        versions = (f"{code.projector} {code.version} {code.source}".replace("  ", " ") for code in report.code)
        outcome.append("Code: " + ", ".join(versions))
    return outcome
