"""What is measured goes to Airflow's own statistics."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError

from projection_rebuild.ledger import Checkpoint
from projection_rebuild.model.results import SwapResult
from projection_rebuild_airflow import metrics
from projection_rebuild_airflow.operators.rebuild import ReplayOperator


class Sent:
    """Airflow's statistics."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, float, dict[str, str]]] = []

    def gauge(self, name: str, value: float, *, tags: dict[str, str]) -> None:
        self.sent.append((name, value, tags))

    timing = gauge

    def incr(self, name: str, *, tags: dict[str, str]) -> None:
        self.sent.append((name, 1, tags))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, dict[str, str]]]:
    found = Sent()
    monkeypatch.setattr(metrics, "stats", found)
    return found.sent


class Dag:
    dag_id = "rebuild_x"


class Store(dict[str, Any]):
    set = dict.__setitem__


AT = Checkpoint("OrderProjector", 40, 100, 30, 1.0, "t")


def test_an_airflow_without_task_state_has_the_metrics(sent: list[Any]) -> None:
    operator = ReplayOperator(task_id="replay", spec_path="x", projector="OrderProjector")
    operator.progress({"dag": Dag()}, AT, 29.6)  # type: ignore[typeddict-item]
    assert [name for name, *_ in sent] == [f"projection_rebuild.{each}" for each in ("events", "events_per_second", "lag")]


def test_a_replay_shows_its_progress_in_the_metrics_and_in_the_tasks_state(sent: list[Any]) -> None:
    store = Store()
    ReplayOperator(task_id="replay", spec_path="x", projector="OrderProjector").progress(
        {"dag": Dag(), "task_state_store": store}, AT, 29.6  # type: ignore[typeddict-item]
    )  # fmt: skip
    tags = {"dag_id": "rebuild_x", "projector": "OrderProjector"}
    assert sent == [
        ("projection_rebuild.events", 30, tags),
        ("projection_rebuild.events_per_second", 29.6, tags),
        ("projection_rebuild.lag", 60, tags),
    ]
    assert store["progress"] == {
        "projector": "OrderProjector", "events": 30, "position": 40, "head": 100, "lag": 60, "events_per_second": 30
    }  # fmt: skip


def test_a_progress_that_cannot_be_shown_ends_no_replay(sent: list[Any]) -> None:
    class Away:
        def set(self, *_: Any) -> None:
            raise AirflowRuntimeError.__new__(AirflowRuntimeError)

    operator = ReplayOperator(task_id="replay", spec_path="x", projector="OrderProjector")
    operator.progress({"dag": Dag(), "task_state_store": Away()}, AT, 1.0)  # type: ignore[typeddict-item]
    assert len(sent) == 3


def test_a_switch_sends_its_pause_and_the_rows(sent: list[Any]) -> None:
    metrics.of_switch("rebuild_x", SwapResult(tables=["orders"], position=9, pause_seconds=0.05, attempts=1), {"orders": 7})
    assert sent == [
        ("projection_rebuild.pause", 50.0, {"dag_id": "rebuild_x"}),
        ("projection_rebuild.switches", 1, {"dag_id": "rebuild_x"}),
        ("projection_rebuild.rows", 7, {"dag_id": "rebuild_x", "table": "orders"}),
    ]
