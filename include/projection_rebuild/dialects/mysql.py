"""MySQL and MariaDB: every DDL statement commits by itself, so a switch is one RENAME TABLE behind a fence."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from include.projection_rebuild.dialects.base import Dialect
from include.projection_rebuild.errors import CloneError, SettleTimeout
from include.projection_rebuild.names import TableSet, derived
from include.projection_rebuild.rows import RowType, Values
from include.projection_rebuild.values import bound

LOCK_WAIT_TIMEOUT, DEADLOCK, INTERRUPTED, STATEMENT_TIME, LOCK_NOWAIT = 1205, 1213, 1317, 1969, 3572
ACCESS_DENIED = 1227

_NAME = r"`((?:[^`]|``)*)`"
_FOREIGN_KEY = re.compile(rf"CONSTRAINT {_NAME} FOREIGN KEY (\(.*?\)) REFERENCES (?:{_NAME}\.)?{_NAME} (\(.*?\))(.*)")
_PLAIN_KEY = re.compile(rf"(?:FULLTEXT |SPATIAL |VECTOR )?KEY {_NAME} ")


@dataclass(frozen=True)
class _ForeignKey:
    name: str
    columns: str
    parent_schema: str | None
    parent: str
    parent_columns: str
    actions: str


class MySQLDialect(Dialect):
    """See :class:`Dialect`; statements as they were checked on MySQL 8 and 9 and MariaDB 10.11."""

    max_identifier = 64
    ddl_commits = True
    begin = "START TRANSACTION"

    @property
    def is_mariadb(self) -> bool:
        """Whether the server is MariaDB; known from the first connection on."""
        return bool(getattr(self.engine.dialect, "is_mariadb", False))

    # Connections ------------------------------------------------------------------------------------------------

    def set_up(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_character_set("utf8mb4")
        self._execute(connection, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        self._execute(connection, "SET SESSION time_zone = '+00:00'")
        # A value that does not fit is an error, never a silent cut.
        self._execute(connection, "SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES')")

    def lock_was_refused(self, error: BaseException) -> bool:
        return _number(error) in (LOCK_WAIT_TIMEOUT, DEADLOCK, INTERRUPTED, STATEMENT_TIME, LOCK_NOWAIT)

    def session_id(self, connection: sa.Connection) -> int | None:
        return int(self._execute(connection, "SELECT CONNECTION_ID()").scalar_one())

    def cancel(self, session_id: int) -> None:
        with self.connect() as connection:
            self._execute(connection, f"KILL QUERY {session_id}")

    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        self._execute(connection, f"SET SESSION lock_wait_timeout = {max(1, math.ceil(timeout.total_seconds()))}")

    # Looking at tables ------------------------------------------------------------------------------------------

    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return int(self._table_fact(connection, schema, table, "TABLE_ROWS") or 0)

    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        # InnoDB's own number stays through renames. CREATE_TIME does not: a foreign key that follows a rename changes it.
        if self._table_fact(connection, schema, table, "TABLE_NAME") is None:
            return None
        catalog = "INNODB_SYS_TABLES" if self.is_mariadb else "INNODB_TABLES"
        database = schema or self._execute(connection, "SELECT DATABASE()").scalar_one()
        name = f"{_file_name(database)}/{_file_name(table)}"
        try:
            found = self._execute(connection, f"SELECT TABLE_ID FROM information_schema.{catalog} WHERE NAME = %s", name).scalar()
        except sa.exc.DBAPIError as error:
            if _number(error) == ACCESS_DENIED:
                return None
            raise
        return None if found is None else str(found)

    def cannot_carry(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        names = {each.blue for each in tables}
        return [finding for table in tables for finding in self._findings(connection, table, names)]

    def _findings(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[str]:
        triggers = """SELECT TRIGGER_NAME FROM information_schema.TRIGGERS
                      WHERE EVENT_OBJECT_SCHEMA = COALESCE(%s, DATABASE()) AND EVENT_OBJECT_TABLE = %s"""
        for (name,) in self._execute(connection, triggers, table.schema, table.blue):
            yield f"{table.blue}: the trigger {name} would stay on the retired table; drop it before the rebuild and make it again after"
        keys = """SELECT DISTINCT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.KEY_COLUMN_USAGE
                  WHERE REFERENCED_TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND REFERENCED_TABLE_NAME = %s"""
        for child, name in self._execute(connection, keys, table.schema, table.blue):
            if child not in run:
                yield (
                    f"{table.blue}: the foreign key {name} of {child} would follow the retired table; rebuild {child} in the "
                    "same run (choose its projector too, or 'rebuild dependents'), or drop the foreign key"
                )
        engine = self._table_fact(connection, table.schema, table.blue, "ENGINE")
        if engine != "InnoDB":
            yield f"{table.blue}: its storage engine {engine} has no transactions; convert it to InnoDB"

    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        return {key.parent for key in self._foreign_keys(connection, schema, table) if key.parent_schema in (None, schema)} - {
            table
        }

    def active_sessions(self, connection: sa.Connection) -> int | None:
        query = """SELECT COUNT(*) FROM information_schema.PROCESSLIST
                   WHERE COMMAND IN ('Query', 'Execute') AND DB = DATABASE() AND ID <> CONNECTION_ID()"""
        return int(self._execute(connection, query).scalar_one())

    # Making green -----------------------------------------------------------------------------------------------

    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        blue, green = self.qualified(table.schema, table.blue), self.qualified(table.schema, table.green)
        made = [f"CREATE TABLE {green} LIKE {blue}"]
        late = self._late_indexes(connection, table.schema, table.blue)
        if late:
            made.append(f"ALTER TABLE {green} " + ", ".join(f"DROP INDEX {self.quote(name)}" for name in late))
        return made

    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        there = self._late_indexes(connection, table.schema, table.green)
        missing = [
            definition
            for name, definition in self._late_indexes(connection, table.schema, table.blue).items()
            if name not in there
        ]
        if not missing:
            return []
        adds = ", ".join(f"ADD {definition}" for definition in missing)
        return [f"ALTER TABLE {self.qualified(table.schema, table.green)} {adds}"]

    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        greens = {each.blue: each.green for each in run}
        there = {
            (key.columns, key.parent, key.parent_columns, key.actions)
            for key in self._foreign_keys(connection, table.schema, table.green)
        }
        taken = self._constraint_names(connection, table.schema)
        made = []
        for key in self._foreign_keys(connection, table.schema, table.blue):
            parent = greens.get(key.parent, key.parent) if key.parent_schema in (None, table.schema) else key.parent
            if (key.columns, parent, key.parent_columns, key.actions) in there:
                continue
            made.append(
                f"ALTER TABLE {self.qualified(table.schema, table.green)} ADD CONSTRAINT "
                f"{self.quote(self._free_name(key.name, table, taken))} FOREIGN KEY {key.columns} REFERENCES "
                f"{self.qualified(key.parent_schema or table.schema, parent)} {key.parent_columns}{key.actions}"
            )
        return made

    def _free_name(self, name: str, table: TableSet, taken: set[str]) -> str:
        """Names of foreign keys are the schema's. The server's own (``t_ibfk_1``) follow a rename; others take a free one."""
        if name.startswith(f"{table.blue}_ibfk_"):
            return table.green + name.removeprefix(table.blue)
        stem = re.sub(r"_rb[0-9]$", "", name)
        candidates = (stem, *(derived(stem, f"_rb{number}", self.max_identifier) for number in range(1, 10)))
        return next(each for each in candidates if each not in taken)

    def analyze(self, schema: str | None, table: str) -> str:
        return f"ANALYZE TABLE {self.qualified(schema, table)}"

    # Switching --------------------------------------------------------------------------------------------------

    @contextmanager
    def hold(self, connection: sa.Connection, tables: Sequence[TableSet], timeout: timedelta) -> Iterator[None]:
        """Holds nothing: the fence holds the writers, and RENAME TABLE itself waits for the readers."""
        self.limit_lock_wait(connection, timeout)
        yield

    def switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        made = []
        for table in tables:
            counter = self._auto_increment(connection, table.schema, table.blue)
            if counter > self._auto_increment(connection, table.schema, table.green):
                made.append(f"ALTER TABLE {self.qualified(table.schema, table.green)} AUTO_INCREMENT = {counter}")
        renames = [
            f"{self.qualified(each.schema, before)} TO {self.qualified(each.schema, after)}"
            for each in tables
            for before, after in ((each.blue, each.old), (each.green, each.blue))
        ]
        return [*made, f"RENAME TABLE {', '.join(renames)}"]

    def run_switch(self, connection: sa.Connection, statements: Sequence[str], timeout: timedelta) -> None:
        # A RENAME that waits for a long reader makes every later reader wait, and MySQL's own time-out is a second
        # at least; ended by KILL QUERY, it leaves everything as it was.
        for statement in statements:
            with self._killed_after(connection, timeout):
                self._execute(connection, statement)

    @contextmanager
    def _killed_after(self, connection: sa.Connection, timeout: timedelta) -> Iterator[None]:
        session = self.session_id(connection)
        watchdog = threading.Timer(timeout.total_seconds(), self.cancel, [session])
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
            watchdog.join()
            self._swallow_late_kill(connection)

    def _swallow_late_kill(self, connection: sa.Connection) -> None:
        """A kill that came just after its statement had ended strikes the next one; this is that one."""
        try:
            self._execute(connection, "SELECT 1")
        except sa.exc.DBAPIError as error:
            if not self.lock_was_refused(error):
                raise

    def after_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return []

    # Rows -------------------------------------------------------------------------------------------------------

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> None:
        changed = [name for name in kind.columns if name not in kind.key]
        if not changed:
            return
        # The driver sends one statement for many rows only for INSERT. Each row is there, so each one is an update.
        marks = ", ".join([self._mark] * len(kind.columns))
        sets = ", ".join(f"{self.quote(name)} = VALUES({self.quote(name)})" for name in changed)
        statement = (
            f"INSERT INTO {self.qualified(schema, table)} ({self._list(kind.columns)}) VALUES ({marks}) "
            f"ON DUPLICATE KEY UPDATE {sets}"
        )
        self._many(connection, statement, bound(kind, rows, self.binds))

    def _absent_insert(self, into: str, kind: RowType) -> str:
        same = self.quote(kind.key[0])
        return f"INSERT {into} ON DUPLICATE KEY UPDATE {same} = {same}"

    # Comparing --------------------------------------------------------------------------------------------------

    def differs(self, left: str, right: str) -> str:
        return f"NOT ({left} <=> {right})"

    # The event store --------------------------------------------------------------------------------------------

    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> int:
        deadline = time.monotonic() + patience.total_seconds()
        with self.connect() as connection:
            highest = self.newest_position(connection, schema, table, position_column)
        while True:
            try:
                with self.fence(schema, table, timedelta(seconds=1)):
                    return highest
            except sa.exc.DBAPIError as error:
                if not self.lock_was_refused(error):
                    raise
                if time.monotonic() > deadline:
                    raise SettleTimeout(
                        f"transactions that append to {table} did not end within {patience.total_seconds():.0f} s; look for "
                        "long transactions in information_schema.INNODB_TRX, then retry"
                    ) from error
                time.sleep(random.uniform(0.02, 0.1))  # noqa: S311 - spreads retries, guards nothing

    @contextmanager
    def fence(self, schema: str | None, table: str, timeout: timedelta) -> Iterator[None]:
        # FLUSH TABLES waits for appends in flight and does not starve under new ones, as LOCK TABLES ... READ does.
        with self.connect() as connection:
            self.limit_lock_wait(connection, timeout)
            with self._killed_after(connection, timeout):
                self._execute(connection, f"FLUSH TABLES {self.qualified(schema, table)} WITH READ LOCK")
            try:
                yield
            finally:
                self._execute(connection, "UNLOCK TABLES")

    # Catalogs ---------------------------------------------------------------------------------------------------

    def _table_fact(self, connection: sa.Connection, schema: str | None, table: str, fact: str) -> Any:
        query = f"""SELECT {fact} FROM information_schema.TABLES
                    WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"""
        return self._execute(connection, query, schema, table).scalar()

    def _definition(self, connection: sa.Connection, schema: str | None, table: str) -> str:
        if self._table_fact(connection, schema, table, "TABLE_NAME") is None:
            # A green table that is only planned.
            return ""
        return str(self._execute(connection, f"SHOW CREATE TABLE {self.qualified(schema, table)}").one()[1])

    def _clauses(self, connection: sa.Connection, schema: str | None, table: str) -> list[str]:
        """The columns, keys and constraints of a table, one a line as the server writes them."""
        lines = self._definition(connection, schema, table).splitlines()[1:]
        return [line.strip().removesuffix(",").replace("%", "%%") for line in lines if line.startswith("  ")]

    def _late_indexes(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, str]:
        """Indexes that are built after the replay: all but unique ones, and the one that AUTO_INCREMENT needs."""
        clauses = self._clauses(connection, schema, table)
        counters = [re.match(_NAME, each) for each in clauses if "AUTO_INCREMENT" in each]
        counted = {f"(`{found[1]}`" for found in counters if found}
        return {
            found[1].replace("``", "`").replace("%%", "%"): clause
            for clause in clauses
            if (found := _PLAIN_KEY.match(clause)) and not any(clause[found.end() :].startswith(each) for each in counted)
        }

    def _foreign_keys(self, connection: sa.Connection, schema: str | None, table: str) -> list[_ForeignKey]:
        keys = []
        for clause in self._clauses(connection, schema, table):
            if not clause.startswith("CONSTRAINT ") or " FOREIGN KEY " not in clause:
                continue
            found = _FOREIGN_KEY.fullmatch(clause)
            if found is None:
                raise CloneError(
                    f"{table}: a foreign key cannot be read from SHOW CREATE TABLE; leave the table out and report it"
                )
            names = [name.replace("``", "`").replace("%%", "%") if name else None for name in (found[1], found[3], found[4])]
            keys.append(_ForeignKey(str(names[0]), found[2], names[1], str(names[2]), found[5], found[6]))
        return keys

    def _constraint_names(self, connection: sa.Connection, schema: str | None) -> set[str]:
        query = (
            "SELECT CONSTRAINT_NAME FROM information_schema.TABLE_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = COALESCE(%s, DATABASE())"
        )
        return {name for (name,) in self._execute(connection, query, schema)}

    def _auto_increment(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        # Not from information_schema: MySQL serves that from a cache that is a day old.
        found = re.search(r"\bAUTO_INCREMENT=(\d+)", self._definition(connection, schema, table).rpartition("\n")[2])
        return int(found[1]) if found else 0


def _number(error: BaseException) -> int | None:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return cause.args[0] if cause is not None and cause.args and isinstance(cause.args[0], int) else None


def _file_name(name: str) -> str:
    """A name as InnoDB's catalog spells it: what is not a plain letter, digit or underscore is ``@`` and four hex digits.

    Some letters outside ASCII have shorter forms there; such a table is then not found, and has no identity.
    """
    return "".join(each if each.isascii() and (each.isalnum() or each == "_") else f"@{ord(each):04x}" for each in name)
