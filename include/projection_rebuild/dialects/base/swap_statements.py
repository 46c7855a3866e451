"""The statements of a swap: those that rename the tables, and what comes before and after them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from projection_rebuild.dialects.base.sessions import Sessions
from projection_rebuild.model.names import TableSet


@dataclass(frozen=True)
class PreparedSwap:
    """A swap, worked out before it is executed.

    :param statements: rename blue to old and green to blue, all tables at once, with what hangs on their names
    :param after: works out, before the tables have been swapped, what :meth:`SwapStatements.after_swap` will
        return
    """

    statements: list[str]
    after: Callable[[], list[str]] = list


class SwapStatements(Sessions):
    """Gives the statements of a swap, and tells who or what is in its way."""

    def estimate_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        """Seconds that the part of a swap will take that cannot be given up once it has begun; None: it can, or
        takes no time."""
        return None

    def before_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that take long and are done while nobody waits: the last of what green needs to take blue's
        place."""
        return []

    @abstractmethod
    def swap_statements(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> PreparedSwap:
        """The renames of all tables, and what follows them.

        :param planned: for a plan: green may be missing, or be another run's in the making
        :raises CloneError: blue has been changed since green was made like it
        """

    @abstractmethod
    def after_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that put right what could not be renamed within the swap; those that are left, after a crash.

        Where DDL commits by itself they are first tried while the writers are still held.
        """

    @abstractmethod
    def restore_names(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that give retired tables, and what hangs on their names, the names of green ones: a swap's
        other half."""

    @abstractmethod
    def snapshots(self, connection: sa.Connection) -> dict[Hashable, str]:
        """Open transactions of others that go on reading from one snapshot: how each is told from later ones, and
        its description.

        Empty where such a transaction keeps seeing the tables of its time, or where we may not know.
        """

    def maintenance(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> list[str]:
        """Who holds a lock on these tables that lasts as long as some maintenance does, and is in a swap's way;
        described."""
        return []

    def rows_orphaned_by_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Rows of tables outside the run that would lose their parents by the swap, once all is drained, each kind
        with its remedy.

        EventFilter where nothing else holds their foreign keys against green.
        """
        return []

    def left_on_old(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """What is on a retired table and not on the live one, since somebody came in between the last look and the
        swap."""
        return []
