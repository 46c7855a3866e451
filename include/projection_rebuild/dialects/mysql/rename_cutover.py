"""The common part of the cutover strategies of MySQL and MariaDB: DDL commits by itself, and the swap is one RENAME."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from datetime import timedelta

import sqlalchemy as sa

from projection_rebuild.dialects.base import Cutover
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.model.names import TableSet

ROW_LOCK_WAIT = "SET SESSION innodb_lock_wait_timeout = 1"
"""Limits the last step of an ALTER, which waits for row locks: no KILL ends it, and the server detects no deadlock."""


class CutoverByRename(Cutover):
    """A cutover in which the ledger announces the swap and commits, and then the server renames the tables.

    After a crash the names of the tables show whether the rename has happened.
    """

    _dialect: MySQLFamily

    def prepared_ahead(self, connection: sa.Connection, tables: Sequence[TableSet]) -> None:
        """None: the engine reads the counters of generated ids, and blue's definition, while writers wait."""

    def record_with_swap(self, record: Callable[[], None]) -> None:
        """Records nothing: the renames are in no transaction."""

    def left_over(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return self._dialect.after_swap(connection, tables)

    def run_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        if not is_alter(statement):
            self._dialect.run(connection, statement)
            return
        self._dialect.run(connection, ROW_LOCK_WAIT)
        self._alter_at_work(connection, tables, statement, timeout)

    @abstractmethod
    def _alter_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        """Executes an ALTER in a moment in which its wait makes no client the victim of a deadlock."""


def is_alter(statement: str) -> bool:
    """Whether a statement that follows the swap is an ALTER, which locks its tables against other clients."""
    return statement.startswith("ALTER")
