"""Where Airflow's UI shows a DAG, a run or a task, and where it shows our page; as paths below Airflow's own address.

Pure, and relative on purpose: Airflow may be served under any prefix.
"""

from __future__ import annotations

from urllib.parse import quote

PAGE = "projection-rebuilds"
"""Where our page is served, and its name in the address of Airflow's navigation."""

RUN_TAB = "projection-rebuild"
"""The name of the tab on a DAG run."""


def dag(dag_id: str) -> str:
    """A DAG."""
    return f"dags/{quote(dag_id, safe='')}"


def run(dag_id: str, run_id: str) -> str:
    """A DAG run."""
    return f"{dag(dag_id)}/runs/{quote(run_id, safe='')}"


def task(dag_id: str, run_id: str, task_id: str) -> str:
    """A task of a run; what is shown first is the log of its last try."""
    return f"{run(dag_id, run_id)}/tasks/{quote(task_id, safe='')}"


def run_tab(dag_id: str, run_id: str) -> str:
    """Our page for one run, in Airflow's UI."""
    return f"{run(dag_id, run_id)}/plugin/{RUN_TAB}"


def now(dag_id: str, run_id: str = "") -> str:
    """What is going on, below our own page; of one run only, if it is named."""
    return f"dags/{quote(dag_id, safe='')}/now" + (f"?run_id={quote(run_id, safe='')}" if run_id else "")


def report(dag_id: str, run_id: str) -> str:
    """The report of a run, below our own page."""
    return f"dags/{quote(dag_id, safe='')}/report?run_id={quote(run_id, safe='')}"
