"""Paths of a DAG, a run, a task and our page in Airflow's UI, relative to Airflow's own address. Pure.

They are relative because Airflow may be served under any prefix.
"""

from __future__ import annotations

from urllib.parse import quote

PAGE = "projection-rebuilds"
"""The path below which our page is served, and its name in the address of Airflow's navigation."""

RUN_TAB = "projection-rebuild"
"""The name of the tab on a DAG run."""


def dag(dag_id: str) -> str:
    """The path of a DAG."""
    return f"dags/{quote(dag_id, safe='')}"


def run(dag_id: str, run_id: str) -> str:
    """The path of a DAG run."""
    return f"{dag(dag_id)}/runs/{quote(run_id, safe='')}"


def task(dag_id: str, run_id: str, task_id: str) -> str:
    """The path of a task of a run. Airflow shows the log of its last try first."""
    return f"{run(dag_id, run_id)}/tasks/{quote(task_id, safe='')}"


def run_tab(dag_id: str, run_id: str) -> str:
    """The path of our page for one run, within Airflow's UI."""
    return f"{run(dag_id, run_id)}/plugin/{RUN_TAB}"


def now(dag_id: str, run_id: str = "") -> str:
    """The route of our page that returns the current state.

    :param run_id: only this DAG run; empty: all runs of the DAG's rebuild
    """
    return f"dags/{quote(dag_id, safe='')}/now" + (f"?run_id={quote(run_id, safe='')}" if run_id else "")


def report(dag_id: str, run_id: str) -> str:
    """The route of our page that returns the report of a run."""
    return f"dags/{quote(dag_id, safe='')}/report?run_id={quote(run_id, safe='')}"
