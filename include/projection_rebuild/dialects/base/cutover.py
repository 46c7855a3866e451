"""Cutover strategies: one class for each way in which a database swaps its tables.

The engine does what is the same for all databases: it catches up, drains, counts, writes the ledger, and retries. A
strategy decides the rest: whether appends need a fence, which locks an attempt takes and how, which statements share a
transaction, and what the engine can trust after a crash. An attempt keeps its own state in :class:`HeldTables`.
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
"""One attempt of this many waits in the queue for its locks: tables that clients read all the time never have a free
moment."""


class LockOrder(Enum):
    """The order in which an attempt takes the fence on the event store and the locks on the tables."""

    TABLES_ONLY = "the attempt needs no fence"
    FENCE_FIRST = "the last jobs can end behind the fence; clients that have read the tables wait there too"
    TABLES_FIRST = "clients that have read the tables can end their transactions; no job can end"


class HeldBack(Enum):
    """The writers that an attempt has to keep from the live tables until the swap."""

    NOBODY = "old and new tables each have a consumer position of their own"
    PROJECTIONS = "a client that appends also projects, in the same transaction"
    JOBS = "jobs that are left project into the new tables, and none may end before these are live"
    APPENDS = "a client could project an appended event at any later time"


@dataclass(frozen=True)
class LockPolicy:
    """How one attempt takes its locks.

    :param timeout: the longest wait for a lock
    :param nowait: look for a moment in which no client uses the tables, so that no client ever queues behind the
        attempt; False: wait in the queue, which succeeds even if readers never leave a gap
    :param lock_order: whether the attempt takes the fence or the tables first
    :param fence: the fence that makes appends wait meanwhile, if the attempt needs one
    :param longest: how long the attempt may hold the tables; past it the server should release them by itself
    :param looked_at: other live tables, which handlers read meanwhile
    :param confirm: for a database that cannot lock the tables until the rename. Another thread calls it once no client
        can reach them. It raises if a client came since the attempt took them. None: such a client does no harm
    :param begins: called when the attempt has its moment, and clients may have to wait from then on
    :param left: returns the seconds for which the attempt may still hold the writers
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
        """The time that is left, as a time-out for the server: at least 1 ms, at most ``longest``."""
        return timedelta(seconds=max(0.001, min(self.left(), self.longest.total_seconds())))

    def stay_in_time(self) -> None:
        """Checks the clock.

        :raises PauseTooLong: no time is left
        """
        if self.left() <= 0:
            raise PauseTooLong

    def stay_fenced(self) -> None:
        """Checks that the fence still holds, if the attempt has one.

        :raises FenceDied: the connection that holds it is gone
        """
        if self.fence is not None and not self.fence.holds():
            raise FenceDied

    @property
    def look(self) -> float:
        """Seconds for which an attempt looks for a moment.

        Behind a fence it looks for less time: a client that has read the tables and waits at the fence keeps its locks.
        """
        fenced_already = self.lock_order is LockOrder.FENCE_FIRST
        return self.timeout.total_seconds() / 5 if fenced_already else self.longest.total_seconds() / 4


class HeldTables(ABC):
    """The live tables of one attempt, while it holds them.

    :param connection: the connection that holds them
    """

    keep_others_out = True
    """Whether no other client reaches the live tables until the swap, so that no job can end meanwhile."""

    def __init__(self, dialect: Dialect, connection: sa.Connection, tables: Sequence[TableSet]) -> None:
        self._dialect = dialect
        self._connection = connection
        self._tables = tables

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """The transaction of the drain and of the ledger's announcement.

        The engine opens no other one on the connection that holds the tables: on MySQL it would release them.
        """

    def fingerprint(self) -> str:
        """See :meth:`DependentObjects.hanging`."""
        return self._dialect.hanging(self._connection, self._tables)

    def swap_statements(self) -> PreparedSwap:
        """See :meth:`SwapStatements.swap_statements`."""
        return self._dialect.swap_statements(self._connection, self._tables)

    @abstractmethod
    def planned_after(self, swap: PreparedSwap, policy: LockPolicy) -> list[str] | None:
        """The statements that follow the swap, computed before it; None: only the tables after the swap can tell."""

    @abstractmethod
    def run_swap(self, statements: Sequence[str], policy: LockPolicy) -> bool:
        """Executes the statements of a swap, and checks the clock between them.

        :returns: whether the fence held until the swap; False: it may have died just before
        :raises TablesBusy: nothing has changed. The same holds after an error of which :meth:`Statements.is_lock_timeout` is
            true
        :raises FenceDied: nothing has changed
        :raises PauseTooLong: nothing has changed, or the caller has to roll back the transaction around it
        """

    def run_at_work(self, statement: str, timeout: timedelta) -> None:
        """Executes a statement that follows the swap while writers still wait, as :meth:`Cutover.run_at_work` does."""
        self._dialect.cutover.run_at_work(self._connection, self._tables, statement, timeout)


