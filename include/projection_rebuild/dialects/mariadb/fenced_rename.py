"""MariaDB's way of cutting over: it renames no table that it has locked, so a swap is a RENAME behind a fence, and
behind sentries."""

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
"""The server gives no more connections, or we may not lock the tables: then there is the fence alone."""


class FencedRenameCutover(CutoverByRename):
    """The statement of the swap waits by itself, and goes on even if its process, and the fence with it, has died."""

    def needs_fence(self, held_back: HeldBack, *, one_database: bool) -> bool:
        # No lock of ours keeps anybody from the tables until they are renamed.
        return held_back is not HeldBack.NOBODY

    @contextmanager
    def lock_tables(
        self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy, beside: Sequence[str]
    ) -> Iterator[HeldTables]:
        """The fence has to keep the writers from the tables. They may be held besides, to have a moment in which
        nobody uses them, but neither with a promise, nor against the statement of the swap itself."""
        self._dialect.limit_lock_wait(connection, policy.timeout)
        self._dialect.limit_silence(connection, policy.longest)
        with ending(lambda: self._dialect.limit_silence(connection, None)), self._held(connection, tables, policy) as held:
            yield held

    def _held(
        self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy
    ) -> AbstractContextManager[HeldTables]:
        last = max(table.blue.encode() for table in tables)
        # Sentries would come to their own table before they have such a one.
        if policy.lock_order is not LockOrder.TABLES_FIRST or last > SENTRY_TABLE.encode():
            return nullcontext(FencedTables(self._dialect, connection, tables))
        return self._with_sentries(connection, tables, policy)

    @contextmanager
    def _with_sentries(self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy) -> Iterator[HeldTables]:
        """Sentries at the live tables, from a moment on in which nobody used them."""
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
            # Nobody can change them any more; and past a sentry nobody can look at them, not even we.
            prepared, seen = dialect.swap_statements(connection, tables), dialect.hanging(connection, tables)
            sentries = Sentries(dialect, watcher, locker, last)
            stack.callback(sentries.dismiss)
            for sentry_connection, blue in zip(sentry_connections, blues, strict=True):
                # At the sentry table they wait until they are sent away, however long the drain takes.
                dialect.limit_lock_wait(sentry_connection, 2 * policy.longest)
                sentries.place(sentry_connection, blue, sentry_table)
            sentries.wait_until_placed(time.monotonic() + policy.timeout.total_seconds())
            dialect.run(watcher, "UNLOCK TABLES")
            yield SentriedTables(dialect, connection, tables, sentries, prepared, seen)

    @contextmanager
    def _connect_apart(self, policy: LockPolicy) -> Iterator[sa.Connection]:
        """A connection that the pool does not count: there is one for each table."""
        with self._dialect.connect() as connection:
            connection.detach()
            self._dialect.limit_lock_wait(connection, policy.timeout)
            self._dialect.limit_silence(connection, policy.longest)
            yield connection

    @contextmanager
    def run_mutex(self, connection: sa.Connection, name: str, patience: timedelta = timedelta(0)) -> Iterator[bool]:
        # It goes with the session, so not before what that is executing, even if its client is gone.
        with self._dialect.named_lock(connection, name, patience) as reserved:
            yield reserved

    def may_have_lost_fence(self, attempt: int, *, jobs_left: bool) -> bool:
        # A RENAME that waits may go on when its client is gone, while the fence ends. Only one that does not wait
        # tells by itself that it was fenced.
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
    """Held by nothing but the fence, where there is one; the RENAME looks for its own moment."""

    _dialect: MySQLFamily

    keep_others_out = False

    def transaction(self) -> AbstractContextManager[None]:
        return self._dialect.transaction(self._connection)

    def planned_after(self, swap: PreparedSwap, policy: LockPolicy) -> list[str] | None:
        # Where nobody is held, keys and counters may still be changed until the tables are renamed.
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
        """Returns whether nobody can have come to the tables meanwhile, fence apart."""
        dialect, connection = self._dialect, self._connection
        if not policy.nowait:
            wait_in_the_queue(dialect, connection, rename, min(policy.timeout, policy.rest))
        elif policy.fence:
            without_waiting(dialect, connection, rename, policy.look)
        else:
            # Nobody is held meanwhile, and there is time to look for the moment, and whether an ALTER has come
            # before it.
            seconds = policy.longest.total_seconds() / 4
            without_waiting(dialect, connection, rename, seconds, again=self.swap_statements)
        return True


class SentriedTables(FencedTables):
    """Held by sentries: nobody else comes to the tables, and nobody can look past a sentry, not even we.

    :param prepared: the swap, as it was before nobody could look past the sentries
    :param seen: the fingerprint of that moment
    """

    keep_others_out = True

    def __init__(
        self,
        dialect: MySQLFamily,
        connection: sa.Connection,
        tables: Sequence[TableSet],
        sentries: Sentries,
        prepared: PreparedSwap,
        seen: str,
    ) -> None:
        super().__init__(dialect, connection, tables)
        self._sentries = sentries
        self._prepared = prepared
        self._seen = seen

    def fingerprint(self) -> str:
        return self._seen

    def swap_statements(self) -> PreparedSwap:
        return self._prepared

    def _rename(self, rename: str, policy: LockPolicy) -> bool:
        seconds, rest = policy.timeout.total_seconds() + 10 * STEP * len(self._tables), policy.rest.total_seconds()
        if policy.confirm is not None:
            # The answer takes a while on a busy machine, and the tables are held already.
            seconds = max(seconds, rest / 2)
        seconds = min(seconds, rest)
        sentries = self._sentries
        rename = sentries.with_last_table(rename)
        session = self._dialect.session_id(self._connection)
        with sentries.making_way(session, time.monotonic() + seconds, policy.confirm):
            self._dialect.run(self._connection, f"SET STATEMENT max_statement_time = {seconds:.3f} FOR {rename}")
        # Otherwise the last sentry table was free since the connection that had locked it ended.
        return sentries.confirmed
