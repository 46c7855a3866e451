"""The low-traffic gate: windows by the clock on the wall, limits, and what is said at each look."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from projection_rebuild.spec.windows import LowTrafficSection
from projection_rebuild.traffic.low_traffic import Outcome, Traffic, Verdict, Waiting, closing, judge, next_opening

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
WEEK = {"windows": {"MON": ["01:00-05:00"], "SAT": ["00:00-08:00", "22:00-04:00"], "SUN": ["03:00-06:00"]}}


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
        # Each weekday its own; 2026-03-14 is a Saturday.
        (WEEK, "2026-03-10 02:00", "2026-03-14 00:00"),
        (WEEK, "2026-03-14 08:00", "2026-03-14 22:00"),
        (WEEK, "2026-03-15 02:00", "2026-03-15 02:00"),
        (WEEK, "2026-03-15 06:00", "2026-03-16 01:00"),
    ],
)
def test_when_the_window_opens(given: dict[str, Any], now: str, opens: str) -> None:
    assert next_opening(section(**given), AMSTERDAM, at(now)) == at(opens)


@pytest.mark.parametrize(
    ("given", "now", "closes"),
    [
        ({"window": "01:00-05:00"}, "2026-03-10 02:00", "2026-03-10 05:00"),
        ({"window": "23:00-05:00"}, "2026-03-10 23:30", "2026-03-11 05:00"),
        ({"window": "01:00-05:00"}, "2026-03-10 06:00", None),
        ({}, "2026-03-10 06:00", None),
        # Saturday night runs into Sunday's own window.
        (WEEK, "2026-03-15 02:00", "2026-03-15 06:00"),
    ],
)
def test_when_the_open_window_closes(given: dict[str, Any], now: str, closes: str | None) -> None:
    assert closing(section(**given), AMSTERDAM, at(now)) == (at(closes) if closes else None)


def test_a_window_across_the_change_of_clocks_has_its_real_length() -> None:
    night = section(window="01:00-05:00")
    # One hour after 01:59 it is 03:59 in spring.
    assert next_opening(night, AMSTERDAM, at("2026-03-29 01:59") + timedelta(hours=2)) == at("2026-03-29 01:59") + timedelta(
        hours=2
    )
    assert next_opening(night, AMSTERDAM, at("2026-03-29 01:59") + timedelta(hours=2, minutes=1)) == at("2026-03-30 01:00")


@pytest.mark.parametrize(
    "given",
    [
        {"windows": {"MON": ["01:00-05:00"]}, "window": "01:00-05:00"},
        {"windows": {"MON": ["01:00-05:00"]}, "days": ["MON"]},
        {"windows": {"MON": []}},
        {"days": []},
        {"windows": {"MONDAY": ["01:00-05:00"]}},
        {"timezone": "Mars/Olympus"},
        {"look_every": "100ms"},
        {"give_up": "perhaps"},
    ],
)
def test_windows_and_rules_that_cannot_be_meant_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section(**given)


def look(head: int = 0, minutes: float = 0, **seen: Any) -> Traffic:
    return Traffic(head, **{"active_sessions": 0, "at": at("2026-03-10 02:00") + timedelta(minutes=minutes)} | seen)


def judged(limits: LowTrafficSection, *looks: Traffic, since: datetime | None = None) -> list[Verdict]:
    """The verdicts on looks that follow one another."""
    waiting, found = Waiting(since or looks[0].at), []
    for each in looks:
        appended = None if waiting.earlier is None else (each.head or 0) - (waiting.earlier.head or 0)
        found.append(judge(limits, AMSTERDAM, replace(each, appended=appended), waiting))
        waiting = found[-1].waiting
    return found


def outcomes(limits: LowTrafficSection, *looks: Traffic, since: datetime | None = None) -> list[str]:
    return [each.outcome.value for each in judged(limits, *looks, since=since)]


def test_outside_the_window_it_says_when_it_opens() -> None:
    (verdict,) = judged(section(window="03:00-05:00"), look())
    assert (verdict.outcome, verdict.opens) == (Outcome.WAIT, at("2026-03-10 03:00"))
    assert "Tue 03:00" in verdict.message and "Europe/Amsterdam" in verdict.message


def test_appends_are_counted_between_two_looks() -> None:
    first, busy = judged(section(max_appends_per_minute=60), look(1_000), look(1_031, minutes=0.5))
    assert first.outcome is Outcome.WAIT and "appends known at the next look (limit 60 per minute)" in first.message
    assert busy.outcome is Outcome.WAIT and "waiting: appends 62 per minute (limit 60 per minute)" in busy.message
    assert outcomes(section(max_appends_per_minute=60), look(1_000), look(1_030, minutes=0.5)) == ["wait", "pass"]


def test_an_average_over_the_hours_before_the_window_does_not_hide_a_burst() -> None:
    limits = section(window="01:00-05:00", max_appends_per_minute=60, give_up_after="24h")
    looks = [Traffic(head, 0, at(when)) for head, when in ((0, "2026-03-10 18:00"), (20_000, "2026-03-11 01:00"))]
    assert outcomes(limits, *looks, Traffic(20_010, 0, at("2026-03-11 01:01"))) == ["wait", "wait", "pass"]


@pytest.mark.parametrize(
    ("limits", "busy", "quiet", "words"),
    [
        ({"max_active_sessions": 3}, {"active_sessions": 4}, {"active_sessions": 3}, "active sessions 4 (limit 3)"),
        (
            {"max_transaction_age": "10s"},
            {"transaction_age": 10.4},
            {"transaction_age": 10.0},
            "oldest transaction on the live tables 10 s (limit 10 s)",
        ),
        ({"max_replica_lag": "1s"}, {"replica_lag": 1.2}, {"replica_lag": 0.0}, "replica lag 1.2 s (limit 1 s)"),
    ],
)
def test_what_is_seen_is_held_against_its_limit(limits: dict[str, Any], busy: Any, quiet: Any, words: str) -> None:
    (verdict,) = judged(section(**limits), look(**busy))
    assert verdict.outcome is Outcome.WAIT and words in verdict.message
    assert outcomes(section(**limits), look(**quiet)) == ["pass"]
    # What a database cannot tell holds nothing up, but is said.
    (unknown,) = judged(section(**limits), look(**dict.fromkeys(busy)))
    assert unknown.outcome is Outcome.PASS and "not known here" in unknown.message


def test_reads_are_counted_between_two_looks_and_statistics_may_be_reset() -> None:
    limits = section(max_reads_per_minute=10)
    looks = [look(reads=100), look(reads=121, minutes=1), look(reads=5, minutes=2)]
    assert outcomes(limits, *looks) == ["wait", "wait", "pass"]
    assert outcomes(limits, look(reads=None)) == ["pass"]


def test_it_must_be_quiet_for_a_stretch_of_time() -> None:
    limits = section(max_active_sessions=3, max_appends_per_minute=60, quiet_for="2m")
    busy = look(0, minutes=2.5, active_sessions=9)
    looks = [look(), look(minutes=1), look(minutes=2), busy, look(minutes=3), look(minutes=4), look(minutes=5)]
    found = judged(limits, *looks)
    assert [each.outcome.value for each in found] == ["wait"] * 6 + ["pass"]
    assert "quiet for 0:01:00 of 0:02:00" in found[2].message
    assert "quiet for 0:01:00 of 0:02:00" in found[5].message


def test_what_is_counted_between_two_looks_says_it_of_the_time_between() -> None:
    limits = section(max_appends_per_minute=60, quiet_for="1m")
    assert outcomes(limits, look(), look(minutes=1)) == ["wait", "pass"]


@pytest.mark.parametrize(("rule", "outcome"), [("fail", "fail"), ("skip", "skip"), ("swap", "pass")])
def test_it_gives_up_by_its_rule(rule: str, outcome: str) -> None:
    limits = section(max_active_sessions=0, give_up=rule, give_up_after="1h")
    before, after = look(minutes=59, active_sessions=1), look(minutes=60, active_sessions=1)
    found = judged(limits, before, after, since=look().at)
    assert [each.outcome.value for each in found] == ["wait", outcome]
    assert "give_up_after" in found[1].message and "active sessions 1" in found[1].message


def test_it_switches_at_the_end_of_the_window_if_that_is_the_rule() -> None:
    limits = section(max_active_sessions=0, give_up="swap", window="01:00-03:00", look_every="30s")
    found = judged(limits, look(minutes=59, active_sessions=1), look(minutes=59.5, active_sessions=1))
    assert [each.outcome.value for each in found] == ["wait", "pass"]
    assert "the window ends" in found[1].message
    # Not outside of it, however long it has waited.
    late = look(minutes=90, active_sessions=0)
    assert outcomes(limits, late, since=late.at - timedelta(hours=7)) == ["fail"]


def test_without_any_limit_it_is_always_quiet() -> None:
    assert outcomes(section(quiet_for="5m"), look()) == ["pass"]
