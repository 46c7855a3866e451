"""MariaDB's cutover strategy: it renames no locked tables, so a swap is a RENAME behind a fence, or behind sentries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta

import sqlalchemy as sa

from projection_rebuild.dialects.base import HeldBack, HeldTables, LockOrder, LockPolicy, PreparedSwap, TablesBusy
from projection_rebuild.dialects.mariadb.sentries import SENTRY_TABLE, STEP, Sentries, last_sentry_table, locked
from projection_rebuild.dialects.mariadb.waits import wait_in_the_queue, without_waiting
from projection_rebuild.dialects.mysql.base import ending, number_of
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.dialects.mysql.rename_cutover import CutoverByRename
from projection_rebuild.errors import ConnectionRefused
from projection_rebuild.model.names import TableSet

NO_SENTRIES = frozenset({1040, 1203, 1226, 1044, 1142})
"""Errors with which a server denies sentries: no free connection, or no LOCK TABLES; other attempts need no sentries."""


class FencedRenameCutover(CutoverByRename):
    """A cutover by a RENAME that waits for its tables itself.

    The RENAME may go on even if its process has died, and the fence with it.
    """

    def needs_fence(self, held_back: HeldBack, *, one_database: bool) -> bool:
        # No lock of the engine keeps clients from the tables until the rename.
        return held_back is not HeldBack.NOBODY

    @contextmanager
    def lock_tables(
        self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy, beside: Sequence[str]
    ) -> Iterator[HeldTables]:
        """Holds the tables by sentries if the attempt begins with the tables; otherwise only the fence keeps writers out.

        Sentries give the rename a moment in which no client uses the tables. A sentry may end early, so sentries
        guarantee nothing. The engine dismisses each one when the RENAME waits for its table.
        """
        self._dialect.limit_lock_wait(connection, policy.timeout)
        self._dialect.limit_silence(connection, policy.longest)
        with ending(lambda: self._dialect.limit_silence(connection, None)), self._held(connection, tables, policy) as held:
            yield held

    def _held(
        self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy
    ) -> AbstractContextManager[HeldTables]:
        last = max(table.blue.encode() for table in tables)
        # Locks come in the order of names: a table that sorts after the sentry table would still be free while its sentry
        # waits.
        if policy.lock_order is not LockOrder.TABLES_FIRST or last > SENTRY_TABLE.encode():
            return nullcontext(FencedTables(self._dialect, connection, tables))
        return self._with_sentries(connection, tables, policy)

    @contextmanager
    def _with_sentries(self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy) -> Iterator[HeldTables]:
        """Places sentries at the live tables, in a moment in which no client uses them.

        :raises TablesBusy: the server denies connections or locks, or no moment came
        """
        dialect, schema, names = self._dialect, tables[0].schema, sorted((table.blue for table in tables), key=str.encode)
        sentry_table, blues = dialect.qualified(schema, SENTRY_TABLE), [dialect.qualified(schema, name) for name in names]
        with ExitStack() as stack:
            try:
                watcher, locker, *sentry_connections = [
                    stack.enter_context(self._connect_apart(policy)) for _ in range(2 + len(blues))
                ]
                last = None if policy.confirm is None else dialect.qualified(schema, last_sentry_table(names[0]))
                stack.enter_context(locked(dialect, locker, *([sentry_table] if last is None else [sentry_table, last])))
                locks = ", ".join(f"{blue} WRITE" for blue in blues)
                without_waiting(dialect, watcher, f"LOCK TABLES {locks}", policy.longest.total_seconds() / 4)
                policy.begins()
            except (sa.exc.DBAPIError, ConnectionRefused) as error:
                cause = error.__cause__ if isinstance(error, ConnectionRefused) else error
                if cause is None or number_of(cause) not in NO_SENTRIES:
                    raise
                raise TablesBusy from error
            # No client can change the tables now. Behind sentries no connection can read them, not even the engine's.
            prepared, fingerprint = dialect.swap_statements(connection, tables), dialect.hanging(connection, tables)
            sentries = Sentries(dialect, watcher, locker, last)
            stack.callback(sentries.dismiss)
            for sentry_connection, blue in zip(sentry_connections, blues, strict=True):
                # Sentries wait at the sentry table until the engine dismisses them, however long the drain takes.
                dialect.limit_lock_wait(sentry_connection, 2 * policy.longest)
                sentries.place(sentry_connection, blue, sentry_table)
            sentries.wait_until_placed(time.monotonic() + policy.timeout.total_seconds())
            dialect.run(watcher, "UNLOCK TABLES")
            yield SentriedTables(dialect, connection, tables, sentries, prepared, fingerprint)

    @contextmanager
    def _connect_apart(self, policy: LockPolicy) -> Iterator[sa.Connection]:
        """A connection that the pool does not count, since sentries take one for each table."""
        with self._dialect.connect() as connection:
            connection.detach()
            self._dialect.limit_lock_wait(connection, policy.timeout)
            self._dialect.limit_silence(connection, policy.longest)
            yield connection

    @contextmanager
    def run_mutex(self, connection: sa.Connection, name: str, patience: timedelta = timedelta(0)) -> Iterator[bool]:
        # The lock lasts until the session ends. If the client dies, the session still finishes its statement first.
        with self._dialect.named_lock(connection, name, patience) as reserved:
            yield reserved

    def may_have_lost_fence(self, attempt: int, *, jobs_left: bool) -> bool:
        # A RENAME that waits may go on after its client is gone, while the fence ends. Only a RENAME that does not wait
        # has certainly happened behind the fence.
        order = self.lock_order(attempt, fenced=True, jobs_left=jobs_left)
        return not (self.nowait(attempt) and order is LockOrder.FENCE_FIRST)

    def _alter_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        timeout /= 2
        try:
            without_waiting(self._dialect, connection, statement, timeout.total_seconds())
        except sa.exc.DBAPIError as error:
            if not self._dialect.is_lock_timeout(error):
                raise
            wait_in_the_queue(self._dialect, connection, statement, timeout)


class FencedTables(HeldTables):
    """Tables that only the fence protects, if the attempt has one; the RENAME looks for its own moment."""

    _dialect: MySQLFamily

    keep_others_out = False

    def transaction(self) -> AbstractContextManager[None]:
        return self._dialect.transaction(self._connection)

    def planned_after(self, swap: PreparedSwap, policy: LockPolicy) -> list[str] | None:
        # Without a fence clients may still change keys and counters until the rename.
        return None if policy.fence is None else swap.after()

    def run_swap(self, statements: Sequence[str], policy: LockPolicy) -> bool:
        policy.stay_fenced()
        *counters, rename = statements
        for statement in counters:
            policy.stay_in_time()
            with self._dialect.killed_after(self._connection, min(policy.timeout, policy.rest)):
                self._dialect.run(self._connection, statement)
        policy.stay_in_time()
        if not self._rename(rename, policy):
            return False
        return policy.fence is None or policy.fence.holds()

    def _rename(self, rename: str, policy: LockPolicy) -> bool:
        """Executes the RENAME.

        :returns: whether no client can have reached the tables meanwhile, apart from the fence
        """
        dialect, connection = self._dialect, self._connection
        if not policy.nowait:
            wait_in_the_queue(dialect, connection, rename, min(policy.timeout, policy.rest))
        elif policy.fence:
            without_waiting(dialect, connection, rename, policy.look)
        else:
            # No writer waits meanwhile, so it can look for a moment for longer, and check for an ALTER at each retry.
            seconds = policy.longest.total_seconds() / 4
            without_waiting(dialect, connection, rename, seconds, again=self.swap_statements)
        return True


class SentriedTables(FencedTables):
    """Tables that sentries hold: no client reaches them, and no connection can read them, not even the engine's.

    :param prepared: the swap, computed before the sentries held the tables
    :param fingerprint: the tables' fingerprint at that time
    """

    keep_others_out = True

    def __init__(
        self,
        dialect: MySQLFamily,
        connection: sa.Connection,
        tables: Sequence[TableSet],
        sentries: Sentries,
        prepared: PreparedSwap,
        fingerprint: str,
    ) -> None:
        super().__init__(dialect, connection, tables)
        self._sentries = sentries
        self._prepared = prepared
        self._fingerprint = fingerprint

    def fingerprint(self) -> str:
        return self._fingerprint

    def swap_statements(self) -> PreparedSwap:
        return self._prepared

    def _rename(self, rename: str, policy: LockPolicy) -> bool:
        seconds, rest = policy.timeout.total_seconds() + 10 * STEP * len(self._tables), policy.rest.total_seconds()
        if policy.confirm is not None:
            # On a busy machine the check may take long, and writers wait already.
            seconds = max(seconds, rest / 2)
        seconds = min(seconds, rest)
        sentries = self._sentries
        rename = sentries.with_last_table(rename)
        session = self._dialect.session_id(self._connection)
        with sentries.making_way(session, time.monotonic() + seconds, policy.confirm):
            self._dialect.run(self._connection, f"SET STATEMENT max_statement_time = {seconds:.3f} FOR {rename}")
        # False: the last sentry table was free only because the connection that had locked it has ended.
        return sentries.confirmed
