"""Whether now is a good moment for the switch. Pure: looks are taken elsewhere, judged here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from include.projection_rebuild.spec import WEEKDAYS, LowTrafficSection, Window


@dataclass(frozen=True)
class Traffic:
    """One look at what the application is doing.

    :param head: the newest position of the event store
    :param active_sessions: sessions that are executing something; None where nobody counts them
    :param at: when it was taken, in UTC
    """

    head: int
    active_sessions: int | None
    at: datetime

    def as_json(self) -> dict[str, Any]:
        """As plain values, to be kept while nobody runs."""
        return asdict(self) | {"at": self.at.isoformat()}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Traffic:
        """The look that :meth:`as_json` kept."""
        return cls(kept["head"], kept["active_sessions"], datetime.fromisoformat(kept["at"]))


@dataclass(frozen=True)
class Verdict:
    """What a look says.

    :param quiet: the switch may go
    :param message: what was seen, and what is waited for
    :param look_again: when the next look is worth taking, in UTC
    """

    quiet: bool
    message: str
    look_again: datetime


def judge(section: LowTrafficSection, zone: ZoneInfo, latest: Traffic, earlier: Traffic | None) -> Verdict:
    """Judges a look against the spec's limits.

    :param latest: the look, taken just now
    :param earlier: the one before it, from which appends per minute are counted; None: this is the first
    """
    if earlier is not None and next_opening(section, zone, earlier.at) > earlier.at:
        # It slept until the window opened: an average over those hours says nothing about now.
        earlier = None
    opens = next_opening(section, zone, latest.at)
    if opens > latest.at:
        message = f"outside the low-traffic window; it opens at {opens.astimezone(zone):%a %H:%M} ({zone.key})"
        return Verdict(False, message, opens)
    again = latest.at + section.look_every
    found = [_appends(section, latest, earlier), _sessions(section, latest)]
    seen = "; ".join(message for _, message in found if message)
    if all(quiet for quiet, _ in found):
        return Verdict(True, seen or "inside the low-traffic window", again)
    return Verdict(False, f"waiting: {seen}", again)


def _appends(section: LowTrafficSection, latest: Traffic, earlier: Traffic | None) -> tuple[bool, str]:
    limit = section.max_appends_per_minute
    if limit is None:
        return True, ""
    if earlier is None or latest.at <= earlier.at:
        return False, "a second look is needed to count appends"
    rate = (latest.head - earlier.head) / ((latest.at - earlier.at) / timedelta(minutes=1))
    return rate <= limit, f"{rate:.0f} appends per minute (limit {limit})"


def _sessions(section: LowTrafficSection, latest: Traffic) -> tuple[bool, str]:
    limit = section.max_active_sessions
    if limit is None or latest.active_sessions is None:
        return True, ""
    return latest.active_sessions <= limit, f"{latest.active_sessions} active sessions (limit {limit})"


def next_opening(section: LowTrafficSection, zone: ZoneInfo, moment: datetime) -> datetime:
    """``moment`` itself inside the window, else when it opens next, in UTC. By the clock on the wall of ``zone``.

    A window across midnight belongs to the day on which it opens. An opening that the clocks jump over in spring happens
    right after the jump; a window that they jump over as a whole does not open that night.
    """
    window = section.window
    if window is None:
        return moment
    local = moment.astimezone(zone)
    days = [local.date() + timedelta(days=offset) for offset in range(-1, 9)]
    spans = [_span(window, day, zone) for day in days if WEEKDAYS[day.weekday()] in section.days]
    return next((max(start, moment) for start, end in spans if end > max(start, moment)), moment)


def _span(window: Window, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    last = day if window.start < window.end else day + timedelta(days=1)
    return _moment(day, window.start, zone), _moment(last, window.end, zone)


def _moment(day: date, clock: time, zone: ZoneInfo) -> datetime:
    """When the clock on the wall shows a time, in UTC; where it jumps over that time, the moment of the jump."""
    wall = datetime.combine(day, clock)
    # The earlier reading of a time that comes twice in autumn; one that is jumped over in spring is reached by the jump.
    moment = min(wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    while moment.astimezone(zone).replace(tzinfo=None) < wall:
        moment += timedelta(minutes=1)
    return moment
