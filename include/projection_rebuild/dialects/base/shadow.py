"""Making green tables, and tables apart from all that is live."""

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
    """Tables of a new structure, made empty and apart from the live ones, under their live names.

    :param connection: where they are; may be another database than that of the live ones
    :param schema: the schema that holds them
    :param definitions: what the dialect needs to make each of them once more, by name; only tables of the run
    :param unchanged: those of them that are like the live ones in every word
    :param views: the views that are defined anew, by name, in the dialect's own words
    :param refusals: what hangs on the live tables and would not work with the new ones, each with its remedy
    :param elsewhere: begins the names of the schemas whose tables stand for those of other schemas, there with the rest of that name
    """

    connection: sa.Connection
    schema: str | None
    definitions: dict[str, str]
    unchanged: set[str]
    views: dict[str, str]
    refusals: list[Finding]
    elsewhere: str = ""


PATIENCE = 120.0
"""Seconds for which somebody else is waited for who has the same place apart."""


def wait_for(reserved: Callable[[], bool]) -> None:
    """Returns once a place is ours.

    :raises TablesBusy: it was not in time
    """
    deadline = time.monotonic() + PATIENCE
    while not reserved():
        if time.monotonic() > deadline:
            raise TablesBusy
        time.sleep(0.1)


@dataclass(frozen=True)
class Scratch:
    """Where tables are made apart from all that is live, and under the live names.

    :param dialect: the database
    :param schema: the schema (on MySQL and MariaDB: the database) that holds them, and nothing else; None: all of the database is theirs
    """

    dialect: Dialect
    schema: str | None


class ShadowTables(Sessions):
    """Returns the statements that make green tables; a step runs them one by one."""

    @abstractmethod
    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that make an empty green table like blue, or of its target schema.

        It has its key, and neither secondary indexes nor foreign keys.
        """

    @abstractmethod
    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that give green the indexes it still lacks, under names of its own, and take away those that blue has no more."""

    @abstractmethod
    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        """Statements that give green the foreign keys it still lacks, to the green tables of the run where there are."""

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        """Foreign keys that rows of green violate, where the database does not say so by itself in :meth:`constrain_green`."""
        return []

    @abstractmethod
    def analyze(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that give green fresh statistics, of the kinds that blue has."""

    def drop_table(self, connection: sa.Connection, table: TableSet, name: str) -> list[str]:
        """Statements that drop a table with what a rebuild has hung on it, and nothing of anybody else.

        :param name: green's or old's
        """
        return [f"DROP TABLE {self.qualified(table.schema, name)}"]


class TablesApart(Sessions):
    """Makes tables where nobody else looks."""

    @abstractmethod
    def try_schema(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], views: Mapping[str, str]
    ) -> AbstractContextManager[SchemaTrial]:
        """Executes what makes a new structure, apart from everything that is live, and forgets it with the context.

        :param statements: with live names, to be executed as they stand
        :param views: new queries for views over the tables
        """

    @abstractmethod
    def scratch(self, name: str) -> AbstractContextManager[Scratch]:
        """An empty place for tables of our own; it goes with the context, whatever ends that. What one that was killed has left goes first.

        :param name: of the place; nobody else has one of this name, and who comes second waits
        :raises TablesBusy: the first one has not come to its end
        """

    @contextmanager
    def _schema_apart(self, name: str, reserve: str, make: str, drop: str) -> Iterator[None]:
        """A place that is a schema.

        :param reserve: a query by which a session takes a name until its end; 1 or true if it has it
        """
        with self.connect() as connection:
            # Else the pool would keep the session, and with it the name.
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
        """From here on a table without a schema is one of the place, until this connection is closed for good."""

    def bring(self, scratch: Scratch, table: str, position: str, upto: int) -> None:
        """Sees to it that SQL in a place of this database finds a live table, up to a position; nothing to do where it finds it anyway."""

    @abstractmethod
    def apart(self, connection: sa.Connection, table: TableSet, scratch: Scratch) -> list[str]:
        """Statements that make an empty table like a live one in another place, maybe of another server: with its columns, checks and unique
        keys, under its name; without foreign keys and triggers, and with counters of its own."""
