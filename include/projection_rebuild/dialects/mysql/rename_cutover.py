"""What the ways of cutting over on MySQL and MariaDB have in common: DDL commits by itself, and the swap is one
RENAME TABLE."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from datetime import timedelta

import sqlalchemy as sa

from projection_rebuild.dialects.base import Cutover
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.model.names import TableSet

ROW_LOCK_WAIT = "SET SESSION innodb_lock_wait_timeout = 1"
"""The last step of an ALTER waits for row locks, where no KILL ends it and nobody sees a deadlock."""


class CutoverByRename(Cutover):
    """The ledger announces the swap and commits; then the tables are renamed. After a crash the tables tell
    whether they were."""

    _dialect: MySQLFamily

    def prepared_ahead(self, connection: sa.Connection, tables: Sequence[TableSet]) -> None:
        """Nothing: the counters of generated ids, and what blue is, are read while the writers are held."""

    def record_with_swap(self, record: Callable[[], None]) -> None:
        """Nothing to be done: the renames are in no transaction."""

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
        """Takes an ALTER's tables at a moment at which nobody is the victim of a deadlock with it."""


def is_alter(statement: str) -> bool:
    """Whether a statement that follows the swap takes its tables from others."""
    return statement.startswith("ALTER")
