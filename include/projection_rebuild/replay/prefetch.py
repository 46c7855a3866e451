"""Loads the rows that handlers will ask for, a page of events at a time, in a few statements instead of one for each row.

Handlers run once against rows that only record what they ask for. That costs about as much as handling the events. So the
prefetcher learns for which types of events a recording round, and a second one, is worth it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.trouble import Kind
from projection_rebuild.replay.foreign_reads import ForeignReads, Projects
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.recording import RecordingRows, Unknown

ROUNDS = 3
"""A handler asks for its next row only when the last one is there; what is deeper than this is loaded one by one."""


class Depths:
    """Which types of events ask for rows that are not in memory, by recording round."""

    ENOUGH = 200
    """After so many events of a type without a load, the type counts as one that causes none."""

    SAMPLE = 50
    """Of such a type one event in so many is recorded all the same."""

    def __init__(self) -> None:
        self._recorded: Counter[tuple[int, str]] = Counter()
        self._asked: Counter[tuple[int, str]] = Counter()

    def learn(self, number: int, recorded: Iterable[Event], asked: Iterable[Event]) -> None:
        """Records, per recording round, which event types caused a load.

        :param number: the round, from 0
        """
        self._recorded.update((number, event.type) for event in recorded)
        self._asked.update((number, event.type) for event in asked)

    def worth_recording(self, number: int, events: Sequence[Event]) -> Sequence[Event]:
        """Those events that may cause a load in a round."""
        silent = {
            event_type
            for event_type in {event.type for event in events}
            if not self._asked[number, event_type] and self._recorded[number, event_type] >= self.ENOUGH
        }
        if not silent:
            return events
        numbers = {event_type: count() for event_type in silent}
        return [event for event in events if event.type not in silent or next(numbers[event.type]) % self.SAMPLE == 0]


class Prefetcher:
    """Loads rows for one projector.

    :param projector: whose handlers are run
    :param reads: what they look at beside their own rows
    """

    def __init__(self, projector: Projects, reads: ForeignReads) -> None:
        self._projector = projector
        self._reads = reads
        self._depths = Depths()

    def load(self, events: Sequence[Event], buffer: RowBuffer) -> None:
        """Brings what these events will ask for into memory, as far as that shows.

        :raises sqlalchemy.exc.DBAPIError: rows could not be loaded
        """
        rows, wanted = RecordingRows(buffer), events
        for number in range(ROUNDS):
            wanted = self._depths.worth_recording(number, wanted)
            asked = [event for event in wanted if self._asks(event, rows)]
            self._depths.learn(number, wanted, asked)
            try:
                if not any([rows.load_wanted(), self._reads.load_wanted()]):
                    return
            except sa.exc.DBAPIError as error:
                trouble = trouble_of(error)
                if trouble is None or trouble.kind not in (Kind.VALUE, Kind.SQL):
                    raise
                # Something that is no key to the database; the real pass tells of which event.
                return
            wanted = asked

    def _asks(self, event: Event, rows: RecordingRows) -> bool:
        """Whether a handler has come to a row that has to be loaded."""
        rows.next_event()
        try:
            self._projector.project(event, rows)
        except Unknown:
            return True
        except Exception:
            # A recording run sees rows out of order; the real pass decides what is an error.
            return False
        return False
