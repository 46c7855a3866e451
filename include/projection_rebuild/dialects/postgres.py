"""PostgreSQL: DDL is transactional, so a switch is one transaction under ACCESS EXCLUSIVE locks."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from include.projection_rebuild.dialects.base import Dialect
from include.projection_rebuild.errors import SettleTimeout
from include.projection_rebuild.names import GREEN_SUFFIX, OLD_SUFFIX, TableSet, derived
from include.projection_rebuild.rows import RowType, Values
from include.projection_rebuild.values import bound

APPLICATION_NAME = "projection_rebuild"

LOCK_NOT_AVAILABLE, DEADLOCK = "55P03", "40P01"

LONGEST_LOCK_WAIT = timedelta(milliseconds=500)
"""Below deadlock_timeout (1 s): then a deadlock ends with our lock_timeout, never with the application's error."""

FEW_ROWS = 20
"""Up to here a statement per row is cheaper than a temporary table."""

_FIND = """SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s"""

_INDEXES = """
SELECT i.relname, con.oid IS NOT NULL AND con.contype = 'p', con.oid IS NOT NULL,
       CASE WHEN con.oid IS NOT NULL THEN pg_catalog.pg_get_constraintdef(con.oid)
            ELSE substr(pg_catalog.pg_get_indexdef(i.oid), 1 + length(
                 'CREATE ' || CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END || 'INDEX ' || pg_catalog.quote_ident(i.relname)
                 || ' ON ' || x.indrelid::regclass::text || ' USING ')) END,
       x.indisunique
  FROM pg_catalog.pg_index x
  JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
  LEFT JOIN pg_catalog.pg_constraint con ON con.conindid = i.oid AND con.conrelid = x.indrelid AND con.contype IN ('p', 'u', 'x')
 WHERE x.indrelid = %s AND x.indisvalid
 ORDER BY 2 DESC, 1"""

_FOREIGN_KEYS = """
SELECT k.conname, pg_catalog.pg_get_constraintdef(k.oid), k.conrelid::regclass::text, k.confrelid::regclass::text,
       cn.nspname, c.relname, pn.nspname, p.relname
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
  JOIN pg_catalog.pg_class p ON p.oid = k.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
 WHERE k.contype = 'f' AND {side} = %s ORDER BY k.conname, 3"""

_OPTIONS = """
SELECT c.relpersistence, c.reloptions, pg_catalog.pg_get_userbyid(c.relowner), pg_catalog.obj_description(c.oid, 'pg_class')
  FROM pg_catalog.pg_class c WHERE c.oid = %s"""

_GRANTS = """
SELECT a.privilege_type, CASE WHEN a.grantee = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee) END, a.is_grantable, NULL
  FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a WHERE c.oid = %(table)s AND a.grantee <> c.relowner
UNION ALL
SELECT a.privilege_type, CASE WHEN a.grantee = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee) END, a.is_grantable, t.attname
  FROM pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) a WHERE t.attrelid = %(table)s AND NOT t.attisdropped
 ORDER BY 4, 2, 1"""

_SEQUENCES = """
SELECT a.attname, a.attidentity <> '', s.relname, n.nspname
  FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
  JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
   AND d.refobjid = %s AND d.deptype IN ('a', 'i') ORDER BY a.attnum"""

