"""Preflight checks on PostgreSQL beside those of the tables' structure: settings, privileges, and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import PreflightProbe, RunTables
from projection_rebuild.dialects.postgres import session as session_settings
from projection_rebuild.dialects.postgres.base import PostgresBase
from projection_rebuild.dialects.postgres.lock_waits import LONGEST_LOCK_WAIT, milliseconds
from projection_rebuild.model.findings import Finding

OLDEST = (15,)
"""The first version whose catalogs have everything that the engine reads."""

Query = Callable[..., Any]
"""Executes SQL with bound values."""

_SERVER = """
SELECT current_user AS user_name,
       pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only,
       (SELECT setting::integer FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout') AS deadlock_timeout,
       pg_catalog.current_database() AS database,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY') AS temporary,
       pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_sessions,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS replicas,
       (SELECT coalesce(pg_catalog.string_agg(slot_name, ', ' ORDER BY slot_name), '') FROM pg_catalog.pg_replication_slots) AS slots"""

_SCHEMA = """SELECT nspname, pg_catalog.has_schema_privilege(oid, 'CREATE') AND pg_catalog.has_schema_privilege(oid, 'USAGE')
 FROM pg_catalog.pg_namespace WHERE nspname = %s"""

_LEDGER = """SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = ANY (%s) AND NOT (
       pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
   AND pg_catalog.has_table_privilege(c.oid, 'UPDATE') AND pg_catalog.has_table_privilege(c.oid, 'DELETE'))
 ORDER BY 1"""

_PRIMARY = """SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s AND k.contype = 'p')"""

_READABLE = """SELECT a.attname FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s AND a.attname = ANY (%s)
   AND NOT (pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'))
 ORDER BY a.attnum"""

_LOCKABLE = """SELECT pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE' || CASE
    WHEN pg_catalog.current_setting('server_version_num')::integer >= 170000 THEN ', MAINTAIN' ELSE '' END)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s"""


_WITHOUT_STATISTICS = """SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s AND pg_catalog.pg_relation_size(c.oid) >= %s
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_stats s WHERE s.schemaname = n.nspname AND s.tablename = c.relname))"""

MANY_BYTES = 4 * 1024 * 1024
"""A smaller table of events is read quickly even with a bad query plan, so it needs no statistics."""


class PostgresPreflight(PostgresBase, PreflightProbe):
    """See :class:`PreflightProbe`."""

    def _oldest(self) -> tuple[int, ...]:
        return OLDEST

    def preflight(self, connection: sa.Connection, run_tables: RunTables) -> list[Finding]:
        query = partial(self._execute, connection)
        longest = milliseconds(LONGEST_LOCK_WAIT)
        blues = [table.blue for table in run_tables.tables]
        return [
            *of_server(query, longest),
            *session_settings.findings(query),
            *session_settings.hidden(query, run_tables.schema, blues),
            *self._event_triggers(connection, run_tables.schema),
            *of_tables(query, run_tables),
        ]

    def _event_triggers(self, connection: sa.Connection, schema: str | None) -> Iterator[Finding]:
        """Tries whether event triggers allow the DDL of a rebuild: on a trial table, in a transaction that is rolled back."""
        query = partial(self._execute, connection)
        triggers = session_settings.event_triggers(query)
        if not triggers or not query(session_settings.MAY_CREATE, schema).scalar():
            return
        about, tried = f"event trigger {', '.join(triggers)}", ""
        self._execute(connection, self.begin)
        try:
            for tried in session_settings.trial(self.quote(schema or "")):
                self._execute(connection, tried)
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated or self.is_lock_timeout(error):
                raise
            yield Finding(
                about=about,
                problem=f"it refuses {' '.join(tried.split()[:2])} (SQLSTATE {getattr(error.orig, 'sqlstate', None)}), which a rebuild needs",
                remedy="let it pass the role of the rebuild, or ALTER EVENT TRIGGER ... DISABLE for the time of the rebuild",
                refuses=True,
            )
        else:
            yield Finding(
                about=about,
                problem="it fires at each CREATE, ALTER and DROP of a rebuild; it let pass those of a trial, which the plan rolled back",
                remedy="make sure that it refuses none for the name of a table",
            )
        finally:
            with suppress(sa.exc.SQLAlchemyError):
                self._execute(connection, "ROLLBACK")

    def preflight_events(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str]
    ) -> list[Finding]:
        query = partial(self._execute, connection)
        return [
            *session_settings.findings(query),
            *session_settings.hidden(query, schema, [table]),
            *of_events(query, schema, table, columns),
        ]


def of_server(query: Query, longest_lock_wait: int) -> Iterator[Finding]:
    """Checks settings, and the privileges that concern all tables.

    :param longest_lock_wait: the longest wait for a lock in a cutover, in milliseconds
    """
    server = query(_SERVER).one()
    if server.read_only:
        yield Finding(about="server", problem="it is read-only or a standby", remedy="connect to the primary", refuses=True)
    if server.deadlock_timeout <= longest_lock_wait:
        yield Finding(
            about="deadlock_timeout",
            problem=f"{server.deadlock_timeout} ms is not above the {longest_lock_wait} ms that a switch waits for a lock, so that a "
            "deadlock with it may end as an error of the application",
            remedy="set it to 1s",
        )
    if not server.temporary:
        yield Finding(
            about=server.user_name,
            problem="it may not make temporary tables, which updates of many rows go through",
            remedy=f"GRANT TEMPORARY ON DATABASE {server.database} TO {server.user_name}",
            refuses=True,
        )
    if not server.sees_sessions:
        yield Finding(
            about=server.user_name,
            problem="it does not see what the sessions of other roles do, so that the low-traffic gate does not count them, and their "
            "older snapshots are not waited for",
            remedy=f"GRANT pg_read_all_stats TO {server.user_name}",
        )
    if server.replicas or server.slots:
        slots = f", slots: {server.slots}" if server.slots else ""
        yield Finding(
            about="replication",
            problem=f"{server.replicas} replicas are attached{slots}; all of the new tables goes through the write-ahead log, which is "
            "kept until each slot has read it",
            remedy="make sure that no slot is abandoned, and watch the lag",
        )


def of_tables(query: Query, run_tables: RunTables) -> Iterator[Finding]:
    """Checks privileges in the schema, and the keys of the tables."""
    schema = run_tables.schema
    user = query("SELECT current_user").scalar_one()
    if schema is None:
        problem = f"{user} may use no schema that it names"
        yield Finding(about="search_path", problem=problem, remedy=f"GRANT USAGE, CREATE ON SCHEMA ... TO {user}", refuses=True)
    for name, allowed in query(_SCHEMA, schema):
        if not allowed:
            yield Finding(
                about=f"schema {name}",
                problem=f"{user} may not create tables in it",
                remedy=f"GRANT USAGE, CREATE ON SCHEMA {name} TO {user}",
                refuses=True,
            )
    for (name,) in query(_LEDGER, schema, list(run_tables.ledger)):
        yield Finding(
            about=name,
            problem=f"it is a table of the ledger, and {user} may not read and write it",
            remedy=f"run all rebuilds of this schema as one role, or GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {user}",
            refuses=True,
        )
    for table in run_tables.tables:
        if not query(_PRIMARY, schema, table.blue).scalar_one():
            yield Finding(
                about=table.blue,
                problem="it has no primary key, only a unique one; replication and other tools tell its rows apart by a primary key",
                remedy="ALTER TABLE ... ADD PRIMARY KEY",
            )


def of_events(query: Query, schema: str | None, table: str, columns: Sequence[str]) -> Iterator[Finding]:
    """Checks privileges on the event store, that this server is the one with the appends, and the planner's statistics."""
    user = query("SELECT current_user").scalar_one()
    if query("SELECT pg_catalog.pg_is_in_recovery()").scalar_one():
        yield Finding(
            about=f"event store {table}",
            problem="this server is a standby: it is behind its primary, and appends cannot be held back here",
            remedy="connect to the primary",
            refuses=True,
        )
    hidden = [name for (name,) in query(_READABLE, schema, table, list(columns))]
    if hidden:
        yield Finding(
            about=f"event store {table}",
            problem=f"{user} may not read {', '.join(hidden)}",
            remedy=f"GRANT USAGE ON SCHEMA {schema} TO {user}, and GRANT SELECT ON {table} TO {user}",
            refuses=True,
        )
    if query(_LOCKABLE, schema, table).scalar() is False:
        yield Finding(
            about=f"event store {table}",
            problem=f"{user} may not lock it against appends, not even for the moment that the high-water mark needs",
            remedy=f"GRANT MAINTAIN ON {table} TO {user} (before PostgreSQL 17: UPDATE; no row is ever changed)",
            refuses=True,
        )
    if query(_WITHOUT_STATISTICS, schema, table, MANY_BYTES).scalar_one():
        yield Finding(
            about=f"event store {table}",
            problem="it has no statistics, as after a restore, so that the server may sort all later events for each page",
            remedy=f"ANALYZE {table}",
            refuses=False,
        )
