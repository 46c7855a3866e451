"""The low-traffic gate: windows by the clock on the wall, limits, and what is said at each look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from include.projection_rebuild.low_traffic import Traffic, judge, next_opening
from include.projection_rebuild.spec import LowTrafficSection

AMSTERDAM = ZoneInfo("Europe/Amsterdam")


def section(**given: Any) -> LowTrafficSection:
    return LowTrafficSection.model_validate(given)


def at(text: str) -> datetime:
    """A moment by the clock in Amsterdam."""
    return datetime.fromisoformat(text).replace(tzinfo=AMSTERDAM).astimezone(UTC)


@pytest.mark.parametrize(
    ("given", "now", "opens"),
    [
        ({"window": "01:00-05:00"}, "2026-03-10 02:00", "2026-03-10 02:00"),
        ({"window": "01:00-05:00"}, "2026-03-10 05:00", "2026-03-11 01:00"),
        ({"window": "01:00-05:00"}, "2026-03-10 00:30", "2026-03-10 01:00"),
        ({"window": "23:00-05:00"}, "2026-03-10 04:59", "2026-03-10 04:59"),
        ({"window": "23:00-05:00"}, "2026-03-10 05:00", "2026-03-10 23:00"),
        # 2026-03-15 is a Sunday: its window reaches into Monday, and Monday's own does not open.
        ({"window": "23:00-05:00", "days": ["SUN"]}, "2026-03-16 03:00", "2026-03-16 03:00"),
        ({"window": "23:00-05:00", "days": ["SUN"]}, "2026-03-15 03:00", "2026-03-15 23:00"),
        ({"window": "23:00-05:00", "days": ["SUN"]}, "2026-03-16 23:30", "2026-03-22 23:00"),
        ({"window": "01:00-02:00", "days": ["MON"]}, "2026-03-16 02:00", "2026-03-23 01:00"),
        # The clocks go from 02:00 to 03:00 on 29 March and back at 03:00 on 25 October 2026.
        ({"window": "03:00-04:00"}, "2026-03-29 01:59", "2026-03-29 03:00"),
        ({"window": "02:30-03:30"}, "2026-03-29 01:59", "2026-03-29 03:00"),
        ({"window": "02:15-02:45"}, "2026-03-29 01:59", "2026-03-30 02:15"),
        ({"window": "02:30-03:00"}, "2026-03-29 01:59", "2026-03-30 02:30"),
        ({"window": "01:00-05:00"}, "2026-10-25 04:30", "2026-10-25 04:30"),
        ({}, "2026-03-10 12:00", "2026-03-10 12:00"),
    ],
)
def test_when_the_window_opens(given: dict[str, Any], now: str, opens: str) -> None:
    assert next_opening(section(**given), AMSTERDAM, at(now)) == at(opens)


def test_a_window_across_the_change_of_clocks_has_its_real_length() -> None:
    night = section(window="01:00-05:00")
    # One hour after 01:59 it is 03:59 in spring.
    assert next_opening(night, AMSTERDAM, at("2026-03-29 01:59") + timedelta(hours=2)) == at("2026-03-29 01:59") + timedelta(
        hours=2
    )
    assert next_opening(night, AMSTERDAM, at("2026-03-29 01:59") + timedelta(hours=2, minutes=1)) == at("2026-03-30 01:00")


def look(head: int, sessions: int | None = 0, minutes: float = 0) -> Traffic:
    return Traffic(head, sessions, at("2026-03-10 02:00") + timedelta(minutes=minutes))


def test_outside_the_window_it_says_when_it_opens_and_sleeps_until_then() -> None:
    verdict = judge(section(window="03:00-05:00"), AMSTERDAM, look(0), None)
    assert (verdict.quiet, verdict.look_again) == (False, at("2026-03-10 03:00"))
    assert "Tue 03:00" in verdict.message and "Europe/Amsterdam" in verdict.message


def test_appends_are_counted_between_two_looks() -> None:
    limits = section(max_appends_per_minute=60)
    first = judge(limits, AMSTERDAM, look(1_000), None)
    assert not first.quiet
    assert first.look_again == look(0).at + limits.look_every
    busy = judge(limits, AMSTERDAM, look(1_031, minutes=0.5), look(1_000))
    assert not busy.quiet and "62 appends per minute (limit 60)" in busy.message
    quiet = judge(limits, AMSTERDAM, look(1_030, minutes=0.5), look(1_000))
    assert quiet.quiet and "60 appends" in quiet.message


def test_an_average_over_the_hours_before_the_window_does_not_hide_a_burst() -> None:
    limits = section(window="01:00-05:00", max_appends_per_minute=60)
    evening = Traffic(0, 0, at("2026-03-10 18:00"))
    opening = Traffic(20_000, 0, at("2026-03-11 01:00"))
    assert not judge(limits, AMSTERDAM, opening, evening).quiet
    later = Traffic(20_010, 0, at("2026-03-11 01:00") + timedelta(seconds=30))
    assert judge(limits, AMSTERDAM, later, opening).quiet


def test_sessions_are_held_against_their_limit_where_somebody_counts_them() -> None:
    limits = section(max_active_sessions=3)
    assert not judge(limits, AMSTERDAM, look(0, sessions=4), None).quiet
    assert judge(limits, AMSTERDAM, look(0, sessions=3), None).quiet
    assert judge(limits, AMSTERDAM, look(0, sessions=None), None).quiet


def test_without_any_limit_it_is_always_quiet() -> None:
    assert judge(section(), AMSTERDAM, look(0), None).quiet


def test_a_look_survives_being_kept() -> None:
    assert Traffic.from_json(look(7).as_json()) == look(7)
