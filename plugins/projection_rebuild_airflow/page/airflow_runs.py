"""What Airflow itself says of DAG runs. Works in the API server, which alone may ask Airflow's own database."""

from __future__ import annotations

from collections.abc import Iterable

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select

from projection_rebuild_airflow.page.view import WEIGHT, InAirflow


def in_airflow(ledger_runs: Iterable[str]) -> dict[str, InAirflow]:
    """The DAG runs behind runs of the ledger, by their names there; what Airflow does not know (any more) is left out."""
    found = {}
    with create_session() as session:
        for name in ledger_runs:
            dag_id, separator, run_id = name.partition("/")
            mine = (DagRun.dag_id == dag_id, DagRun.run_id == run_id)
            state = session.scalar(select(DagRun.state).where(*mine)) if separator else None
            if state is None:
                continue
            tasks = select(TaskInstance.task_id, TaskInstance.state).where(
                TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id
            )
            found[name] = InAirflow(str(state), _worst((row[0], str(row[1] or "")) for row in session.execute(tasks)))
    return found


def _worst(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One state for each task; of a mapped one the state that asks for most attention."""
    rank = {state: at for at, state in enumerate(WEIGHT)}
    states: dict[str, str] = {}
    for task_id, state in rows:
        if task_id not in states or rank.get(state, len(rank)) < rank.get(states[task_id], len(rank)):
            states[task_id] = state
    return states
