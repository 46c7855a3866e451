"""Checks settings, privileges and keys before a rebuild: the common checks of MySQL and MariaDB, and MySQL's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from projection_rebuild.dialects.base import RunTables
from projection_rebuild.dialects.mysql import session as ours
from projection_rebuild.dialects.mysql.grants import Grants
from projection_rebuild.model.findings import Finding

OLDEST = (8, 0, 13)
"""The first version that renames locked tables."""

Query = Callable[..., Any]
"""Executes SQL with bound values."""

_SETTINGS = (
    "binlog_format",
    "innodb_file_per_table",
    "innodb_force_primary_key",
    "log_bin",
    "lower_case_table_names",
    "performance_schema",
    "read_only",
    "sql_require_primary_key",
    "super_read_only",
    *ours.LOOKED_AT,
)

_NEED_PRIMARY = {
    "sql_require_primary_key": "makes no table without one",
    "innodb_force_primary_key": "makes no table without one",
    "sql_generate_invisible_primary_key": "gives a new table an invisible one, which this one has not",
}
"""Settings by which a server enforces primary keys, and their effect on a table without one."""

_PRIMARY = """SELECT COUNT(*) FROM information_schema.TABLE_CONSTRAINTS
 WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND CONSTRAINT_TYPE = 'PRIMARY KEY'"""

_OTHER_ENGINES = """SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES
 WHERE TABLE_SCHEMA = %s AND TABLE_NAME IN ({marks}) AND ENGINE <> 'InnoDB' ORDER BY TABLE_NAME"""

_STORED_NAME = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND LOWER(TABLE_NAME) = LOWER(%s)"

_PARENTS = """SELECT DISTINCT REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE
 WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND REFERENCED_TABLE_NAME IS NOT NULL ORDER BY 1, 2"""

_MISSING_PARENTS = """SELECT DISTINCT k.CONSTRAINT_NAME, k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME,
       CASE WHEN t.TABLE_NAME IS NULL THEN NULL ELSE k.REFERENCED_COLUMN_NAME END
  FROM information_schema.KEY_COLUMN_USAGE k
  LEFT JOIN information_schema.TABLES t ON t.TABLE_SCHEMA = k.REFERENCED_TABLE_SCHEMA AND t.TABLE_NAME = k.REFERENCED_TABLE_NAME
  LEFT JOIN information_schema.COLUMNS c ON c.TABLE_SCHEMA = k.REFERENCED_TABLE_SCHEMA AND c.TABLE_NAME = k.REFERENCED_TABLE_NAME
   AND c.COLUMN_NAME = k.REFERENCED_COLUMN_NAME
 WHERE k.TABLE_SCHEMA = %s AND k.TABLE_NAME = %s AND k.REFERENCED_TABLE_NAME IS NOT NULL AND c.COLUMN_NAME IS NULL ORDER BY 1"""

_REPLICAS = "SELECT COUNT(*) FROM {} WHERE COMMAND LIKE 'Binlog Dump%'"

_METADATA_LOCKS = "SELECT ENABLED FROM performance_schema.setup_instruments WHERE NAME = 'wait/lock/metadata/sql/mdl'"

SIZE = """SELECT COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) FROM information_schema.TABLES
 WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"""


class Preflight(ABC):
    """The checks of one server, with the privileges of the engine's account.

    :param query: executes SQL with bound values
    """

    table_privileges: ClassVar[Sequence[str]] = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "INDEX")
    """The privileges that a rebuild needs on all tables of a schema."""

    flush_privileges: ClassVar[Sequence[str]]
    """The privileges each of which allows a fence."""

    unseen: ClassVar[str] = ""
    """The rest of the finding about PROCESS: what else the engine cannot see without it."""

    def __init__(self, query: Query) -> None:
        self._query = query
        name, _, host = str(query("SELECT CURRENT_USER()").scalar_one()).rpartition("@")
        self._user = f"'{name}'@'{host}'"
        self._grants = Grants(line for (line,) in query(self._show_grants()))
        marks = ", ".join(["%s"] * len(_SETTINGS))
        shown = query(f"SHOW SESSION VARIABLES WHERE Variable_name IN ({marks})", *_SETTINGS)
        self._settings = {str(name): str(value) for name, value in shown}

    @abstractmethod
    def _show_grants(self) -> str:
        """A statement that shows the privileges of the account and of its active roles."""

    @property
    def _process_list(self) -> str:
        return "information_schema.PROCESSLIST"

    def _is_on(self, setting: str) -> bool:
        return self._settings.get(setting, "OFF").upper() in ("ON", "1")

    # The server -------------------------------------------------------------------------------------------------

    def of_server(self) -> Iterator[Finding]:
        """Findings about settings, and about privileges on the whole server."""
        yield from self._refusing_settings()
        yield from ours.findings(self._settings)
        yield from ours.history(self._settings)
        yield from self._weakening_settings()
        yield from self._replication()
        yield from self._sight()

    def _refusing_settings(self) -> Iterator[Finding]:
        if self._is_on("super_read_only") or (self._is_on("read_only") and not self._writes_anyway()):
            yield Finding(about="read_only", problem="this server takes no writes", remedy="connect to the primary", refuses=True)
        if self._is_on("log_bin") and self._settings.get("binlog_format", "").upper() == "STATEMENT":
            yield Finding(
                about="binlog_format",
                problem="with STATEMENT, InnoDB takes no writes at READ COMMITTED, at which a rebuild works",
                remedy="SET GLOBAL binlog_format = ROW (or MIXED)",
                refuses=True,
            )

    def _writes_anyway(self) -> bool:
        return any(map(self._grants.allow_everywhere, ("SUPER", "CONNECTION_ADMIN", "READ_ONLY ADMIN", "READ ONLY ADMIN")))

    def _weakening_settings(self) -> Iterator[Finding]:
        if self._settings.get("innodb_file_per_table") == "OFF":
            yield Finding(
                about="innodb_file_per_table",
                problem="it is off: the space of a dropped table is never given back to the disk",
                remedy="SET GLOBAL innodb_file_per_table = ON",
            )

    def _replication(self) -> Iterator[Finding]:
        replicas = self._query(_REPLICAS.format(self._process_list)).scalar_one() if self._is_on("log_bin") else 0
        if replicas:
            yield Finding(
                about="replication",
                problem=f"{replicas} replicas are attached (binlog_format {self._settings.get('binlog_format', 'ROW')}); all rows of the "
                "new tables go through the binary log",
                remedy="watch their lag, and have room for the log",
            )

    def _sight(self) -> Iterator[Finding]:
        """Findings about what the account cannot see; they weaken a rebuild and do not refuse it."""
        if not self._grants.allow_everywhere("PROCESS"):
            yield Finding(
                about=self._user,
                problem="without PROCESS it does not see other accounts' sessions: the low-traffic gate counts only its own, and only "
                f"the ledger identifies retired tables{self.unseen}",
                remedy=f"GRANT PROCESS ON *.* TO {self._user}",
            )

    # The tables -------------------------------------------------------------------------------------------------

    def of_tables(self, run_tables: RunTables) -> Iterator[Finding]:
        """Findings about privileges on the tables, on the schema and on parents, and about names and keys."""
        schema = run_tables.schema or self._query("SELECT DATABASE()").scalar_one()
        yield from self._rights(schema)
        yield from self._ledger(schema, run_tables.ledger)
        for table in run_tables.tables:
            yield from self._name(schema, table.blue)
            yield from self._key(schema, table.blue)
            yield from self._references(schema, table.blue)

    def _rights(self, schema: str) -> Iterator[Finding]:
        # On the whole schema, since a rebuild creates and renames tables in it.
        missing = [privilege for privilege in self.table_privileges if not self._grants.allow(privilege, schema)]
        if missing:
            yield Finding(
                about=f"schema {schema}",
                problem=f"{self._user} lacks {', '.join(missing)} for tables in it",
                remedy=f"GRANT {', '.join(missing)} ON {schema}.* TO {self._user}",
                refuses=True,
            )
        if not self._grants.allow("TRIGGER", schema):
            yield Finding(
                about=f"schema {schema}",
                problem=f"without TRIGGER, {self._user} cannot see the triggers of its tables, which a rebuild would lose",
                remedy=f"GRANT TRIGGER ON {schema}.* TO {self._user}",
                refuses=True,
            )

    def _ledger(self, schema: str, names: Sequence[str]) -> Iterator[Finding]:
        """Refuses tables of the ledger with another storage engine, the server's default at their creation."""
        marks = ", ".join(["%s"] * len(names))
        for name, engine in self._query(_OTHER_ENGINES.format(marks=marks), schema, *names):
            yield Finding(
                about=name,
                problem=f"it is a table of the ledger, and its storage engine {engine} has no transactions",
                remedy=f"ALTER TABLE {name} ENGINE = InnoDB, ROW_FORMAT = DYNAMIC",
                refuses=True,
            )

    def _name(self, schema: str, table: str) -> Iterator[Finding]:
        if self._settings.get("lower_case_table_names", "0") == "0":
            return
        stored = self._query(_STORED_NAME, schema, table).scalar()
        if stored is not None and stored != table:
            yield Finding(
                about=table,
                problem=f"this server (lower_case_table_names = {self._settings['lower_case_table_names']}) calls the table {stored}",
                remedy="write its name so in the row class",
                refuses=True,
            )

    def _key(self, schema: str, table: str) -> Iterator[Finding]:
        if self._query(_PRIMARY, schema, table).scalar_one():
            return
        setting = next(filter(self._is_on, _NEED_PRIMARY), None)
        why = (
            f"and the server ({setting}) {_NEED_PRIMARY[setting]}"
            if setting
            else "and replication looks for each changed row in all"
        )
        yield Finding(
            about=table,
            problem=f"it has no primary key, {why}",
            remedy="ALTER TABLE ... ADD PRIMARY KEY",
            refuses=setting is not None,
        )

    def _references(self, schema: str, table: str) -> Iterator[Finding]:
        for parent_schema, parent in self._query(_PARENTS, schema, table):
            if not self._grants.allow("REFERENCES", parent_schema, parent):
                yield Finding(
                    about=table,
                    problem=f"it has a foreign key to {parent}, but {self._user} may not create another one to that table",
                    remedy=f"GRANT REFERENCES ON {parent_schema}.{parent} TO {self._user}",
                    refuses=True,
                )
        yield from self._missing_parents(schema, table)

    def _missing_parents(self, schema: str, table: str) -> Iterator[Finding]:
        """Refuses foreign keys without a parent, of which the server allows no copy.

        A client has created the key, or dropped its parent, with foreign_key_checks = 0.
        """
        for name, parent_schema, parent, column in self._query(_MISSING_PARENTS, schema, table):
            full = parent if parent_schema == schema else f"{parent_schema}.{parent}"
            what = f"there is no such table, or {self._user} may not see it" if column is None else f"it has no column {column}"
            yield Finding(
                about=table,
                problem=f"the foreign key {name} points to {full}, and {what}; the server creates no other key like it",
                remedy=f"make {full} what the key needs, or drop the foreign key",
                refuses=True,
            )

    # The event store --------------------------------------------------------------------------------------------

    def of_events(self, schema: str | None, table: str) -> Iterator[Finding]:
        """Findings about privileges on the event store, and about a server that takes no appends."""
        if self._is_on("read_only") or self._is_on("super_read_only"):
            yield Finding(
                about=f"event store {table}",
                problem="this server is read-only, as replicas are: it may be behind its primary, and appends cannot be held back here",
                remedy="connect to the primary",
                refuses=True,
            )
        schema = schema or self._query("SELECT DATABASE()").scalar_one()
        yield from ours.history(self._settings)
        if not self._grants.allow("SELECT", schema, table):
            yield Finding(
                about=f"event store {table}",
                problem=f"{self._user} may not read it",
                remedy=f"GRANT SELECT ON {schema}.{table} TO {self._user}",
                refuses=True,
            )
        if not any(map(self._grants.allow_everywhere, self.flush_privileges)):
            yield Finding(
                about=f"event store {table}",
                problem=f"{self._user} may not hold appends back (FLUSH TABLES ... WITH READ LOCK)",
                remedy=f"GRANT {self.flush_privileges[0]} ON *.* TO {self._user}",
                refuses=True,
            )
        if not self._grants.allow("LOCK TABLES", schema):
            yield Finding(
                about=f"event store {table}",
                problem=f"{self._user} may not lock it",
                remedy=f"GRANT LOCK TABLES ON {schema}.* TO {self._user}",
                refuses=True,
            )


