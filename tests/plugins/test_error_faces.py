"""What Airflow shows of an error: the task's log, its failure, and what people are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.sdk.exceptions import AirflowFailException

from include.projection_rebuild.boundary import UNTOUCHED, step
from include.projection_rebuild.errors import ConnectionLost, PrivilegeMissing
from include.projection_rebuild.trouble import Kind, Trouble
from projection_rebuilds import notify
from projection_rebuilds.operators.rebuild import airflow_errors
from tests.engine.marked import MARK, leaks, strangers


@step("replay", UNTOUCHED)
def quoting(_: object) -> None:
    raise psycopg.errors.UniqueViolation(f"Key (id)=({MARK}) already exists")


def failed(verb: Any) -> BaseException:
    with pytest.raises(Exception) as raised, airflow_errors():
        verb(None)
    return raised.value


def test_a_task_that_fails_shows_one_error_of_ours() -> None:
    error = failed(quoting)
    assert str(error).startswith("replay: the database refuses a value") and str(error).endswith("[PR-DB-08]")
    assert not leaks(error)


@pytest.mark.parametrize(("kind", "at_once"), [(Kind.DENIED, True), (Kind.LOST, False)])
def test_what_no_retry_can_help_fails_at_once(kind: Kind, at_once: bool) -> None:
    def verb(_: object) -> None:
        raise (PrivilegeMissing if kind is Kind.DENIED else ConnectionLost)(Trouble(kind))

    error = failed(step("plan", UNTOUCHED)(verb))
    assert isinstance(error, AirflowFailException) is at_once
    assert not leaks(error)


@pytest.mark.parametrize("error", [ValueError(MARK), psycopg.DataError(MARK), failed(quoting)])
def test_people_are_told_no_value(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(notify.Tell, "__call__", lambda self, context, message: said.append(message))
    spec: Any = SimpleNamespace(notify=SimpleNamespace(failure=(), verification_failed=()))
    notify.OnFailure(spec)({"exception": error, "ti": SimpleNamespace(task_id="replay")})  # type: ignore[typeddict-item]
    assert said and not strangers(said[0]) and said[0].startswith("replay has failed: ")
