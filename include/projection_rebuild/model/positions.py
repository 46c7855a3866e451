"""Places in the order of the events. A place is a position, or the beginning, which lies before every position.

Imports nothing. Every whole number is a position that an event may have, so none of them can stand for the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable

HIGHEST = 2**63 - 1
"""The highest position that the ledger can keep."""

LOWEST = -(2**63)
"""The lowest one."""

Place = int | None
"""A position, or None for the beginning: before the first event of any store."""

BEGINNING: Place = None


def is_before(one: Place, other: Place) -> bool:
    """Whether a place lies before another one, and not at it."""
    if other is None:
        return False
    return one is None or one < other


def just_below(position: int) -> Place:
    """The last place that lies before a position."""
    return position - 1 if position > LOWEST else BEGINNING


def earliest(places: Iterable[Place]) -> Place:
    """The place that lies before all others, or at them.

    :raises ValueError: there are no places
    """
    found = list(places)
    if not found:
        raise ValueError("no places are given")
    return None if None in found else min(each for each in found if each is not None)


def said(place: Place) -> str:
    """A place in words: ``the beginning`` or ``position 1,234``."""
    return "the beginning" if place is None else f"position {place:,}"


def share_done(first: Place, reached: Place, head: Place) -> float:
    """Which share of the way to the head is done, by positions, from 0 to 1.

    An estimate: positions may have gaps of any size.

    :param first: the lowest position of the store; None: it is empty
    """
    if head is None or first is None or not is_before(reached, head):
        return 1.0
    if reached is None or head <= first:
        return 0.0
    return min(1.0, max(0.0, (reached - first + 1) / (head - first + 1)))
