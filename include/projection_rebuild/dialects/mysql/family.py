"""The common dialect of MySQL and MariaDB: every DDL statement commits by itself, so a swap is one RENAME TABLE."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from projection_rebuild.dialects.base import Dialect, Scratch
from projection_rebuild.dialects.mysql.event_log import MySQLEventLog
from projection_rebuild.dialects.mysql.row_store import MySQLRowStore
from projection_rebuild.dialects.mysql.swap_statements import MySQLSwapStatements
from projection_rebuild.dialects.mysql.unsupported import MySQLDependents


class MySQLFamily(MySQLDependents, MySQLSwapStatements, MySQLRowStore, MySQLEventLog, Dialect):
    """See :class:`Dialect`; its statements are tested on MySQL 8 and 9 and MariaDB 10.11.

    A subclass for each server has the differences.
    """

    @contextmanager
    def scratch(self, name: str) -> Iterator[Scratch]:
        with self.connect() as connection:
            charset, collation = self._execute(connection, "SELECT @@character_set_database, @@collation_database").one()
        with self._schema_apart(
            name,
            reserve="SELECT GET_LOCK(%s, 0) = 1",
            make=f"CREATE DATABASE {self.quote(name)} CHARACTER SET {charset} COLLATE {collation}",
            drop=f"DROP DATABASE IF EXISTS {self.quote(name)}",
        ):
            yield Scratch(self, name)
