"""Loads the rows that handlers will ask for, a page of events at a time, in a few statements instead of one for each row.

Handlers are run for nothing but to see what they ask for. That costs about as much as handling the events, so it is learned for
which types of events a look, and a second one, is worth it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.trouble import Kind
from projection_rebuild.replay.foreign_reads import Projects, Reading
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.recording import ProbeRows, Unknown

LOOKS = 3
"""A handler shows its next row only when the last one is there; what is deeper than this is loaded one by one."""


class Depths:
    """Which types of events ask for something that is not there: at first, and once they have what they asked for."""

    ENOUGH = 200
    """Events of a type after which it is known not to, as long as none did."""

    SAMPLE = 50
    """Of such a type one event in so many is looked at all the same."""

    def __init__(self) -> None:
        self._looked: Counter[tuple[int, str]] = Counter()
        self._asked: Counter[tuple[int, str]] = Counter()

    def learn(self, look: int, looked: Iterable[Event], asked: Iterable[Event]) -> None:
        """Told which events were looked at, for the how-manieth time, and which of them asked for something."""
        self._looked.update((look, event.type) for event in looked)
        self._asked.update((look, event.type) for event in asked)

    def worth_a_look(self, look: int, events: Sequence[Event]) -> Sequence[Event]:
        """Those of them that may ask for something."""
        silent = {
            event_type
            for event_type in {event.type for event in events}
            if not self._asked[look, event_type] and self._looked[look, event_type] >= self.ENOUGH
        }
        if not silent:
            return events
        numbers = {event_type: count() for event_type in silent}
        return [event for event in events if event.type not in silent or next(numbers[event.type]) % self.SAMPLE == 0]


class LoadAhead:
    """For one projector.

    :param projector: whose handlers are run
    :param reading: what they look at beside their own rows
    """

    def __init__(self, projector: Projects, reading: Reading) -> None:
        self._projector = projector
        self._reading = reading
        self._depths = Depths()

    def load(self, events: Sequence[Event], buffer: RowBuffer) -> None:
        """Brings what these events will ask for into memory, as far as that shows.

        :raises sqlalchemy.exc.DBAPIError: rows could not be loaded
        """
        probe, wanted = ProbeRows(buffer), events
        for look in range(LOOKS):
            wanted = self._depths.worth_a_look(look, wanted)
            asked = [event for event in wanted if self._asks(event, probe)]
            self._depths.learn(look, wanted, asked)
            try:
                if not any([probe.load_wanted(), self._reading.load_wanted()]):
                    return
            except sa.exc.DBAPIError as error:
                trouble = trouble_of(error)
                if trouble is None or trouble.kind not in (Kind.VALUE, Kind.SQL):
                    raise
                # Something that is no key to the database; the real pass tells of which event.
                return
            wanted = asked

    def _asks(self, event: Event, probe: ProbeRows) -> bool:
        """Whether a handler has come to a row that has to be loaded."""
        probe.next_event()
        try:
            self._projector.project(event, probe)
        except Unknown:
            return True
        except Exception:
            # A probe sees rows out of order; the real pass decides what is an error.
            return False
        return False
