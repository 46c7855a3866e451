"""What one worker replays of a projector: everything, a part of the rows, or a shard of the events."""

from __future__ import annotations

from collections.abc import Iterable

from projection_rebuild.authoring.partition import Shard
from projection_rebuild.eventstore.store import ALL_EVENTS, EventFilter
from projection_rebuild.ledger import Asked
from projection_rebuild.model.positions import Place
from projection_rebuild.replay.foreign_reads import Projects
from projection_rebuild.rows.buffer import MissLog, RowBuffer


class ReplayScope:
    """Everything: all events and all rows. Subclasses limit it to a part of the rows, or to a shard of the events."""

    shard: Shard | None = None
    """The shard whose events are read; None: all events."""

    seen: set[str] | None = None
    """Where the event store records the partitions of the events that it reads; None: nowhere."""

    misses: MissLog | None = None
    """Where the row buffer records the rows that handlers did not find; None: nowhere."""

    hint: str = ""
    """A possible cause when a handler fails over a row, as a sentence."""

    makes_indexes: bool = True
    """Whether this worker may build green's indexes during the replay; no, if others write the same tables."""

    def ranges(self, after: Place, upto: Place) -> Iterable[tuple[Place, Place, EventFilter]]:
        """The ranges to read above one place and up to another, each with a filter on its events."""
        return [(after, upto, ALL_EVENTS)]

    def of(self, projector: Projects) -> Projects:
        """Wraps a projector, so that it works within the scope."""
        return projector

    def begin(self) -> None:
        """Forgets the recorded reads and misses: their events have been committed, or are read again."""

    def undo(self) -> None:
        """Forgets the recorded misses: the events are folded again, without being read again."""

    def partitions(self) -> frozenset[str]:
        """The partitions of the events that were read since the last commit."""
        return frozenset()

    def restore(self, partitions: frozenset[str]) -> None:
        """Records partitions again, before their events are folded again from memory."""

    def check(self, rows: RowBuffer) -> list[Asked]:
        """Makes sure that handlers have touched only rows within the scope.

        :returns: the rows that handlers did not find, and that another worker may have created
        :raises ShardError: a row belongs to another shard
        """
        return []
