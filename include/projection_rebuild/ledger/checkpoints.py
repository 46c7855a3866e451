"""The checkpoints of a run's replays. A checkpoint also fences out a worker that another worker has replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

import sqlalchemy as sa

from projection_rebuild.errors import FencedOut
from projection_rebuild.ledger.repository import Repository, now
from projection_rebuild.model.positions import BEGINNING, Place, is_before, said

SHARD = "#"
"""The separator between a projector's name and a shard's number; no class name contains it."""


@dataclass(frozen=True)
class Checkpoint:
    """The progress of one projector's replay in one run.

    :param position: green holds every event of the projector up to here; None: the replay is at the beginning
    :param head: the high-water mark up to which the replay goes; None: the store was empty, or the replay has not read
        it
    :param events: the number of events handled so far
    :param seconds: the time of the replay so far
    :param token: new with each clone; it fences out the workers of an earlier clone
    """

    projector: str
    position: Place
    head: Place
    events: int
    seconds: float
    token: str

    @property
    def is_behind(self) -> bool:
        """Whether the replay has not reached its head."""
        return is_before(self.position, self.head)


class Checkpoints(Repository):
    """The checkpoints of a run by worker: a projector, or one of its shards."""

    def begin(self, start: Mapping[str, tuple[Place, int]]) -> None:
        """Sets the checkpoint of each projector to its start, with a new token.

        :param start: by projector, a place and the number of events up to it
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
        """The run's checkpoints by projector, without those of shards."""
        return {name: checkpoint for name, checkpoint in self.of_workers().items() if SHARD not in name}

    def of_workers(self) -> dict[str, Checkpoint]:
        """The run's checkpoints by worker: a projector, or one of its shards."""
        table = self._schema.checkpoints
        rows = self._connection.execute(sa.select(table).where(table.c.run_id == self._run_id).order_by(table.c.projector))
        return {
            row.projector: Checkpoint(row.projector, row.position, row.head, row.events, row.seconds, row.token) for row in rows
        }

    def run_ids(self) -> set[str]:
        """The ids of all runs that have checkpoints."""
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
        """Advances a checkpoint, as the first write of a batch's transaction.

        The row lock makes a second worker wait. Its own update then matches no row, so that it is fenced out before it
        has written. When a replay projects a dead letter later, only the number of events changes, not the position.

        :param read: the checkpoint as this worker has read it
        :param events: the number of events of the batch
        :param seconds: the time of the batch
        :returns: the new checkpoint
        :raises FencedOut: another worker has changed the checkpoint since this worker has read it
        """
        table = self._schema.checkpoints
        moved = self._connection.execute(
            table.update()
            .where(
                table.c.run_id == self._run_id,
                table.c.projector == read.projector,
                # For the beginning SQLAlchemy renders IS NULL.
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
        """Adds time to a checkpoint that this transaction has advanced, if the time is only known afterwards."""
        table = self._schema.checkpoints
        own = (table.c.run_id == self._run_id) & (table.c.projector == moved.projector)
        self._connection.execute(table.update().where(own).values(seconds=moved.seconds + seconds))
        return replace(moved, seconds=moved.seconds + seconds)

    def reset(self, projector: str) -> None:
        """Sets one projector's checkpoint to the beginning, with a new token."""
        table = self._schema.checkpoints
        own = (table.c.run_id == self._run_id) & (table.c.projector == projector)
        fresh = {"position": BEGINNING, "head": BEGINNING, "events": 0, "seconds": 0.0, "token": uuid4().hex}
        self._connection.execute(table.update().where(own).values(**fresh))

    def rewind(self, place: Place) -> None:
        """Sets checkpoints beyond a place back to it; they still count the events above it."""
        table = self._schema.checkpoints
        beyond = table.c.position.is_not(None) if place is None else table.c.position > place
        self._connection.execute(table.update().where(table.c.run_id == self._run_id, beyond).values(position=place, head=place))

    def fence(self, projector: str | None = None) -> None:
        """Gives the run's checkpoints, or one projector's, a new token, which fences out the workers that have read them."""
        table = self._schema.checkpoints
        statement = table.update().where(table.c.run_id == self._run_id)
        if projector is not None:
            statement = statement.where(table.c.projector == projector)
        self._connection.execute(statement.values(token=uuid4().hex))

    def hand_over(self, heir: str) -> None:
        """Moves the run's checkpoints, dead letters and open calls to another run, and fences out this run's workers.

        :param heir: the id of the other run, which continues the replays
        """
        self.of(heir).remove()
        table, letters, calls = self._schema.checkpoints, self._schema.dead_letters, self._schema.calls
        self._connection.execute(table.update().where(table.c.run_id == self._run_id).values(run_id=heir, token=uuid4().hex))
        self._connection.execute(letters.update().where(letters.c.run_id == self._run_id).values(run_id=heir))
        self._connection.execute(calls.update().where(calls.c.run_id == self._run_id).values(run_id=heir))

    def remove(self) -> None:
        """Removes the run's checkpoints and their dependent rows, so that its workers cannot write any more."""
        schema = self._schema
        for table in (schema.checkpoints, schema.dead_letters, schema.calls, schema.asked):
            self._connection.execute(table.delete().where(table.c.run_id == self._run_id))
