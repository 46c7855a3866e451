"""The statements of a swap on PostgreSQL, derived from the catalogs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import sqlalchemy as sa

from projection_rebuild.dialects.base import PreparedSwap, SwapStatements
from projection_rebuild.dialects.postgres import unsupported as limits
from projection_rebuild.dialects.postgres.catalog import Catalog
from projection_rebuild.dialects.postgres.cutover import Switch
from projection_rebuild.model.names import TableSet

# Transactions whose snapshot outlives a statement: idle ones, or those after their first statement (which may have
# come in one message with the BEGIN). A READ COMMITTED transaction takes a new snapshot for each statement, with
# another xmin.
_SNAPSHOTS = """
SELECT pid, xact_start::timestamp(0)::text, backend_xmin::text, state FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND backend_type = 'client backend' AND backend_xmin IS NOT NULL
   AND (state LIKE 'idle in transaction%' OR xact_start IS DISTINCT FROM query_start) AND pid <> pg_catalog.pg_backend_pid()"""

# The lock of VACUUM, ANALYZE, CREATE INDEX CONCURRENTLY and similar statements. Autovacuum gives way to a waiting
# session, but only after deadlock_timeout. Any other statement is a later one of the same transaction; its text may
# contain values that no log should have, so it is not shown.
_MAINTENANCE = r"""
SELECT DISTINCT 'session ' || l.pid || coalesce(' (' || nullif(
    CASE WHEN a.query ~* '^\s*(autovacuum:|vacuum|analyze|lock|create\s+(unique\s+)?index|reindex|cluster)' THEN split_part(a.query, ';', 1)
         ELSE concat_ws(', ', nullif(a.application_name, ''), a.state) END, '') || ')', '') || ' on ' || c.relname
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation' AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND n.nspname = %s AND c.relname = ANY (%s) ORDER BY 1"""


class PostgresSwapStatements(SwapStatements):
    """See :class:`SwapStatements`."""

    def before_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        with Catalog.of(connection) as catalog:
            return list(Switch(catalog, tables).prepare())

    def swap_statements(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> PreparedSwap:
        with Catalog.of(connection) as catalog:
            switch = Switch(catalog, tables)
            if not planned:
                switch.refuse_changes()
            statements = list(switch.statements())

        def after() -> list[str]:
            with Catalog.of(connection) as catalog:
                return list(Switch(catalog, tables).planned_finish())

        return PreparedSwap(statements, after)

    def after_swap(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        with Catalog.of(connection) as catalog:
            return list(Switch(catalog, tables).finish())

    def restore_names(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        with Catalog.of(connection) as catalog:
            return list(Switch(catalog, tables).take_back())

    def snapshots(self, connection: sa.Connection) -> dict[Hashable, str]:
        return {
            (pid, started, xmin): f"session {pid} ({state}, since {started})"
            for pid, started, xmin, state in self._execute(connection, _SNAPSHOTS)
        }

    def maintenance(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> list[str]:
        return list(self._execute(connection, _MAINTENANCE, schema, list(tables)).scalars())

    def left_on_old(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        with Catalog.of(connection) as catalog:
            return [finding for table in tables for finding in limits.left_on(catalog, catalog.find(table.schema, table.old))]
