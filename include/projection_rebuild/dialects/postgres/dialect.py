"""PostgreSQL: DDL is transactional, so a switch is one transaction under ACCESS EXCLUSIVE locks."""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from psycopg.types.json import set_json_loads
from sqlalchemy.dialects.postgresql import JSON

from projection_rebuild.dialects.base import (
    KEYS_PER_STATEMENT,
    Dialect,
    Extent,
    Fence,
    Listed,
    Refusal,
    Scratch,
    Surroundings,
    Trial,
)
from projection_rebuild.dialects.postgres import connection as connecting
from projection_rebuild.dialects.postgres import preflight
from projection_rebuild.dialects.postgres import session as ours
from projection_rebuild.dialects.postgres import target_schema as structure
from projection_rebuild.dialects.postgres import unsupported as limits
from projection_rebuild.dialects.postgres.apart import made_apart
from projection_rebuild.dialects.postgres.catalog import MAX_IDENTIFIER, Catalog, literal
from projection_rebuild.dialects.postgres.cutover import Switch, counted_on, dropping
from projection_rebuild.dialects.postgres.dependents import carried_over
from projection_rebuild.dialects.postgres.dump import dumped
from projection_rebuild.dialects.postgres.hanging import QUERY as HANGING
from projection_rebuild.dialects.postgres.lock_waits import LONGEST_LOCK_WAIT, longest_silence, milliseconds
from projection_rebuild.dialects.postgres.schema_trial import Rehearsal
from projection_rebuild.dialects.postgres.shadow import Clone
from projection_rebuild.dialects.postgres.swap_statements import PostgresSwapStatements, doubled
from projection_rebuild.dialects.postgres.transactional import TransactionalCutover
from projection_rebuild.errors import CloneError, SessionError, SettleTimeout
from projection_rebuild.model.column_kinds import ColumnKind, ColumnType
from projection_rebuild.model.findings import Carried, Finding
from projection_rebuild.model.names import Form, TableSet
from projection_rebuild.model.positions import Place
from projection_rebuild.rows.bulk import FORMATS, as_text, slices
from projection_rebuild.rows.shapes import Holds, Shape
from projection_rebuild.rows.types import Key, RowType, Values
from projection_rebuild.rows.values import PORTABLE_BINDS, bound, from_json, loaded

NAME_TAKEN = ("42P07", "42710")
"""What a statement ends with that gives a name which something else has."""

FEW_ROWS = 20
"""Up to here a statement per row is cheaper than a temporary table."""

_FORMATS = {**FORMATS, bool: lambda value: "t" if value else "f"}

_FIND = """SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s"""

_FIND_ALL = """SELECT c.oid, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = ANY(%s)"""

# An INSERT has its lock before it takes a number from a sequence, and a transaction id perhaps much later. Prepared transactions are
# of no session.
_APPENDING = """
WITH RECURSIVE store(oid) AS (
    SELECT %s::pg_catalog.regclass::oid
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN store s ON i.inhparent = s.oid
)
SELECT l.virtualtransaction, l.pid IS NULL FROM pg_catalog.pg_locks l JOIN store s ON l.relation = s.oid
 WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"""


# Of a domain, the type under it.
_COLUMN_TYPES = """
SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, base.typname AS base, base.typtype AS typtype,
       coalesce(l.collisdeterministic, true) AND base.typname IN ('text', 'varchar') AS compares_bytes, NOT a.attnotnull AS nullable
  FROM pg_catalog.pg_attribute a
  CROSS JOIN LATERAL (
       WITH RECURSIVE under(oid) AS (
            SELECT a.atttypid UNION SELECT t.typbasetype FROM pg_catalog.pg_type t JOIN under u ON t.oid = u.oid WHERE t.typtype = 'd')
       SELECT t.typname, t.typtype FROM pg_catalog.pg_type t JOIN under u ON t.oid = u.oid WHERE t.typtype <> 'd') base
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
 WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped"""

# Of a domain, the type under it, with what the lowest domain says of its length. The type citext compares as a collation that is not
# deterministic does.
_SHAPES = """
SELECT a.attname AS name, base.typname AS base, base.typtype AS typtype, base.typmod AS typmod, NOT a.attnotnull AS nullable,
       CASE WHEN base.typname = 'citext' THEN 'type citext' WHEN NOT l.collisdeterministic THEN 'collation ' || l.collname END AS alike
  FROM pg_catalog.pg_attribute a
  CROSS JOIN LATERAL (
       WITH RECURSIVE under(oid, typmod) AS (
            SELECT a.atttypid, a.atttypmod
            UNION SELECT t.typbasetype, t.typtypmod FROM pg_catalog.pg_type t JOIN under u ON t.oid = u.oid WHERE t.typtype = 'd')
       SELECT t.typname, t.typtype, u.typmod FROM under u JOIN pg_catalog.pg_type t ON t.oid = u.oid WHERE t.typtype <> 'd') base
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
 WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"""

