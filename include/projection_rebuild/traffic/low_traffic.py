"""Decides whether now is a good moment for the cutover.

The functions are pure: :mod:`projection_rebuild.traffic.probe` measures the traffic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from projection_rebuild.model.positions import Place
from projection_rebuild.spec.fields import WEEKDAYS
from projection_rebuild.spec.windows import GiveUp, LowTrafficSection, Window, Windows


@dataclass(frozen=True)
class Traffic:
    """One measurement of what the application is doing. None: the database does not report the number.

    :param head: the newest position of the event store; None here means an empty store
    :param active_sessions: sessions that are executing something
    :param at: when it was measured, in UTC
    :param reads: how often sessions have read the live tables, counted from an arbitrary moment
    :param transaction_age: age in seconds of the oldest transaction of other sessions that has touched the live tables;
        0: none has
    :param replica_lag: seconds by which the slowest replica is behind; 0: no replica exists
    :param appended: events appended since the measurement before this one; None: this is the first one
    """

    head: Place
    active_sessions: int | None
    at: datetime
    reads: int | None = None
    transaction_age: float | None = None
    replica_lag: float | None = None
    appended: int | None = None


@dataclass(frozen=True)
class Probe:
    """One limit with its measured value.

    :param value: None: not known yet, or not known on this database
    :param unit: of value and limit
    :param quiet: whether the value keeps its limit; a number that the database does not report never delays the cutover
    """

    name: str
    value: float | None
    limit: float
    unit: str
    quiet: bool

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.value is None:
            return f"{self.name} {'not known here' if self.quiet else 'known at the next look'} (limit {self.limit:g}{unit})"
        # Not rounded down to the limit.
        value = f"{self.value:,.0f}" if self.value >= 10 or self.value == int(self.value) else f"{self.value:.1f}"
        return f"{self.name} {value}{unit} (limit {self.limit:,g}{unit})"


class Outcome(StrEnum):
    """What the low-traffic gate decides after a look."""

    WAIT = "wait"
    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class Waiting:
    """What the low-traffic gate keeps between two looks.

    :param since: when the gate began to wait, in UTC
    :param quiet_since: since when each look has found all limits kept; None: the last look has not
    :param earlier: the last look, from which the gate counts appends and reads
    """

    since: datetime
    quiet_since: datetime | None = None
    earlier: Traffic | None = None


@dataclass(frozen=True)
class Verdict:
    """The gate's decision after one look.

    :param outcome: whether the cutover may begin
    :param message: what the gate has measured, and what it waits for
    :param waiting: the state for the next look
    :param opens: when the window opens, in UTC; None: it is open, or the spec has no window
    :param closes: when the open window closes, in UTC; None: no window is open that closes
    :param probes: all limits with their values
    """

    outcome: Outcome
    message: str
    waiting: Waiting
    opens: datetime | None = None
    closes: datetime | None = None
    probes: list[Probe] = field(default_factory=list)


def judge(section: LowTrafficSection, zone: ZoneInfo, latest: Traffic, waiting: Waiting) -> Verdict:
    """Decides by a look that was taken just now, and by the spec's windows and limits."""
    opens = next_opening(section, zone, latest.at)
    if opens > latest.at:
        message = f"outside the low-traffic window; it opens at {opens.astimezone(zone):%a %H:%M} ({zone.key})"
        closed = Verdict(Outcome.WAIT, message, Waiting(waiting.since), opens=opens)
        # The cutover never begins outside the window, whatever the rule says.
        return _given_up(section, closed, "fail" if section.give_up == "swap" else section.give_up, latest.at)
    earlier = waiting.earlier
    probes = list(measured(section, latest, earlier))
    quiet = all(probe.quiet for probe in probes)
    quiet_since = (waiting.quiet_since or _seen_since(probes, latest, earlier)) if quiet else None
    closes = closing(section, zone, latest.at)
    next_waiting = replace(waiting, quiet_since=quiet_since, earlier=latest)
    verdict = Verdict(Outcome.WAIT, "; ".join(map(str, probes)), next_waiting, closes=closes, probes=probes)
    if quiet_since is not None and (not probes or latest.at - quiet_since >= section.quiet_for):
        return replace(verdict, outcome=Outcome.PASS, message=verdict.message or "inside the low-traffic window")
    if section.give_up == "swap" and closes is not None and latest.at + section.look_every >= closes:
        return replace(
            verdict, outcome=Outcome.PASS, message=f"the window ends, so the cutover begins all the same: {verdict.message}"
        )
    what = f"quiet for {_round(latest.at - quiet_since)} of {section.quiet_for}" if quiet_since else "waiting"
    return _given_up(section, replace(verdict, message=f"{what}: {verdict.message}"), section.give_up, latest.at)


