"""The signals to a run, and its waiting workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from projection_rebuild.ledger.repository import Repository, as_json, as_moment, from_json, now


@dataclass(frozen=True)
class Note:
    """A signal to a run, by an operator (swap now, a decision), or by a waiting step (its last check).

    :param by: the operator; empty: a step
    """

    name: str
    value: dict[str, Any]
    by: str
    at: datetime


@dataclass(frozen=True)
class Wait:
    """A waiting worker of a run: an operator has paused it, or it relieves the database.

    :param worker: a projector, or one of its shards
    :param why: the reason
    :param looked_at: the worker's last check of whether it may continue
    """

    worker: str
    why: str
    since: datetime
    looked_at: datetime


class Signals(Repository):
    """Signals from operators and steps to the steps of a run, and the waits of its workers."""

    def send(self, name: str, value: Mapping[str, Any], *, by: str = "") -> None:
        """Stores a signal to the run, in place of an earlier one of this name."""
        notes = self._schema.notes
        self._make(notes)
        columns = {"value": as_json(dict(value)), "said_by": by[:190], "said_at": now()}
        same = (notes.c.run_id == self._run_id) & (notes.c.name == name)
        if not self._connection.execute(notes.update().where(same).values(columns)).rowcount:
            self._connection.execute(notes.insert().values(run_id=self._run_id, name=name, **columns))

    def all(self) -> dict[str, Note]:
        """The signals to the run, by name."""
        notes = self._schema.notes
        if not self._has(notes):
            return {}
        rows = self._connection.execute(sa.select(notes).where(notes.c.run_id == self._run_id))
        return {row.name: Note(row.name, from_json(row.value), row.said_by, as_moment(row.said_at)) for row in rows}

    def clear(self, name: str) -> None:
        """Removes the signal of a name."""
        notes = self._schema.notes
        if self._has(notes):
            self._connection.execute(notes.delete().where(notes.c.run_id == self._run_id, notes.c.name == name))

    def wait(self, worker: str, why: str) -> None:
        """Records that a worker waits, or still waits."""
        waits = self._schema.waits
        same = (waits.c.run_id == self._run_id) & (waits.c.worker == worker)
        if not self._connection.execute(waits.update().where(same).values(why=why[:1000], looked_at=now())).rowcount:
            self._connection.execute(
                waits.insert().values(run_id=self._run_id, worker=worker, why=why[:1000], since=now(), looked_at=now())
            )

    def clear_wait(self, worker: str) -> None:
        """Records that a worker has stopped waiting."""
        waits = self._schema.waits
        self._connection.execute(waits.delete().where(waits.c.run_id == self._run_id, waits.c.worker == worker))

    def waits(self) -> list[Wait]:
        """The workers of the run that wait now, in the order of their names."""
        waits = self._schema.waits
        if not self._has(waits):
            return []
        query = sa.select(waits).where(waits.c.run_id == self._run_id).order_by(waits.c.worker)
        return [
            Wait(row.worker, row.why, as_moment(row.since), as_moment(row.looked_at)) for row in self._connection.execute(query)
        ]
