"""PostgreSQL: DDL is transactional, so a switch is one transaction under ACCESS EXCLUSIVE locks."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect, Manners, PauseTooLong, Scratch
from projection_rebuild.dialects.postgres import unsupported as limits
from projection_rebuild.dialects.postgres.apart import PostgresTablesApart
from projection_rebuild.dialects.postgres.catalog import Catalog
from projection_rebuild.dialects.postgres.comparing import PostgresComparing
from projection_rebuild.dialects.postgres.cutover import Switch
from projection_rebuild.dialects.postgres.dependents import PostgresDependents
from projection_rebuild.dialects.postgres.event_expressions import PostgresEventExpressions
from projection_rebuild.dialects.postgres.event_log import PostgresEventLog
from projection_rebuild.dialects.postgres.inspector import PostgresInspector
from projection_rebuild.dialects.postgres.lock_waits import longest_silence, milliseconds
from projection_rebuild.dialects.postgres.partial_copy import PostgresPartialCopy
from projection_rebuild.dialects.postgres.preflight import PostgresPreflight
from projection_rebuild.dialects.postgres.shadow_tables import PostgresShadow
from projection_rebuild.dialects.postgres.traffic import PostgresTraffic
from projection_rebuild.errors.trouble import Kind
from projection_rebuild.model.names import TableSet

# A transaction whose snapshot outlives its statement: idle, or in a statement that is not its first (which may have come in one
# message with its BEGIN). READ COMMITTED gives its
# snapshot up after each statement, and takes another one with another xmin, or is a statement by itself.
_SNAPSHOTS = """
SELECT pid, xact_start::timestamp(0)::text, backend_xmin::text, state FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND backend_type = 'client backend' AND backend_xmin IS NOT NULL
   AND (state LIKE 'idle in transaction%' OR xact_start IS DISTINCT FROM query_start) AND pid <> pg_catalog.pg_backend_pid()"""

# What VACUUM, ANALYZE, CREATE INDEX CONCURRENTLY and the like hold for as long as they run. Autovacuum gives way to whoever waits, but
# only after deadlock_timeout. Any other statement is a later one of the same transaction, and may hold values that no log should have.
_MAINTENANCE = r"""
SELECT DISTINCT 'session ' || l.pid || coalesce(' (' || nullif(
    CASE WHEN a.query ~* '^\s*(autovacuum:|vacuum|analyze|lock|create\s+(unique\s+)?index|reindex|cluster)' THEN split_part(a.query, ';', 1)
         ELSE concat_ws(', ', nullif(a.application_name, ''), a.state) END, '') || ')', '') || ' on ' || c.relname
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation' AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND n.nspname = %s AND c.relname = ANY (%s) ORDER BY 1"""


_LEFT = """SELECT pg_catalog.set_config('lock_timeout', greatest(1, {limit} - extract(milliseconds FROM
 pg_catalog.clock_timestamp() - pg_catalog.transaction_timestamp()))::integer::text, false)"""


class PostgresDialect(
    PostgresInspector,
    PostgresDependents,
    PostgresTraffic,
    PostgresPreflight,
    PostgresShadow,
    PostgresTablesApart,
    PostgresComparing,
    PostgresPartialCopy,
    PostgresEventLog,
    PostgresEventExpressions,
    Dialect,
):
    """See :class:`Dialect`; statements as they were checked on PostgreSQL 15 and 18."""

    validates_keys = True

    def left_on_old(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        with Catalog.of(connection) as catalog:
            return [each for table in tables for each in limits.left_on(catalog, catalog.find(table.schema, table.old))]

    @contextmanager
    def scratch(self, name: str) -> Iterator[Scratch]:
        with self._schema_apart(
            name,
            reserve="SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext(%s))",
            make=f"CREATE SCHEMA {self.quote(name)}",
            drop=f"DROP SCHEMA IF EXISTS {self.quote(name)} CASCADE",
        ):
            yield Scratch(self, name)

    # Switching --------------------------------------------------------------------------------------------------

    def before_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        with Catalog.of(connection) as catalog:
            return list(Switch(catalog, tables).prepare())

    @contextmanager
    def hold(
        self, connection: sa.Connection, tables: Sequence[TableSet], manners: Manners, beside: Sequence[str]
    ) -> Iterator[None]:
        with Catalog.of(connection) as catalog:
            switch = Switch(catalog, tables)
            views, names = switch.locks(), switch.locked_tables()
        # In another order at each attempt: against readers that lock the tables the other way round, a fixed one starves.
        random.shuffle(names)
        self.limit_lock_wait(connection, manners.timeout)
        with self.transaction(connection):
            first, *others = [*views, *(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE" for name in names)]
            # Whoever waits for the first lock waits until we have or give up the last one, so one time is for all of them.
            limit = milliseconds(manners.timeout)
            bounded = [each for lock in others for each in (_LEFT.format(limit=limit), lock)]
            self._execute_all(connection, [longest_silence(manners.longest), first, *bounded, f"SET lock_timeout = {limit}"])
            yield

    def run_switch(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], manners: Manners
    ) -> bool:
        try:
            self._execute_all(connection, _in_time(statements, manners.rest))
        except sa.exc.DBAPIError as error:
            if self.kind_of(error) is Kind.CANCELLED:
                raise PauseTooLong from error
            raise
        manners.stay_in_time()
        self._still_fenced(manners)
        return True

    def take_back(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        with Catalog.of(connection) as catalog:
            return list(Switch(catalog, tables).take_back())

    def snapshots(self, connection: sa.Connection) -> dict[Hashable, str]:
        return {
            (pid, started, xmin): f"session {pid} ({state}, since {started})"
            for pid, started, xmin, state in self._execute(connection, _SNAPSHOTS)
        }

    def maintenance(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> list[str]:
        return list(self._execute(connection, _MAINTENANCE, schema, list(tables)).scalars())

    def switch(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> list[str]:
        with Catalog.of(connection) as catalog:
            switch = Switch(catalog, tables)
            if planned:
                return list(switch.statements())
            switch.refuse_changes()
            return list(switch.statements())

    def after_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        with Catalog.of(connection) as catalog:
            return list(Switch(catalog, tables).finish())

    def planned_after_switch(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> list[str]:
        with Catalog.of(connection) as catalog:
            return list(Switch(catalog, tables).planned_finish())


_AT_ONCE = 10
"""Statements of a switch between two looks at the clock."""


def _in_time(statements: Sequence[str], rest: timedelta) -> list[str]:
    """The statements, to be sent at once: the server itself looks at the clock between them, and cancels one that takes too long."""
    limit = max(1, round(rest.total_seconds() * 1000))
    look = (
        "DO $projection_rebuild$ BEGIN IF pg_catalog.clock_timestamp() > pg_catalog.statement_timestamp() + "
        f"interval '{limit} milliseconds' THEN RAISE EXCEPTION USING ERRCODE = 'query_canceled'; END IF; END $projection_rebuild$"
    )
    looked = [each for at in range(0, len(statements), _AT_ONCE) for each in [look, *statements[at : at + _AT_ONCE]]]
    # Not the COMMIT: nobody would know what has become of it.
    return [f"SET LOCAL statement_timeout = {limit}", *looked, look, "SET LOCAL statement_timeout = 0"]
