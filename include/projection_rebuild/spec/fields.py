"""The types of values in a spec: durations, moments, clock times, whole numbers and others."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from projection_rebuild.model.limits import FIRST_YEAR, LAST_YEAR, LONGEST, LONGEST_HOLD, MOST_SHARDS, shown

_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}


_DURATION = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(ms|s|m|h|d)")


def parse_duration(value: object) -> timedelta:
    """``500ms``, ``2s``, ``15m``, ``6h`` or ``3d`` as a timedelta.

    :raises ValueError: it is no duration, is negative, or longer than :data:`projection_rebuild.model.limits.LONGEST`
    """
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        seconds = Decimal(match[1]) * _SECONDS[match[2]]
        if seconds <= Decimal(LONGEST.total_seconds()):
            return timedelta(microseconds=int(seconds * 1_000_000))
    elif not isinstance(value, timedelta):
        raise ValueError("write a duration with its unit, such as 500ms, 2s, 15m, 6h or 3d")
    elif timedelta(0) <= value <= LONGEST:
        return value
    raise ValueError(f"durations are between 0s and {LONGEST.days}d")


def _duration_text(value: timedelta) -> str:
    """A duration as text with all its digits, so that :func:`parse_duration` returns the same duration."""
    seconds, rest = divmod(value // timedelta(microseconds=1), 1_000_000)
    return f"{seconds}.{rest:06}s" if rest else f"{seconds}s"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(_duration_text, when_used="json")]


def _held(value: timedelta) -> timedelta:
    """Refuses zero, with which no attempt can succeed, and durations whose milliseconds do not fit into 32 bits."""
    if not timedelta(milliseconds=1) <= value <= LONGEST_HOLD:
        raise ValueError(
            f"write a duration between 1ms and {LONGEST_HOLD.seconds // 3600}h: other sessions may have to wait for this long"
        )
    return value


HoldDuration = Annotated[Duration, AfterValidator(_held)]


def parse_moment(value: object) -> datetime:
    """ISO 8601 as a datetime, such as ``2026-01-31`` or ``2026-01-31T22:00:00+01:00``.

    :raises ValueError: it is no moment, or outside the years of :mod:`projection_rebuild.model.limits`
    """
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value.strip() if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("write a date or a time as ISO 8601, such as 2026-01-31 or 2026-01-31T22:00:00+01:00") from None
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"dates are in the years {FIRST_YEAR} to {LAST_YEAR}; for no bound, leave it out")
    return moment


def _whole(value: object) -> object:
    """Refuses true, "3" and 3.0, which pydantic would accept as whole numbers."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("write a whole number, such as 3, without quotes")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("write a number, such as 2.5, without quotes")
    return value


def _truth(value: object) -> object:
    if not isinstance(value, bool):
        raise ValueError("write true or false, without quotes")
    return value


_CLOCK = re.compile(r"[0-9]{2}:[0-9]{2}(?::[0-9]{2})?")


def _clock(value: object) -> object:
    if isinstance(value, time) and value.tzinfo is None:
        return value
    if not isinstance(value, str) or not _CLOCK.fullmatch(value):
        raise ValueError('write a time of the day as "01:00"')
    return value


Moment = Annotated[datetime, BeforeValidator(parse_moment)]


Whole = Annotated[int, BeforeValidator(_whole)]


Flag = Annotated[bool, BeforeValidator(_truth)]


ClockTime = Annotated[time, BeforeValidator(_clock)]


ShardCount = Annotated[Whole, Field(ge=1, le=MOST_SHARDS)]


Percent = Annotated[float, BeforeValidator(_number), Field(ge=0, le=100, allow_inf_nan=False)]


Weekday = Literal["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]


WEEKDAYS: tuple[Weekday, ...] = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


class Section(BaseModel):
    """A section of a spec: it refuses unknown keys, and is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"'{shown(value)}' is no time zone; for example Europe/Amsterdam")
    return value


ZoneName = Annotated[str, AfterValidator(_known_zone)]