_HOLDS = {
    **dict.fromkeys(("int2", "int4", "int8"), Holds.WHOLE),
    **dict.fromkeys(("text", "varchar", "name", "citext"), Holds.TEXT),
    "bpchar": Holds.PADDED,
    "numeric": Holds.DECIMAL,
    "float4": Holds.SINGLE,
    "float8": Holds.DOUBLE,
    "date": Holds.DATE,
    "timestamp": Holds.MOMENT,
    "timestamptz": Holds.ZONED,
    "uuid": Holds.UUID,
    "bytea": Holds.BYTES,
    "json": Holds.JSON,
    "jsonb": Holds.SORTED_JSON,
}


def _shape(column: Any) -> Shape:
    holds, typmod = _HOLDS.get(column.base, Holds.OTHER), column.typmod
    made = Shape(holds, nullable=column.nullable, alike=column.alike, rounds_from=2000, drops_offsets=holds is Holds.MOMENT)
    if typmod < 0:
        return made
    if holds is Holds.DECIMAL:
        # Eleven bits with a sign.
        scale = (((typmod - 4) & 0x7FF) ^ 1024) - 1024
        return replace(made, precision=(typmod - 4) >> 16 & 0xFFFF, scale=scale)
    if holds in (Holds.MOMENT, Holds.ZONED):
        return replace(made, digits=typmod)
    return replace(made, length=typmod - 4) if holds in (Holds.TEXT, Holds.PADDED) else made


# Owned by the column (serial, identity), or named in its default.
_AHEAD = """
SELECT q.seqrelid::pg_catalog.regclass::text || ' (CACHE ' || q.seqcache || ')'
  FROM pg_catalog.pg_attribute a
  LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
  JOIN pg_catalog.pg_depend d ON
       (d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i'))
    OR (d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass)
  JOIN pg_catalog.pg_sequence q ON q.seqrelid IN (d.objid, d.refobjid)
 WHERE a.attrelid = %s AND a.attname = %s AND q.seqcache > 1 LIMIT 1"""

_KINDS = {
    **dict.fromkeys(("int2", "int4", "int8"), ColumnKind.WHOLE),
    **dict.fromkeys(("numeric", "float4", "float8", "money"), ColumnKind.NUMBER),
    **dict.fromkeys(("text", "varchar", "name", "citext"), ColumnKind.TEXT),
    # The server takes its blanks for nothing, and gives them all the same.
    "bpchar": ColumnKind.PADDED,
    **dict.fromkeys(("timestamp", "timestamptz", "date"), ColumnKind.TIME),
    **dict.fromkeys(("json", "jsonb"), ColumnKind.JSON),
    "uuid": ColumnKind.UUID,
    "bytea": ColumnKind.BYTES,
}

_UTF8 = (
    "^(0[1-9a-f]|[1-7].|(c[2-9a-f]|d.)[89ab].|e0[ab].[89ab].|e[1-9abcef][89ab].[89ab].|ed[89].[89ab].|f0[9ab].[89ab].[89ab]."
    "|f[123][89ab].[89ab].[89ab].|f48.[89ab].[89ab].)*$"
)
"""Hexadecimal digits of bytes that a text can hold: UTF-8, and no NUL."""

_NUL = r"'(\\\\)|\\u0000'"
"""An escaped NUL, of which no text can be made. An escaped backslash goes first, so that what follows it is no escape."""

_PAIR, _LONE = r"'\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..'", r"'\\u[dD][89a-fA-F]'"
"""An escaped backslash, or a pair of escaped surrogates; and, without those, a surrogate that has lost its pair."""

_RELATIONS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "f": "foreign table", "S": "sequence"}


def _kind(column: Any) -> ColumnKind:
    return ColumnKind.ENUM if column.typtype == "e" else _KINDS.get(column.base, ColumnKind.OTHER)


