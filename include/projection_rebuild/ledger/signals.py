"""What is said about a run while it goes on, and which of its workers wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from projection_rebuild.ledger.repository import Repository, as_json, as_moment, from_json, now


@dataclass(frozen=True)
class Note:
    """What was said about a run while it went on: by a person (swap now, a decision) or by a step that waits (its last look).

    :param by: the person; empty: a step
    """

    name: str
    value: dict[str, Any]
    by: str
    at: datetime


@dataclass(frozen=True)
class Wait:
    """A worker of a run that rests or waits: by the wish of a person, or for the sake of the database.

    :param worker: a projector, or one of its shards
    :param looked_at: when it last looked whether it may go on
    """

    worker: str
    why: str
    since: datetime
    looked_at: datetime


class Signals(Repository):
    """Notes from people and steps to the steps of a run, and from its workers to people."""

    def send(self, name: str, value: Mapping[str, Any], *, by: str = "") -> None:
        """Notes something about a run, in place of what was said before under this name."""
        notes = self._schema.notes
        self._make(notes)
        columns = {"value": as_json(dict(value)), "said_by": by[:190], "said_at": now()}
        same = (notes.c.run_id == self._run_id) & (notes.c.name == name)
        if not self._connection.execute(notes.update().where(same).values(columns)).rowcount:
            self._connection.execute(notes.insert().values(run_id=self._run_id, name=name, **columns))

    def all(self) -> dict[str, Note]:
        """What was said about a run, by name."""
        notes = self._schema.notes
        if not self._has(notes):
            return {}
        rows = self._connection.execute(sa.select(notes).where(notes.c.run_id == self._run_id))
        return {row.name: Note(row.name, from_json(row.value), row.said_by, as_moment(row.said_at)) for row in rows}

    def clear(self, name: str) -> None:
        """Takes back what was said about a run under a name."""
        notes = self._schema.notes
        if self._has(notes):
            self._connection.execute(notes.delete().where(notes.c.run_id == self._run_id, notes.c.name == name))

    def wait(self, worker: str, why: str) -> None:
        """Records that a worker rests or waits, or goes on doing so."""
        waits = self._schema.waits
        same = (waits.c.run_id == self._run_id) & (waits.c.worker == worker)
        if not self._connection.execute(waits.update().where(same).values(why=why[:1000], looked_at=now())).rowcount:
            self._connection.execute(
                waits.insert().values(run_id=self._run_id, worker=worker, why=why[:1000], since=now(), looked_at=now())
            )

    def clear_wait(self, worker: str) -> None:
        """Records that a worker rests no more."""
        waits = self._schema.waits
        self._connection.execute(waits.delete().where(waits.c.run_id == self._run_id, waits.c.worker == worker))

    def waits(self) -> list[Wait]:
        """The workers of a run that rest or wait now, by name."""
        waits = self._schema.waits
        if not self._has(waits):
            return []
        query = sa.select(waits).where(waits.c.run_id == self._run_id).order_by(waits.c.worker)
        return [
            Wait(row.worker, row.why, as_moment(row.since), as_moment(row.looked_at)) for row in self._connection.execute(query)
        ]