class Cutover(ABC):
    """A strategy for the cutover.

    :param dialect: the database whose tables it swaps
    """

    sql_reads_no_events: ClassVar[str | None] = None
    """Why SQL cannot read events while the attempt holds the tables, so that it cannot drain them; None: it can."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    # Before any writer waits ------------------------------------------------------------------------------------

    def needs_fence(self, held_back: HeldBack, *, one_database: bool) -> bool:
        """Whether appends have to wait at a fence, because the locks on the live tables do not suffice.

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
        """Whether an attempt only looks for a moment in which no client uses the tables.

        :param attempt: its number, from 1
        """
        return attempt % ATTEMPTS_PER_QUEUE != 0

    def lock_order(self, attempt: int, *, fenced: bool, jobs_left: bool) -> LockOrder:
        """Whether an attempt takes the fence or the tables first.

        Attempts take turns, since some clients block each order every time.

        :param attempt: its number, from 1
        :param fenced: whether it needs a fence
        :param jobs_left: whether jobs may be left at the swap; then the first attempt begins with the tables
        """
        if not fenced:
            return LockOrder.TABLES_ONLY
        return LockOrder.TABLES_FIRST if attempt % 2 == (1 if jobs_left else 0) else LockOrder.FENCE_FIRST

    @abstractmethod
    def prepared_ahead(self, connection: sa.Connection, tables: Sequence[TableSet]) -> PreparedSwap | None:
        """The swap, computed before any writer waits.

        None: the database cannot do that, or a change of a table after it would not make the swap fail.
        """

    # Retired tables whose names the swap needs ------------------------------------------------------------------

    def superseded_before(self, look: Callable[[], list[Superseded]]) -> list[Superseded]:
        """The retired tables of earlier runs that the engine drops right before the first attempt.

        It drops them no earlier, so that after a refused cutover these runs can still be rolled back.

        :param look: finds all retired tables whose names the swap needs
        """
        return look()

    def superseded_within(self, look: Callable[[], list[Superseded]]) -> list[Superseded]:
        """The retired tables that the engine drops in the transaction of the swap, so that they stay if it fails.

        By default none: the drop would commit by itself, or all writers would wait while it drops a large table.
        """
        return []

    # While writers wait -----------------------------------------------------------------------------------------

    @abstractmethod
    def lock_tables(
        self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy, beside: Sequence[str]
    ) -> AbstractContextManager[HeldTables]:
        """Holds the live tables for the swap, in one transaction where DDL can be rolled back; commits at the end.

        :param beside: the engine's own tables in the same schema, which the attempt writes meanwhile
        :raises TablesBusy: as an error that :meth:`Statements.is_lock_timeout` knows
        """

    @contextmanager
    def run_mutex(self, connection: sa.Connection, name: str, patience: timedelta = timedelta(0)) -> Iterator[bool]:
        """Lets one worker of a run at a time swap, or find out whether a swap has happened.

        It is necessary where no transaction does that, from the ledger's announcement of the swap until the rename.

        :param name: the run's
        :param patience: how long to wait for another worker
        :returns: whether no other worker has the mutex
        """
        yield True

    @abstractmethod
    def record_with_swap(self, record: Callable[[], None]) -> None:
        """Records the swap in the ledger, if the renames are in a transaction; then in that transaction.

        :param record: writes the record
        """

    # Afterwards -------------------------------------------------------------------------------------------------

    @abstractmethod
    def left_over(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """The statements to execute right after the swap, while writers still wait; reconcile executes the rest."""

    def run_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        """Executes a statement of :meth:`SwapStatements.after_swap`, on tables that clients use.

        Clients may queue behind it, so it waits no longer than ``timeout``.

        :raises TablesBusy: as after an error that :meth:`Statements.is_lock_timeout` knows, a retry can help
        """
        self._dialect.run(connection, statement)

    def may_have_lost_fence(self, attempt: int, *, jobs_left: bool) -> bool:
        """Whether the fence of an attempt that crashed in its swap may have died before the rename.

        :param attempt: the attempt's number, from 1; it had a fence
        :param jobs_left: as for :meth:`lock_order`
        """
        return False

    def unvalidated_orphans(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[tuple[TableSet, str]]:
        """The foreign keys of the new live tables that some rows violate.

        A database that validates these keys after the swap returns none.

        :param tables: the live tables, in the place of green
        """
        return [(table, key) for table in tables for key in self._dialect.orphans(connection, table, tables)]


class CutoverInTransaction(Cutover):
    """For databases that can roll DDL back: drain, renames and ledger commit together, in one transaction."""

    def prepared_ahead(self, connection: sa.Connection, tables: Sequence[TableSet]) -> PreparedSwap:
        return self._dialect.swap_statements(connection, tables)

    def record_with_swap(self, record: Callable[[], None]) -> None:
        record()

    def left_over(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return []


class HeldInTransaction(HeldTables):
    """Tables that a transaction holds; the drain and the ledger's records are part of it."""

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
