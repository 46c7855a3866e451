"""The dead letters of runs: events that projectors could not project, and that replays have set aside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from projection_rebuild.ledger.repository import Repository, now


@dataclass(frozen=True)
class DeadLetter:
    """An event that a projector could not project, and that its replay has set aside.

    :param error: the class of the error; never its text, which may quote the payload
    """

    projector: str
    position: int
    event_type: str
    error: str


class DeadLetters(Repository):
    """The dead letters of runs."""

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Records dead letters, in the transaction that advances the checkpoint past them."""
        rows = [
            {
                "run_id": self._run_id,
                "projector": letter.projector,
                "position": letter.position,
                "event_type": letter.event_type,
                "error": letter.error[:190],
                "recorded_at": now(),
            }
            for letter in letters
        ]
        if rows:
            self._connection.execute(self._schema.dead_letters.insert(), rows)

    def of_run(self, projector: str | None = None) -> list[DeadLetter]:
        """The dead letters of the run, or of one projector, in the order of their positions."""
        letters = self._schema.dead_letters
        query = sa.select(letters).where(letters.c.run_id == self._run_id).order_by(letters.c.position, letters.c.projector)
        if projector is not None:
            query = query.where(letters.c.projector == projector)
        return [DeadLetter(row.projector, row.position, row.event_type, row.error) for row in self._connection.execute(query)]

    def known_of_run(self) -> list[DeadLetter]:
        """Like :meth:`of_run`, for callers that only read: a ledger of an earlier version may lack the table."""
        return self.of_run() if self._has(self._schema.dead_letters) else []

    def remove(self, letter: DeadLetter) -> None:
        """Removes a dead letter after a replay has projected its event."""
        letters = self._schema.dead_letters
        self._connection.execute(
            letters.delete().where(
                letters.c.run_id == self._run_id, letters.c.projector == letter.projector, letters.c.position == letter.position
            )
        )
