"""Inspects tables, and what hangs on them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import sqlalchemy as sa

from projection_rebuild.dialects.base.sessions import Sessions
from projection_rebuild.model.column_kinds import ColumnKind, ColumnType
from projection_rebuild.model.findings import Dependents, Finding
from projection_rebuild.model.names import TableSet
from projection_rebuild.rows.shapes import Shape


@dataclass(frozen=True)
class TableSize:
    """The approximate size of a table.

    :param rows: its number of rows
    :param size: its bytes, indexes included
    """

    rows: int
    size: int


class Inspector(Sessions):
    """Reads what a table is: its columns, keys, size and identity."""

    has_schemas: ClassVar[bool] = True
    """Whether a table's name may have a schema."""

    fixes_types: ClassVar[bool] = True
    """Whether the type of a column determines the kind of its values."""

    def table_exists(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        """Whether a table (not a view) of this name exists."""
        return sa.inspect(connection).has_table(table, schema=schema) and table not in self._views(connection, schema)

    def _views(self, connection: sa.Connection, schema: str | None) -> list[str]:
        return sa.inspect(connection).get_view_names(schema=schema)

    @abstractmethod
    def relation_kind(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        """The kind of object that has a name: ``table``, or the database's own word, like ``view``; None: no object."""

    def default_schema(self, connection: sa.Connection) -> str | None:
        """The schema of tables for which the spec names none; None: a connection has only one schema."""
        return None

    def columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[str]:
        """The column names of a table, in their order."""
        return [column["name"] for column in sa.inspect(connection).get_columns(table, schema=schema)]

    @abstractmethod
    def column_types(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, ColumnType]:
        """The types of a table's columns, by name; empty for a table that does not exist."""

    def value_kinds(self, connection: sa.Connection, table: str, column: str) -> set[ColumnKind] | None:
        """The kinds of a column's values, without NULL. None: the column's type decides, as in most databases."""
        return None

    @abstractmethod
    def shapes(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, Shape]:
        """What the columns of a table can hold in this session, by name; empty for a table that does not exist."""

    def outline(self, connection: sa.Connection, schema: str | None, table: str) -> Hashable:
        """The driver's description of a table's columns: cheap to read, and it changes with their types."""
        result = self._execute(connection, f"SELECT * FROM {self.qualified(schema, table)} WHERE 1 = 0")
        cursor: Any = result.cursor
        described = tuple(map(tuple, cursor.description)), getattr(cursor, "description_flags", None)
        result.close()
        return described

    def unique_keys(
        self, connection: sa.Connection, schema: str | None, table: str, *, among_some: bool = False
    ) -> list[set[str]]:
        """The sets of columns that are unique in a table: its primary key, unique constraints and whole unique indexes.

        :param among_some: include partial indexes, which cover only some rows
        """
        inspector = sa.inspect(connection)
        primary = set(inspector.get_pk_constraint(table, schema=schema)["constrained_columns"])
        constraints = [set(constraint["column_names"]) for constraint in inspector.get_unique_constraints(table, schema=schema)]
        indexes = [
            {str(name) for name in index["column_names"]}
            for index in inspector.get_indexes(table, schema=schema)
            if index["unique"] and (among_some or not any("where" in option for option in index.get("dialect_options", {})))
        ]
        return [primary, *constraints, *indexes]

    def row_count(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        """The exact number of rows."""
        return int(self._execute(connection, f"SELECT count(*) FROM {self.qualified(schema, table)}").scalar_one())

    def has_rows(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        """Whether a table has at least one row."""
        return bool(self._execute(connection, f"SELECT EXISTS (SELECT 1 FROM {self.qualified(schema, table)})").scalar_one())

    @abstractmethod
    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        """The approximate number of rows, from statistics, without reading the table."""

    @abstractmethod
    def table_bytes(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        """The approximate size of a table with its indexes, in bytes."""

    def table_size(self, connection: sa.Connection, schema: str | None, table: str) -> TableSize | None:
        """The approximate size of a table, from statistics, also during a replay; None: the table does not exist."""
        if not self.table_exists(connection, schema, table):
            return None
        return TableSize(self.row_estimate(connection, schema, table), self.table_bytes(connection, schema, table))

    @abstractmethod
    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        """A value that stays when a table is renamed, and differs for a new table of the same name.

        None if the table does not exist, or this account may not see the value; then only the ledger identifies it.
        """

    identity_lost_by: ClassVar[str | None] = None
    """Statements that give a table another identity although its users see the same table; None: no statement does."""

    identity_untold: ClassVar[str] = "this account is not told"
    """Why :meth:`identities` does not know a table; messages begin with it."""

    def identities(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> dict[str, str | None]:
        """The identities of several tables, by name; unlike :meth:`identity`, they do not depend on definitions."""
        return {table: self.identity(connection, schema, table) for table in tables}


class DependentObjects(Sessions):
    """Reads what hangs on tables: what a rebuild carries over, and what it cannot."""

    @property
    @abstractmethod
    def refuses(self) -> tuple[str, ...]:
        """The kinds of objects that :meth:`unsupported_objects` reports."""

    @abstractmethod
    def unsupported_objects(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Finding]:
        """Objects on the blue tables that a rebuild would lose or break, each with its reason and remedy."""

    @abstractmethod
    def hanging(self, connection: sa.Connection, tables: Sequence[TableSet]) -> str:
        """The fingerprint of what hangs on blue and green, by few queries of the catalogs: writers may be waiting.

        It changes with everything that :meth:`unsupported_objects` or :meth:`before_swap` reads, except what
        :meth:`swap_statements` compares itself.
        """

    @abstractmethod
    def dependent_objects(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Dependents]:
        """The objects that hang on the blue tables and that a rebuild carries over unchanged, by name."""

    @abstractmethod
    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        """The tables to which foreign keys of this table point, without the table itself."""

    @abstractmethod
    def definitions(self, connection: sa.Connection, schema: str | None) -> dict[str, str]:
        """The definition of each object of a schema, as the database writes it, without the ledger.

        A rebuild must not change any of them.
        """
