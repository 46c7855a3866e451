"""Whose rows a shard may touch: those of the partitions whose events it has read, and no others.

Looked at before anything is committed. What cannot be told before all shards are done is left for the ledger.
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
"""What may be behind a handler that fails over a row."""

MOST_ASKED = 10_000
"""Rows that a transaction may have asked for in vain, without its being known at once whose they would be."""


class Ownership(ReplayScope):
    """A shard, and what it has read and asked for since its last commit.

    :param label: how the shard is called
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
        # As the event store's database writes them.
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
        asked = [*self._missed(rows), *self._looked_up(rows)]
        if len(asked) > MOST_ASKED:
            raise ShardError(
                f"{self._label} asks for more than {MOST_ASKED:,} rows that are not there, and of which the key does not say whose they "
                "would be; replay it without shards, or make the partition a part of the key"
            )
        return asked

    def _covers(self, rows: RowBuffer, kind: RowType, values: Iterable[Any]) -> bool:
        """Whether all of these are partitions of the events that were read."""
        found = set(map(str, values))
        if self.seen.issuperset(found):
            return True
        # As the rows' column writes them: the same UUID, say, in small letters.
        attribute = self._partition.attribute(kind)
        return {str(each) for each in rows.held(kind, attribute, self.seen)}.issuperset(found - self.seen)

    def _missed(self, rows: RowBuffer) -> Iterator[Asked]:
        for row_class, key in self.misses.missed:
            kind = row_type(row_class)
            if rows.holds(row_class, key) or self._tells(rows, kind, kind.key_attributes, key):
                continue
            yield Asked(self.shard.number, kind.table, None, key)

    def _looked_up(self, rows: RowBuffer) -> Iterator[Asked]:
        for row_class, name, value in self.misses.looked_up:
            kind = row_type(row_class)
            if not self._tells(rows, kind, (name,), (value,)):
                yield Asked(self.shard.number, kind.table, name, (value,))

    def _tells(self, rows: RowBuffer, kind: RowType, names: Iterable[str], values: Key) -> bool:
        """Whether a key says where it belongs.

        :raises ShardError: it does, and elsewhere
        """
        given = dict(zip(names, values, strict=True))
        attribute = self._partition.attribute(kind)
        if attribute in given and not self._covers(rows, kind, [given[attribute]]):
            raise self._stray(kind)
        return attribute in given

    def _stray(self, kind: RowType) -> ShardError:
        by = self._partition.field or "the stream"
        return ShardError(
            f"{self._label}: an event reaches a row of {kind.table} that belongs to another partition (by {by}, which the row has as "
            f"{self._partition.attribute(kind)}). Nothing of it was written; correct `partition_by`, or replay it without shards"
        )
