"""The claims of runs on live tables: only the run with the claim may work on a table."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from projection_rebuild.errors import ClaimRefused, FencedOut
from projection_rebuild.ledger.repository import Repository, now


class Claims(Repository):
    """The claims of runs on live tables."""

    def claim(self, tables: Iterable[str]) -> None:
        """Claims tables for the run; it keeps the claims that it has.

        :raises ClaimRefused: another run has a claim on a table; the message names run and table
        """
        for table in tables:
            try:
                self._connection.execute(
                    self._schema.claims.insert().values(table_name=table, run_id=self._run_id, claimed_at=now())
                )
            except sa.exc.IntegrityError:
                holder = self.holder(table)
                if holder not in (None, self._run_id):
                    raise ClaimRefused(
                        f"the table {table} is claimed by the run {holder}; wait until that run is over, or retry or fail it in "
                        "Airflow (this run takes over the claim of a run that is over). To give up a run that was started from "
                        "Python, call Rebuild(..., run_id=...).stand_down(reason)"
                    ) from None

    def all(self) -> dict[str, str]:
        """The ids of the runs that have claims, by table."""
        return {row.table_name: row.run_id for row in self._connection.execute(sa.select(self._schema.claims))}

    def holder(self, table: str) -> str | None:
        """The id of the run that has the claim on a table; None: no run has one."""
        claims = self._schema.claims
        run_id: str | None = self._connection.execute(
            sa.select(claims.c.run_id).where(claims.c.table_name == table)
        ).scalar_one_or_none()
        return run_id

    def assert_held(self, tables: Iterable[str]) -> None:
        """Checks that the run still has its claims, and locks them until the caller's transaction ends.

        :raises FencedOut: another run has taken over a table
        """
        claims, wanted = self._schema.claims, set(tables)
        of_run = claims.c.run_id == self._run_id
        kept = self._connection.execute(claims.update().where(claims.c.table_name.in_(wanted), of_run).values(claimed_at=now()))
        if kept.rowcount != len(wanted):
            held = set(self._connection.execute(sa.select(claims.c.table_name).where(of_run)).scalars())
            raise FencedOut(
                f"the run {self._run_id} no longer holds the table {', '.join(sorted(wanted - held))}; another run has taken it over"
            )

    def hand_over(self, heir: str) -> None:
        """Moves all claims of the run to another run.

        :param heir: the id of the other run
        """
        claims = self._schema.claims
        self._connection.execute(claims.update().where(claims.c.run_id == self._run_id).values(run_id=heir, claimed_at=now()))

    def release(self) -> None:
        """Removes the run's claims."""
        self._connection.execute(self._schema.claims.delete().where(self._schema.claims.c.run_id == self._run_id))
