"""Connects the stages of one projector's replay, and tracks the events that are folded but not yet committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from projection_rebuild.authoring.events import Event
from projection_rebuild.errors import Interrupted, PoisonEvent, RowError
from projection_rebuild.ledger import Checkpoint, DeadLetter
from projection_rebuild.model.positions import Place, is_before, said
from projection_rebuild.replay.memory import collect
from projection_rebuild.replay.pipeline.budget import Budget
from projection_rebuild.replay.pipeline.error_policy import ErrorPolicy
from projection_rebuild.replay.pipeline.feed import EventFeed
from projection_rebuild.replay.pipeline.fold import Fold
from projection_rebuild.replay.pipeline.writer import Batch, BatchWriter
from projection_rebuild.replay.row_tables import WriteError


@dataclass
class Pipeline:
    """Feed, fold, error policy and writer of one projector.

    :param projector: its name
    :param began_empty: green was empty before the first event, and only this worker fills it
    :ivar reached: the place up to which events are folded
    :ivar pending: the number of folded events that are not committed
    :ivar since: when the first of those was read, by the monotonic clock
    """

    projector: str
    feed: EventFeed
    fold: Fold
    writer: BatchWriter
    errors: ErrorPolicy
    budget: Budget
    began_empty: bool
    reached: Place = field(init=False)
    pending: int = field(init=False)
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.rewind()

    def rewind(self) -> None:
        """Returns to the checkpoint, and forgets the uncommitted events."""
        position = self.writer.checkpoint.position
        self.fold.begin(complete=position is None and self.began_empty)
        self.errors.begin()
        self._go_on_at(position)

    def _go_on_at(self, position: Place) -> None:
        self.reached, self.pending, self.since = position, 0, time.monotonic()

    def pages_to(self, place: Place) -> Generator[tuple[list[Event], Place], None, None]:
        """Pages of the projector's events after the folded ones: see :meth:`EventFeed.pages`."""
        self.fold.renew_reads()
        yield from self.feed.pages(self.reached, place, self.budget.events)

    def is_enough(self) -> bool:
        """Whether a commit is due before the pipeline folds more events."""
        return self.budget.is_enough(self.pending, self.fold.rows)

    def commit(self, head: Place, committed_in: Callable[[float], None]) -> None:
        """Writes the folded events, if the place or the head has moved since the last commit.

        :param committed_in: called with the seconds that each commit took
        :raises FencedOut: another worker has moved the checkpoint
        """
        checkpoint = self.writer.checkpoint
        if (self.reached, head) == (checkpoint.position, checkpoint.head):
            return

        def write(events: int, reached: Place) -> None:
            misses = self.fold.scope.check(self.fold.rows)
            letters, changes = self.errors.dead_letters(reached), self.fold.changes()
            batch = Batch(events, reached, head, self.since, changes, letters, misses)
            moved, seconds = self.writer.write(self.projector, batch)
            committed_in(seconds)
            self.committed(moved)

        self.errors.write(self.pending, self.reached, write)
        if is_before(self.reached, head):
            collect()

    def advance(self, events: int, reached: Place, head: Place, seconds: float) -> Checkpoint:
        """Moves the checkpoint in the caller's transaction: see :meth:`BatchWriter.advance`."""
        return self.writer.advance(events, reached, head, seconds, self.errors.dead_letters(reached))

    def committed(self, moved: Checkpoint) -> None:
        """Takes note that the transaction with the moved checkpoint and the rows is committed."""
        self.writer.checkpoint = moved
        self.errors.committed(moved.position)
        self._go_on_at(moved.position)
        self.fold.committed(moved.position)

    def retry(self, letter: DeadLetter, event: Event) -> bool:
        """Projects the event of a dead letter, and removes the dead letter from the ledger, in one transaction.

        :returns: whether the event was projected; if not, nothing has changed
        """
        try:
            self.fold.apply([event])
            moved = self.writer.write_retried(letter, self.fold.changes)
        except (PoisonEvent, WriteError, RowError):
            self.errors.forget()
            return False
        self.errors.retried(letter)
        self.committed(moved)
        return True

    def interrupted(self) -> Interrupted:
        """The error that a worker raises when it has to stop, once the folded events are committed."""
        return Interrupted(f"{self.projector} was stopped at {said(self.writer.checkpoint.position)}; a retry goes on there")
