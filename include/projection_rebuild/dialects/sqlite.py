"""SQLite: one writer at a time and transactional DDL, so a switch is one BEGIN IMMEDIATE transaction."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from include.projection_rebuild.dialects.base import Dialect
from include.projection_rebuild.errors import CloneError
from include.projection_rebuild.names import GREEN_SUFFIX, TableSet, derived
from include.projection_rebuild.values import TEXT_BINDS

BUSY_TIMEOUT_MS = 10_000

_NAME = r'(?:"(?:[^"]|"")*"|\[[^\]]*\]|`(?:[^`]|``)*`|\'(?:[^\']|\'\')*\'|[^\s(]+)'
_TABLE_HEAD = re.compile(rf"\s*CREATE\s+TABLE\s+{_NAME}", re.IGNORECASE)
_INDEX_HEAD = re.compile(rf"\s*CREATE\s+(UNIQUE\s+)?INDEX\s+{_NAME}\s+ON\s+{_NAME}", re.IGNORECASE)


class SqliteDialect(Dialect):
    """See :class:`Dialect`. Names have no limit of their own; there is one schema per file."""

    max_identifier = 1_000
    ddl_commits = False
    one_writer = True
    binds = TEXT_BINDS
    begin = "BEGIN IMMEDIATE"
    row_lock = ""

    # Connections ------------------------------------------------------------------------------------------------

    def set_up(self, connection: sa.Connection) -> None:
        self._execute(connection, f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        # Both must stand before a transaction begins: only then do foreign keys, views and other tables' triggers stay
        # bound to a name when its table is renamed.
        self._execute(connection, "PRAGMA legacy_alter_table = 1")
        self._execute(connection, "PRAGMA foreign_keys = 0")

    def lock_was_refused(self, error: BaseException) -> bool:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        return getattr(cause, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))

    def session_id(self, connection: sa.Connection) -> int | None:
        return None

    def cancel(self, session_id: int) -> None:
        """Nothing to do: statements run within this process, and :meth:`session_id` gives nothing to cancel."""

    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        self._execute(connection, f"PRAGMA busy_timeout = {max(1, round(timeout.total_seconds() * 1000))}")

    # Looking at tables ------------------------------------------------------------------------------------------

    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return self.row_count(connection, schema, table)

    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        # The root page stays through a rename, but a later table may be given it again; so the definition counts too.
        # VACUUM may move the page, and then a drop is refused, never wrong.
        query = "SELECT rootpage, sql FROM sqlite_master WHERE type = 'table' AND name = ?"
        found = self._execute(connection, query, table).one_or_none()
        if found is None:
            return None
        body = _TABLE_HEAD.sub("", found[1], count=1)
        return f"{found[0]}:{hashlib.sha256(body.encode()).hexdigest()[:16]}"

    def cannot_carry(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        found = [
            f"{table.blue}: the trigger {name} would stay on the retired table; drop it before the rebuild and make it again after"
            for table in tables
            for (name,) in self._execute(
                connection, "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", table.blue
            )
        ]
        for table in tables:
            sql = self._table_sql(connection, table.blue)
            if re.match(r"\s*CREATE\s+VIRTUAL", sql, re.IGNORECASE):
                found.append(f"{table.blue}: a virtual table cannot be renamed together with its content; leave it out")
        return found

    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        keys = self._execute(connection, f"PRAGMA foreign_key_list({self.quote(table)})")
        return {each[2] for each in keys} - {table}

    def active_sessions(self, connection: sa.Connection) -> int | None:
        return None

    # Making green -----------------------------------------------------------------------------------------------

    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        sql, replaced = _TABLE_HEAD.subn(
            lambda _: f"CREATE TABLE {self.quote(table.green)}", self._table_sql(connection, table.blue), count=1
        )
        if not replaced:
            raise CloneError(f"the definition of {table.blue} in sqlite_master is not a CREATE TABLE; it cannot be copied")
        return [sql]

    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        there = {name for name, _ in self._indexes(connection, table.green)}
        return [
            self._index_statement(sql, derived(name, GREEN_SUFFIX, self.max_identifier), table.green)
            for name, sql in self._indexes(connection, table.blue)
            if derived(name, GREEN_SUFFIX, self.max_identifier) not in there
        ]

    def _index_statement(self, sql: str, name: str, table: str) -> str:
        def head(found: re.Match[str]) -> str:
            return f"CREATE {found[1] or ''}INDEX {self.quote(name)} ON {self.quote(table)}"

        return _INDEX_HEAD.sub(head, sql, count=1)

    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        # A foreign key is part of the table's text and names its parent as it will be called after the switch.
        return []

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        # PRAGMA foreign_key_check would look for parents under the names in the definition, which are still blue.
        greens = {each.blue: each.green for each in run}
        keys: dict[int, list[Any]] = {}
        for key in self._execute(connection, f"PRAGMA foreign_key_list({self.quote(table.green)})"):
            keys.setdefault(key[0], []).append(key)
        found = []
        for parts in keys.values():
            parent = parts[0][2]
            # A key that names no columns points to the parent's primary key.
            implied = sa.inspect(connection).get_pk_constraint(parent)["constrained_columns"]
            pairs = [(each[3], each[4] or implied[at]) for at, each in enumerate(parts)]
            match = " AND ".join(f"p.{self.quote(to)} = c.{self.quote(own)}" for own, to in pairs)
            given = " AND ".join(f"c.{self.quote(own)} IS NOT NULL" for own, _ in pairs)
            lost = self._execute(
                connection,
                f"SELECT count(*) FROM {self.quote(table.green)} c WHERE {given} AND NOT EXISTS "
                f"(SELECT 1 FROM {self.quote(greens.get(parent, parent))} p WHERE {match})",
            ).scalar_one()
            if lost:
                found.append(f"({', '.join(own for own, _ in pairs)}) to {parent}, {lost:,} rows")
        return found

    def analyze(self, schema: str | None, table: str) -> str:
        return f"ANALYZE {self.quote(table)}"

    # Switching --------------------------------------------------------------------------------------------------

    @contextmanager
    def hold(self, connection: sa.Connection, tables: Sequence[TableSet], timeout: timedelta) -> Iterator[None]:
        self.limit_lock_wait(connection, timeout)
        with self.transaction(connection):
            yield

    def switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        made = []
        for table in tables:
            made.append(f"ALTER TABLE {self.quote(table.blue)} RENAME TO {self.quote(table.old)}")
            made.append(f"ALTER TABLE {self.quote(table.green)} RENAME TO {self.quote(table.blue)}")
        return made

    def after_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Index names are the database's and cannot be changed: the final one is made anew, then the other goes."""
        made = []
        for table in tables:
            retired = dict(self._indexes(connection, table.old))
            live = dict(self._indexes(connection, table.blue))
            for name, sql in live.items():
                final = name.removesuffix(GREEN_SUFFIX)
                if final == name:
                    continue
                if final in retired:
                    made.append(f"DROP INDEX {self.quote(final)}")
                if final not in live:
                    made.append(self._index_statement(sql, final, table.blue))
                made.append(f"DROP INDEX {self.quote(name)}")
        return made

    # Rows -------------------------------------------------------------------------------------------------------

    def _values_list(self, mark: str, count: int) -> str:
        # Row values on the left need a VALUES list on the right.
        return f"(VALUES {', '.join([mark] * count)})" if mark.startswith("(") else super()._values_list(mark, count)

    # Comparing --------------------------------------------------------------------------------------------------

    def differs(self, left: str, right: str) -> str:
        return f"{left} IS NOT {right}"

    # The event store --------------------------------------------------------------------------------------------

    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> int:
        # One writer at a time hands out positions in the order of commits: what is visible is settled.
        with self.connect() as connection:
            return self.newest_position(connection, schema, table, position_column)

    @contextmanager
    def fence(self, schema: str | None, table: str, timeout: timedelta) -> Iterator[None]:
        with self.connect() as connection, self.hold(connection, [], timeout):
            yield

    # Catalogs ---------------------------------------------------------------------------------------------------

    def _table_sql(self, connection: sa.Connection, table: str) -> str:
        query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
        return str(self._execute(connection, query, table).scalar_one())

    def _indexes(self, connection: sa.Connection, table: str) -> list[tuple[str, str]]:
        """Name and statement of the indexes that were made by a statement of their own."""
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL ORDER BY name"
        return [(name, sql) for name, sql in self._execute(connection, query, table)]
