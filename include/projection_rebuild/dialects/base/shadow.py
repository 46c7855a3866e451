"""Creates green tables, and tables in a schema of their own apart from the live ones."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from projection_rebuild.dialects.base.sessions import Sessions
from projection_rebuild.errors.outcomes import TablesBusy
from projection_rebuild.model.findings import Finding
from projection_rebuild.model.names import TableSet

if TYPE_CHECKING:
    from projection_rebuild.dialects.base import Dialect


@dataclass(frozen=True)
class SchemaTrial:
    """Empty tables of a new structure, apart from the live ones but under their live names.

    :param connection: to the database that holds them; it may be another database than that of the live tables
    :param schema: the schema that holds them
    :param definitions: what the dialect needs to create each table again, by name; only tables of the run
    :param unchanged: the tables whose definition equals that of the live table
    :param views: the new definitions of views, by name, as the database writes them
    :param refusals: what hangs on the live tables and would not work with the new ones, each with its remedy
    :param elsewhere: the prefix of schemas that stand for other schemas; the rest of each name is the other's name
    """

    connection: sa.Connection
    schema: str | None
    definitions: dict[str, str]
    unchanged: set[str]
    views: dict[str, str]
    refusals: list[Finding]
    elsewhere: str = ""


PATIENCE = 120.0
"""Seconds to wait for another process that has reserved the same schema."""


def wait_for(reserved: Callable[[], bool]) -> None:
    """Waits until a schema is reserved for this process.

    :param reserved: tries to reserve it, and returns whether it has
    :raises TablesBusy: another process still has it after :data:`PATIENCE` seconds
    """
    deadline = time.monotonic() + PATIENCE
    while not reserved():
        if time.monotonic() > deadline:
            raise TablesBusy
        time.sleep(0.1)


@dataclass(frozen=True)
class Scratch:
    """An empty place for tables under live names, apart from the live tables.

    :param dialect: the database
    :param schema: the schema (on MySQL and MariaDB: the database) that holds nothing but them; None: the whole database
        does
    """

    dialect: Dialect
    schema: str | None


class ShadowTables(Sessions):
    """Returns the statements that create, complete and drop green tables; a step executes them one by one."""

    @abstractmethod
    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that create an empty green table like blue, or of its target schema.

        It has its keys, but neither secondary indexes nor foreign keys.
        """

    @abstractmethod
    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that give green its missing indexes, under its own names, and drop those that blue has lost."""

    @abstractmethod
    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        """Statements that give green its missing foreign keys; keys to tables of the run point to their green tables."""

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        """Foreign keys that rows of green violate; empty if the statements of :meth:`constrain_green` fail on these."""
        return []

    @abstractmethod
    def analyze(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that give green fresh statistics, of the kinds that blue has."""

    def drop_table(self, connection: sa.Connection, table: TableSet, name: str) -> list[str]:
        """Statements that drop a table and what the rebuild has attached to it, and no other object.

        :param name: the name of the green or the old table
        """
        return [f"DROP TABLE {self.qualified(table.schema, name)}"]


class TablesApart(Sessions):
    """Creates tables in places that no other client uses."""

    @abstractmethod
    def try_schema(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], views: Mapping[str, str]
    ) -> AbstractContextManager[SchemaTrial]:
        """Executes the statements of a new structure apart from the live tables, and drops the result with the context.

        :param statements: use live names; the engine executes them unchanged
        :param views: new queries for views over the tables, by name
        """

    @abstractmethod
    def scratch(self, name: str) -> AbstractContextManager[Scratch]:
        """An empty place for the engine's own tables, which it drops with the context, also after an error.

        First it drops what a killed process has left under this name.

        :param name: the name of the place; a second process that needs the same name waits
        :raises TablesBusy: the first process has not finished in time
        """

    @contextmanager
    def _schema_apart(self, name: str, reserve: str, make: str, drop: str) -> Iterator[None]:
        """Creates a schema, and drops it with the context.

        :param reserve: a query that reserves a name for the session until its end; returns 1 or true if it has
        :param make: the statement that creates the schema
        :param drop: the statement that drops it, if it exists
        """
        with self.connect() as connection:
            # The pool would keep the session, and with it the name.
            connection.detach()
            wait_for(lambda: bool(self._execute(connection, reserve, name).scalar_one()))
            try:
                for statement in (drop, make):
                    self.run(connection, statement)
                yield
            finally:
                self.renew(connection)
                self.run(connection, drop)

    def enter(self, connection: sa.Connection, scratch: Scratch) -> None:
        """Makes table names without a schema refer to the place, until this connection closes for good."""

    def bring(self, scratch: Scratch, table: str, position: str, upto: int) -> None:
        """Makes a live table visible, up to a position, for SQL in the place; without effect if it is visible anyway.

        :param position: the name of the column of positions
        """

    @abstractmethod
    def apart(self, connection: sa.Connection, table: TableSet, scratch: Scratch) -> list[str]:
        """Statements that create an empty table like a live one, under its name, in a place, maybe of another server.

        It has the live table's columns, checks and unique keys; it has no foreign keys or triggers, and counters of its
        own.
        """
