"""Reads the states of DAG runs and tasks.

It works only in the API server, which alone may read Airflow's own database.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.orm import Session

from projection_rebuild_airflow.ids import DagRunId, dag_run_of
from projection_rebuild_airflow.page.seen import DagRunSeen
from projection_rebuild_airflow.page.views.task_states import most_urgent


def dag_runs_of(ledger_runs: Iterable[str]) -> dict[str, DagRunSeen]:
    """The DAG runs behind runs of the ledger, by their names in the ledger.

    It leaves out runs that Airflow does not know (any more).
    """
    dag_runs = {}
    with create_session() as session:
        for name in ledger_runs:
            dag_run_id = dag_run_of(name)
            dag_run = _dag_run(session, dag_run_id) if dag_run_id else None
            if dag_run is not None:
                dag_runs[name] = dag_run
    return dag_runs


def _dag_run(session: Session, dag_run_id: DagRunId) -> DagRunSeen | None:
    dag_id, run_id = dag_run_id
    state = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    if state is None:
        return None
    tasks = select(TaskInstance.task_id, TaskInstance.state).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
    return DagRunSeen(dag_run_id, str(state), _state_by_task((row[0], str(row[1] or "")) for row in session.execute(tasks)))


def _state_by_task(task_instances: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One state for each task; for a mapped task, the most urgent state of its instances."""
    states_by_task: dict[str, list[str]] = {}
    for task_id, state in task_instances:
        states_by_task.setdefault(task_id, []).append(state)
    return {task_id: most_urgent(states) for task_id, states in states_by_task.items()}
