"""Dependent objects on SQLite: those that a rebuild carries over, and those that it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from projection_rebuild.dialects.base import DependentObjects
from projection_rebuild.dialects.sqlite import create_table as text
from projection_rebuild.dialects.sqlite.catalog import SqliteCatalog
from projection_rebuild.dialects.sqlite.cutover import Stored, green_name, old_name
from projection_rebuild.model.findings import Dependents, Finding, named, refusal
from projection_rebuild.model.names import TableSet


class SqliteDependents(SqliteCatalog, DependentObjects):
    """See :class:`DependentObjects`."""

    @property
    def refuses(self) -> tuple[str, ...]:
        return ("virtual table", "taken name", "defensive mode")

    def unsupported_objects(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Finding]:
        return [*self._virtual(connection, tables), *self._taken(connection, tables), *self._defended(connection)]

    def _virtual(self, connection: sa.Connection, tables: Sequence[TableSet]) -> Iterator[Finding]:
        for table in tables:
            if text.table_name(self._table(connection, table.blue).sql) is None:
                yield refusal(table.blue, "a virtual table cannot be renamed together with its content", "leave it out")

    def _taken(self, connection: sa.Connection, tables: Sequence[TableSet]) -> Iterator[Finding]:
        """Refuses names that green or old needs and another object has. Tables, views and indexes share one set of names."""
        query = "SELECT type, tbl_name FROM sqlite_master WHERE name = ? COLLATE NOCASE"
        for table in tables:
            run_names = {table.blue, table.green, table.old}
            needed = [table.green, table.old]
            for index in self._indexes(connection, table.blue):
                needed += [green_name(index.name), old_name(index.name)]
            if table.target_schema is not None:
                needed += [name for index in self._wanted(connection, table)[1] for name in (index.name, green_name(index.name))]
            for name in dict.fromkeys(needed):
                for kind, owner in self._execute(connection, query, name):
                    if owner not in run_names or kind == "view":
                        problem = f"the rebuild needs the name {name}, which is taken by the {kind} of this name"
                        yield refusal(table.blue, problem, "rename it")

    def _defended(self, connection: sa.Connection) -> Iterator[Finding]:
        # ALTER TABLE is no substitute: it rewrites definitions, and cannot give foreign keys other parents.
        self._execute(connection, "PRAGMA writable_schema = 1")
        try:
            # EXPLAIN only: the UPDATE itself would wait for another writer, and its timeout would look like a refusal.
            self._execute(connection, "EXPLAIN UPDATE sqlite_master SET sql = sql").close()
        except sa.exc.OperationalError as error:
            if self.is_lock_timeout(error):
                raise
            yield refusal(
                "",
                "SQLite keeps the schema from being edited (its defensive mode), so that definitions could not stay as they are",
                "let the rebuild's connections turn it off (setconfig(SQLITE_DBCONFIG_DEFENSIVE, False), since Python 3.12), or use a "
                "Python whose SQLite does not start in it",
            )
        finally:
            self._execute(connection, "PRAGMA writable_schema = 0")

    def hanging(self, connection: sa.Connection, tables: Sequence[TableSet]) -> str:
        # SQLite increases it with each change of the schema, by any connection.
        return str(self._execute(connection, "PRAGMA schema_version").scalar_one())

    def dependent_objects(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Dependents]:
        return [objects for table in tables for objects in self._dependents(connection, self._table(connection, table.blue))]

    def _dependents(self, connection: sa.Connection, blue: Stored) -> Iterator[Dependents]:
        generated = {2: " (generated)", 3: " (generated)"}
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(blue.name)})").all()
        tables = self._execute(connection, "SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
        mentions = "SELECT name FROM sqlite_master WHERE type = ? AND tbl_name <> ? AND instr(lower(sql), lower(?)) ORDER BY name"
        yield from named(
            blue.name,
            {
                "columns": [column.name + generated.get(column.hidden, "") for column in columns],
                "options": text.options(blue.sql),
                "indexes": [index.name for index in self._indexes(connection, blue.name)],
                "foreign keys to": [parent for parent, _ in self._foreign_keys(connection, blue.name)],
                "foreign keys from": [
                    child
                    for child in tables
                    for parent, _ in self._foreign_keys(connection, child)
                    if parent == blue.name and child != blue.name
                ],
                "triggers": [trigger.name for trigger in self._stored(connection, "trigger", blue.name)],
                "views that may read it": self._execute(connection, mentions, "view", blue.name, blue.name).scalars().all(),
                "triggers elsewhere that may use it": self._execute(connection, mentions, "trigger", blue.name, blue.name)
                .scalars()
                .all(),
            },
        )

    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        # The bare PRAGMA uses the schema that this connection read last, and would miss a table created since.
        parents = self._execute(connection, 'SELECT "table" FROM pragma_foreign_key_list(?)', table).scalars()
        return {*parents} - {table}

    def definitions(self, connection: sa.Connection, schema: str | None) -> dict[str, str]:
        query = "SELECT type, name, sql FROM sqlite_master WHERE tbl_name NOT LIKE 'projection\\_rebuild%' ESCAPE '\\'"
        return {f"{kind} {name}": sql or "" for kind, name, sql in self._execute(connection, query)}
