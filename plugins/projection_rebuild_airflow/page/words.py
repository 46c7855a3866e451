"""Formats numbers, sizes, durations and moments for people. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo


def count(number: float) -> str:
    """A whole number with separators, such as ``12,345``."""
    return f"{number:,.0f}"


def size(number: float) -> str:
    """A number of bytes, such as ``12.3 MiB``."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    power = 0
    while number >= 1024 and power < len(units) - 1:
        number, power = number / 1024, power + 1
    return f"{number:.{1 if power else 0}f} {units[power]}"


def span(length: timedelta) -> str:
    """A duration in its two largest units, such as ``3 d 4 h``, ``12 s`` or ``40 ms``."""
    seconds = length.total_seconds()
    if seconds < 0:
        return span(-length)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    parts = []
    left = round(seconds)
    for unit, unit_seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, unit_seconds)
        if amount:
            parts.append(f"{amount} {unit}")
    return " ".join(parts[:2])


def moment(at: datetime, zone: ZoneInfo) -> str:
    """A moment in a time zone, such as ``Wed 25 Nov 16:05:30``."""
    return f"{at.astimezone(zone):%a %-d %b %H:%M:%S}"


def away(at: datetime, now: datetime) -> str:
    """A moment relative to ``now``: ``in 3 d 4 h``, ``5 min ago`` or ``now``."""
    if abs(at - now) < timedelta(seconds=1):
        return "now"
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"
