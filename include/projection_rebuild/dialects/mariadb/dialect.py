"""MariaDB: it renames no locked tables, so a swap is a RENAME behind a fence, or behind sentries."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import died
from projection_rebuild.dialects.mariadb import hanging as around
from projection_rebuild.dialects.mariadb import preflight
from projection_rebuild.dialects.mariadb.fenced_rename import FencedRenameCutover
from projection_rebuild.dialects.mysql import create_table as text
from projection_rebuild.dialects.mysql import session as ours
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.dialects.mysql.hanging import TRIGGERS_OF
from projection_rebuild.dialects.mysql.inspector import HOLDS, OLDEST_TRANSACTION, file_name
from projection_rebuild.dialects.mysql.swap_statements import different
from projection_rebuild.dialects.mysql.unsupported import CHILDREN
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.positions import Place
from projection_rebuild.rows.shapes import Holds

# READ COMMITTED takes a new snapshot for each statement, and a single statement reads no further table later.
_SNAPSHOTS = """
SELECT t.trx_mysql_thread_id, t.trx_started FROM information_schema.INNODB_TRX t
  JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id AND (p.DB = DATABASE() OR p.DB IS NULL)
 WHERE t.trx_isolation_level = 'REPEATABLE READ' AND NOT t.trx_autocommit_non_locking AND p.ID <> CONNECTION_ID()"""


class MariaDBDialect(MySQLFamily):
    """See :class:`MySQLFamily`."""

    database = "mariadb"
    own_settings = ours.MARIADB
    column_holds = HOLDS | {"json": Holds.JSON}
    innodb_tables = "INNODB_SYS_TABLES"
    # The first view counts only with a performance schema, the second one with `userstat` on.
    read_counters = (
        """SELECT SUM(COUNT_READ) FROM performance_schema.table_io_waits_summary_by_table
 WHERE OBJECT_SCHEMA = COALESCE(%s, DATABASE()) AND OBJECT_NAME IN ({marks})""",
        """SELECT SUM(ROWS_READ) FROM information_schema.TABLE_STATISTICS
 WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME IN ({marks})""",
    )
    open_snapshots = _SNAPSHOTS
    preflights = preflight.MariaDBPreflight

    # Inspecting tables ------------------------------------------------------------------------------------------

    def _cuts_fractions(self, modes: Collection[str]) -> bool:
        return "TIME_ROUND_FRACTIONAL" not in modes

    def identities(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> dict[str, str | None]:
        query = "SELECT NAME, TABLE_ID FROM information_schema.INNODB_SYS_TABLES"
        return self._identities(connection, schema, tables, query, file_name)

    def _renamed_checks(self, table: text.Definition) -> Sequence[text.Check]:
        return []

    def hanging(self, connection: sa.Connection, tables: Sequence[TableSet]) -> str:
        return around.hanging(partial(self._execute, connection), partial(self._all_if_allowed, connection), tables, file_name)

    def _process_list(self, connection: sa.Connection) -> str:
        return "information_schema.PROCESSLIST"

    def transaction_age(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        # MariaDB does not report which transaction uses which table, so this is the oldest one of the database.
        query = f"""{OLDEST_TRANSACTION} JOIN information_schema.PROCESSLIST p ON p.ID = x.trx_mysql_thread_id
                    WHERE p.DB = COALESCE(%s, DATABASE()) AND p.ID <> CONNECTION_ID()"""
        seconds = self._if_allowed(connection, query, tables[0].schema)
        return None if seconds is None else float(seconds)

    def _oldest(self) -> tuple[int, ...]:
        return preflight.OLDEST

    # Creating green ---------------------------------------------------------------------------------------------

    def _rows_as_written(self, wanted: text.Definition) -> Iterable[str]:
        return wanted.rows()

    def _name_on_green(self, check: str, table: TableSet) -> str:
        # The name of a CHECK is unique only in its table.
        return check

    def analyze(self, connection: sa.Connection, table: TableSet) -> list[str]:
        green = self.qualified(table.schema, table.green)
        return [f"ANALYZE TABLE {green}{' PERSISTENT FOR ALL' if self._persistent(connection, table, table.blue) else ''}"]

    def _statistics_since(self, connection: sa.Connection, table: TableSet) -> list[str]:
        on_blue, on_green = (self._persistent(connection, table, name) for name in (table.blue, table.green))
        return self.analyze(connection, table) if on_blue and not on_green else []

    def _persistent(self, connection: sa.Connection, table: TableSet, name: str) -> bool:
        """Whether a table has statistics of the server itself, beside those of the storage engine."""
        query = "SELECT COUNT(*) FROM mysql.column_stats WHERE db_name = COALESCE(%s, DATABASE()) AND table_name = %s"
        return any(count for (count,) in self._all_if_allowed(connection, query, table.schema, name))

    # Cutting over -----------------------------------------------------------------------------------------------

    @property
    def cutover(self) -> FencedRenameCutover:
        return FencedRenameCutover(self)

    def is_disconnect(self, error: BaseException) -> bool:
        # The lost connection may still execute a statement; the mutex of its run makes the next attempt wait for it.
        return died(error) or super().is_disconnect(error)

    def left_on_old(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return [problem for table in tables for problem in self._left_on_old(connection, table)]

    def _left_on_old(self, connection: sa.Connection, table: TableSet) -> Iterator[str]:
        live, old = (self._definition(connection, table.schema, name) for name in (table.blue, table.old))
        for part in different(old, live, {}) if table.target_schema is None else []:
            yield f"{part} is not the same on {table.blue} and {table.old}"
        for (name,) in self._execute(connection, TRIGGERS_OF, table.schema, table.old):
            yield f"trigger {name} is on {table.old}"
        for beside, schema, child, name in self._execute(connection, CHILDREN, table.schema, table.old):
            yield f"foreign key {name} of {child if beside else f'{schema}.{child}'} refers to {table.old}"

    # The sample, and the event store ----------------------------------------------------------------------------

    def _last_in_text(self, text: str, path: str) -> str:
        # See _last.
        all_values = f"JSON_EXTRACT({text}, '{path}', '{path}')"
        return f"JSON_EXTRACT({all_values}, CONCAT('$[', JSON_LENGTH({all_values}) - 1, ']'))"

    def _last(self, text: sa.ColumnElement[Any], path: str) -> sa.ColumnElement[Any]:
        # If a payload has a field twice, JSON_EXTRACT returns the first value for one path, all values for two paths.
        all_values = sa.func.json_extract(text, path, path)
        return sa.func.json_extract(all_values, sa.func.concat("$[", sa.func.json_length(all_values) - 1, "]"))

    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> Place:
        began = time.monotonic()
        with self.connect() as connection:
            highest = self.newest_position(connection, schema, table, position_column)
        # MariaDB does not list the transactions that may append.
        self._wait_at_the_fence(schema, table, began, patience)
        return highest

    def exact_text(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.collate(self.utf8(text), "utf8mb4_nopad_bin")
