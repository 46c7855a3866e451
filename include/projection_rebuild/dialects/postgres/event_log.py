"""The event store on PostgreSQL: its high-water mark and its fence."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import sqlalchemy as sa

from projection_rebuild.dialects.base import EventLog, Fence
from projection_rebuild.dialects.postgres.base import PostgresBase
from projection_rebuild.dialects.postgres.lock_waits import longest_silence
from projection_rebuild.errors import SettleTimeout
from projection_rebuild.model.positions import Place

# An INSERT takes its lock before it draws a number from a sequence, and may get a transaction id much later. A prepared transaction
# has no session.
_APPENDING = """
WITH RECURSIVE store(oid) AS (
    SELECT %s::pg_catalog.regclass::oid
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN store s ON i.inhparent = s.oid
)
SELECT l.virtualtransaction, l.pid IS NULL FROM pg_catalog.pg_locks l JOIN store s ON l.relation = s.oid
 WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"""

# The column owns the sequence (serial, identity), or names it in its default.
_AHEAD = """
SELECT q.seqrelid::pg_catalog.regclass::text || ' (CACHE ' || q.seqcache || ')'
  FROM pg_catalog.pg_attribute a
  LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
  JOIN pg_catalog.pg_depend d ON
       (d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i'))
    OR (d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass)
  JOIN pg_catalog.pg_sequence q ON q.seqrelid IN (d.objid, d.refobjid)
 WHERE a.attrelid = %s AND a.attname = %s AND q.seqcache > 1 LIMIT 1"""


class PostgresEventLog(PostgresBase, EventLog):
    """See :class:`EventLog`."""

    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> Place:
        head = f"""SELECT max({self.quote(position_column)}),
                          pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint
                     FROM {self.qualified(schema, table)}"""
        with self.connect() as connection:
            highest, horizon = self._execute(connection, head).one()
            appending = {transaction for transaction, _ in self._appending(connection, schema, table)}
            deadline = time.monotonic() + patience.total_seconds()
            while not self._appends_ended(connection, schema, table, horizon, appending):
                if time.monotonic() > deadline:
                    raise SettleTimeout(
                        f"transactions that may have appended to {table} did not end within {patience.total_seconds():.0f} s; "
                        "look for long transactions in pg_stat_activity, then retry"
                    )
                time.sleep(random.uniform(0.02, 0.1))  # noqa: S311 - spreads retries, guards nothing
        return None if highest is None else int(highest)

    def _appending(self, connection: sa.Connection, schema: str | None, table: str) -> list[tuple[str, bool]]:
        """The transactions that write to a table, each with whether it is a prepared one."""
        name = self.qualified(schema, table)
        return [(transaction, prepared) for transaction, prepared in self._execute(connection, _APPENDING, name)]

    def _appends_ended(
        self, connection: sa.Connection, schema: str | None, table: str, horizon: int, appending: set[str]
    ) -> bool:
        """Whether all appends from before have ended. Two facts prove that: a lock that conflicts with every writer, or that no
        transaction from before is left.

        :param horizon: the first transaction id that the server had not assigned yet
        :param appending: the transactions that were writing to the table; some may have no transaction id
        """
        oldest = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint"
        if self._execute(connection, oldest).scalar_one() >= horizon and not any(
            prepared or transaction in appending for transaction, prepared in self._appending(connection, schema, table)
        ):
            return True
        lock = f"LOCK TABLE {self.qualified(schema, table)} IN SHARE MODE"
        try:
            # The server executes one message as one transaction, so it frees the lock even if the engine hangs.
            self._execute_all(connection, ["SET LOCAL lock_timeout = 100", lock])
        except sa.exc.DBAPIError as error:
            if self.is_lock_timeout(error):
                return False
            raise
        return True

    @contextmanager
    def fence(
        self, schema: str | None, table: str, timeout: timedelta, longest: timedelta = timedelta(seconds=2)
    ) -> Iterator[Fence]:
        with self.connect() as connection:
            self.limit_lock_wait(connection, timeout)
            self._execute(connection, self.begin)
            self._execute(connection, longest_silence(longest))
            self._execute(connection, f"LOCK TABLE {self.qualified(schema, table)} IN SHARE MODE")
            try:
                yield Fence(lambda: self._still_there(connection))
            finally:
                try:
                    self._execute(connection, "ROLLBACK")
                except sa.exc.SQLAlchemyError:
                    # The connection is lost, and its lock with it. The error that ended the context matters more.
                    connection.invalidate()

    def hands_out_ahead(self, connection: sa.Connection, schema: str | None, table: str, column: str) -> str | None:
        sequence = self._execute(connection, _AHEAD, self._oid(connection, schema, table), column).scalar()
        return None if sequence is None else str(sequence)
