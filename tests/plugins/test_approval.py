"""The approval: who is asked, when, about which verification, and what follows from the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped, TaskAwaitingInput

from projection_rebuild.errors import StepOrderError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from projection_rebuild_airflow.operators import approval
from projection_rebuild_airflow.operators.approval import ApproveSwapOperator
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import events
from tests.engine.harness.specs import rebuild


class Store(dict[str, Any]):
    """A task's state."""

    set = dict.__setitem__


class Task:
    """A task instance, and the operator's place in its DAG."""

    id = map_index = 0
    task_id, dag_id, run_id = "approve_swap", "rebuild_shop", "manual__1"

    def get_flat_relative_ids(self, *, upstream: bool) -> set[str]:
        return {"wait_for_low_traffic", "atomic_swap"}


class Asked:
    """An operator, its run in a ledger, and what Airflow was asked to ask."""

    def __init__(self, run: Rebuild, operator: ApproveSwapOperator) -> None:
        self.run, self.operator = run, operator
        self.questions: list[dict[str, Any]] = []
        self.store = Store()
        ti = Task()
        self.context: Any = {"task_instance": ti, "ti": ti, "task": ti, "task_state_store": self.store}

    def execute(self) -> None:
        """Runs the task until it waits."""
        with pytest.raises(TaskAwaitingInput):
            self.operator.execute(self.context)

    def answer(self, chosen: str, by: str = "carol") -> Any:
        """What Airflow does with an answer."""
        user = {"id": "1", "name": by}
        event = {"chosen_options": [chosen], "params_input": {}, "responded_at": datetime.now(UTC), "responded_by_user": user}
        return self.operator.execute_complete(self.context, event)


@pytest.fixture
def asked(sqlite_url: sa.URL, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """A verified run that wants an approval."""
    engine = sa.create_engine(sqlite_url)
    shop.fill(engine, events(100))
    run = rebuild(engine)
    run_to(run, "verify", RunOptions(approval=True))
    made = Asked(run, ApproveSwapOperator(task_id="approve_swap", spec_path="spec.yaml"))

    @contextmanager
    def opened(*_: Any) -> Iterator[Rebuild]:
        yield run

    monkeypatch.setattr(approval, "open_rebuild", opened)
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **question: made.questions.append(question))
    return made


def test_nobody_is_asked_unless_the_run_or_its_spec_wants_it(asked: Asked) -> None:
    run_to(asked.run, "verify", RunOptions())
    assert asked.operator.execute(asked.context) is None
    run_to(asked.run, "verify", RunOptions(approval=False))
    assert asked.operator.execute(asked.context) is None
    assert asked.questions == []


def test_the_question_shows_the_comparison_and_an_approval_is_in_the_record(asked: Asked) -> None:
    told: list[str] = []
    asked.operator.on_question = lambda context, message: told.append(message)
    asked.execute()
    (question,) = asked.questions
    assert question["options"] == ["Approve", "Reject"] and "3 tables of shop" in question["subject"]
    assert "| table | rows before | rows after |" in question["body"]
    assert len(told) == 1 and "Approve or reject it" in told[0]
    assert asked.answer("Approve") == "carol"
    asked.run.swap()
    assert "approval, carol" in asked.run.report().as_markdown()


def test_an_airflow_without_task_state_leaves_the_answer_to_the_page(asked: Asked) -> None:
    """It could not tell later which verification the answer is about."""
    del asked.context["task_state_store"]
    with pytest.raises(AirflowFailException, match="approve or reject the switch on the rebuild's page"):
        asked.operator.execute(asked.context)
    assert asked.questions == []
    asked.run.decide(True, by="carol")
    assert asked.operator.execute(asked.context) == "carol"


def test_a_rejection_ends_the_run_without_a_switch_and_leaves_green(asked: Asked) -> None:
    asked.execute()
    with pytest.raises(DownstreamTasksSkipped) as caught:
        asked.answer("Reject")
    assert caught.value.tasks == ["atomic_swap", "wait_for_low_traffic"]
    with pytest.raises(StepOrderError, match="given up"):
        asked.run.swap()
    assert "Ended without its switch: rejected by carol." in asked.run.report().as_markdown()
    tables = sa.inspect(asked.run._context.dialect.engine).get_table_names()
    assert {"orders", "orders_rebuild"} <= set(tables)


def test_a_clear_asks_again_about_the_same_verification_and_uses_no_old_answer(asked: Asked) -> None:
    asked.execute()
    asked.execute()
    assert len(asked.questions) == 2


def test_another_verification_is_never_asked_about_under_the_first_ones_comparison(asked: Asked) -> None:
    asked.execute()
    asked.run.verify()
    with pytest.raises(AirflowFailException, match="does not count"):
        asked.answer("Approve")
    with pytest.raises(AirflowFailException, match="keeps the first question"):
        asked.operator.execute(asked.context)
    assert len(asked.questions) == 1 and asked.run.decided() is None
    # On the page, say; the task is cleared, and goes on.
    asked.run.decide(True, by="dave")
    assert asked.operator.execute(asked.context) == "dave"


def test_an_answer_that_was_recorded_before_the_worker_died_is_not_asked_for_again(asked: Asked) -> None:
    asked.execute()
    asked.run.decide(False, by="carol")
    with pytest.raises(DownstreamTasksSkipped):
        asked.operator.execute(asked.context)
    assert len(asked.questions) == 1


def test_nobody_answers_in_time(asked: Asked) -> None:
    asked.operator.response_timeout = timedelta(hours=1)
    asked.execute()
    with pytest.raises(AirflowFailException, match="nobody has answered within 1:00:00"):
        asked.operator.execute_complete(asked.context, {"error": "timeout", "error_type": "timeout"})
