"""The ids of our DAGs, and the name that a DAG run has in the ledger. Pure."""

from __future__ import annotations

from typing import NamedTuple


def rebuild_dag_id(rebuild: str) -> str:
    """The id of the DAG that rebuilds the tables of a spec."""
    return f"rebuild_{rebuild}"


def rollback_dag_id(rebuild: str) -> str:
    """The id of the DAG that takes back a spec's last swap."""
    return f"rollback_{rebuild}"


def dag_ids(rebuild: str) -> tuple[str, str]:
    """The ids of both DAGs of a spec: of the rebuild and of the rollback."""
    return rebuild_dag_id(rebuild), rollback_dag_id(rebuild)


class DagRunId(NamedTuple):
    """The two ids by which Airflow names a DAG run."""

    dag_id: str
    run_id: str


def ledger_id(dag_id: str, run_id: str) -> str:
    """The name of a DAG run in the ledger. It is the same at every retry and clear, and differs for every DAG."""
    return f"{dag_id}/{run_id}"


def dag_run_of(ledger_run: str) -> DagRunId | None:
    """The DAG run behind a run of the ledger; None: the run was started from Python or the command line."""
    dag_id, separator, run_id = ledger_run.partition("/")
    return DagRunId(dag_id, run_id) if separator else None
