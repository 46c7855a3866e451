"""Which run works on which live table; no other one may begin with it meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from projection_rebuild.errors import ClaimRefused, FencedOut
from projection_rebuild.ledger.repository import Repository, now


class Claims(Repository):
    """The claims of runs on live tables."""

    def claim(self, tables: Iterable[str]) -> None:
        """Claims tables for a run; what it holds already stays its own.

        :raises ClaimRefused: another run holds one; names run and table
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
                        "Airflow (the claim of a run that is over is taken over). One that was started from Python, and that nobody goes on with, is "
                        "given up by Rebuild(..., run_id=...).stand_down(reason)"
                    ) from None

    def all(self) -> dict[str, str]:
        """The runs that hold tables, by table."""
        return {row.table_name: row.run_id for row in self._connection.execute(sa.select(self._schema.claims))}

    def holder(self, table: str) -> str | None:
        """The run that holds a table."""
        claims = self._schema.claims
        run_id: str | None = self._connection.execute(
            sa.select(claims.c.run_id).where(claims.c.table_name == table)
        ).scalar_one_or_none()
        return run_id

    def assert_held(self, tables: Iterable[str]) -> None:
        """Makes sure that a run still holds its tables, and keeps it so until the caller's transaction ends.

        :raises FencedOut: another run has taken one over
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
        """Gives all claims of a run to another."""
        claims = self._schema.claims
        self._connection.execute(claims.update().where(claims.c.run_id == self._run_id).values(run_id=heir, claimed_at=now()))

    def release(self) -> None:
        """Gives up a run's claims."""
        self._connection.execute(self._schema.claims.delete().where(self._schema.claims.c.run_id == self._run_id))