# What hangs on a table by its OID, and would stay on the retired one.
_CANNOT_CARRY = {
    "view or materialized view": """
        SELECT DISTINCT v.relname FROM pg_catalog.pg_depend d
          JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_catalog.pg_rewrite'::regclass
          JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.oid <> d.refobjid
         WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = %s""",
    "trigger": "SELECT tgname FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgrelid = %s",
    "rule": "SELECT rulename FROM pg_catalog.pg_rewrite WHERE rulename <> '_RETURN' AND ev_class = %s",
    "row security policy": "SELECT polname FROM pg_catalog.pg_policy WHERE polrelid = %s",
    "publication": """
        SELECT p.pubname FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
         WHERE r.prrelid = %s""",
    "extended statistics object": "SELECT stxname FROM pg_catalog.pg_statistic_ext WHERE stxrelid = %s",
    "parent or child by inheritance or partitioning": """
        SELECT c.relname FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c
            ON c.oid IN (i.inhrelid, i.inhparent) WHERE %s IN (i.inhrelid, i.inhparent)""",
    "replica identity": "SELECT relreplident FROM pg_catalog.pg_class WHERE relreplident <> 'd' AND oid = %s",
    "enabled row security": "SELECT relname FROM pg_catalog.pg_class WHERE (relrowsecurity OR relforcerowsecurity) AND oid = %s",
    "invalid index": """
        SELECT i.relname FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
         WHERE NOT x.indisvalid AND x.indrelid = %s""",
}


@dataclass(frozen=True)
class _Index:
    """A valid index; ``definition`` is what follows USING, or a constraint's definition."""

    name: str
    primary: bool
    constraint: bool
    definition: str
    unique: bool


@dataclass(frozen=True)
class _ForeignKey:
    name: str
    definition: str
    child_text: str
    parent_text: str
    child_schema: str
    child: str
    parent_schema: str
    parent: str

    def pointing_to(self, parent: str) -> str:
        """The definition with another parent table."""
        return self.definition.replace(f" REFERENCES {self.parent_text}(", f" REFERENCES {parent}(", 1).replace("%", "%%")


