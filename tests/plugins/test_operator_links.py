"""The buttons on our tasks in Airflow's UI, and what Airflow is told of us."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from projection_rebuild_airflow import links
from projection_rebuild_airflow.dag_factory import rebuild_dags
from projection_rebuild_airflow.operator_links import RebuildPageLink, RollbackLink
from projection_rebuild_airflow.plugin import ProjectionRebuildsPlugin

KEY: Any = SimpleNamespace(dag_id="rebuild_shop", run_id="manual__2026-11-25T14:50:00+00:00", task_id="atomic_swap")


def test_every_task_of_our_dags_leads_to_our_page() -> None:
    tasks = [task for dag in rebuild_dags().values() for task in dag.tasks if dag.dag_id.startswith(("rebuild_", "rollback_"))]
    assert tasks
    classes = {getattr(task, "operator_class", type(task)) for task in tasks}
    assert classes - set(RebuildPageLink.operators) == set()


@pytest.mark.parametrize("base", ["http://localhost:8080", "https://example.com/airflow/"])
def test_links_stand_below_the_address_of_airflow(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    task: Any = None
    page = RebuildPageLink().get_link(task, ti_key=KEY)
    assert (
        page == base.rstrip("/") + "/dags/rebuild_shop/runs/manual__2026-11-25T14%3A50%3A00%2B00%3A00/plugin/projection-rebuild"
    )
    assert RollbackLink().get_link(task, ti_key=KEY) == base.rstrip("/") + "/dags/rollback_shop"


def test_airflow_is_told_of_the_page_the_tab_and_the_buttons() -> None:
    plugin = ProjectionRebuildsPlugin()
    views = {each["destination"]: each for each in plugin.external_views}
    assert views["nav"]["name"] == "Projection rebuilds" and views["dag_run"]["url_route"] == links.RUN_TAB
    # Relative, so that a prefix counts; and nothing is loaded from elsewhere.
    assert not any(str(value).startswith(("/", "http")) for view in views.values() for value in view.values())
    assert [each["url_prefix"] for each in plugin.fastapi_apps] == [f"/{links.PAGE}"]
    assert {type(each) for each in plugin.operator_extra_links} == {RebuildPageLink, RollbackLink}
