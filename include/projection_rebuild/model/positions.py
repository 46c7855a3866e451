"""Places in the order of the events. A place is a position, or the beginning, which lies before every position.

An event may have any whole number as its position, so no number can stand for the beginning. Imports nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

HIGHEST = 2**63 - 1
"""The highest position that the ledger can store."""

LOWEST = -(2**63)
"""The lowest position that the ledger can store."""

Place = int | None
"""A position, or None for the beginning: before the first event of any store."""

BEGINNING: Place = None


def is_before(one: Place, other: Place) -> bool:
    """Whether a place lies strictly before another one."""
    if other is None:
        return False
    return one is None or one < other


def just_below(position: int) -> Place:
    """The last place that lies before a position."""
    return position - 1 if position > LOWEST else BEGINNING


def earliest(places: Iterable[Place]) -> Place:
    """The earliest of several places.

    :raises ValueError: the caller gives no places
    """
    all_places = list(places)
    if not all_places:
        raise ValueError("no places are given")
    return None if None in all_places else min(place for place in all_places if place is not None)


def said(place: Place) -> str:
    """A place in words: ``the beginning`` or ``position 1,234``."""
    return "the beginning" if place is None else f"position {place:,}"


def share_done(first: Place, reached: Place, head: Place) -> float:
    """The share of the replay up to the head that is done, by positions, from 0 to 1.

    It is an estimate, since positions may have gaps of any size.

    :param first: the lowest position of the store; None: it is empty
    """
    if head is None or first is None or not is_before(reached, head):
        return 1.0
    if reached is None or head <= first:
        return 0.0
    return min(1.0, max(0.0, (reached - first + 1) / (head - first + 1)))
