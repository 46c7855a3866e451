"""How far the replays of a run have come. A checkpoint is also what keeps a worker that was replaced from writing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

import sqlalchemy as sa

from projection_rebuild.errors import FencedOut
from projection_rebuild.ledger.repository import Repository, now
from projection_rebuild.model.positions import BEGINNING, Place, is_before, said

SHARD = "#"
"""Between a projector's name and a shard's number; no class has it in its name."""


@dataclass(frozen=True)
class Checkpoint:
    """How far one projector's replay has come in one run.

    :param position: green holds every event of the projector up to here; None: the replay is at the beginning
    :param head: the settled position that the replay is heading for; None: the store was empty, or the replay has not looked
    :param events: events handled so far
    :param token: made anew with each clone; a worker of an earlier clone is fenced out by it
    """

    projector: str
    position: Place
    head: Place
    events: int
    seconds: float
    token: str

    @property
    def is_behind(self) -> bool:
        """Whether the replay has not come to its head."""
        return is_before(self.position, self.head)


class Checkpoints(Repository):
    """The checkpoints by run and worker: a projector, or one of its shards."""

    def begin(self, start: Mapping[str, tuple[Place, int]]) -> None:
        """Puts every projector's checkpoint to its start, with a new token.

        :param start: place, and events up to it, by projector
        """
        self.remove()
        for projector, (position, events) in start.items():
            self.add(projector, position=position, head=position, events=events)

    def add(self, worker: str, *, position: Place, head: Place, events: int) -> None:
        """Adds the checkpoint of a worker that has none."""
        self._connection.execute(
            self._schema.checkpoints.insert().values(
                run_id=self._run_id,
                projector=worker,
                position=position,
                head=head,
                events=events,
                seconds=0.0,
                token=uuid4().hex,
                updated_at=now(),
            )
        )

    def of_projectors(self) -> dict[str, Checkpoint]:
        """A run's checkpoints by projector, those of shards left out."""
        return {name: each for name, each in self.of_workers().items() if SHARD not in name}

    def of_workers(self) -> dict[str, Checkpoint]:
        """A run's checkpoints by worker: a projector, or one of its shards."""
        table = self._schema.checkpoints
        rows = self._connection.execute(sa.select(table).where(table.c.run_id == self._run_id).order_by(table.c.projector))
        return {
            row.projector: Checkpoint(row.projector, row.position, row.head, row.events, row.seconds, row.token) for row in rows
        }

    def run_ids(self) -> set[str]:
        """The runs that have checkpoints."""
        return {*self._connection.execute(sa.select(self._schema.checkpoints.c.run_id).distinct()).scalars()}

    def advance(
        self,
        read: Checkpoint,
        *,
        position: Place,
        head: Place,
        events: int,
        seconds: float,
    ) -> Checkpoint:
        """Moves a checkpoint on from what this worker read, as the first write of a batch's transaction.

        The row lock makes a second worker wait; it then finds another position and is fenced out with nothing written. An event that
        was set aside and is projected after all moves no position, but the count of the events.

        :raises FencedOut: the checkpoint is not where this worker read it
        """
        table = self._schema.checkpoints
        moved = self._connection.execute(
            table.update()
            .where(
                table.c.run_id == self._run_id,
                table.c.projector == read.projector,
                # Of the beginning this makes IS NULL.
                table.c.position == read.position,
                table.c.events == read.events,
                table.c.token == read.token,
            )
            .values(position=position, head=head, events=read.events + events, seconds=read.seconds + seconds, updated_at=now())
        )
        if moved.rowcount != 1:
            raise FencedOut(
                f"the checkpoint of {read.projector} is no longer at {said(read.position)} after {read.events} events: another worker "
                "replays it, or its tables were cloned anew; this worker stops and has written nothing since"
            )
        return Checkpoint(read.projector, position, head, read.events + events, read.seconds + seconds, read.token)

    def add_elapsed(self, moved: Checkpoint, seconds: float) -> Checkpoint:
        """Adds to a checkpoint that was moved in this transaction how long that has taken, where it is known only after it."""
        table = self._schema.checkpoints
        own = (table.c.run_id == self._run_id) & (table.c.projector == moved.projector)
        self._connection.execute(table.update().where(own).values(seconds=moved.seconds + seconds))
        return replace(moved, seconds=moved.seconds + seconds)

    def reset(self, projector: str) -> None:
        """Puts one projector's checkpoint to the beginning."""
        table = self._schema.checkpoints
        own = (table.c.run_id == self._run_id) & (table.c.projector == projector)
        fresh = {"position": BEGINNING, "head": BEGINNING, "events": 0, "seconds": 0.0, "token": uuid4().hex}
        self._connection.execute(table.update().where(own).values(**fresh))

    def rewind(self, place: Place) -> None:
        """Puts checkpoints that are beyond a place back to it; the events that were handled above stay counted."""
        table = self._schema.checkpoints
        beyond = table.c.position.is_not(None) if place is None else table.c.position > place
        self._connection.execute(table.update().where(table.c.run_id == self._run_id, beyond).values(position=place, head=place))

    def fence(self, projector: str | None = None) -> None:
        """Gives a run's checkpoints, or one of them, a new token: whoever read them before cannot write any more."""
        table = self._schema.checkpoints
        statement = table.update().where(table.c.run_id == self._run_id)
        if projector is not None:
            statement = statement.where(table.c.projector == projector)
        self._connection.execute(statement.values(token=uuid4().hex))

    def hand_over(self, heir: str) -> None:
        """Another run goes on where this one stopped; this one's workers cannot write any more."""
        self.of(heir).remove()
        table, letters, calls = self._schema.checkpoints, self._schema.dead_letters, self._schema.calls
        self._connection.execute(table.update().where(table.c.run_id == self._run_id).values(run_id=heir, token=uuid4().hex))
        self._connection.execute(letters.update().where(letters.c.run_id == self._run_id).values(run_id=heir))
        self._connection.execute(calls.update().where(calls.c.run_id == self._run_id).values(run_id=heir))

    def remove(self) -> None:
        """Removes a run's checkpoints, so that none of its workers can write any more, and what belongs to them."""
        schema = self._schema
        for table in (schema.checkpoints, schema.dead_letters, schema.calls, schema.asked):
            self._connection.execute(table.delete().where(table.c.run_id == self._run_id))
