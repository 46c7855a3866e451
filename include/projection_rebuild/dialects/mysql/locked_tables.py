"""MySQL's cutover strategy: LOCK TABLES, and one RENAME of the locked tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import sqlalchemy as sa

from projection_rebuild.dialects.base import HeldTables, LockPolicy, PreparedSwap
from projection_rebuild.dialects.mysql import moment
from projection_rebuild.dialects.mysql.base import ACCESS_DENIED, TABLE_ACCESS_DENIED, number_of
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.dialects.mysql.rename_cutover import ROW_LOCK_WAIT, CutoverByRename, is_alter
from projection_rebuild.model.names import TableSet


class LockedTablesCutover(CutoverByRename):
    """Locks the live tables and the ledger, and renames the tables under the same lock.

    The lock on the ledger excludes other workers of the run. The last check of the tables and the rename happen under
    one lock, so no change of a client stays on the old tables.
    """

    # A session that has locked tables can use no others.
    sql_reads_no_events = "MySQL's switch holds the tables in a way that lets no SQL read events"

    @contextmanager
    def lock_tables(
        self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy, beside: Sequence[str]
    ) -> Iterator[HeldTables]:
        dialect = self._dialect
        dialect.limit_lock_wait(connection, policy.timeout)
        dialect.limit_silence(connection, policy.longest)
        # A session that has locked tables can use no others; and adding a foreign key uses both of its tables.
        used = [(table.schema, name) for table in tables for name in (table.blue, table.green)]
        used += dialect.parents_beside(connection, tables)
        names = [*used, *((tables[0].schema, name) for name in beside)]
        looked_at = [table for name in policy.looked_at if (table := (tables[0].schema, name)) not in names]
        wanted = [f"{dialect.qualified(schema, name)} WRITE" for schema, name in names]
        locks = ", ".join([*wanted, *(f"{dialect.qualified(schema, name)} READ" for schema, name in looked_at)])
        try:
            in_the_way = moment.unused([*used, *looked_at], by_transactions=not policy.nowait)
            self._in_a_moment(connection, in_the_way, f"LOCK TABLES {locks}", policy.look, policy.timeout, policy.begins)
            yield LockedTables(dialect, connection, tables)
        except BaseException:
            # If the connection is gone, so are its locks; the caller needs the first error.
            with suppress(sa.exc.SQLAlchemyError):
                self._unlock(connection)
            raise
        self._unlock(connection)

    def _unlock(self, connection: sa.Connection) -> None:
        try:
            self._dialect.run(connection, "UNLOCK TABLES")
        except sa.exc.DBAPIError as error:
            if not self._dialect.is_lock_timeout(error):
                raise
            # A kill that came too late for its statement has ended this one; it ends only one.
            self._dialect.run(connection, "UNLOCK TABLES")
        self._dialect.limit_silence(connection, None)

    def _in_a_moment(
        self,
        connection: sa.Connection,
        in_the_way: moment.Question,
        statement: str,
        look: float,
        timeout: timedelta,
        begins: Callable[[], object] = lambda: None,
    ) -> None:
        """Executes a statement that takes tables, in a moment in which its wait makes no client a deadlock's victim.

        It ends the statement if that waits for longer than ``timeout``.

        :param look: for how many seconds to look for the moment
        :param begins: called before each try
        :raises TablesBusy: no moment came
        """
        dialect = self._dialect

        @contextmanager
        def bounded() -> Iterator[None]:
            # MySQL's own time-out is one second or more. A waiting statement that KILL QUERY ends has changed nothing.
            with dialect.killed_after(connection, timeout):
                begins()
                yield

        free, deadline = moment.Moment(connection, in_the_way), time.monotonic() + look
        try:
            free.wait(deadline)
        except sa.exc.DBAPIError as error:
            # Without the privilege to read the locks, the statement can only wait in the queue.
            if number_of(error) not in (TABLE_ACCESS_DENIED, ACCESS_DENIED):
                raise
        else:
            if dialect.takes_many and free.take(statement, deadline, bounded):
                return
            # The connection, or a proxy on the way, accepts only one statement per message.
            dialect.takes_many = False
        with bounded():
            dialect.run(connection, statement)

    def _alter_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        # A client that holds one of the tables and wants another would be the victim of a deadlock with this statement.
        used = [(table.schema, name) for table in tables for name in (table.blue, table.old)]
        self._dialect.limit_lock_wait(connection, timeout)
        in_the_way = moment.unused([*used, *self._dialect.parents_beside(connection, tables)])
        self._in_a_moment(connection, in_the_way, statement, timeout.total_seconds() / 2, timeout / 2)


class LockedTables(HeldTables):
    """Tables that LOCK TABLES holds; ALTER and RENAME do not release them."""

    _dialect: MySQLFamily

    @contextmanager
    def transaction(self) -> Iterator[None]:
        # START TRANSACTION would release the locked tables.
        run, connection = self._dialect.run, self._connection
        run(connection, "SET autocommit = 0")
        try:
            yield
        except BaseException:
            with suppress(sa.exc.SQLAlchemyError):
                run(connection, "ROLLBACK")
                run(connection, "SET autocommit = 1")
            raise
        run(connection, "COMMIT")
        run(connection, "SET autocommit = 1")

    def planned_after(self, swap: PreparedSwap, policy: LockPolicy) -> list[str]:
        return swap.after()

    def run_swap(self, statements: Sequence[str], policy: LockPolicy) -> bool:
        policy.stay_fenced()
        # A counter that is ahead does no harm, and a killed RENAME has renamed no table.
        for statement in statements:
            policy.stay_in_time()
            with self._dialect.killed_after(self._connection, policy.rest):
                self._dialect.run(self._connection, statement)
        return True

    def run_at_work(self, statement: str, timeout: timedelta) -> None:
        # No other client can use the tables, so the ALTER need not look for a moment.
        if is_alter(statement):
            self._dialect.run(self._connection, ROW_LOCK_WAIT)
        self._dialect.run(self._connection, statement)
