"""The tables that are ours beside the live ones: green ones that runs have made, and old ones that switches have retired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from projection_rebuild.errors import FencedOut
from projection_rebuild.ledger.repository import Repository, as_moment, as_text


@dataclass(frozen=True)
class Retired:
    """A table that a run retired: where it is and what it was, so that a drop hits this one and no other."""

    table: str
    old: str
    run_id: str
    identity: str | None
    retired_at: datetime
    drop_after: datetime


class OwnedTables(Repository):
    """Green and old tables by their names."""

    def add_green(self, green: str) -> None:
        """Records, before it is made, that a green table is ours."""
        greens = self._schema.greens
        self._connection.execute(greens.delete().where(greens.c.green_name == green))
        self._connection.execute(greens.insert().values(green_name=green, run_id=self._run_id))

    def run_of_green(self, green: str) -> str | None:
        """The run that made a table of this name, or took it back, so that the next one may drop it; None: it is not ours."""
        greens = self._schema.greens
        run_id: str | None = self._connection.execute(
            sa.select(greens.c.run_id).where(greens.c.green_name == green)
        ).scalar_one_or_none()
        return run_id

    def greens(self) -> dict[str, str]:
        """All green tables that runs have made, and have not switched, with their runs."""
        return {row.green_name: row.run_id for row in self._connection.execute(sa.select(self._schema.greens))}

    def assert_owns_greens(self, greens: Iterable[str]) -> None:
        """Makes sure that the green tables are those that this run has made or taken back.

        :raises FencedOut: another run has made one anew
        """
        table = self._schema.greens
        owned = self._connection.execute(sa.select(table.c.green_name).where(table.c.run_id == self._run_id)).scalars()
        if lost := set(greens) - set(owned):
            raise FencedOut(
                f"{', '.join(sorted(lost))} has been made anew by another run, one that was taken for dead; clear clone_tables and what "
                "follows it. Blue is live and untouched"
            )

    def forget_greens(self, greens: Iterable[str]) -> None:
        """The green tables are there no longer: they have been switched."""
        self._connection.execute(self._schema.greens.delete().where(self._schema.greens.c.green_name.in_(list(greens))))

    def retire(self, retired: Sequence[Retired]) -> None:
        """Records old tables, before the switch makes them."""
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
        """The old table is called otherwise now."""
        retired = self._schema.retired
        self._connection.execute(retired.update().where(retired.c.old_name == old).values(old_name=name))

    def retired(self, *, old: str | None = None, run_id: str | None = None) -> list[Retired]:
        """Old tables that have not been dropped yet, of one name or one run."""
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
        """The old tables are there no longer."""
        self._connection.execute(self._schema.retired.delete().where(self._schema.retired.c.old_name.in_(list(olds))))
