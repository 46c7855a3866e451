"""MySQL's way of cutting over: LOCK TABLES, and one RENAME of the locked tables."""

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
    """LOCK TABLES covers the ledger, so that no other worker of a run is at its swap; and the last look is taken,
    and the tables are renamed, under one lock, so that nothing is left on the old ones."""

    # A session that has locked tables can use no others.
    sql_reads_no_events = "MySQL's switch holds the tables in a way that lets no SQL read events"

    @contextmanager
    def lock_tables(
        self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy, beside: Sequence[str]
    ) -> Iterator[HeldTables]:
        dialect = self._dialect
        dialect.limit_lock_wait(connection, policy.timeout)
        dialect.limit_silence(connection, policy.longest)
        # A session that has locked tables can use no others; and foreign keys are added to both of their tables.
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
            # If the connection is gone, so are its locks; the error that matters is this one.
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
            # A kill that came late has struck it, and strikes but once.
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
        """Executes a statement that takes tables, in a moment in which its wait would be nobody's deadlock; ends
        it if it waits for too long.

        :param look: for how many seconds the moment is looked for
        :param begins: called before each try
        :raises TablesBusy: it did not come
        """
        dialect = self._dialect

        @contextmanager
        def bounded() -> Iterator[None]:
            # MySQL's own time-out is a second at least; ended by KILL QUERY, a waiting statement leaves everything
            # as it was.
            with dialect.killed_after(connection, timeout):
                begins()
                yield

        free, deadline = moment.Moment(connection, in_the_way), time.monotonic() + look
        try:
            free.wait(deadline)
        except sa.exc.DBAPIError as error:
            # Without the privilege to look there is only waiting in the queue.
            if number_of(error) not in (TABLE_ACCESS_DENIED, ACCESS_DENIED):
                raise
        else:
            if dialect.takes_many and free.take(statement, deadline, bounded):
                return
            # The connection, or something on the way, takes one statement at a time.
            dialect.takes_many = False
        with bounded():
            dialect.run(connection, statement)

    def _alter_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        # Whoever holds one of the tables and wants another would be the victim of a deadlock with us.
        used = [(table.schema, name) for table in tables for name in (table.blue, table.old)]
        self._dialect.limit_lock_wait(connection, timeout)
        in_the_way = moment.unused([*used, *self._dialect.parents_beside(connection, tables)])
        self._in_a_moment(connection, in_the_way, statement, timeout.total_seconds() / 2, timeout / 2)


class LockedTables(HeldTables):
    """Held by LOCK TABLES, which ALTER and RENAME do not give up."""

    _dialect: MySQLFamily

    @contextmanager
    def transaction(self) -> Iterator[None]:
        # START TRANSACTION would give the locked tables up.
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
        # A counter that is ahead harms nobody, and a RENAME that is killed leaves all tables where they were.
        for statement in statements:
            policy.stay_in_time()
            with self._dialect.killed_after(self._connection, policy.rest):
                self._dialect.run(self._connection, statement)
        return True

    def run_at_work(self, statement: str, timeout: timedelta) -> None:
        # Nobody else has the tables.
        if is_alter(statement):
            self._dialect.run(self._connection, ROW_LOCK_WAIT)
        self._dialect.run(self._connection, statement)
