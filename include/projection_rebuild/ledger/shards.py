"""The shards of projectors: their checkpoints, and the rows that their handlers did not find.

Their checkpoints are in the same table as those of projectors, so that fencing a run's workers also fences out theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from projection_rebuild.ledger.checkpoints import SHARD, Checkpoint, Checkpoints
from projection_rebuild.ledger.repository import Repository, as_json, from_json
from projection_rebuild.model.positions import BEGINNING, Place


@dataclass(frozen=True)
class Asked:
    """A key or lookup for which a shard has found no row. When all shards are done, no other shard may have added one.

    :param column: the column of the lookup; None: ``values`` is a key
    """

    shard: int
    table: str
    column: str | None
    values: tuple[Any, ...]


class Shards(Repository):
    """The shards of a run by projector."""

    @property
    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self._dialect, self._schema, self._connection, self._run_id)

    def begin(self, counts: Mapping[str, int], head: Place) -> None:
        """Adds a checkpoint at the beginning for each shard.

        :param counts: the number of shards by projector
        :param head: the position at which the replay joins the shards
        """
        for worker in [f"{projector}{SHARD}{number}" for projector, count in counts.items() for number in range(count)]:
            self._checkpoints.add(worker, position=BEGINNING, head=head, events=0)

    def checkpoints(self, projector: str) -> dict[int, Checkpoint]:
        """The checkpoints of a projector's shards by number; empty if it has no shards, or after the join."""
        workers = self._checkpoints.of_workers().items()
        numbered = {
            int(name.partition(SHARD)[2]): checkpoint for name, checkpoint in workers if name.startswith(f"{projector}{SHARD}")
        }
        return dict(sorted(numbered.items()))

    def join(self, projector: str) -> None:
        """Removes the shards of a projector after the replay has joined them."""
        names = [checkpoint.projector for checkpoint in self.checkpoints(projector).values()]
        table, asked = self._schema.checkpoints, self._schema.asked
        self._connection.execute(table.delete().where(table.c.run_id == self._run_id, table.c.projector.in_(names)))
        self._connection.execute(asked.delete().where(asked.c.run_id == self._run_id, asked.c.projector == projector))

    def add_asked(self, projector: str, asked: Sequence[Asked]) -> None:
        """Records keys and lookups for which a shard has found no row."""
        rows = [
            {
                "run_id": self._run_id,
                "projector": projector,
                "shard": miss.shard,
                "table_name": miss.table,
                "column_name": miss.column,
                "asked": as_json(list(miss.values)),
            }
            for miss in asked
        ]
        if rows:
            self._connection.execute(self._schema.asked.insert(), rows)

    def asked(self, projector: str) -> list[Asked]:
        """The keys and lookups for which the shards of a projector have found no row."""
        table = self._schema.asked
        query = sa.select(table).where(table.c.run_id == self._run_id, table.c.projector == projector).order_by(table.c.id)
        return [
            Asked(row.shard, row.table_name, row.column_name, tuple(from_json(row.asked)))
            for row in self._connection.execute(query)
        ]
