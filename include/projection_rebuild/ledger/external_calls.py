"""Calls of projectors that are programs: one is open from before it begins until its end is known."""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.ledger.repository import Repository, now
from projection_rebuild.model.positions import Place


class ExternalCalls(Repository):
    """The open call of each projector."""

    def begin(self, projector: str, after: Place, upto: int) -> None:
        """Notes that a program is about to be called; one that was cut short before is forgotten."""
        self.end(projector)
        self._connection.execute(
            self._schema.calls.insert().values(
                run_id=self._run_id, projector=projector, after_position=after, upto_position=upto, began_at=now()
            )
        )

    def is_open(self, projector: str | None = None) -> bool:
        """Whether a call of the program, or of any of the run, has no end that is known."""
        calls = self._schema.calls
        if not self._has(calls):
            return False
        query = sa.select(sa.func.count()).select_from(calls).where(calls.c.run_id == self._run_id)
        if projector is not None:
            query = query.where(calls.c.projector == projector)
        return bool(self._connection.execute(query).scalar_one())

    def end(self, projector: str) -> None:
        """The call has come to its end, or its tables have been made anew."""
        calls = self._schema.calls
        self._connection.execute(calls.delete().where(calls.c.run_id == self._run_id, calls.c.projector == projector))
