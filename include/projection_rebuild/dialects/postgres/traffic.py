"""The current traffic of a database on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from projection_rebuild.dialects.base import TrafficProbe
from projection_rebuild.dialects.postgres import session as session_settings
from projection_rebuild.dialects.postgres.base import PostgresBase
from projection_rebuild.model.names import TableSet


class PostgresTraffic(PostgresBase, TrafficProbe):
    """See :class:`TrafficProbe`."""

    def active_sessions(self, connection: sa.Connection) -> int | None:
        query = """SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database()
                   AND state = 'active' AND backend_type = 'client backend' AND application_name <> %s"""
        return int(self._execute(connection, query, session_settings.APPLICATION_NAME).scalar_one())

    def table_reads(self, connection: sa.Connection, tables: Sequence[TableSet]) -> int | None:
        query = """SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_catalog.pg_stat_all_tables
                   WHERE schemaname = %s AND relname = ANY(%s)"""
        reads = self._execute(connection, query, tables[0].schema, [table.blue for table in tables]).scalar_one()
        return None if reads is None else int(reads)

    def transaction_age(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        query = """SELECT coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - min(a.xact_start)), 0)
                   FROM pg_catalog.pg_locks l
                   JOIN pg_catalog.pg_class c ON c.oid = l.relation
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
                   WHERE l.locktype = 'relation' AND n.nspname = %s AND c.relname = ANY(%s) AND a.pid <> pg_catalog.pg_backend_pid()
                   AND a.datname = pg_catalog.current_database() AND a.application_name <> %s"""
        names = [table.blue for table in tables]
        return float(self._execute(connection, query, tables[0].schema, names, session_settings.APPLICATION_NAME).scalar_one())

    def replica_lag(self, connection: sa.Connection) -> float | None:
        # A role without the privilege sees a replica's row, but no state. A replica that has caught up has no lag.
        query = """SELECT count(*), count(state), coalesce(extract(epoch FROM max(replay_lag)), 0)
                   FROM pg_catalog.pg_stat_replication"""
        replicas, seen, lag = self._execute(connection, query).one()
        return None if seen < replicas else float(lag)
