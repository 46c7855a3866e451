"""Tables of the application, each of a name of its own, in the database that the cases of a class share."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import SchemaItem

from projection_rebuild.model.names import TableSet
from tests.engine.harness import things

_numbers = itertools.count(1)

NUMBERED = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""The type of a key that the database counts."""


class Workshop:
    """Makes tables, and keeps what they are.

    :param schema: where they are made
    :param limit: bytes in a name
    """

    def __init__(self, application: sa.Engine, schema: str | None, limit: int) -> None:
        self._application = application
        self._schema = schema
        self._limit = limit
        self._metadata = sa.MetaData()

    def make(self, *parts: SchemaItem, plan: str = "") -> TableSet:
        """A new table.

        :param plan: begins its name
        """
        name = f"{plan or 'made'}_{next(_numbers)}"
        table = sa.Table(name, self._metadata, *parts, mysql_engine="InnoDB", mysql_charset="utf8mb4")
        table.create(self._application)
        return TableSet.of(name, schema=self._schema, limit=self._limit)

    def words(self) -> TableSet:
        """A table of a key and a text, with an index on the text."""
        return self.make(
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), sa.Column("word", sa.String(40), index=True)
        )

    def pair(self) -> tuple[TableSet, TableSet]:
        """A parent, and a child whose foreign key points to it."""
        parent = self.words()
        key = sa.ForeignKey(f"{parent.blue}.id", name=f"fk_{parent.blue}")
        child = self.make(
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), sa.Column("parent", sa.Integer, key)
        )
        return parent, child

    def things(self) -> TableSet:
        """A table of values of each type that a row class may have; see :mod:`tests.engine.harness.things`."""
        return self.make(*things.columns())

    def events(self) -> TableSet:
        """An event store of a position and a type."""
        return self.make(
            sa.Column("id", NUMBERED, primary_key=True), sa.Column("type", sa.String(40), nullable=False), plan="events"
        )

    def of(self, table: TableSet) -> sa.Table:
        """Its columns."""
        return self._metadata.tables[table.blue]

    def statement(self, table: TableSet) -> str:
        """The CREATE TABLE that has made it."""
        return str(sa.schema.CreateTable(self.of(table)).compile(self._application))

    def fill(self, table: TableSet, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts rows, and commits."""
        with self._application.begin() as connection:
            connection.execute(self.of(table).insert(), list(rows))


def append(connection: sa.Connection, table: sa.Table) -> int:
    """Appends an event in the caller's transaction.

    :returns: its position
    """
    key = connection.execute(table.insert().values(type="OrderPlaced")).inserted_primary_key
    assert key is not None
    return int(key[0])


def ask(connection: sa.Connection, statement: str, *values: Any) -> list[Any]:
    """The rows of a query; one with values has no percent signs but its marks."""
    if not values:
        return [tuple(found) for found in connection.exec_driver_sql(statement, execution_options={"no_parameters": True})]
    return [tuple(found) for found in connection.exec_driver_sql(statement, values)]
