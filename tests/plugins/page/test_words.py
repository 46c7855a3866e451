"""Numbers as people read them, and the bars of the charts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from projection_rebuild_airflow.page.charts import HEIGHT, Value, chart
from projection_rebuild_airflow.page.words import away, count, moment, size, span

NOW = datetime(2026, 11, 25, 15, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(milliseconds=41.3), "41 ms"),
        (timedelta(seconds=3.25), "3.2 s"),
        (timedelta(seconds=75), "1 min 15 s"),
        (timedelta(hours=49, seconds=5), "2 d 1 h"),
        (timedelta(days=1, seconds=59), "1 d 59 s"),
        (timedelta(0), "0 ms"),
    ],
)
def test_a_span_has_its_two_largest_units(length: timedelta, words: str) -> None:
    assert span(length) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB"), (1 << 41, "2.0 TiB"), (1 << 52, "4096.0 TiB")],
)  # fmt: skip
def test_sizes(number: int, words: str) -> None:
    assert size(number) == words


def test_moments_are_by_the_clock_of_the_spec_and_say_how_far_away_they_are() -> None:
    assert moment(NOW, ZoneInfo("Europe/Amsterdam")) == "Wed 25 Nov 16:00:00"
    assert away(NOW + timedelta(hours=72), NOW) == "in 3 d"
    assert away(NOW - timedelta(minutes=5), NOW) == "5 min ago"
    assert count(1234567.4) == "1,234,567"


def test_bars_share_a_scale_and_a_value_that_is_missing_leaves_its_place_empty() -> None:
    made = chart("pause", [Value(10.0, "ten"), Value(None, ""), Value(40.0, "forty", "back"), Value(0.0, "none")], "none")
    assert [(bar.x, bar.height, bar.y) for bar in made.bars] == [(0, 10.0, 30.0), (32, 40.0, 0.0), (48, 2.0, 38.0)]
    assert made.width == 60 and made.height == HEIGHT
    assert [bar.kind for bar in made.bars] == ["", "back", ""]


def test_a_chart_of_nothing_is_a_chart() -> None:
    assert chart("pause", [], "nothing yet").bars == []
    assert [bar.height for bar in chart("pause", [Value(0.0, "none")], "").bars] == [2.0]
