"""The shards of projectors: their checkpoints, and what they have asked for and not found.

Their checkpoints stand beside those of projectors, so that whatever fences a run's workers fences theirs.
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
    """What a shard has asked for and not found; no other shard may have made it when all are done.

    :param column: by which rows were looked up; None: ``values`` is a key
    """

    shard: int
    table: str
    column: str | None
    values: tuple[Any, ...]


class Shards(Repository):
    """The shards by run and projector."""

    @property
    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self._dialect, self._schema, self._connection, self._run_id)

    def begin(self, counts: Mapping[str, int], head: Place) -> None:
        """Gives each shard a checkpoint at the beginning, and the position at which they are joined."""
        for worker in [f"{projector}{SHARD}{number}" for projector, count in counts.items() for number in range(count)]:
            self._checkpoints.add(worker, position=BEGINNING, head=head, events=0)

    def checkpoints(self, projector: str) -> dict[int, Checkpoint]:
        """The checkpoints of a projector's shards by number; none when they are joined, or if it has none."""
        workers = self._checkpoints.of_workers().items()
        numbered = {int(name.partition(SHARD)[2]): each for name, each in workers if name.startswith(f"{projector}{SHARD}")}
        return dict(sorted(numbered.items()))

    def join(self, projector: str) -> None:
        """The shards of a projector are joined."""
        names = [each.projector for each in self.checkpoints(projector).values()]
        table, asked = self._schema.checkpoints, self._schema.asked
        self._connection.execute(table.delete().where(table.c.run_id == self._run_id, table.c.projector.in_(names)))
        self._connection.execute(asked.delete().where(asked.c.run_id == self._run_id, asked.c.projector == projector))

    def add_asked(self, projector: str, asked: Sequence[Asked]) -> None:
        """Records what a shard has asked for and not found."""
        rows = [
            {
                "run_id": self._run_id,
                "projector": projector,
                "shard": each.shard,
                "table_name": each.table,
                "column_name": each.column,
                "asked": as_json(list(each.values)),
            }
            for each in asked
        ]
        if rows:
            self._connection.execute(self._schema.asked.insert(), rows)

    def asked(self, projector: str) -> list[Asked]:
        """What the shards of a projector have asked for and not found."""
        table = self._schema.asked
        query = sa.select(table).where(table.c.run_id == self._run_id, table.c.projector == projector).order_by(table.c.id)
        return [
            Asked(row.shard, row.table_name, row.column_name, tuple(from_json(row.asked)))
            for row in self._connection.execute(query)
        ]
