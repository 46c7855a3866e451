"""What of a projector one worker replays: everything, a selection of rows, or a shard of the events."""

from __future__ import annotations

from collections.abc import Iterable

from projection_rebuild.authoring.partition import Shard
from projection_rebuild.eventstore.store import ALL_EVENTS, EventFilter
from projection_rebuild.ledger import Asked
from projection_rebuild.model.positions import Place
from projection_rebuild.replay.foreign_reads import Projects
from projection_rebuild.rows.buffer import MissLog, RowBuffer


class ReplayScope:
    """Everything: all events, all rows. Its subclasses are a part of the rows, and a shard of the events."""

    shard: Shard | None = None
    """The shard whose events are read; None: those of all."""

    seen: set[str] | None = None
    """Where the event store notes the partitions of the events that it has read; None: nowhere."""

    misses: MissLog | None = None
    """Where the rows note what handlers asked for in vain; None: nowhere."""

    hint: str = ""
    """What may be behind a handler that fails over a row, as a sentence."""

    makes_indexes: bool = True
    """Whether this worker may build indexes of green while it replays; others may be writing the same tables."""

    def ranges(self, after: Place, upto: Place) -> Iterable[tuple[Place, Place, EventFilter]]:
        """The ranges to read above one place and up to another, each with which of its events are read."""
        return [(after, upto, ALL_EVENTS)]

    def of(self, projector: Projects) -> Projects:
        """A projector as it works within the scope."""
        return projector

    def begin(self) -> None:
        """What was read is committed, or forgotten."""

    def undo(self) -> None:
        """What was asked for is taken back; what was read is folded again."""

    def partitions(self) -> frozenset[str]:
        """The partitions of the events that were read since the last commit."""
        return frozenset()

    def restore(self, partitions: frozenset[str]) -> None:
        """Their events are folded again from memory, and not read."""

    def check(self, rows: RowBuffer) -> list[Asked]:
        """Makes sure that only rows within the scope have been reached.

        :returns: what was asked for in vain, and may be another worker's all the same
        :raises ShardError: a row belongs to somebody else
        """
        return []
