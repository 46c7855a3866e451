"""Writes the checkpoint of a replay and the rows that belong to it, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from projection_rebuild.ledger import Asked, Checkpoint, DeadLetter
from projection_rebuild.model.positions import Place
from projection_rebuild.replay.row_tables import GreenTables
from projection_rebuild.rows.types import Changes
from projection_rebuild.run.context import Context


@dataclass(frozen=True)
class Batch:
    """The contents of one transaction.

    :param events: the number of folded events, including dead letters
    :param reached: the place up to which they go
    :param head: the place to which the replay goes
    :param since: when the first of them was read, by the monotonic clock
    :param changes: the changed rows
    :param dead_letters: the events that could not be projected
    :param asked: the rows that a shard did not find
    """

    events: int
    reached: Place
    head: Place
    since: float
    changes: Sequence[Changes]
    dead_letters: Sequence[DeadLetter]
    asked: Sequence[Asked]


class BatchWriter:
    """One projector's checkpoint and green tables.

    :param connection: writes both
    :ivar checkpoint: as this worker has last moved it
    """

    def __init__(self, context: Context, checkpoint: Checkpoint, connection: sa.Connection, tables: GreenTables) -> None:
        self.checkpoint = checkpoint
        self._dialect = context.dialect
        self._ledger = context.ledger
        self._run_id = context.run_id
        self._connection = connection
        self._tables = tables

    def write(self, projector: str, batch: Batch) -> tuple[Checkpoint, float]:
        """Writes a batch in a transaction of its own.

        :returns: the moved checkpoint, and the seconds that the commit took
        :raises FencedOut: another worker has moved the checkpoint; nothing is written
        :raises WriteError: the database refuses rows; nothing is written
        """
        with self._dialect.transaction(self._connection):
            seconds = time.monotonic() - batch.since
            moved = self.advance(batch.events, batch.reached, batch.head, seconds, batch.dead_letters)
            self._ledger.over(self._connection, self._run_id).shards.add_asked(projector, batch.asked)
            self._write_rows(batch.changes)
            written = time.monotonic()
        return moved, time.monotonic() - written

    def write_retried(self, letter: DeadLetter, changes: Callable[[], Sequence[Changes]]) -> Checkpoint:
        """Writes the changes of an event that was a dead letter until now, in a transaction of its own.

        :param changes: returns the rows that the event has changed
        :returns: the checkpoint, which counts the event
        :raises FencedOut: see :meth:`write`
        :raises WriteError: see :meth:`write`
        """
        with self._dialect.transaction(self._connection):
            moved = self.advance(1, self.checkpoint.position, self.checkpoint.head, 0.0, [])
            self._ledger.over(self._connection, self._run_id).dead_letters.remove(letter)
            self._write_rows(changes())
        return moved

    def advance(self, events: int, reached: Place, head: Place, seconds: float, dead_letters: Sequence[DeadLetter]) -> Checkpoint:
        """Moves the checkpoint, in the caller's transaction and before any row is written.

        :param events: the number of folded events, including dead letters
        :raises FencedOut: another worker has moved the checkpoint
        """
        moved = self._ledger.over(self._connection, self._run_id).checkpoints.advance(
            self.checkpoint, position=reached, head=head, events=events - len(dead_letters), seconds=seconds
        )
        self._ledger.over(self._connection, self._run_id).dead_letters.add(dead_letters)
        return moved

    def _write_rows(self, changes: Sequence[Changes]) -> None:
        self.delete(changes)
        self.put(changes)
        self.check()

    def delete(self, changes: Sequence[Changes]) -> None:
        """Deletes rows in the caller's transaction: see :meth:`GreenTables.delete`."""
        self._tables.delete(changes)

    def put(self, changes: Sequence[Changes]) -> None:
        """Updates and inserts rows in the caller's transaction: see :meth:`GreenTables.put`."""
        self._tables.put(changes)

    def check(self) -> None:
        """Runs deferred checks at the end of the caller's transaction: see :meth:`GreenTables.check`."""
        self._tables.check()
