"""The switch from blue to green."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

import sqlalchemy as sa

from projection_rebuild.dialects.base.event_log import Fence
from projection_rebuild.dialects.base.sessions import Sessions
from projection_rebuild.errors.outcomes import FenceDied, PauseTooLong
from projection_rebuild.model.names import TableSet


@dataclass(frozen=True)
class Manners:
    """How a switch gets at its tables.

    :param timeout: the longest wait
    :param polite: look for a moment, and switch if nobody uses the tables, so that nobody ever queues behind the switch;
        otherwise wait in the queue, which gets through where readers never leave a gap
    :param tables_first: the tables are to be held before there is a fence, wherever that can be done
    :param fence: what holds the appends back meanwhile, if something has to
    :param longest: for how long the tables may be held; past it the server should give them up by itself
    :param looked_at: other live tables, at which handlers look meanwhile
    :param confirm: asked when nobody comes to the tables any more, where they cannot be held until they are renamed; raises if somebody
        has come to them since they were taken, and from another thread. None: that does no harm
    :param nobody_waits: nobody is held yet, so a look for a moment may last
    :param begins: called when the look is over, and somebody may wait from now on
    :param left: the seconds for which the writers may still be held
    """

    timeout: timedelta
    polite: bool = True
    tables_first: bool = False
    fence: Fence | None = None
    longest: timedelta = timedelta(seconds=2)
    looked_at: tuple[str, ...] = ()
    confirm: Callable[[], None] | None = None
    nobody_waits: bool = False
    begins: Callable[[], object] = lambda: None
    left: Callable[[], float] = lambda: math.inf

    @property
    def rest(self) -> timedelta:
        """As ``left``, for a server's own clock: never nothing, and never without an end."""
        return timedelta(seconds=max(0.001, min(self.left(), self.longest.total_seconds())))

    def stay_in_time(self) -> None:
        """Looks at the clock.

        :raises PauseTooLong: the time is up
        """
        if self.left() <= 0:
            raise PauseTooLong

    @property
    def look(self) -> float:
        """Seconds for which a switch looks for a moment: whoever waits at the fence and has read the tables does not let go of them."""
        return self.longest.total_seconds() / 4 if self.nobody_waits else self.timeout.total_seconds() / 5


class Cutover(Sessions):
    """Renames blue and green tables, holds everybody from them meanwhile, and puts right what could not be renamed."""

    holds_tables: ClassVar[bool] = True
    """Whether :meth:`hold` keeps everybody from the blue tables until they are switched.

    Otherwise a switch waits by itself, and goes on even if its process, and the fence with it, has died.
    """

    hides_other_tables: ClassVar[bool] = False
    """True where a connection can read no other tables within :meth:`hold`, so that no SQL reads events there."""

    def are_held(self, connection: sa.Connection) -> bool:
        """Whether nobody but us comes to the blue tables now, within :meth:`hold`."""
        return self.holds_tables

    validates_keys: ClassVar[bool] = False
    """True where :meth:`after_switch` has all rows read for the foreign keys that came with the switch."""

    one_writer: ClassVar[bool] = False
    """True where a transaction that writes keeps all others from writing."""

    def estimate_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        """Seconds that the part of a switch will take that cannot be given up once it has begun; None: it can, or takes no time."""
        return None

    def before_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that take long and are done while nobody waits: the last of what green needs to take blue's place."""
        return []

    @abstractmethod
    def hold(
        self, connection: sa.Connection, tables: Sequence[TableSet], manners: Manners, beside: Sequence[str]
    ) -> AbstractContextManager[None]:
        """Holds the blue tables for the switch, in one transaction where DDL can be rolled back; commits at the end.

        Where :attr:`holds_tables` is False, a fence has to keep the writers from the tables; they may be held besides, to have
        a moment in which nobody uses them, but neither with a promise, nor against the statement of the switch itself.

        :param beside: our own tables in the same schema, which are written meanwhile
        :raises TablesBusy: as an error that :meth:`lock_was_refused` knows
        """

    @contextmanager
    def alone(self, connection: sa.Connection, name: str, patience: timedelta = timedelta(0)) -> Iterator[bool]:
        """Keeps other workers of a run from its switch, and from judging what has come of it, where a transaction does not: from the
        moment when the ledger says that it begins until its tables are renamed.

        :param name: the run's
        :param patience: how long another one is waited for
        :returns: whether nobody else is at it
        """
        yield True

    @abstractmethod
    def take_back(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that give retired tables, and what hangs on their names, the names of green ones: a switch's other half."""

    @abstractmethod
    def snapshots(self, connection: sa.Connection) -> dict[Hashable, str]:
        """Open transactions of others that go on reading from one snapshot: how each is told from later ones, and its description.

        Empty where such a transaction keeps seeing the tables of its time, or where we may not know.
        """

    def maintenance(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> list[str]:
        """Who holds a lock on these tables that lasts as long as some maintenance does, and is in a switch's way; described."""
        return []

    def abandoned(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Rows of tables outside the run that would lose their parents by the switch, once all is drained, each kind with its remedy.

        Only where nothing else holds their foreign keys against green.
        """
        return []

    @abstractmethod
    def switch(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> list[str]:
        """Statements that rename blue to old and green to blue, all tables at once, with what hangs on their names.

        :param planned: for a plan: green may be missing, or be another run's in the making
        :raises CloneError: blue has been changed since green was made like it
        """

    def run_switch(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], manners: Manners
    ) -> bool:
        """Executes the statements of :meth:`switch`, and looks at the clock between them.

        :returns: whether the fence held until the tables were switched; False: it may have died just before
        :raises TablesBusy: nothing has changed; as after an error that :meth:`lock_was_refused` knows
        :raises FenceDied: nothing has changed
        :raises PauseTooLong: nothing has changed, or the transaction around it has to be rolled back
        """
        for statement in statements:
            manners.stay_in_time()
            self._execute(connection, statement)
        manners.stay_in_time()
        self._still_fenced(manners)
        return True

    def _still_fenced(self, manners: Manners) -> None:
        if manners.fence is not None and not manners.fence.holds():
            raise FenceDied

    def left_on_old(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """What is on a retired table and not on the live one, since somebody came in between the last look and the switch."""
        return []

    @abstractmethod
    def after_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that put right what could not be renamed within the switch; those that are left, after a crash.

        Where DDL commits by itself they are first tried while the writers are still held.
        """

    def planned_after_switch(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> list[str]:
        """What :meth:`after_switch` will return, worked out before the tables have been switched; asked for right after :meth:`switch`.

        :param planned: as there; green is then taken as it will be, however far it has come
        """
        return []

    def run_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        """Executes a statement of :meth:`after_switch`. Others may queue behind it, so it takes no longer than ``timeout``.

        :raises TablesBusy: as after an error that :meth:`lock_was_refused` knows, trying again can help
        """
        self.run(connection, statement)
