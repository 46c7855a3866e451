"""The sensor and its trigger: one look on a worker, all others in the triggerer, and an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

import include
from projection_rebuild.errors import ConnectionLost, SettleTimeout, StepOrderError
from projection_rebuild.errors.trouble import Kind, Trouble
from projection_rebuild.spec.load import load_spec
from projection_rebuild.traffic.low_traffic import Outcome, Traffic, Verdict, Waiting, judge
from projection_rebuild_airflow.sensors import low_traffic
from projection_rebuild_airflow.sensors.low_traffic import LowTrafficSensor
from projection_rebuild_airflow.triggers import low_traffic as triggers
from projection_rebuild_airflow.triggers.low_traffic import LowTrafficTrigger

SPEC = (Path(include.__path__[0]) / "rebuilds" / "universal.yaml").read_text(encoding="utf-8")
BUSY = "low_traffic: {max_appends_per_minute: 1, look_every: 10s, give_up_after: 1h, warn_after: 30m, give_up: RULE}\n"


class _Dag:
    dag_id = "rebuild_universal"


CONTEXT: Any = {"dag": _Dag(), "run_id": "manual__1"}


class FakeRebuild:
    """An application that appends a thousand events between two looks, until ``calm`` looks have been taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = self.looks = 0
        self.calm = 1_000
        self.errors: list[Exception] = []
        self.stood_down: list[str] = []

    def look_at_traffic(self, waiting: Waiting) -> Verdict:
        self.looks += 1
        if self.errors:
            raise self.errors.pop(0)
        spec = load_spec(self.path)
        appended = 1_000 if self.looks < self.calm else 0
        self.head += appended
        now = Traffic(self.head, 0, datetime.now(UTC), appended=appended if waiting.earlier else None)
        return judge(spec.low_traffic, spec.window_zone, now, waiting)

    def stand_down(self, reason: str) -> None:
        self.stood_down.append(reason)


Made = tuple[LowTrafficSensor, FakeRebuild]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Made]:
    def make(limits: str) -> Made:
        path = tmp_path / "spec.yaml"
        start = SPEC.index("low_traffic:")
        path.write_text(SPEC[:start] + limits + SPEC[SPEC.index("# Writers are held") :], encoding="utf-8")
        fake = FakeRebuild(path)

        @contextmanager
        def opened(*_: Any) -> Iterator[FakeRebuild]:
            yield fake

        monkeypatch.setattr(low_traffic, "open_rebuild", opened)
        monkeypatch.setattr(triggers, "open_spec", opened)
        return LowTrafficSensor(task_id="wait", spec_path=str(path)), fake

    return make


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the trigger has slept each time, without sleeping."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(triggers.asyncio, "sleep", sleep)
    return slept


def deferred(step: Callable[[], None]) -> LowTrafficTrigger:
    with pytest.raises(TaskDeferred) as caught:
        step()
    assert caught.value.method_name == "resume"
    # As the triggerer makes it.
    path, arguments = caught.value.trigger.serialize()
    assert path == "projection_rebuild_airflow.triggers.low_traffic.LowTrafficTrigger"
    return LowTrafficTrigger(**arguments)


def event_of(trigger: LowTrafficTrigger) -> dict[str, Any]:
    async def first() -> Any:
        async for event in trigger.run():
            return event.payload

    found: dict[str, Any] = asyncio.run(first())
    return found


def test_it_waits_in_the_triggerer_until_it_is_quiet(made: Callable[[str], Made], sleeps: list[float]) -> None:
    sensor, application = made(BUSY.replace("RULE", "fail"))
    application.calm = 5
    trigger = deferred(lambda: sensor.execute(CONTEXT))
    assert (application.looks, trigger.ledger_run) == (1, "rebuild_universal/manual__1")
    event = event_of(trigger)
    assert event["outcome"] == "pass" and application.looks == 5 and sleeps == [10.0] * 3
    sensor.resume(CONTEXT, event)


def test_it_passes_at_once_when_it_is_quiet(made: Callable[[str], Made]) -> None:
    made("low_traffic: {}\n")[0].execute(CONTEXT)


@pytest.mark.parametrize(("rule", "error"), [("fail", AirflowFailException), ("skip", AirflowSkipException), ("swap", None)])
def test_it_gives_up_by_its_rule(rule: str, error: type[Exception] | None, made: Callable[[str], Made]) -> None:
    sensor, application = made(BUSY.replace("RULE", rule))
    trigger = deferred(lambda: sensor.execute(CONTEXT))
    trigger.since, trigger.warned = (datetime.now(UTC) - timedelta(hours=2)).isoformat(), True
    event = event_of(trigger)
    if error is None:
        sensor.resume(CONTEXT, event)
    else:
        with pytest.raises(error, match="give_up_after"):
            sensor.resume(CONTEXT, event)
    assert bool(application.stood_down) == (rule == "skip")


def test_somebody_is_told_once_that_it_takes_long(made: Callable[[str], Made], sleeps: list[float]) -> None:
    sensor, application = made(BUSY.replace("RULE", "fail"))
    told: list[str] = []
    sensor.on_long_wait = lambda context, message: told.append(message)
    trigger = deferred(lambda: sensor.execute(CONTEXT))
    since = trigger.since = (datetime.now(UTC) - timedelta(minutes=31)).isoformat()
    event = event_of(trigger)
    assert event["outcome"] == "long"
    again = deferred(lambda: sensor.resume(CONTEXT, event))
    assert (again.warned, again.since, len(told)) == (True, since, 1) and "waiting" in told[0]
    application.calm = application.looks
    assert event_of(again)["outcome"] == "pass"


def test_outside_the_window_it_looks_as_often_since_somebody_may_say_swap_now(
    made: Callable[[str], Made], sleeps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, closes = ((datetime.now(UTC) + timedelta(hours=hours)).strftime("%H:%M") for hours in (11, 12))
    sensor, application = made(f'low_traffic: {{window: "{opens}-{closes}", timezone: UTC, give_up_after: 24h}}\n')
    trigger = deferred(lambda: sensor.execute(CONTEXT))
    real = application.look_at_traffic
    monkeypatch.setattr(
        application,
        "look_at_traffic",
        lambda waiting: real(waiting) if application.looks < 4 else Verdict(Outcome.PASS, "swap now (bob said)", waiting),
    )
    assert event_of(trigger)["message"] == "swap now (bob said)"
    assert sleeps == [30.0] * 3


def test_a_database_that_is_away_for_a_moment_does_not_end_the_wait(made: Callable[[str], Made], sleeps: list[float]) -> None:
    sensor, application = made(BUSY.replace("RULE", "fail"))
    trigger = deferred(lambda: sensor.execute(CONTEXT))
    application.errors = [ConnectionLost(Trouble(Kind.LOST)), SettleTimeout("later")]
    application.calm = 5
    assert event_of(trigger)["outcome"] == "pass"
    # But not for ever.
    application.errors = [ConnectionLost(Trouble(Kind.LOST))]
    trigger.since, trigger.warned = (datetime.now(UTC) - timedelta(hours=2)).isoformat(), True
    assert event_of(trigger)["outcome"] == "fail"


def test_a_run_that_was_given_up_meanwhile_fails_at_once(made: Callable[[str], Made]) -> None:
    sensor, application = made(BUSY.replace("RULE", "fail"))
    trigger = deferred(lambda: sensor.execute(CONTEXT))
    application.errors = [StepOrderError("the run was given up")]
    event = event_of(trigger)
    with pytest.raises(AirflowFailException, match="given up"):
        sensor.resume(CONTEXT, event)
