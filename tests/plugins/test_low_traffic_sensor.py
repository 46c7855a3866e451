"""The sensor: one look at a time, no worker in between, and an end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

import include
from include.projection_rebuild.low_traffic import Traffic
from include.projection_rebuild.spec import RunOptions
from projection_rebuilds.sensors import low_traffic
from projection_rebuilds.sensors.low_traffic import LowTrafficSensor

SPEC = (Path(include.__path__[0]) / "rebuilds" / "universal.yaml").read_text(encoding="utf-8")


class FakeRebuild:
    def __init__(self, swap_now: bool) -> None:
        self.swap_now = swap_now
        self.head = 0

    def options(self) -> RunOptions:
        return RunOptions(swap_now=self.swap_now)

    def traffic(self) -> Traffic:
        self.head += 1_000
        return Traffic(self.head, 0, datetime.now(UTC))


@pytest.fixture
def sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(limits: str, swap_now: bool = False) -> LowTrafficSensor:
        path = tmp_path / "spec.yaml"
        start = SPEC.index("low_traffic:")
        path.write_text(SPEC[:start] + limits + SPEC[SPEC.index("# Writers are held") :], encoding="utf-8")
        fake = FakeRebuild(swap_now)

        @contextmanager
        def opened(*_: Any) -> Iterator[FakeRebuild]:
            yield fake

        monkeypatch.setattr(low_traffic, "open_rebuild", opened)
        return LowTrafficSensor(task_id="wait", spec_path=str(path))

    return make


BUSY = "low_traffic: {max_appends_per_minute: 1, look_every: 10s, give_up_after: 1h}\n"


def test_it_defers_with_its_last_look_and_counts_from_it(sensor: Any) -> None:
    made = sensor(BUSY)
    with pytest.raises(TaskDeferred) as first:
        made.execute({})
    assert first.value.method_name == "look"
    kept = first.value.kwargs
    assert kept is not None and kept["earlier"]["head"] == 1_000
    with pytest.raises(TaskDeferred) as second:
        made.look({}, event=None, **kept)
    assert second.value.kwargs is not None and second.value.kwargs["since"] == kept["since"]


def test_it_passes_when_it_is_quiet(sensor: Any) -> None:
    sensor("low_traffic: {}\n").execute({})


def test_swap_now_does_not_wait(sensor: Any) -> None:
    sensor(BUSY, swap_now=True).execute({})


def test_it_gives_up_in_time_even_if_the_window_opens_later(sensor: Any) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(hours=12)).strftime("%H:%M")
    after = (datetime.now(UTC) + timedelta(hours=13)).strftime("%H:%M")
    made = sensor(f'low_traffic: {{window: "{tomorrow}-{after}", give_up_after: 1h}}\n')
    with pytest.raises(TaskDeferred) as caught:
        made.execute({})
    assert caught.value.trigger.moment <= datetime.now(UTC) + timedelta(hours=1)  # type: ignore[attr-defined]
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    with pytest.raises(AirflowFailException, match="give_up_after"):
        made.look({}, event=None, since=long_ago, earlier=None)
