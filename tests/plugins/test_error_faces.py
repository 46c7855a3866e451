"""What Airflow shows of an error: the task's log, its failure, and what people are told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from projection_rebuild.errors import ConnectionLost, ConnectionRefused, EngineFault, PrivilegeMissing, SpecError
from projection_rebuild.errors.boundary import UNTOUCHED, step
from projection_rebuild.errors.trouble import Kind, Trouble
from projection_rebuild.spec.notify import NotifierSection
from projection_rebuild_airflow import notify, specs
from projection_rebuild_airflow.operators.rebuild import airflow_errors
from projection_rebuild_airflow.page import watching
from tests.engine.harness.marked import MARK, leaks, strangers


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


class OfAnApplication(AirflowException):
    """An application's own, for Airflow."""


@pytest.mark.parametrize("kind", [AirflowSkipException, OfAnApplication])
def test_airflows_own_errors_pass_without_what_they_came_from(kind: type[Exception]) -> None:
    error = kind("skip it")

    def verb(_: object) -> None:
        try:
            quoting(None)
        except Exception as ours:
            try:
                raise psycopg.DataError(MARK)
            except psycopg.Error as theirs:
                theirs.__context__ = ours
                raise error from theirs

    with pytest.raises(kind) as raised:
        step("replay", UNTOUCHED)(verb)(None)
    assert raised.value is error and not leaks(error) and error.__cause__ is None


def test_what_fails_in_the_face_is_no_authors_fault() -> None:
    known: dict[str, Any] = {"__name__": "projection_rebuild_airflow.runs"}
    exec("def over(_):\n    raise LookupError(mark)", known | {"mark": MARK}, known)  # noqa: S102
    with pytest.raises(EngineFault):
        step("plan", UNTOUCHED)(known["over"])(None)


# Texts that are part of others --------------------------------------------------------------------------------------


class Choosy:
    """Refuses its arguments, and quotes them."""

    def __init__(self, **given: str) -> None:
        raise ValueError(given)


def test_a_notifier_that_cannot_be_made_quotes_no_argument_and_has_one_code() -> None:
    section = NotifierSection(notifier=f"{__name__}.Choosy", arguments={"token": MARK})
    with pytest.raises(SpecError, match=r"cannot be made: ValueError at test_error_faces\.py:\d+\. Correct") as raised:
        notify.made(section)
    assert not leaks(raised.value)
    each: Any = SimpleNamespace(**dict.fromkeys(notify.NotifySection.model_fields, ()))
    each.swapped = (section,)
    with pytest.raises(SpecError, match=r"^spec\.yaml, notify\.swapped: ") as raised:
        notify.check(SimpleNamespace(notify=each), Path("spec.yaml"))  # type: ignore[arg-type]
    assert not leaks(raised.value) and str(raised.value).count("[PR-SPEC-01]") == 1


def test_the_page_names_the_code_of_the_reason_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ConnectionRefused("shop_db cannot be used: it is away")

    monkeypatch.setattr(watching, "open_spec", refused)
    spec: Any = SimpleNamespace(read_models=SimpleNamespace(conn_id="shop_db"))
    with pytest.raises(watching.Unseen) as raised:
        watching.Watcher(spec, Path("spec.yaml")).see()
    assert str(raised.value) == "PR-CONNECTION-01, shop_db cannot be used: it is away [PR-PAGE-01]"


def test_a_spec_that_fails_for_whatever_reason_is_told_by_kind_and_line() -> None:
    with pytest.raises(LookupError) as raised:
        raise LookupError(MARK)
    said = specs.problem(Path("shop.yaml"), raised.value)
    assert said.startswith("shop.yaml cannot be used: LookupError at test_error_faces.py:") and MARK not in said