def _given_up(section: LowTrafficSection, verdict: Verdict, rule: GiveUp, now: datetime) -> Verdict:
    if now - verdict.waiting.since < section.give_up_after:
        return verdict
    outcome = {"fail": Outcome.FAIL, "skip": Outcome.SKIP, "swap": Outcome.PASS}[rule]
    message = f"gave up after {section.give_up_after} (low_traffic.give_up_after); last: {verdict.message}"
    return replace(verdict, outcome=outcome, message=message)


def _round(span: timedelta) -> timedelta:
    return timedelta(seconds=round(span.total_seconds()))


def _seen_since(probes: list[Probe], latest: Traffic, earlier: Traffic | None) -> datetime:
    """Since when the traffic is quiet, by the first quiet look; a rate covers the time since the earlier look."""
    counted = all(probe.unit.endswith("per minute") for probe in probes)
    return earlier.at if probes and counted and earlier is not None else latest.at


def measured(section: LowTrafficSection, latest: Traffic, earlier: Traffic | None) -> Iterator[Probe]:
    """Every limit of the spec with its measured value; counts appends and reads from an earlier look."""
    if section.max_appends_per_minute is not None:
        rate = appends_per_minute(latest, earlier)
        yield _probe("appends", rate, section.max_appends_per_minute, "per minute", known=True)
    if section.max_reads_per_minute is not None:
        rate = _rate(latest, earlier, latest.reads, earlier.reads if earlier else None)
        known = latest.reads is not None
        yield _probe("reads of the live tables", rate, section.max_reads_per_minute, "per minute", known=known)
    if section.max_active_sessions is not None:
        yield _probe("active sessions", latest.active_sessions, section.max_active_sessions, "", known=False)
    if section.max_transaction_age is not None:
        limit = section.max_transaction_age.total_seconds()
        yield _probe("oldest transaction on the live tables", latest.transaction_age, limit, "s", known=False)
    if section.max_replica_lag is not None:
        yield _probe("replica lag", latest.replica_lag, section.max_replica_lag.total_seconds(), "s", known=False)


def _probe(name: str, value: float | None, limit: float, unit: str, *, known: bool) -> Probe:
    """One limit with its value.

    :param known: whether a missing value will be known at the next look
    """
    return Probe(name, value, limit, unit, quiet=value <= limit if value is not None else not known)


def appends_per_minute(latest: Traffic, earlier: Traffic | None) -> float | None:
    """How fast the application appended events between two looks; None: there is no earlier look."""
    return _rate(latest, earlier, latest.appended, 0)


def _rate(latest: Traffic, earlier: Traffic | None, now: int | None, before: int | None) -> float | None:
    if earlier is None or now is None or before is None or latest.at <= earlier.at:
        return None
    # After a reset the database's statistics begin at 0 again.
    return max(0, now - before) / ((latest.at - earlier.at) / timedelta(minutes=1))


def next_opening(section: Windows, zone: ZoneInfo, moment: datetime) -> datetime:
    """``moment`` itself inside a window, else the next opening of a window, in UTC.

    Windows use the local time of ``zone``. A window across midnight belongs to the day on which it opens. If the clocks
    skip an opening in spring, the window opens right after the skip. A window that the clocks skip as a whole does not
    open that night.
    """
    if section.any_time:
        return moment
    return min((max(start, moment) for start, end in _spans(section, zone, moment) if end > max(start, moment)), default=moment)


def closing(section: Windows, zone: ZoneInfo, moment: datetime) -> datetime | None:
    """When the window that is open at ``moment`` closes, in UTC; None: no window is open.

    A window that opens before that closing extends it.
    """
    closes = None
    for start, end in sorted(_spans(section, zone, moment)):
        if start <= (closes or moment) < end:
            closes = end
    return closes


def _spans(section: Windows, zone: ZoneInfo, moment: datetime) -> Iterator[tuple[datetime, datetime]]:
    today = moment.astimezone(zone).date()
    for day in (today + timedelta(days=offset) for offset in range(-1, 9)):
        for window in section.windows_on(WEEKDAYS[day.weekday()]):
            yield _span(window, day, zone)


def _span(window: Window, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    last = day if window.start < window.end else day + timedelta(days=1)
    return _moment(day, window.start, zone), _moment(last, window.end, zone)


def _moment(day: date, clock: time, zone: ZoneInfo) -> datetime:
    """When local clocks show a time, in UTC; if they skip that time, the moment of the skip."""
    wall = datetime.combine(day, clock)
    # A time that occurs twice in autumn: the earlier one. A time that the clocks skip in spring: the loop steps to the
    # skip.
    moment = min(wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    while moment.astimezone(zone).replace(tzinfo=None) < wall:
        moment += timedelta(minutes=1)
    return moment
