"""The statements that rename the tables in a swap, and those before and after them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from projection_rebuild.dialects.base.sessions import Sessions
from projection_rebuild.model.names import TableSet


@dataclass(frozen=True)
class PreparedSwap:
    """The statements of a swap, computed before the engine executes it.

    :param statements: rename blue to old and green to blue, for all tables at once, with the objects named after them
    :param after: computes, before the swap, what :meth:`SwapStatements.after_swap` will return after it
    """

    statements: list[str]
    after: Callable[[], list[str]] = list


class SwapStatements(Sessions):
    """Returns the statements of a swap, and finds the clients and rows that obstruct it."""

    def estimate_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        """Seconds for the part of a swap that the engine cannot interrupt; None: no such part, or it takes no time."""
        return None

    def before_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that complete green for the swap; they may take long, so they run while no writer waits."""
        return []

    @abstractmethod
    def swap_statements(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> PreparedSwap:
        """The renames of all tables, and the statements that follow them.

        :param planned: for a plan: green may be missing, or be the unfinished green table of another run
        :raises CloneError: blue has changed since the engine created green like it
        """

    @abstractmethod
    def after_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that correct what the swap could not rename; after a crash, those that are still necessary.

        Where DDL commits by itself, the engine first tries them while writers still wait.
        """

    @abstractmethod
    def restore_names(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that give retired tables, and the objects named after them, the names of green tables.

        A rollback swaps these green tables.
        """

    @abstractmethod
    def snapshots(self, connection: sa.Connection) -> dict[Hashable, str]:
        """Open transactions of other clients that read from one snapshot: an identity of each, and its description.

        Empty if such a transaction keeps seeing the tables as of its snapshot, or this account may not see them.
        """

    def maintenance(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> list[str]:
        """Describes the maintenance operations that hold long locks on these tables and so block a swap."""
        return []

    def rows_orphaned_by_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Rows of tables outside the run that would lose their parents by the swap, after the drain; with remedies.

        Empty if the database itself validates their foreign keys against green.
        """
        return []

    def left_on_old(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Objects on a retired table that the live one lacks, because a client added them right before the swap."""
        return []
