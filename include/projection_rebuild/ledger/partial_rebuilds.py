"""The progress of partial rebuilds, and the keys of their parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import uuid4

import sqlalchemy as sa

from projection_rebuild.errors import FencedOut
from projection_rebuild.ledger.checkpoints import Checkpoint
from projection_rebuild.ledger.repository import Repository, now


@dataclass(frozen=True)
class PartialState:
    """The progress of a partial rebuild for one projector.

    :param part_id: the id of the part's keys; a worker that begins the part again uses a new one
    :param token: the token of the checkpoint for which the part began
    :param settled: the run has copied all rows outside the part as of this position, and replays the part up to it;
        None: the copy is not complete
    """

    part_id: str
    token: str
    settled: int | None


class PartialRebuilds(Repository):
    """The parts of a run by projector."""

    @property
    def key_table(self) -> str:
        """The name of the table with the keys of parts: ``part_id``, ``part_key``."""
        return self._schema.part_keys.name

    def find(self, projector: str) -> PartialState | None:
        """The progress of a projector's part; None: it has not begun."""
        row = self._connection.execute(sa.select(self._schema.parts).where(*self._of(projector))).one_or_none()
        return None if row is None else PartialState(row.part_id, row.token, row.settled)

    def begin(self, read: Checkpoint) -> str:
        """Begins a projector's part (again), in the caller's transaction, and fences out an earlier worker.

        :param read: the projector's checkpoint as this worker has read it
        :returns: the id of the part
        :raises FencedOut: another worker replays the part already
        """
        parts, keys = self._schema.parts, self._schema.part_keys
        before = self.find(read.projector)
        if before is not None:
            not_settled = (parts.c.settled.is_(None)) | (parts.c.token != read.token)
            removed = self._connection.execute(parts.delete().where(*self._of(read.projector), not_settled))
            if removed.rowcount != 1:
                raise FencedOut(f"another worker is replaying the part of {read.projector}; this one has written nothing")
            self._connection.execute(keys.delete().where(keys.c.part_id == before.part_id))
        part_id = uuid4().hex
        self._connection.execute(
            parts.insert().values(
                run_id=self._run_id, projector=read.projector, part_id=part_id, token=read.token, settled=None, updated_at=now()
            )
        )
        return part_id

    def hold(self, projector: str, part_id: str, settled: int | None = None) -> None:
        """Checks that a part is still this worker's, locks it until the caller's transaction ends, and records progress.

        :param settled: see :class:`PartialState`
        :raises FencedOut: another worker has begun the part again, or a worker has cloned its tables again
        """
        parts = self._schema.parts
        own = (*self._of(projector), parts.c.part_id == part_id, parts.c.settled.is_(None))
        if self._connection.execute(parts.update().where(*own).values(settled=settled, updated_at=now())).rowcount != 1:
            raise FencedOut(
                f"another worker has begun the part of {projector} again, or its tables were cloned anew; this one stops and has "
                "written nothing since"
            )

    def add_keys(self, part_id: str, keys: Iterable[str]) -> None:
        """Adds keys that the part does not have yet."""
        rows = [{"part_id": part_id, "part_key": key} for key in keys]
        if rows:
            self._connection.execute(self._schema.part_keys.insert(), rows)

    def keys(self, part_id: str) -> set[str]:
        """All keys of a part."""
        keys = self._schema.part_keys
        return set(self._connection.execute(sa.select(keys.c.part_key).where(keys.c.part_id == part_id)).scalars())

    def forget(self) -> None:
        """Removes the parts of this run, so that its workers cannot write them any more, and of runs without claims."""
        parts, keys = self._schema.parts, self._schema.part_keys
        claimed = sa.select(self._schema.claims.c.run_id)
        obsolete = (parts.c.run_id == self._run_id) | parts.c.run_id.not_in(claimed)
        ids = list(self._connection.execute(sa.select(parts.c.part_id).where(obsolete)).scalars())
        self._connection.execute(keys.delete().where(keys.c.part_id.in_(ids)))
        self._connection.execute(parts.delete().where(parts.c.part_id.in_(ids)))

    def _of(self, projector: str) -> tuple[sa.ColumnElement[bool], ...]:
        return self._schema.parts.c.run_id == self._run_id, self._schema.parts.c.projector == projector
