"""Checks that a shard touches only rows of the partitions whose events it has read.

The check comes before each commit. Some rows can be checked only when all shards are done; the ledger records them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from projection_rebuild.authoring.partition import Partition, Shard
from projection_rebuild.errors import ShardError
from projection_rebuild.ledger import Asked
from projection_rebuild.replay.scope import ReplayScope
from projection_rebuild.rows.buffer import MissLog, RowBuffer
from projection_rebuild.rows.types import Key, RowType, row_type

OF_ANOTHER_SHARD = "In a shard a row that is missing may be another shard's: then replay it without shards, or correct `partition_by` or the `stream` of its rows."
"""A possible cause when a handler fails over a row, as a sentence."""

MOST_ASKED = 10_000
"""The most missing rows per transaction whose keys do not show their partition."""


class Ownership(ReplayScope):
    """A shard, with the partitions that it has read and the rows that it has missed since its last commit.

    :param label: the shard's name in messages
    """

    hint = OF_ANOTHER_SHARD
    # Several shards write one table.
    makes_indexes = False

    shard: Shard
    seen: set[str]
    misses: MissLog

    def __init__(self, label: str, shard: Shard, partition: Partition) -> None:
        self.shard = shard
        self.misses = MissLog()
        # In the spelling of the event store's database.
        self.seen = set()
        self._label = label
        self._partition = partition

    def begin(self) -> None:
        self.misses.clear()
        self.seen.clear()

    def undo(self) -> None:
        self.misses.clear()

    def partitions(self) -> frozenset[str]:
        return frozenset(self.seen)

    def restore(self, partitions: frozenset[str]) -> None:
        self.seen.update(partitions)

    def check(self, rows: RowBuffer) -> list[Asked]:
        for kind, values in rows.touched_values(self._partition.attribute):
            if not self._covers(rows, kind, values):
                raise self._stray(kind)
        misses = [*self._missed(rows), *self._looked_up(rows)]
        if len(misses) > MOST_ASKED:
            raise ShardError(
                f"{self._label} asks for more than {MOST_ASKED:,} rows that do not exist, and whose keys do not show their partition; "
                "replay it without shards, or make the partition a part of the key"
            )
        return misses

    def _covers(self, rows: RowBuffer, kind: RowType, values: Iterable[Any]) -> bool:
        """Whether all of these partitions belong to events that were read."""
        partitions = set(map(str, values))
        if self.seen.issuperset(partitions):
            return True
        # The rows' column may spell them differently: a UUID in lower case, for example.
        attribute = self._partition.attribute(kind)
        return {str(value) for value in rows.held(kind, attribute, self.seen)}.issuperset(partitions - self.seen)

    def _missed(self, rows: RowBuffer) -> Iterator[Asked]:
        """The missing rows whose keys do not show their partition."""
        for row_class, key in self.misses.missed:
            kind = row_type(row_class)
            if rows.holds(row_class, key) or self._tells(rows, kind, kind.key_attributes, key):
                continue
            yield Asked(self.shard.number, kind.table, None, key)

    def _looked_up(self, rows: RowBuffer) -> Iterator[Asked]:
        """The lookups by columns that do not show the partition."""
        for row_class, name, value in self.misses.looked_up:
            kind = row_type(row_class)
            if not self._tells(rows, kind, (name,), (value,)):
                yield Asked(self.shard.number, kind.table, name, (value,))

    def _tells(self, rows: RowBuffer, kind: RowType, names: Iterable[str], values: Key) -> bool:
        """Whether a key shows its partition.

        :raises ShardError: the partition belongs to another shard
        """
        by_name = dict(zip(names, values, strict=True))
        attribute = self._partition.attribute(kind)
        if attribute in by_name and not self._covers(rows, kind, [by_name[attribute]]):
            raise self._stray(kind)
        return attribute in by_name

    def _stray(self, kind: RowType) -> ShardError:
        by = self._partition.field or "the stream"
        return ShardError(
            f"{self._label}: an event reaches a row of {kind.table} that belongs to another partition (by {by}, which the row has as "
            f"{self._partition.attribute(kind)}). Nothing of it was written; correct `partition_by`, or replay it without shards"
        )