def _without_strange_escapes(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """JSON that the server can take apart; null where half a surrogate pair makes an event of it that nobody can read."""
    replace = sa.func.pg_catalog.regexp_replace
    everywhere: sa.ColumnElement[str] = sa.literal_column("'g'", sa.Text)
    without_pairs = replace(text, sa.literal_column(_PAIR), sa.literal_column("''"), everywhere, type_=sa.Text)
    cleaned = replace(text, sa.literal_column(_NUL), sa.literal_column(r"'\1'"), everywhere, type_=sa.Text)
    has_lone = without_pairs.regexp_match(sa.literal_column(_LONE))
    no_escapes = sa.func.strpos(text, sa.literal_column(r"'\u'")) == 0
    return sa.case((no_escapes, text), (has_lone, sa.null()), else_=cleaned)


class PostgresDialect(PostgresSwapStatements, Dialect):
    """See :class:`Dialect`; statements as they were checked on PostgreSQL 15 and 18."""

    max_identifier = MAX_IDENTIFIER
    ddl_commits = False
    database = "postgresql"
    # COPY leaves an offset out where the column knows none, and a bound value is brought into the session's zone, which is UTC.
    # A float as text, in its shortest form: the server's own cast of one to numeric drops two digits, which COPY does not.
    binds = PORTABLE_BINDS | {
        float: lambda value: repr(value).removesuffix(".0"),
        datetime: lambda value: value.astimezone(UTC) if value.tzinfo else value,
    }

    def __init__(self, engine: sa.Engine, known_as: str = "the database") -> None:
        super().__init__(engine, known_as)
        self._own_sessions = connecting.OwnSessions(engine)

    # Connections ------------------------------------------------------------------------------------------------

    def why_not_connected(self, error: BaseException) -> Refusal:
        return connecting.why_not_connected(error)

    def why_not_ours(self, connection: sa.Connection) -> Refusal | None:
        return self._own_sessions.why_not(connection)

    def set_up(self, connection: sa.Connection) -> None:
        # Python's own reader makes floats of all numbers with a fraction, which are not always the same number.
        set_json_loads(from_json, connection.connection.driver_connection)
        # One round trip: connections are opened within the switch, too.
        statement, values = ours.statement(self._version(connection))
        self._execute(connection, statement, *values)

    def session(self, connection: sa.Connection) -> list[str]:
        statement, values = ours.statement(self._version(connection))
        return [statement % tuple(map(literal, values))]

    @staticmethod
    def on_connect(driver: Any) -> None:
        # SQLAlchemy asks for the server's version before we come to anything, and expects text.
        if driver.info.parameter_status("client_encoding") != "UTF8":
            driver.pgconn.exec_(b"SET client_encoding TO 'UTF8'")

    def check_live(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        digits = self._execute(connection, "SELECT pg_catalog.current_setting('extra_float_digits')").scalar_one()
        for problem in ours.live_problems(driver.info.parameter_status, int(digits)):
            raise SessionError(problem)

    @contextmanager
    def times_in_utc(self, connection: sa.Connection) -> Iterator[None]:
        driver: Any = connection.connection.driver_connection
        before = ours.live_values(driver.info.parameter_status)
        if not before:
            yield
            return
        # In a transaction they go with it, or with a savepoint, when it is rolled back: then nothing has to be set back, nor could be.
        local = not (driver.autocommit and driver.info.transaction_status == TransactionStatus.IDLE)
        self._set(connection, {name: ours.LIVE[name] for name in before}, local=local)
        try:
            yield
        finally:
            if not driver.closed and driver.info.transaction_status != TransactionStatus.INERROR:
                self._set(connection, before, local=local)

    def _set(self, connection: sa.Connection, settings: Mapping[str, str], *, local: bool) -> None:
        parts = ", ".join(["pg_catalog.set_config(%s, %s, %s)"] * len(settings))
        self._execute(connection, f"SELECT {parts}", *(value for each in settings.items() for value in (*each, local)))

    def allow_memory(self, connection: sa.Connection, mib: int) -> None:
        # The server's default, 4 MB, is meant for many small queries at a time.
        self._execute(connection, f"SET LOCAL work_mem = '{mib}MB'")

    def session_id(self, connection: sa.Connection) -> int | None:
        return int(self._execute(connection, "SELECT pg_catalog.pg_backend_pid()").scalar_one())

    def cancel(self, session_id: int) -> None:
        with self.connect() as connection:
            self._execute(connection, "SELECT pg_catalog.pg_cancel_backend(%s)", session_id)

    def usual_lock_wait(self, connection: sa.Connection) -> None:
        self._execute(connection, f"SET lock_timeout = '{ours.LOCK_WAIT}'")

    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        self._execute(connection, f"SET lock_timeout = {milliseconds(timeout)}")

    # Looking at tables ------------------------------------------------------------------------------------------

    def default_schema(self, connection: sa.Connection) -> str | None:
        found = self._execute(connection, "SELECT pg_catalog.current_schema()").scalar()
        return None if found is None else str(found)

    def columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[str]:
        # SQLAlchemy's reflection warns of each type that it does not know.
        query = (
            "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        return [name for (name,) in self._execute(connection, query, self._oid(connection, schema, table))]

    def shapes(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, Shape]:
        found = self._execute(connection, _SHAPES, self.qualified(schema, table).replace("%%", "%"))
        return {each.name: _shape(each) for each in found}

    def outline(self, connection: sa.Connection, schema: str | None, table: str) -> Hashable:
        # The driver prepares what is often executed, and the server refuses a prepared SELECT * once columns have changed.
        driver: Any = connection.connection.driver_connection
        threshold, driver.prepare_threshold = driver.prepare_threshold, None
        try:
            return super().outline(connection, schema, table)
        finally:
            driver.prepare_threshold = threshold

    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        found = self._execute(
            connection, "SELECT reltuples FROM pg_catalog.pg_class WHERE oid = %s", self._oid(connection, schema, table)
        ).scalar()
        # -1: never analyzed. Then the pages are few or the table is new, and a count is what is left.
        return int(found) if found is not None and found >= 0 else self.row_count(connection, schema, table)

    def extent(self, connection: sa.Connection, schema: str | None, table: str) -> Extent | None:
        # The server counts what is written while it is written; what ANALYZE found is left where those counts were reset.
        query = """SELECT coalesce(nullif(pg_catalog.pg_stat_get_live_tuples(c.oid), 0), greatest(c.reltuples, 0))::bigint,
                   pg_catalog.pg_total_relation_size(c.oid) FROM pg_catalog.pg_class c WHERE c.oid = %s"""
        found = self._execute(connection, query, self._oid(connection, schema, table)).one_or_none()
        return None if found is None else Extent(int(found[0]), int(found[1]))

    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        oid = self._oid(connection, schema, table)
        return str(oid) if oid else None

    def identities(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> dict[str, str | None]:
        # One question: writers may be waiting.
        found = {name: str(oid) for oid, name in self._execute(connection, _FIND_ALL, schema, list(tables))}
        return {table: found.get(table) for table in tables}

    @property
    def refuses(self) -> tuple[str, ...]:
        return limits.KINDS

    def cannot_carry(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        with Catalog.of(connection) as catalog:
            return limits.refusals(catalog, Switch(catalog, tables))

    def hanging(self, connection: sa.Connection, tables: Sequence[TableSet]) -> str:
        names = [name for each in tables for name in (each.blue, each.green)]
        schema, retired = tables[0].schema, [each.old for each in tables]
        return str(self._execute(connection, HANGING, schema, names, schema, retired).scalar_one())

    def names_changed(self, error: BaseException | None) -> bool:
        # A rename, a privilege and a comment need no lock on the table.
        state = getattr(getattr(error, "orig", None), "sqlstate", None)
        return super().names_changed(error) or state in NAME_TAKEN or _at_once(error)

    def carried(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Carried]:
        with Catalog.of(connection) as catalog:
            return list(carried_over(catalog, Switch(catalog, tables)))

    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        oid = self._oid(connection, schema, table)
        with Catalog.of(connection) as catalog:
            keys = catalog.foreign_keys([oid]) if oid else []
        return {key.parent_name for key in keys if key.child_oid == oid and key.parent_schema == schema} - {table}

    def definitions(self, connection: sa.Connection, schema: str | None) -> dict[str, str]:
        return dumped(connection)

    def active_sessions(self, connection: sa.Connection) -> int | None:
        query = """SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database()
                   AND state = 'active' AND backend_type = 'client backend' AND application_name <> %s"""
        return int(self._execute(connection, query, ours.APPLICATION_NAME).scalar_one())

    def table_reads(self, connection: sa.Connection, tables: Sequence[TableSet]) -> int | None:
        query = """SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_catalog.pg_stat_all_tables
                   WHERE schemaname = %s AND relname = ANY(%s)"""
        found = self._execute(connection, query, tables[0].schema, [each.blue for each in tables]).scalar_one()
        return None if found is None else int(found)

    def transaction_age(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        query = """SELECT coalesce(extract(epoch FROM pg_catalog.clock_timestamp() - min(a.xact_start)), 0)
                   FROM pg_catalog.pg_locks l
                   JOIN pg_catalog.pg_class c ON c.oid = l.relation
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
                   WHERE l.locktype = 'relation' AND n.nspname = %s AND c.relname = ANY(%s) AND a.pid <> pg_catalog.pg_backend_pid()
                   AND a.datname = pg_catalog.current_database() AND a.application_name <> %s"""
        names = [each.blue for each in tables]
        return float(self._execute(connection, query, tables[0].schema, names, ours.APPLICATION_NAME).scalar_one())

    def replica_lag(self, connection: sa.Connection) -> float | None:
        # Whoever may not see a replica's state sees its row all the same. One that has caught up has no lag to show.
        query = """SELECT count(*), count(state), coalesce(extract(epoch FROM max(replay_lag)), 0)
                   FROM pg_catalog.pg_stat_replication"""
        replicas, seen, lag = self._execute(connection, query).one()
        return None if seen < replicas else float(lag)

    # Preflight --------------------------------------------------------------------------------------------------

    def _oldest(self) -> tuple[int, ...]:
        return preflight.OLDEST

    def preflight(self, connection: sa.Connection, surroundings: Surroundings) -> list[Finding]:
        query = partial(self._execute, connection)
        longest = milliseconds(LONGEST_LOCK_WAIT)
        blues = [each.blue for each in surroundings.tables]
        return [
            *preflight.of_server(query, longest),
            *ours.findings(query),
            *ours.hidden(query, surroundings.schema, blues),
            *self._event_triggers(connection, surroundings.schema),
            *preflight.of_tables(query, surroundings),
        ]

    def _event_triggers(self, connection: sa.Connection, schema: str | None) -> Iterator[Finding]:
        """Whether event triggers let us do what a rebuild does: it is done to a table of our own, and taken back."""
        query = partial(self._execute, connection)
        found = ours.event_triggers(query)
        if not found or not query(ours.MAY_CREATE, schema).scalar():
            return
        about, tried = f"event trigger {', '.join(found)}", ""
        self._execute(connection, self.begin)
        try:
            for tried in ours.trial(self.quote(schema or "")):
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
                problem="it acts on each CREATE, ALTER and DROP of a rebuild; those of a trial, which were taken back, it has let pass",
                remedy="make sure that it refuses none for the name of a table",
            )
        finally:
            with suppress(sa.exc.SQLAlchemyError):
                self._execute(connection, "ROLLBACK")

    def preflight_events(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str]
    ) -> list[Finding]:
        query = partial(self._execute, connection)
        return [*ours.findings(query), *ours.hidden(query, schema, [table]), *preflight.of_events(query, schema, table, columns)]

    def table_bytes(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return int(self._execute(connection, preflight.SIZE, schema, table).scalar_one())

    # Another structure ------------------------------------------------------------------------------------------

    @contextmanager
    def try_structure(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], views: Mapping[str, str]
    ) -> Iterator[Trial]:
        schema = tables[0].schema

        def execute(statement: str) -> None:
            self._execute_all(connection, [statement])

        with Catalog.of(connection) as catalog:
            path, preparing = catalog.session_path, structure.preparing(catalog, schema, statements)
        with structure.made_apart(execute, preparing):
            with Catalog.of(connection) as catalog:
                structure.refuse_touched(catalog)
                found = {each.blue: structure.read(catalog, each, statements) for each in tables}
                forms = {name: each.as_text() for name, each in found.items() if each}
                formed = [replace(each, form=Form(forms[each.blue])) if each.blue in forms else each for each in tables]
                rehearsal = Rehearsal(catalog, execute, Switch(catalog, formed), schema, views)
                unchanged = {each.blue for each in formed if each.form and structure.unchanged(catalog, each)}
                refusals = list(rehearsal.refusals())
            # The live tables are the ones that are meant without a schema again.
            self._execute(connection, "SELECT pg_catalog.set_config('search_path', %s, true)", path)
            yield Trial(connection, structure.PLACE, forms, unchanged, rehearsal.anew, refusals, structure.ELSEWHERE)

    # Tables apart -----------------------------------------------------------------------------------------------

    @contextmanager
    def scratch(self, name: str) -> Iterator[Scratch]:
        with self._schema_apart(
            name,
            reserve="SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext(%s))",
            make=f"CREATE SCHEMA {self.quote(name)}",
            drop=f"DROP SCHEMA IF EXISTS {self.quote(name)} CASCADE",
        ):
            yield Scratch(self, name)

    def enter(self, connection: sa.Connection, scratch: Scratch) -> None:
        self._execute(connection, f"SET search_path = {self.quote(scratch.schema or 'public')}")

    def apart(self, connection: sa.Connection, table: TableSet, scratch: Scratch) -> list[str]:
        with Catalog.of(connection) as catalog:
            blue = catalog.find(table.schema, table.blue)
            if blue is None:
                raise CloneError(f"there is no table {table.blue}")
            return doubled(made_apart(catalog, blue, scratch.schema))

    # Making green -----------------------------------------------------------------------------------------------

    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        with self._clone(connection, table) as clone:
            return doubled(clone.create())

    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        with self._clone(connection, table) as clone:
            return doubled(clone.indexes())

    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        with self._clone(connection, table) as clone:
            return doubled(clone.foreign_keys(run))

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        # Foreign keys from and to tables outside the run come within the switch, and are validated after it.
        with Catalog.of(connection) as catalog:
            queries = list(Switch(catalog, run).orphans(table))
        return [
            f"{key.name} of {key.child}"
            for key, query in queries
            if self._execute(connection, query.replace("%", "%%")).first() is not None
        ]

    def analyze(self, connection: sa.Connection, table: TableSet) -> list[str]:
        # A new table counts as full of rows that are not visible to all: autovacuum would come just then, and index-only scans
        # would read the table.
        return [f"VACUUM (ANALYZE) {self.qualified(table.schema, table.green)}"]

    def drop_table(self, connection: sa.Connection, table: TableSet, name: str) -> list[str]:
        with Catalog.of(connection) as catalog:
            found = catalog.find(table.schema, name)
            return doubled(dropping(catalog, found) if found else Switch(catalog, [table]).planned_drop(name))

    # Cutting over -----------------------------------------------------------------------------------------------

    @property
    def cutover(self) -> TransactionalCutover:
        return TransactionalCutover(self)

    def check_deferred(self, connection: sa.Connection) -> None:
        self._execute(connection, "SET CONSTRAINTS ALL IMMEDIATE")

    # Rows -------------------------------------------------------------------------------------------------------

    def load_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        self._copy(connection, self.qualified(schema, table), kind, rows)

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        changed = [name for name in kind.columns if name not in kind.key]
        if len(rows) <= FEW_ROWS or not changed:
            return self.update_rows(connection, schema, table, kind, rows)
        target = self.qualified(schema, table)
        self._execute(connection, "DROP TABLE IF EXISTS pg_temp.projection_rebuild_update")
        self._execute(
            connection,
            "CREATE TEMPORARY TABLE projection_rebuild_update ON COMMIT DROP AS "
            f"SELECT {self._list(kind.columns)} FROM {target} WITH NO DATA",
        )
        self._copy(connection, "pg_temp.projection_rebuild_update", kind, rows)
        sets = ", ".join(f"{self.quote(name)} = n.{self.quote(name)}" for name in changed)
        match = " AND ".join(f"t.{self.quote(name)} = n.{self.quote(name)}" for name in kind.key)
        return self._execute(
            connection, f"UPDATE {target} t SET {sets} FROM pg_temp.projection_rebuild_update n WHERE {match}"
        ).rowcount

    def _copy(self, connection: sa.Connection, target: str, kind: RowType, rows: Sequence[Values]) -> None:
        if not rows:
            return
        # psycopg formats no percent signs in a COPY without values, so the doubling is taken back.
        statement = f"COPY {target} ({self._list(kind.columns)}) FROM STDIN".replace("%%", "%")
        driver: Any = connection.connection.driver_connection
        for some in slices(bound(kind, rows, self.binds)):
            text = as_text(some, _FORMATS)
            with driver.cursor() as cursor, cursor.copy(statement) as copy:
                if text is not None:
                    copy.write(text)
                    continue
                # Types that only the driver knows how to write.
                for row in some:
                    copy.write_row(row)

    def _select(
        self,
        connection: sa.Connection,
        schema: str | None,
        table: str,
        kind: RowType,
        columns: Sequence[str],
        wanted: Sequence[Key],
        lock: bool,
    ) -> Iterator[Values]:
        types = {} if lock or len(wanted) <= FEW_ROWS else self._array_types(connection, schema, table)
        if not types.keys() >= {*columns}:
            yield from super()._select(connection, schema, table, kind, columns, wanted, lock)
            return
        # A list of hundreds of pairs takes as long to be planned as to be executed, an array does not.
        arrays = ", ".join(f"%s::{types[name]}" for name in columns)
        match = " AND ".join(f"t.{self.quote(name)} = k.k{at}" for at, name in enumerate(columns))
        listed = ", ".join(f"t.{self.quote(name)}" for name in kind.columns)
        names = ", ".join(f"k{at}" for at in range(len(columns)))
        statement = f"SELECT {listed} FROM unnest({arrays}) AS k({names}) JOIN {self.qualified(schema, table)} t ON {match}"
        for start in range(0, len(wanted), KEYS_PER_STATEMENT):
            some = [list(values) for values in zip(*wanted[start : start + KEYS_PER_STATEMENT], strict=True)]
            yield from loaded(kind, [tuple(row) for row in self._execute(connection, statement, *some)])

    def _array_types(self, connection: sa.Connection, schema: str | None, table: str) -> Mapping[str, str]:
        """Types of arrays of a table's columns, without their length: a value that is cut would be found."""
        query = """SELECT a.attname, pg_catalog.format_type(a.atttypid, -1) || '[]' FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"""
        found = self._execute(connection, query, self.qualified(schema, table).replace("%%", "%"))
        return {name: str(kind).replace("%", "%%") for name, kind in found}

    # Comparing --------------------------------------------------------------------------------------------------

    def differs(self, left: str, right: str) -> str:
        # As text: json and some other types know no equality.
        return f"{left}::text IS DISTINCT FROM {right}::text"

    def same(self, left: str, right: str) -> str:
        return f"{left}::text = {right}::text"

    # The second opinion -----------------------------------------------------------------------------------------

    def exact_bytes(self, quoted: str, kind: ColumnKind) -> str:
        return quoted if kind is ColumnKind.BYTES else f"pg_catalog.convert_to({quoted}::text, 'UTF8')"

    def as_stored(self, quoted: str, kind: ColumnKind) -> str:
        return f"{quoted}::text" if kind in (ColumnKind.JSON, ColumnKind.TIME) else quoted

    def temporary(self, schema: str | None, name: str) -> str:
        return f"pg_temp.{self.quote(name)}"

    def make_temporary(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], name: str
    ) -> list[str]:
        made, like = self.temporary(schema, name), self.qualified(schema, table)
        return [
            f"CREATE TEMPORARY TABLE {self.quote(name)} AS SELECT 0::bigint AS projection_rebuild_row, {self._list(columns)} FROM {like} WITH NO DATA",
            f"CREATE UNIQUE INDEX ON {made} (projection_rebuild_row)",
        ]

    def plain_field(self, quoted: str, kind: ColumnKind, field: str) -> str:
        text = f"pg_catalog.convert_from({quoted}, 'UTF8')::json" if kind is ColumnKind.BYTES else f"{quoted}::json"
        name = field.replace("'", "''").replace("%", "%%")
        return f"({quoted if kind is ColumnKind.JSON else text} ->> '{name}')"

    def given(self, value: Any) -> Any:
        # As text, which the server reads as what the column is; a number would be refused by a column of text.
        if isinstance(value, datetime):
            return (value.astimezone(UTC) if value.tzinfo else value).isoformat(sep=" ")
        if isinstance(value, (bool, int, float, Decimal, date, UUID)):
            return str(value)
        return super().given(value)

    # Parts ------------------------------------------------------------------------------------------------------

    overriding = " OVERRIDING SYSTEM VALUE"

    def copy_others(self, connection: sa.Connection, table: TableSet, column: str, listed: Listed) -> None:
        super().copy_others(connection, table, column, listed)
        # Rows that are replayed get ids that none of the copied ones has.
        with Catalog.of(connection) as catalog:
            blue = catalog.find(table.schema, table.blue)
            counting = [counted_on(each) for each in catalog.sequences(blue.oid) if each.identity] if blue else []
        for statement in doubled(counting):
            self._execute(connection, statement)

    def as_text(self, expression: str) -> str:
        return f"({expression})::text"

    def _stored_columns(self, connection: sa.Connection, table: TableSet) -> list[str]:
        query = """SELECT attname FROM pg_catalog.pg_attribute
                   WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"""
        return [name for (name,) in self._execute(connection, query, self._oid(connection, table.schema, table.blue))]

    def before(self, column: sa.ColumnElement[Any], moment: datetime) -> sa.ColumnElement[bool]:
        kind = sa.DateTime(timezone=True)
        return sa.cast(column, kind) < sa.literal(moment, kind)

    # The event store --------------------------------------------------------------------------------------------

    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> Place:
        head = f"""SELECT max({self.quote(position_column)}),
                          pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint
                     FROM {self.qualified(schema, table)}"""
        with self.connect() as connection:
            highest, horizon = self._execute(connection, head).one()
            appending = {each for each, _ in self._appending(connection, schema, table)}
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
        """The transactions that write to a table, and whether they are prepared ones."""
        name = self.qualified(schema, table).replace("%%", "%")
        return [(transaction, prepared) for transaction, prepared in self._execute(connection, _APPENDING, name)]

    def _appends_ended(
        self, connection: sa.Connection, schema: str | None, table: str, horizon: int, appending: set[str]
    ) -> bool:
        """Either way proves it: a lock that conflicts with every writer, or no transaction from before is left.

        :param horizon: the first transaction id that was not given out
        :param appending: the transactions that wrote to the table, some of them perhaps without an id
        """
        oldest = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint"
        if self._execute(connection, oldest).scalar_one() >= horizon and not any(
            prepared or transaction in appending for transaction, prepared in self._appending(connection, schema, table)
        ):
            return True
        lock = f"LOCK TABLE {self.qualified(schema, table)} IN SHARE MODE".replace("%%", "%")
        try:
            # One message is one transaction: should we hang, the server has let go all the same.
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
                    # Then the lock has gone with the connection that held it; the error that matters is another one.
                    connection.invalidate()

    def read(self, connection: sa.Connection, query: sa.Select[Any], size: int) -> Generator[list[tuple[Any, ...]], None, None]:
        # Not by a cursor of the server's, which would need a transaction; and with a plan of its own for each range.
        compiled = query.compile(dialect=self.engine.dialect, compile_kwargs={"render_postcompile": True})
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, closing(cursor.stream(str(compiled), compiled.params, size=size)) as rows:
            while page := list(islice(rows, size)):
                yield page

    def column_types(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, ColumnType]:
        found = self._execute(connection, _COLUMN_TYPES, self._oid(connection, schema, table))
        return {each.name: ColumnType(each.type, _kind(each), each.compares_bytes, each.nullable) for each in found}

    def relation_kind(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        query = "SELECT relkind FROM pg_catalog.pg_class WHERE oid = %s"
        found = self._execute(connection, query, self._oid(connection, schema, table)).scalar()
        return None if found is None else _RELATIONS.get(found, "relation that holds no rows")

    def hands_out_ahead(self, connection: sa.Connection, schema: str | None, table: str, column: str) -> str | None:
        found = self._execute(connection, _AHEAD, self._oid(connection, schema, table), column).scalar()
        return None if found is None else str(found)

    def exact(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.collate(sa.cast(text, sa.Text), "C")

    def exact_text(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return self.exact(text)

    def utf8(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        valid = self.hexadecimal(column).regexp_match(sa.literal_column(f"'{_UTF8}'"))
        return sa.case((valid, sa.func.pg_catalog.convert_from(column, sa.literal_column("'UTF8'"), type_=sa.Text)))

    def hexadecimal(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.func.pg_catalog.encode(column, sa.literal_column("'hex'"), type_=sa.Text)

    def reads_json(self, kind: ColumnKind) -> bool:
        # Before version 16 nothing tells what is JSON, and what is not is an error of the whole statement.
        return kind is ColumnKind.JSON or (self.engine.dialect.server_version_info or ()) >= (16,)

    def json_field(self, payload: sa.ColumnElement[Any], kind: ColumnKind, field: str) -> sa.ColumnElement[str]:
        text: sa.ColumnElement[Any] = sa.cast(payload, sa.Text)
        if kind is ColumnKind.BYTES:
            text = self.utf8(payload)
        if kind is not ColumnKind.JSON:
            text = sa.case((text.op("IS", is_comparison=True)(sa.literal_column("JSON")), text))
        return sa.func.pg_catalog.json_extract_path_text(sa.cast(_without_strange_escapes(text), JSON), field, type_=sa.Text)

    def equals_bytes(self, quoted: str) -> str:
        return f'{quoted}::text COLLATE "C" = %s'

    def shard_number(self, text: sa.ColumnElement[str], count: int) -> sa.ColumnElement[int]:
        # The hash of hash partitions, which stays what it is.
        hashed = sa.func.pg_catalog.hashtextextended(sa.collate(text, "C"), 0, type_=sa.BigInteger)
        return hashed.op("&")(sa.literal(2**31 - 1, sa.BigInteger)) % count

    def is_in_shard(self, text: sa.ColumnElement[str], number: int, count: int) -> sa.ColumnElement[bool]:
        # The planner takes a comparison for one row in 200, and would read and sort the whole table for each page. This is one in two to it.
        return sa.case((super().is_in_shard(text, number, count), sa.true()), else_=sa.false())

    def _execute_all(self, connection: sa.Connection, statements: Sequence[str]) -> None:
        # All in one round trip, and as they stand: without values the driver formats nothing.
        self.run_as_it_stands(connection, ";\n".join(statements))

    # Catalogs ---------------------------------------------------------------------------------------------------

    def _oid(self, connection: sa.Connection, schema: str | None, table: str) -> int | None:
        found: int | None = self._execute(connection, _FIND, schema, table).scalar()
        return found

    @contextmanager
    def _clone(self, connection: sa.Connection, table: TableSet) -> Iterator[Clone]:
        with Catalog.of(connection) as catalog:
            blue = catalog.find(table.schema, table.blue)
            if blue is None:
                raise CloneError(f"there is no table {table.blue} any more; create it (it may be empty) and plan the run anew")
            yield Clone(catalog, table, blue)


def _at_once(error: BaseException | None) -> bool:
    """Whether two have changed one row of the catalogs: the server has no code of its own for that."""
    cause = getattr(error, "orig", None)
    said = getattr(getattr(cause, "diag", None), "message_primary", None)
    return getattr(cause, "sqlstate", None) == "XX000" and said in ("tuple concurrently updated", "tuple concurrently deleted")
