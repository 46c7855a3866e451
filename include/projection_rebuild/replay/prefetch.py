"""Loads the rows that handlers will read: for a page of events in a few statements, not with one statement per row.

Handlers run once against rows that only record which rows they read. This recording run costs about as much as handling
the events. So the prefetcher learns for which event types a first and a second recording round are worth it.
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
"""How many rows deep the prefetcher follows a handler, which reads its next row only after the last one.

The buffer loads deeper rows one by one."""


class Depths:
    """Learns, by recording round, which event types need rows that are not in memory."""

    ENOUGH = 200
    """After this many events of a type without a load, the type counts as one that causes no loads."""

    SAMPLE = 50
    """One in this many events of these types is recorded all the same, in case the type changes its behaviour."""

    def __init__(self) -> None:
        self._recorded: Counter[tuple[int, str]] = Counter()
        self._loading: Counter[tuple[int, str]] = Counter()

    def learn(self, number: int, recorded: Iterable[Event], loading: Iterable[Event]) -> None:
        """Records, per recording round, which event types caused a load.

        :param number: the round, from 0
        :param recorded: the events of the round
        :param loading: those of them that caused a load
        """
        self._recorded.update((number, event.type) for event in recorded)
        self._loading.update((number, event.type) for event in loading)

    def worth_recording(self, number: int, events: Sequence[Event]) -> Sequence[Event]:
        """Selects the events that may cause a load in a round.

        :param number: the round, from 0
        """
        silent = {
            event_type
            for event_type in {event.type for event in events}
            if not self._loading[number, event_type] and self._recorded[number, event_type] >= self.ENOUGH
        }
        if not silent:
            return events
        numbers = {event_type: count() for event_type in silent}
        return [event for event in events if event.type not in silent or next(numbers[event.type]) % self.SAMPLE == 0]


class Prefetcher:
    """Loads rows for one projector.

    :param projector: its handlers are run
    :param reads: the rows of other projectors that they read
    """

    def __init__(self, projector: Projects, reads: ForeignReads) -> None:
        self._projector = projector
        self._reads = reads
        self._depths = Depths()

    def load(self, events: Sequence[Event], buffer: RowBuffer) -> None:
        """Loads the rows that handlers of these events will read, as far as recording runs show them.

        :param buffer: the projector's own rows
        :raises sqlalchemy.exc.DBAPIError: rows could not be loaded
        """
        rows, candidates = RecordingRows(buffer), events
        for number in range(ROUNDS):
            candidates = self._depths.worth_recording(number, candidates)
            loading = [event for event in candidates if self._asks(event, rows)]
            self._depths.learn(number, candidates, loading)
            try:
                if not any([rows.load_wanted(), self._reads.load_wanted()]):
                    return
            except sa.exc.DBAPIError as error:
                trouble = trouble_of(error)
                if trouble is None or trouble.kind not in (Kind.VALUE, Kind.SQL):
                    raise
                # A handler uses a value that the database does not accept as a key; the real run names the event.
                return
            candidates = loading

    def _asks(self, event: Event, rows: RecordingRows) -> bool:
        """Whether the handler of an event needs a row that is not in memory."""
        rows.next_event()
        try:
            self._projector.project(event, rows)
        except Unknown:
            return True
        except Exception:
            # A recording run sees rows out of order; the real run decides what is an error.
            return False
        return False