class MySQLPreflight(Preflight):
    """See :class:`Preflight`."""

    table_privileges = (*Preflight.table_privileges, "LOCK TABLES")
    flush_privileges = ("FLUSH_TABLES", "RELOAD")

    def _show_grants(self) -> str:
        roles = self._query("SELECT CURRENT_ROLE()").scalar_one()
        return "SHOW GRANTS" if roles == "NONE" else f"SHOW GRANTS FOR CURRENT_USER() USING {roles}"

    @property
    def _process_list(self) -> str:
        # The older list fails while any session executes a text with a character of four bytes.
        return "performance_schema.processlist" if self._is_on("performance_schema") else super()._process_list

    def _sight(self) -> Iterator[Finding]:
        yield from super()._sight()
        if not self._sees_locks():
            yield Finding(
                about="performance_schema.metadata_locks",
                problem="the engine cannot see who uses a table, so the switch waits in the queue, and a client may become the victim of "
                "a deadlock with it; the switch does not see older snapshots, and does not wait for them; and settling takes a lock on "
                "the event store, behind which appends wait for moments",
                remedy=f"switch performance_schema and its instrument wait/lock/metadata/sql/mdl on, and GRANT SELECT ON "
                f"performance_schema.* TO {self._user}",
            )

    def _sees_locks(self) -> bool:
        if not self._is_on("performance_schema") or not self._grants.allow("SELECT", "performance_schema", "metadata_locks"):
            return False
        if not self._grants.allow("SELECT", "performance_schema", "setup_instruments"):
            return True
        return bool(self._query(_METADATA_LOCKS).scalar() != "NO")
