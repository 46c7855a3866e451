"""The events of the benchmark: the example application's own, those that the four measured projections handle."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from include.universal.events import generate
from include.universal.projectors import (
    CategorySummaryProjector,
    ExpenseProjector,
    MonthlySummaryProjector,
    SubscriptionProjector,
)
from projection_rebuild.authoring.projector import Projector

PROJECTORS: tuple[type[Projector], ...] = (
    SubscriptionProjector,
    ExpenseProjector,
    CategorySummaryProjector,
    MonthlySummaryProjector,
)
"""The four that are rebuilt."""

HANDLED = frozenset(each for projector in PROJECTORS for each in projector.event_types())
COLUMNS = (
    "id",
    "aggregate_uuid",
    "aggregate_version",
    "event_version",
    "event_class",
    "event_properties",
    "meta_data",
    "created_at",
)


class StoredEvent(NamedTuple):
    """A row of ``stored_events``, in the order of :data:`COLUMNS`."""

    id: int
    aggregate_uuid: str
    aggregate_version: int
    event_version: int
    event_class: str
    event_properties: str
    meta_data: str
    created_at: str


def events(size: int) -> Iterator[StoredEvent]:
    """Events without end; the same for the same size.

    Each is handled by at least one of the four projectors, so that none is skipped cheaply.

    :param size: about how many will be taken; a fiftieth as many aggregates are alive at a time, so that an aggregate's
        events lie far apart, and a fortieth as many users own them
    """
    versions: defaultdict[str, int] = defaultdict(int)
    position = 0
    for event in generate(sys.maxsize, users=max(50, size // 40), at_once=max(20, size // 50)):
        if event.type not in HANDLED:
            continue
        position += 1
        versions[event.stream] += 1
        payload = orjson.dumps(event.payload | {"context": _context(position)}).decode()
        yield StoredEvent(position, event.stream, versions[event.stream], 1, event.type, payload, "{}", event.recorded_at)


def _context(position: int) -> dict[str, str]:
    """What real payloads carry besides: nobody reads it, and everybody has to get past it."""
    return {"request": f"{position * 0x9E3779B97F4A7C15 % 2**64:016x}", "channel": "ios", "agent": "Universal/5.3.1 (iOS 17.2)"}
