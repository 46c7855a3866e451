"""Reads what hangs on tables of MySQL and MariaDB: what a rebuild cannot carry over, and what it can."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import sqlalchemy as sa

from projection_rebuild.dialects.base import DependentObjects
from projection_rebuild.dialects.mysql import create_table as text
from projection_rebuild.dialects.mysql.base import TABLE_TYPES, MySQLBase
from projection_rebuild.dialects.mysql.dependents import definitions, dependents_of
from projection_rebuild.dialects.mysql.hanging import TRIGGERS_OF
from projection_rebuild.model.findings import Dependents, Finding, refusal
from projection_rebuild.model.names import TableSet

CHILDREN = """
SELECT DISTINCT TABLE_SCHEMA = REFERENCED_TABLE_SCHEMA, TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME FROM information_schema.KEY_COLUMN_USAGE
 WHERE REFERENCED_TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND REFERENCED_TABLE_NAME = %s"""

Check = Callable[[sa.Connection, TableSet, set[str]], Iterator[Finding]]
"""Refuses what a rebuild cannot carry over of a table; the last argument has the names of the run's tables."""


class MySQLDependents(MySQLBase, DependentObjects):
    """See :class:`DependentObjects`."""

    @property
    def refuses(self) -> tuple[str, ...]:
        return tuple(self._checks)

    def unsupported_objects(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Finding]:
        names = {table.blue for table in tables}
        checks = self._checks.values()
        return [finding for table in tables for check in checks for finding in check(connection, table, names)]

    @property
    def _checks(self) -> dict[str, Check]:
        return {
            "trigger": self._triggers,
            "foreign key of another table": self._children,
            "storage engine or history": self._histories,
            "long constraint": self._long_names,
            **self._own_checks,
            "taken name": self._taken,
            "taken name of a new foreign key": self._taken_anew,
        }

    @property
    def _own_checks(self) -> dict[str, Check]:
        """The checks that only this server needs."""
        return {}

    def _triggers(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[Finding]:
        for (name,) in self._execute(connection, TRIGGERS_OF, table.schema, table.blue):
            yield refusal(
                table.blue,
                f"the trigger {name} cannot be moved to the new table: its name is the schema's, this server renames no triggers, and "
                "each of its statements commits by itself, so that for a moment it would fire twice or not at all.",
                "Let the projector or the application do what it does; or drop it before the rebuild, and make it again after",
            )

    def _children(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[Finding]:
        for beside, schema, child, name in self._execute(connection, CHILDREN, table.schema, table.blue):
            if not beside or child not in run:
                yield refusal(
                    table.blue,
                    f"the foreign key {name} of {child if beside else f'{schema}.{child}'} follows a rename, and no statement "
                    f"renames {table.blue} and points it to the new table at once: until a second one, inserts would fail or rows lose "
                    "their parents.",
                    f"Rebuild {child} in the same run (choose its projector too, or 'rebuild dependents'), or drop the foreign key",
                )

    def _histories(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[Finding]:
        engine, kind = (self._table_fact(connection, table.schema, table.blue, fact) for fact in ("ENGINE", "TABLE_TYPE"))
        if engine != "InnoDB":
            yield refusal(table.blue, f"its storage engine {engine} has no transactions", "convert it to InnoDB")
        if kind == "SYSTEM VERSIONED":
            yield refusal(
                table.blue,
                "the history of its rows (WITH SYSTEM VERSIONING) would stay on the retired table, since no event says when a row was "
                "changed",
                "drop the versioning, or keep the history in a table that is not rebuilt",
            )

    def _long_names(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[Finding]:
        """Refuses names of constraints that would be too long on green, or after a rename.

        The server changes names of its own kind in a rename.
        """
        blue = self._definition(connection, table.schema, table.blue)
        for kind, names in (("ibfk", blue.foreign_keys()), ("chk", self._renamed_checks(blue))):
            longest = table.old if kind == "ibfk" else max(table.old, table.green, key=len)
            for name in (constraint.name for constraint in names):
                number = text.generated(name, table.blue, kind)
                if number and len(f"{longest}_{kind}_{number}") > text.LONGEST_NAME:
                    yield refusal(
                        table.blue,
                        f"the constraint {name} would be called {longest}_{kind}_{number} after a rename, which is too long a name here",
                        "give it a name of your own",
                    )
                elif kind == "ibfk" and text.meanwhile(name) is None:
                    yield _too_long(table, name)

    @abstractmethod
    def _renamed_checks(self, table: text.Definition) -> Sequence[text.Check]:
        """The CHECKs that the server may rename together with their table."""

    def _taken(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[Finding]:
        for name in (table.green, table.old):
            kind = self._table_fact(connection, table.schema, name, "TABLE_TYPE")
            if kind is not None and kind not in TABLE_TYPES:
                taken_by = f"the {str(kind).lower()} of this name"
                yield refusal(table.blue, f"the rebuild needs the name {name}, which is taken by {taken_by}", "rename it")

    def _taken_anew(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[Finding]:
        """Refuses a new structure that needs the name of another table's foreign key: the schema has each name once."""
        query = """SELECT TABLE_NAME FROM information_schema.TABLE_CONSTRAINTS
                   WHERE CONSTRAINT_SCHEMA = COALESCE(%s, DATABASE()) AND CONSTRAINT_NAME = %s AND CONSTRAINT_TYPE = 'FOREIGN KEY'"""
        for key in self._wanted(connection, table).foreign_keys() if table.target_schema else []:
            holders = {holder for (holder,) in self._execute(connection, query, table.schema, key.name)}
            if others := holders - {table.blue, table.green, table.old}:
                problem = f"the new structure needs the name {key.name}, which a foreign key of {', '.join(sorted(others))} has"
                yield refusal(table.blue, problem, "give another one")
            if text.meanwhile(key.name) is None:
                yield _too_long(table, key.name)

    def dependent_objects(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Dependents]:
        query = partial(self._execute, connection)
        return [
            objects
            for table in tables
            for objects in dependents_of(query, table, self._definition(connection, table.schema, table.blue))
        ]

    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        keys = self._definition(connection, schema, table).foreign_keys()
        return {key.parent for key in keys if key.parent_schema in (None, schema)} - {table}

    def definitions(self, connection: sa.Connection, schema: str | None) -> dict[str, str]:
        return definitions(partial(self._execute, connection), lambda name: self.qualified(schema, name), schema)


def _too_long(table: TableSet, key: str) -> Finding:
    problem = f"there is no name of {text.LONGEST_NAME} letters like that of {key}"
    return refusal(table.blue, problem, "give it a shorter one")