class PostgresDialect(Dialect):
    """See :class:`Dialect`; statements as they were checked on PostgreSQL 15 and 18."""

    max_identifier = 63
    ddl_commits = False

    # Connections ------------------------------------------------------------------------------------------------

    def set_up(self, connection: sa.Connection) -> None:
        self._execute(connection, f"SET application_name = {APPLICATION_NAME}")
        self._execute(connection, "SET TimeZone = 'UTC'")
        self._execute(connection, "SET default_transaction_isolation = 'read committed'")
        self._execute(connection, "SET lock_timeout = 0")

    def lock_was_refused(self, error: BaseException) -> bool:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        return getattr(cause, "sqlstate", None) in (LOCK_NOT_AVAILABLE, DEADLOCK)

    def session_id(self, connection: sa.Connection) -> int | None:
        return int(self._execute(connection, "SELECT pg_catalog.pg_backend_pid()").scalar_one())

    def cancel(self, session_id: int) -> None:
        with self.connect() as connection:
            self._execute(connection, "SELECT pg_catalog.pg_cancel_backend(%s)", session_id)

    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        wait = min(timeout, LONGEST_LOCK_WAIT)
        self._execute(connection, f"SET lock_timeout = {max(1, round(wait.total_seconds() * 1000))}")

    # Looking at tables ------------------------------------------------------------------------------------------

    def default_schema(self, connection: sa.Connection) -> str | None:
        found = self._execute(connection, "SELECT pg_catalog.current_schema()").scalar()
        return None if found is None else str(found)

    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        found = self._execute(
            connection, "SELECT reltuples FROM pg_catalog.pg_class WHERE oid = %s", self._oid(connection, schema, table)
        ).scalar()
        # -1: never analyzed. Then the pages are few or the table is new, and a count is what is left.
        return int(found) if found is not None and found >= 0 else self.row_count(connection, schema, table)

    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        oid = self._oid(connection, schema, table)
        return str(oid) if oid else None

    def cannot_carry(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return [
            f"{table.blue}: the {what} {name} would stay on the retired table; drop it before the rebuild and make it again after"
            for table in tables
            for what, query in _CANNOT_CARRY.items()
            for (name,) in self._execute(
                connection, query, *[self._oid(connection, table.schema, table.blue)] * query.count("%s")
            )
        ]

    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        return {key.parent for key in self._foreign_keys(connection, schema, table) if key.parent_schema == schema} - {table}

    def active_sessions(self, connection: sa.Connection) -> int | None:
        query = """SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database()
                   AND state = 'active' AND backend_type = 'client backend' AND application_name <> %s"""
        return int(self._execute(connection, query, APPLICATION_NAME).scalar_one())

    # Making green -----------------------------------------------------------------------------------------------

    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        blue, green = self.qualified(table.schema, table.blue), self.qualified(table.schema, table.green)
        oid = self._oid(connection, table.schema, table.blue)
        persistence, options, owner, comment = self._execute(connection, _OPTIONS, oid).one()
        unlogged = "UNLOGGED " if persistence == "u" else ""
        storage = f" WITH ({', '.join(options)})" if options else ""
        made = [
            f"CREATE {unlogged}TABLE {green} (LIKE {blue} INCLUDING ALL EXCLUDING INDEXES){storage}",
            f"ALTER TABLE {green} OWNER TO {self.quote(owner)}",
        ]
        if comment:
            made.append(f"COMMENT ON TABLE {green} IS {self._literal(comment)}")
        made += self._grants(connection, oid, green)
        # Unique ones from the start: rows are found by them, and a duplicate shows where it arises.
        made += [
            self._index_statement(table, each) for each in self._indexes(connection, table.schema, table.blue) if each.unique
        ]
        return made

    def _grants(self, connection: sa.Connection, oid: int | None, green: str) -> Iterator[str]:
        for privilege, grantee, grantable, column in connection.exec_driver_sql(_GRANTS, {"table": oid}):
            to = self.quote(grantee) if grantee else "PUBLIC"
            what = f"{privilege} ({self.quote(column)})" if column else privilege
            yield f"GRANT {what} ON TABLE {green} TO {to}{' WITH GRANT OPTION' if grantable else ''}"

    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        there = {each.name for each in self._indexes(connection, table.schema, table.green)}
        return [
            self._index_statement(table, each)
            for each in self._indexes(connection, table.schema, table.blue)
            if derived(each.name, GREEN_SUFFIX, self.max_identifier) not in there
        ]

    def _index_statement(self, table: TableSet, index: _Index) -> str:
        green = self.qualified(table.schema, table.green)
        name = self.quote(derived(index.name, GREEN_SUFFIX, self.max_identifier))
        if index.constraint:
            return f"ALTER TABLE {green} ADD CONSTRAINT {name} {index.definition}"
        return f"CREATE {'UNIQUE ' if index.unique else ''}INDEX {name} ON {green} USING {index.definition}"

    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        greens = {(each.schema, each.blue): each for each in run}
        there = {key.name for key in self._foreign_keys(connection, table.schema, table.green)}
        made = []
        for key in self._foreign_keys(connection, table.schema, table.blue):
            if key.name in there:
                continue
            target = greens.get((key.parent_schema, key.parent))
            parent = self.qualified(target.schema, target.green) if target else key.parent_text
            made.append(
                f"ALTER TABLE {self.qualified(table.schema, table.green)} ADD CONSTRAINT {self.quote(key.name)} {key.pointing_to(parent)}"
            )
        return made

    def analyze(self, schema: str | None, table: str) -> str:
        return f"ANALYZE {self.qualified(schema, table)}"

    # Switching --------------------------------------------------------------------------------------------------

    @contextmanager
    def hold(self, connection: sa.Connection, tables: Sequence[TableSet], timeout: timedelta) -> Iterator[None]:
        # In another order at each attempt: against readers that lock the tables the other way round, a fixed one starves.
        names = [self.qualified(each.schema, each.blue) for each in tables] + self._children_outside(connection, tables)
        random.shuffle(names)
        self.limit_lock_wait(connection, timeout)
        with self.transaction(connection):
            self._execute(connection, f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE")
            yield

    def switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        made: list[str] = []
        for table in tables:
            made += self._move_index_names(connection, table)
            made += self._move_sequences(connection, table)
        for table in tables:
            made.append(f"ALTER TABLE {self.qualified(table.schema, table.blue)} RENAME TO {self.quote(table.old)}")
            made.append(f"ALTER TABLE {self.qualified(table.schema, table.green)} RENAME TO {self.quote(table.blue)}")
        return made + [
            f"ALTER TABLE {key.child_text} DROP CONSTRAINT {self.quote(key.name)}, ADD CONSTRAINT {self.quote(key.name)} "
            f"{key.pointing_to(self.qualified(key.parent_schema, key.parent)).removesuffix(' NOT VALID')} NOT VALID"
            for key in self._keys_from_outside(connection, tables)
        ]

    def _move_index_names(self, connection: sa.Connection, table: TableSet) -> Iterator[str]:
        for index in self._indexes(connection, table.schema, table.blue):
            green = derived(index.name, GREEN_SUFFIX, self.max_identifier)
            old = derived(index.name, OLD_SUFFIX, self.max_identifier)
            yield f"ALTER INDEX {self.qualified(table.schema, index.name)} RENAME TO {self.quote(old)}"
            yield f"ALTER INDEX {self.qualified(table.schema, green)} RENAME TO {self.quote(index.name)}"

    def _move_sequences(self, connection: sa.Connection, table: TableSet) -> Iterator[str]:
        greens = {column: sequence for column, _, sequence, _ in self._sequences(connection, table.schema, table.green)}
        for column, identity, blue, schema in self._sequences(connection, table.schema, table.blue):
            if not identity:
                yield (
                    f"ALTER SEQUENCE {self.qualified(schema, blue)} OWNED BY "
                    f"{self.qualified(table.schema, table.green)}.{self.quote(column)}"
                )
                continue
            # The name that LIKE gives, where green is only planned.
            green = greens.get(column, derived(f"{table.green}_{column}", "_seq", self.max_identifier))
            live, made = self.qualified(schema, blue), self.qualified(table.schema, green)
            # Whichever counted further: ids go on from there, and no id is handed out twice.
            yield (
                f"SELECT pg_catalog.setval({self._literal(made)}, last_value, is_called) FROM "
                f"(SELECT last_value, is_called FROM {live} UNION ALL SELECT last_value, is_called FROM {made}) s "
                "ORDER BY last_value DESC, is_called DESC LIMIT 1"
            )
            yield f"ALTER SEQUENCE {live} RENAME TO {self.quote(derived(blue, OLD_SUFFIX, self.max_identifier))}"
            yield f"ALTER SEQUENCE {made} RENAME TO {self.quote(blue)}"

    def after_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return [
            f"ALTER TABLE {key.child_text} VALIDATE CONSTRAINT {self.quote(key.name)}"
            for key in self._keys_from_outside(connection, tables)
            if key.definition.endswith("NOT VALID")
        ]

    # Rows -------------------------------------------------------------------------------------------------------

    def load_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        self._copy(connection, self.qualified(schema, table), kind, rows)

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> None:
        changed = [name for name in kind.columns if name not in kind.key]
        if len(rows) <= FEW_ROWS or not changed:
            self.update_rows(connection, schema, table, kind, rows)
            return
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
        self._execute(connection, f"UPDATE {target} t SET {sets} FROM pg_temp.projection_rebuild_update n WHERE {match}")

    def _copy(self, connection: sa.Connection, target: str, kind: RowType, rows: Sequence[Values]) -> None:
        if not rows:
            return
        # psycopg formats no percent signs in a COPY without values, so the doubling is taken back.
        statement = f"COPY {target} ({self._list(kind.columns)}) FROM STDIN".replace("%%", "%")
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in bound(kind, rows, self.binds):
                copy.write_row(row)

    # Comparing --------------------------------------------------------------------------------------------------

    def differs(self, left: str, right: str) -> str:
        # As text: json and some other types know no equality.
        return f"{left}::text IS DISTINCT FROM {right}::text"

    # The event store --------------------------------------------------------------------------------------------

    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> int:
        head = f"""SELECT coalesce(max({self.quote(position_column)}), 0),
                          pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint
                     FROM {self.qualified(schema, table)}"""
        with self.connect() as connection:
            highest, horizon = self._execute(connection, head).one()
            deadline = time.monotonic() + patience.total_seconds()
            while not self._appends_ended(connection, schema, table, horizon):
                if time.monotonic() > deadline:
                    raise SettleTimeout(
                        f"transactions that may have appended to {table} did not end within {patience.total_seconds():.0f} s; "
                        "look for long transactions in pg_stat_activity, then retry"
                    )
                time.sleep(random.uniform(0.02, 0.1))  # noqa: S311 - spreads retries, guards nothing
        return int(highest)

    def _appends_ended(self, connection: sa.Connection, schema: str | None, table: str, horizon: int) -> bool:
        """Either way proves it: a lock that conflicts with every writer, or no transaction from before is left."""
        oldest = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint"
        if self._execute(connection, oldest).scalar_one() >= horizon:
            return True
        try:
            with self.transaction(connection):
                self._execute(connection, "SET LOCAL lock_timeout = 100")
                self._execute(connection, f"LOCK TABLE {self.qualified(schema, table)} IN SHARE MODE")
        except sa.exc.DBAPIError as error:
            if self.lock_was_refused(error):
                return False
            raise
        return True

    @contextmanager
    def fence(self, schema: str | None, table: str, timeout: timedelta) -> Iterator[None]:
        with self.connect() as connection:
            self.limit_lock_wait(connection, timeout)
            with self.transaction(connection):
                self._execute(connection, f"LOCK TABLE {self.qualified(schema, table)} IN SHARE MODE")
                yield

    # Catalogs ---------------------------------------------------------------------------------------------------

    def _oid(self, connection: sa.Connection, schema: str | None, table: str) -> int | None:
        found: int | None = self._execute(connection, _FIND, schema, table).scalar()
        return found

    def _literal(self, text: str) -> str:
        # With doubled percent signs: the driver formats every statement.
        return "'" + text.replace("'", "''").replace("%", "%%") + "'"

    @contextmanager
    def _qualified_definitions(self, connection: sa.Connection) -> Iterator[None]:
        """Within it pg_get_*def() qualify every name, so that a definition means the same in any session."""
        path = self._execute(connection, "SELECT pg_catalog.current_setting('search_path')").scalar_one()
        self._execute(connection, "SELECT pg_catalog.set_config('search_path', '', false)")
        yield
        self._execute(connection, "SELECT pg_catalog.set_config('search_path', %s, false)", path)

    def _indexes(self, connection: sa.Connection, schema: str | None, table: str) -> list[_Index]:
        with self._qualified_definitions(connection):
            found = self._execute(connection, _INDEXES, self._oid(connection, schema, table)).all()
        return [
            _Index(name, primary, constraint, definition.replace("%", "%%"), unique)
            for name, primary, constraint, definition, unique in found
        ]

    def _foreign_keys(
        self, connection: sa.Connection, schema: str | None, table: str, side: str = "k.conrelid"
    ) -> list[_ForeignKey]:
        with self._qualified_definitions(connection):
            found = self._execute(connection, _FOREIGN_KEYS.format(side=side), self._oid(connection, schema, table)).all()
        return [_ForeignKey(*each) for each in found]

    def _keys_from_outside(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[_ForeignKey]:
        ours = {(each.schema, name) for each in tables for name in (each.blue, each.green, each.old)}
        return [
            key
            for table in tables
            for key in self._foreign_keys(connection, table.schema, table.blue, side="k.confrelid")
            if (key.child_schema, key.child) not in ours
        ]

    def _children_outside(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return sorted({key.child_text for key in self._keys_from_outside(connection, tables)})

    def _sequences(self, connection: sa.Connection, schema: str | None, table: str) -> list[tuple[str, bool, str, str]]:
        return [tuple(each) for each in self._execute(connection, _SEQUENCES, self._oid(connection, schema, table))]
