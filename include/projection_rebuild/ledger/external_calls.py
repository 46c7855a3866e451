"""The calls of external programs: a call is open from before it begins until the engine knows that it has ended."""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.ledger.repository import Repository, now
from projection_rebuild.model.positions import Place


class ExternalCalls(Repository):
    """The open call of each projector."""

    def begin(self, projector: str, after: Place, upto: int) -> None:
        """Records a call before it begins, in place of an earlier call that did not end.

        :param after: the range of the call begins after this place
        :param upto: the last position of the range
        """
        self.end(projector)
        self._connection.execute(
            self._schema.calls.insert().values(
                run_id=self._run_id, projector=projector, after_position=after, upto_position=upto, began_at=now()
            )
        )

    def is_open(self, projector: str | None = None) -> bool:
        """Whether a call of the projector, or of any projector of the run, is open."""
        calls = self._schema.calls
        if not self._has(calls):
            return False
        query = sa.select(sa.func.count()).select_from(calls).where(calls.c.run_id == self._run_id)
        if projector is not None:
            query = query.where(calls.c.projector == projector)
        return bool(self._connection.execute(query).scalar_one())

    def end(self, projector: str) -> None:
        """Removes the open call: it has ended, or the engine has cloned its tables again."""
        calls = self._schema.calls
        self._connection.execute(calls.delete().where(calls.c.run_id == self._run_id, calls.c.projector == projector))
