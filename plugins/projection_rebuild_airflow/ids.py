"""The ids of our DAGs, and the name that a DAG run has in the ledger. Pure."""

from __future__ import annotations

from typing import NamedTuple


def rebuild_dag_id(rebuild: str) -> str:
    """The DAG that rebuilds the tables of a spec."""
    return f"rebuild_{rebuild}"


def rollback_dag_id(rebuild: str) -> str:
    """The DAG that takes a spec's last swap back."""
    return f"rollback_{rebuild}"


def dag_ids(rebuild: str) -> tuple[str, str]:
    """Both DAGs of a spec."""
    return rebuild_dag_id(rebuild), rollback_dag_id(rebuild)


class DagRunId(NamedTuple):
    """A DAG run, as Airflow names it."""

    dag_id: str
    run_id: str


def ledger_id(dag_id: str, run_id: str) -> str:
    """The name of a DAG run in the ledger: the same at every retry and clear, and no other DAG's."""
    return f"{dag_id}/{run_id}"


def dag_run_of(ledger_run: str) -> DagRunId | None:
    """The DAG run that made a run of the ledger; None: somebody made it from Python or the command line."""
    dag_id, separator, run_id = ledger_run.partition("/")
    return DagRunId(dag_id, run_id) if separator else None
