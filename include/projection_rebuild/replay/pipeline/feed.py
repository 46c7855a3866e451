"""Reads the pages of one projector's events for a replay."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.eventstore.store import EventFilter, EventStore
from projection_rebuild.model.positions import Place
from projection_rebuild.replay.scope import ReplayScope

PAGE_EVENTS = 2_000
"""The most events to decode at once: few enough that their memory does not matter."""


class EventFeed:
    """The events of one projector.

    :param scope: selects the events to read
    :param applied_above: positions above the checkpoint whose events green already holds
    """

    def __init__(self, store: EventStore, projector: type[Projector], scope: ReplayScope, applied_above: frozenset[int]) -> None:
        self._store = store
        self._projector = projector
        self._scope = scope
        self._applied_above = applied_above

    def pages(self, after: Place, upto: Place, most: int) -> Generator[tuple[list[Event], Place], None, None]:
        """Pages of events that green does not hold, each with the place that it reaches; see :meth:`EventStore.pages`.

        :param most: the most events in a page
        """
        for begin, end, only in self._scope.ranges(after, upto):
            yield from self._read(begin, end, only, most)

    def _read(self, after: Place, upto: Place, only: EventFilter, most: int) -> Generator[tuple[list[Event], Place], None, None]:
        pages = self._store.pages(
            after,
            upto,
            self._projector.stored_types(),
            size=min(most, PAGE_EVENTS),
            metadata=self._projector.needs_metadata,
            only=only,
            shard=self._scope.shard,
            seen=self._scope.seen,
        )
        held = self._applied_above
        with closing(pages):
            for events, reached in pages:
                yield [event for event in events if event.position not in held] if held else events, reached
