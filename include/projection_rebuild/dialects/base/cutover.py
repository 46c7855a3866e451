"""How a database cuts over: one strategy for each way, which the engine's attempts are made by.

The engine does what is the same everywhere: it catches up, drains, counts, writes the ledger, and tries again. A
strategy decides what differs: whether appends need a fence, what is locked and by what, which statements share a
transaction, and what can be believed after a crash. What an attempt has to remember between two calls is an object
of that attempt alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, TypeVar

import sqlalchemy as sa

from projection_rebuild.dialects.base.event_log import Fence
from projection_rebuild.dialects.base.swap_statements import PreparedSwap
from projection_rebuild.errors.outcomes import FenceDied, PauseTooLong
from projection_rebuild.model.names import TableSet

if TYPE_CHECKING:
    from projection_rebuild.dialects.base import Dialect

Superseded = TypeVar("Superseded")

ATTEMPTS_PER_QUEUE = 5
"""Tables that are always being read never have a free moment. So one attempt of so many waits in the queue for its
locks."""


class LockOrder(Enum):
    """In which order an attempt takes the fence at the event store and the locks on the tables."""

    TABLES_ONLY = "no fence is needed"
    FENCE_FIRST = "the last jobs can end behind the fence; clients that have read the tables wait there with them"
    TABLES_FIRST = "clients that have read the tables come to their end; no job does"


class HeldBack(Enum):
    """Whom an attempt has to keep from writing to the live tables until they are swapped."""

    NOBODY = "old and new tables each have a consumer's position of their own"
    PROJECTIONS = "whoever appends also projects, in the same transaction"
    JOBS = "jobs that are left project into the new tables, and none may end before these are live"
    APPENDS = "what is appended could be projected at any later time"


@dataclass(frozen=True)
class LockPolicy:
    """How one attempt takes its locks.

    :param timeout: the longest wait for a lock
    :param nowait: look for a moment in which nobody uses the tables, so that nobody ever queues behind the
        attempt; otherwise wait in the queue, which gets through where readers never leave a gap
    :param lock_order: what is taken first
    :param fence: what holds the appends back meanwhile, if something has to
    :param longest: for how long the tables may be held; past it the server should give them up by itself
    :param looked_at: other live tables, at which handlers look meanwhile
    :param confirm: asked when nobody comes to the tables any more, where they cannot be held until they are
        renamed; raises if somebody has come to them since they were taken, and from another thread. None: that
        does no harm
    :param begins: called when the look is over, and somebody may wait from now on
    :param left: the seconds for which the writers may still be held
    """

    timeout: timedelta
    nowait: bool = True
    lock_order: LockOrder = LockOrder.FENCE_FIRST
    fence: Fence | None = None
    longest: timedelta = timedelta(seconds=2)
    looked_at: tuple[str, ...] = ()
    confirm: Callable[[], None] | None = None
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

    def stay_fenced(self) -> None:
        """Asks the fence, if there is one.

        :raises FenceDied: the connection that holds it is gone
        """
        if self.fence is not None and not self.fence.holds():
            raise FenceDied

    @property
    def look(self) -> float:
        """Seconds for which an attempt looks for a moment: whoever waits at the fence and has read the tables does
        not let go of them."""
        fenced_already = self.lock_order is LockOrder.FENCE_FIRST
        return self.timeout.total_seconds() / 5 if fenced_already else self.longest.total_seconds() / 4


class HeldTables(ABC):
    """The live tables of one attempt, as long as it holds them.

    :param connection: the one that holds them
    """

    keep_others_out = True
    """Whether nobody but us comes to the live tables until they are swapped, so that no job can end meanwhile."""

    def __init__(self, dialect: Dialect, connection: sa.Connection, tables: Sequence[TableSet]) -> None:
        self._dialect = dialect
        self._connection = connection
        self._tables = tables

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """The transaction of the drain and of what the ledger announces. No other one is opened on the connection that
        holds the tables: on MySQL it would give them up."""

    def fingerprint(self) -> str:
        """See :meth:`DependentObjects.hanging`."""
        return self._dialect.hanging(self._connection, self._tables)

    def swap_statements(self) -> PreparedSwap:
        """See :meth:`SwapStatements.swap_statements`."""
        return self._dialect.swap_statements(self._connection, self._tables)

    @abstractmethod
    def planned_after(self, swap: PreparedSwap, policy: LockPolicy) -> list[str] | None:
        """What follows the swap, as far as it can be worked out before it; None: it has to be read from the tables
        afterwards."""

    @abstractmethod
    def run_swap(self, statements: Sequence[str], policy: LockPolicy) -> bool:
        """Executes the statements of a swap, and looks at the clock between them.

        :returns: whether the fence held until the tables were swapped; False: it may have died just before
        :raises TablesBusy: nothing has changed; as after an error that :meth:`Statements.is_lock_timeout` knows
        :raises FenceDied: nothing has changed
        :raises PauseTooLong: nothing has changed, or the transaction around it has to be rolled back
        """

    def run_at_work(self, statement: str, timeout: timedelta) -> None:
        """Executes a statement that follows the swap while the writers are still held, as
        :meth:`Cutover.run_at_work`."""
        self._dialect.cutover.run_at_work(self._connection, self._tables, statement, timeout)


class Cutover(ABC):
    """One way of cutting over.

    :param dialect: the database whose tables are swapped
    """

    sql_reads_no_events: ClassVar[str | None] = None
    """Why no SQL can read events while the tables are held, so that none can drain them; None: it can."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    # Before anybody is held -------------------------------------------------------------------------------------

    def needs_fence(self, held_back: HeldBack, *, one_database: bool) -> bool:
        """Whether appends have to wait at the event store, beyond what the locks on the live tables do.

        :param one_database: whether an append and its projection commit in the same database
        """
        match held_back:
            case HeldBack.NOBODY | HeldBack.JOBS:
                return False
            case HeldBack.PROJECTIONS:
                return not one_database
            case HeldBack.APPENDS:
                return True

    def nowait(self, attempt: int) -> bool:
        """Whether an attempt only looks for a moment in which nobody uses the tables.

        :param attempt: its number, from 1
        """
        return attempt % ATTEMPTS_PER_QUEUE != 0

    def lock_order(self, attempt: int, *, fenced: bool, jobs_left: bool) -> LockOrder:
        """What an attempt takes first. Either order has clients that it never comes past, so attempts take turns.

        :param attempt: its number, from 1
        :param fenced: whether it needs a fence
        :param jobs_left: whether jobs may be left while the tables are swapped; then the first attempt begins with
            the tables
        """
        if not fenced:
            return LockOrder.TABLES_ONLY
        return LockOrder.TABLES_FIRST if attempt % 2 == (1 if jobs_left else 0) else LockOrder.FENCE_FIRST

    @abstractmethod
    def prepared_ahead(self, connection: sa.Connection, tables: Sequence[TableSet]) -> PreparedSwap | None:
        """The swap, where it can be worked out before anybody is held and what is changed after it makes it fail;
        otherwise None."""

    # What the name of a retired table is needed for -------------------------------------------------------------

    def superseded_before(self, look: Callable[[], list[Superseded]]) -> list[Superseded]:
        """The retired tables of earlier runs that are to be dropped before the first attempt, as late as can be: a
        cutover that is refused before it costs nobody his rollback.

        :param look: finds all those whose names are needed
        """
        return look()

    def superseded_within(self, look: Callable[[], list[Superseded]]) -> list[Superseded]:
        """Those that are to be dropped in the transaction of the swap, so that they stay if it fails.

        Elsewhere a drop commits by itself, or all writers would wait for it, and a large table takes long.
        """
        return []

    # While they are held ----------------------------------------------------------------------------------------

    @abstractmethod
    def lock_tables(
        self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy, beside: Sequence[str]
    ) -> AbstractContextManager[HeldTables]:
        """Holds the live tables for the swap, in one transaction where DDL can be rolled back; commits at the end.

        :param beside: our own tables in the same schema, which are written meanwhile
        :raises TablesBusy: as an error that :meth:`Statements.is_lock_timeout` knows
        """

    @contextmanager
    def run_mutex(self, connection: sa.Connection, name: str, patience: timedelta = timedelta(0)) -> Iterator[bool]:
        """Keeps other workers of a run from its swap, and from judging what has come of it, where a transaction
        does not: from the moment when the ledger says that it begins until its tables are renamed.

        :param name: the run's
        :param patience: how long another one is waited for
        :returns: whether nobody else is at it
        """
        yield True

    @abstractmethod
    def record_with_swap(self, record: Callable[[], None]) -> None:
        """Has the ledger say in the transaction of the renames that the tables are swapped, where there is one."""

    # Afterwards -------------------------------------------------------------------------------------------------

    @abstractmethod
    def left_over(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """What is done right after the swap, while the writers are still held; what is not, reconcile does."""

    def run_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        """Executes a statement of :meth:`SwapStatements.after_swap`. Others may queue behind it, so it takes no
        longer than ``timeout``.

        :raises TablesBusy: as after an error that :meth:`Statements.is_lock_timeout` knows, trying again can help
        """
        self._dialect.run(connection, statement)

    def may_have_lost_fence(self, attempt: int, *, jobs_left: bool) -> bool:
        """Whether the fence of an attempt that crashed at its swap may have died before the tables were renamed.

        :param attempt: the attempt's number, from 1; it had a fence
        :param jobs_left: as for :meth:`lock_order`
        """
        return False

    def unvalidated_orphans(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[tuple[TableSet, str]]:
        """The foreign keys of the new live tables for which rows have no parents, where nothing that follows the
        swap validates them.

        :param tables: the live ones, as green ones of their own
        """
        return [(table, key) for table in tables for key in self._dialect.orphans(connection, table, tables)]


class CutoverInTransaction(Cutover):
    """DDL can be rolled back: drain, renames and ledger are one transaction, so whatever is committed is all of it."""

    def prepared_ahead(self, connection: sa.Connection, tables: Sequence[TableSet]) -> PreparedSwap:
        return self._dialect.swap_statements(connection, tables)

    def record_with_swap(self, record: Callable[[], None]) -> None:
        record()

    def left_over(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return []


class HeldInTransaction(HeldTables):
    """Held by a transaction, which the drain and the ledger are part of."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        yield

    def planned_after(self, swap: PreparedSwap, policy: LockPolicy) -> list[str]:
        return []

    def run_swap(self, statements: Sequence[str], policy: LockPolicy) -> bool:
        for statement in statements:
            policy.stay_in_time()
            self._dialect.run(self._connection, statement)
        policy.stay_in_time()
        policy.stay_fenced()
        return True
