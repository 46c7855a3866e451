"""The engine's tables beside the live ones: green tables of runs, and old tables of swaps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from projection_rebuild.errors import FencedOut
from projection_rebuild.ledger.repository import Repository, as_moment, as_text


@dataclass(frozen=True)
class Retired:
    """An old table. Its identity ensures that a drop removes this table and no other of the same name.

    :param table: the live name
    :param old: the present name
    :param run_id: the run whose swap has retired it
    :param identity: the database's identity of the table; None: the database does not tell
    :param drop_after: the engine may drop the table from this time on
    """

    table: str
    old: str
    run_id: str
    identity: str | None
    retired_at: datetime
    drop_after: datetime


class OwnedTables(Repository):
    """The green and old tables by name."""

    def add_green(self, green: str) -> None:
        """Records a green table of the run, before the run creates it."""
        greens = self._schema.greens
        self._connection.execute(greens.delete().where(greens.c.green_name == green))
        self._connection.execute(greens.insert().values(green_name=green, run_id=self._run_id))

    def run_of_green(self, green: str) -> str | None:
        """The id of the run that has created or taken back a green table; None: no run has.

        The next run may drop the table of an earlier run, but no other.
        """
        greens = self._schema.greens
        run_id: str | None = self._connection.execute(
            sa.select(greens.c.run_id).where(greens.c.green_name == green)
        ).scalar_one_or_none()
        return run_id

    def greens(self) -> dict[str, str]:
        """The run ids of all green tables that have not gone live, by table."""
        return {row.green_name: row.run_id for row in self._connection.execute(sa.select(self._schema.greens))}

    def assert_owns_greens(self, greens: Iterable[str]) -> None:
        """Checks that this run has created or taken back the green tables.

        :raises FencedOut: another run has created one of them again
        """
        table = self._schema.greens
        owned = self._connection.execute(sa.select(table.c.green_name).where(table.c.run_id == self._run_id)).scalars()
        if lost := set(greens) - set(owned):
            raise FencedOut(
                f"another run, which had been taken for dead, has cloned {', '.join(sorted(lost))} again; clear clone_tables and what "
                "follows it. Blue is live and untouched"
            )

    def forget_greens(self, greens: Iterable[str]) -> None:
        """Removes the records of green tables that a swap has made live."""
        self._connection.execute(self._schema.greens.delete().where(self._schema.greens.c.green_name.in_(list(greens))))

    def retire(self, retired: Sequence[Retired]) -> None:
        """Records old tables, before the swap creates them."""
        self.forget_retired([table.old for table in retired])
        rows = [
            {
                "old_name": table.old,
                "table_name": table.table,
                "run_id": table.run_id,
                "identity": table.identity,
                "retired_at": as_text(table.retired_at),
                "drop_after": as_text(table.drop_after),
            }
            for table in retired
        ]
        self._connection.execute(self._schema.retired.insert(), rows)

    def rename_retired(self, old: str, name: str) -> None:
        """Records the new name of an old table."""
        retired = self._schema.retired
        self._connection.execute(retired.update().where(retired.c.old_name == old).values(old_name=name))

    def retired(self, *, old: str | None = None, run_id: str | None = None) -> list[Retired]:
        """The old tables that still exist: all, or those of one name or one run."""
        table = self._schema.retired
        query = sa.select(table).order_by(table.c.old_name)
        if old is not None:
            query = query.where(table.c.old_name == old)
        if run_id is not None:
            query = query.where(table.c.run_id == run_id)
        return [
            Retired(row.table_name, row.old_name, row.run_id, row.identity, as_moment(row.retired_at), as_moment(row.drop_after))
            for row in self._connection.execute(query)
        ]

    def forget_retired(self, olds: Iterable[str]) -> None:
        """Removes the records of old tables that no longer exist."""
        self._connection.execute(self._schema.retired.delete().where(self._schema.retired.c.old_name.in_(list(olds))))
