"""Looking at tables, and at what hangs on them."""

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
    """About how large a table is.

    :param rows: its rows
    :param size: its bytes, indexes included
    """

    rows: int
    size: int


class Inspector(Sessions):
    """What a table is: its columns, keys, size and identity."""

    has_schemas: ClassVar[bool] = True
    """Whether a table's name may have a schema."""

    fixes_types: ClassVar[bool] = True
    """Whether the type of a column says of which kind its values are."""

    def table_exists(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        """Whether there is a table (not a view) of this name."""
        return sa.inspect(connection).has_table(table, schema=schema) and table not in self._views(connection, schema)

    def _views(self, connection: sa.Connection, schema: str | None) -> list[str]:
        return sa.inspect(connection).get_view_names(schema=schema)

    @abstractmethod
    def relation_kind(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        """What a name stands for: ``table``, or what else the database calls it, such as ``view``; None: nothing."""

    def default_schema(self, connection: sa.Connection) -> str | None:
        """The schema that a spec without one means; None where a connection has just one."""
        return None

    def columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[str]:
        """The column names of a table, in their order."""
        return [each["name"] for each in sa.inspect(connection).get_columns(table, schema=schema)]

    @abstractmethod
    def column_types(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, ColumnType]:
        """The types of a table's columns, by name; empty for a table that is not there."""

    def value_kinds(self, connection: sa.Connection, table: str, column: str) -> set[ColumnKind] | None:
        """What a column's values are, NULL left out. None: they are what the column's type says, as in most databases."""
        return None

    @abstractmethod
    def shapes(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, Shape]:
        """What the columns of a table can hold in this session, by name; empty for a table that is not there."""

    def outline(self, connection: sa.Connection, schema: str | None, table: str) -> Hashable:
        """What the driver tells of a table's columns with a result: cheap, and another one when their types change."""
        result = self._execute(connection, f"SELECT * FROM {self.qualified(schema, table)} WHERE 1 = 0")
        cursor: Any = result.cursor
        described = tuple(map(tuple, cursor.description)), getattr(cursor, "description_flags", None)
        result.close()
        return described

    def unique_keys(
        self, connection: sa.Connection, schema: str | None, table: str, *, among_some: bool = False
    ) -> list[set[str]]:
        """The sets of columns that are unique in a table: its primary key, unique constraints and whole unique indexes.

        :param among_some: also those of indexes over some of the rows
        """
        inspector = sa.inspect(connection)
        primary = set(inspector.get_pk_constraint(table, schema=schema)["constrained_columns"])
        constraints = [set(each["column_names"]) for each in inspector.get_unique_constraints(table, schema=schema)]
        indexes = [
            {str(name) for name in each["column_names"]}
            for each in inspector.get_indexes(table, schema=schema)
            if each["unique"] and (among_some or not any("where" in option for option in each.get("dialect_options", {})))
        ]
        return [primary, *constraints, *indexes]

    def row_count(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        """The exact number of rows."""
        return int(self._execute(connection, f"SELECT count(*) FROM {self.qualified(schema, table)}").scalar_one())

    def has_rows(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        """Whether there is any row."""
        return bool(self._execute(connection, f"SELECT EXISTS (SELECT 1 FROM {self.qualified(schema, table)})").scalar_one())

    @abstractmethod
    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        """About how many rows there are, from statistics, without reading the table."""

    @abstractmethod
    def table_bytes(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        """About how many bytes a table takes with its indexes."""

    def table_size(self, connection: sa.Connection, schema: str | None, table: str) -> TableSize | None:
        """About how large a table is now, from statistics, also while it is being filled; None if there is no such table."""
        if not self.table_exists(connection, schema, table):
            return None
        return TableSize(self.row_estimate(connection, schema, table), self.table_bytes(connection, schema, table))

    @abstractmethod
    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        """What stays the same when a table is renamed, and differs for a new table of its name.

        None if there is no such table, or where we may not know; the ledger's word alone counts then.
        """

    identity_lost_by: ClassVar[str | None] = None
    """Statements that give a table another identity though it is the same one to its users; None: there are none."""

    identity_untold: ClassVar[str] = "this account is not told"
    """Why :meth:`identities` does not know a table, as the beginning of a sentence."""

    def identities(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> dict[str, str | None]:
        """What tells several tables from others of their names, by name, also when they are altered; as :meth:`identity`."""
        return {table: self.identity(connection, schema, table) for table in tables}


class DependentObjects(Sessions):
    """What hangs on tables: what a rebuild carries over, and what it cannot."""

    @property
    @abstractmethod
    def refuses(self) -> tuple[str, ...]:
        """The kinds of objects that :meth:`unsupported_objects` speaks of."""

    @abstractmethod
    def unsupported_objects(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Finding]:
        """Objects on the blue tables that a rebuild would lose or break, each with its reason and remedy."""

    @abstractmethod
    def hanging(self, connection: sa.Connection, tables: Sequence[TableSet]) -> str:
        """A fingerprint of what hangs on blue and green, from the catalogs in a few questions: writers may be waiting.

        It differs as soon as anything differs that :meth:`unsupported_objects` or :meth:`before_swap` looks at, except what
        :meth:`swap_statements` compares by itself.
        """

    @abstractmethod
    def dependent_objects(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Dependents]:
        """What hangs on the blue tables, by name; all of it will be there after a rebuild as it was before."""

    @abstractmethod
    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        """The tables that foreign keys of this table point to, itself left out."""

    @abstractmethod
    def definitions(self, connection: sa.Connection, schema: str | None) -> dict[str, str]:
        """The whole schema in the database's own words, object by object, without the ledger: what a rebuild must not change."""
