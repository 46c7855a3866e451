"""MySQL: a swap is one RENAME of locked tables."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.mysql import create_table as text
from projection_rebuild.dialects.mysql import hanging as around
from projection_rebuild.dialects.mysql import preflight
from projection_rebuild.dialects.mysql import session as ours
from projection_rebuild.dialects.mysql.base import ACCESS_DENIED, TABLE_ACCESS_DENIED, number_of
from projection_rebuild.dialects.mysql.event_log import not_settled
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.dialects.mysql.inspector import HOLDS, OLDEST_TRANSACTION
from projection_rebuild.dialects.mysql.locked_tables import LockedTablesCutover
from projection_rebuild.dialects.mysql.unsupported import Check
from projection_rebuild.model.findings import Finding, refusal
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.positions import Place
from projection_rebuild.rows.shapes import Holds

# Not INNODB_TRX: reading it fails while another session executes a statement with a character of four bytes.
_SNAPSHOTS = """
SELECT t.PROCESSLIST_ID, e.EVENT_ID FROM performance_schema.events_transactions_current e
  JOIN performance_schema.threads t ON t.THREAD_ID = e.THREAD_ID AND (t.PROCESSLIST_DB = DATABASE() OR t.PROCESSLIST_DB IS NULL)
 WHERE e.STATE = 'ACTIVE' AND e.ISOLATION_LEVEL = 'REPEATABLE READ' AND e.AUTOCOMMIT = 'NO' AND t.PROCESSLIST_ID <> CONNECTION_ID()"""

_LISTS_LOCKS = """
SELECT @@performance_schema AND (SELECT COUNT(*) = 2 FROM (
  SELECT NAME FROM performance_schema.setup_instruments WHERE NAME = 'wait/lock/metadata/sql/mdl' AND ENABLED = 'YES' UNION ALL
  SELECT NAME FROM performance_schema.setup_consumers WHERE NAME = 'global_instrumentation' AND ENABLED = 'YES') enabled)
   AND (SELECT VARIABLE_VALUE = 0 FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Performance_schema_metadata_lock_lost')"""
"""Whether MySQL lists the locks on tables, and has not left out any of them for lack of memory."""

_WRITERS = """
SELECT OBJECT_INSTANCE_BEGIN, OWNER_THREAD_ID, OWNER_EVENT_ID FROM performance_schema.metadata_locks
 WHERE OBJECT_TYPE = 'TABLE' AND LOWER(OBJECT_SCHEMA) = LOWER(COALESCE(%s, DATABASE())) AND LOWER(OBJECT_NAME) = LOWER(%s)
   AND LOCK_STATUS <> 'PENDING' AND LOCK_TYPE NOT IN ('SHARED', 'SHARED_HIGH_PRIO', 'SHARED_READ', 'SHARED_READ_ONLY')"""


class MySQLDialect(MySQLFamily):
    """See :class:`MySQLFamily`."""

    database = "mysql"
    own_settings = ours.MYSQL
    column_holds = HOLDS | {"json": Holds.NARROW_JSON}
    innodb_tables = "INNODB_TABLES"
    read_counters = (
        """SELECT SUM(COUNT_READ) FROM performance_schema.table_io_waits_summary_by_table
 WHERE OBJECT_SCHEMA = COALESCE(%s, DATABASE()) AND OBJECT_NAME IN ({marks})""",
    )
    open_snapshots = _SNAPSHOTS
    preflights = preflight.MySQLPreflight

    # Inspecting tables ------------------------------------------------------------------------------------------

    def _cuts_fractions(self, modes: Collection[str]) -> bool:
        return "TIME_TRUNCATE_FRACTIONAL" in modes

    def identities(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> dict[str, str | None]:
        # For each query MySQL builds its list of tables anew, with all tables of the server. It finds the tablespace of
        # a table by an index; the space's number stays and changes together with the table's number.
        query = "SELECT NAME, SPACE FROM information_schema.INNODB_TABLESPACES_BRIEF"
        # The prefix distinguishes it from a table's number, which partitions and tables in shared spaces have instead.
        return self._identities(connection, schema, tables, query, str, "space {}")

    @property
    def _own_checks(self) -> dict[str, Check]:
        return {"named check": self._named_checks}

    def _named_checks(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[Finding]:
        for check in self._wanted(connection, table).checks():
            if not text.generated(check.name, table.blue, "chk"):
                yield refusal(
                    table.blue,
                    f"the name of the constraint {check.name} is the schema's, and MySQL would move it to the new table only by copying "
                    "that table at the switch, while writers wait and transactions that are older than the copy fail (1412).",
                    f"Rename it once, at a time of your choice: names of MySQL's own kind, like {table.blue}_chk_1, follow a table; or "
                    "drop it",
                )

    def _renamed_checks(self, table: text.Definition) -> Sequence[text.Check]:
        return table.checks()

    def hanging(self, connection: sa.Connection, tables: Sequence[TableSet]) -> str:
        return around.hanging(partial(self._execute, connection), tables)

    def _process_list(self, connection: sa.Connection) -> str:
        # The older list fails while any session executes a text with a character of four bytes.
        has_newer = (self.engine.dialect.server_version_info or ()) >= (8, 0, 22)
        is_on = has_newer and self._execute(connection, "SELECT @@performance_schema").scalar_one()
        return "performance_schema.processlist" if is_on else "information_schema.PROCESSLIST"

    def transaction_age(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        names = [table.blue for table in tables]
        marks = ", ".join(["%s"] * len(names))
        query = f"""{OLDEST_TRANSACTION} JOIN performance_schema.threads t ON t.PROCESSLIST_ID = x.trx_mysql_thread_id
                    JOIN performance_schema.metadata_locks l ON l.OWNER_THREAD_ID = t.THREAD_ID
                    WHERE l.OBJECT_TYPE = 'TABLE' AND l.OBJECT_SCHEMA = COALESCE(%s, DATABASE()) AND l.OBJECT_NAME IN ({marks})
                    AND t.PROCESSLIST_ID <> CONNECTION_ID()"""
        seconds = self._if_allowed(connection, query, tables[0].schema, *names)
        return None if seconds is None else float(seconds)

    def _oldest(self) -> tuple[int, ...]:
        return preflight.OLDEST

    # Creating green ---------------------------------------------------------------------------------------------

    def _rows_as_written(self, wanted: text.Definition) -> Iterable[str]:
        return map(text.as_written, wanted.rows())

    def _name_on_green(self, check: str, table: TableSet) -> str:
        # The name of a CHECK is unique in the schema. A name of the server's own kind follows a rename; the plan
        # refuses all others.
        number = text.generated(check, table.blue, "chk")
        return check if number is None else f"{table.green}_chk_{number}"

    def analyze(self, connection: sa.Connection, table: TableSet) -> list[str]:
        return [f"ANALYZE TABLE {self.qualified(table.schema, table.green)}", *self._histograms(connection, table, {})]

    def _histograms(self, connection: sa.Connection, table: TableSet, on_green: Mapping[str, around.Histogram]) -> Iterator[str]:
        """Statements that give green the histograms of blue.

        :param on_green: the histograms that green has already, by column
        """
        columns = self._wanted(connection, table).columns()
        live = around.histograms(partial(self._execute, connection), table.schema, table.blue)
        wanted = {name: histogram for name, histogram in live.items() if name in columns}
        analyze = f"ANALYZE TABLE {self.qualified(table.schema, table.green)}"
        for name, (buckets, automatic) in sorted(wanted.items() - on_green.items()):
            kept = " AUTO UPDATE" if automatic else ""
            yield f"{analyze} UPDATE HISTOGRAM ON {self.quote(name)} WITH {buckets} BUCKETS{kept}"
        for name in sorted(on_green.keys() - wanted.keys()):
            yield f"{analyze} DROP HISTOGRAM ON {self.quote(name)}"

    def _statistics_since(self, connection: sa.Connection, table: TableSet) -> list[str]:
        on_green = around.histograms(partial(self._execute, connection), table.schema, table.green)
        return list(self._histograms(connection, table, on_green))

    # Cutting over -----------------------------------------------------------------------------------------------

    @property
    def cutover(self) -> LockedTablesCutover:
        return LockedTablesCutover(self)

    # The sample, and the event store ----------------------------------------------------------------------------

    def _last_in_text(self, text: str, path: str) -> str:
        return f"JSON_EXTRACT({text}, '{path}')"

    def _last(self, text: sa.ColumnElement[Any], path: str) -> sa.ColumnElement[Any]:
        return sa.func.json_extract(text, path)

    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> Place:
        began = time.monotonic()
        with self.connect() as connection:
            highest = self.newest_position(connection, schema, table, position_column)
            writers = self._writers(connection, schema, table)
            while writers and time.monotonic() - began < patience.total_seconds():
                time.sleep(random.uniform(0.005, 0.02))  # noqa: S311 - spreads looks, guards nothing
                writers &= self._writers(connection, schema, table) or set()
        if writers is None:
            self._wait_at_the_fence(schema, table, began, patience)
        elif writers:
            raise not_settled(table, patience)
        return highest

    def _writers(self, connection: sa.Connection, schema: str | None, table: str) -> set[tuple[int, ...]] | None:
        """The locks of transactions that may append: each takes its lock before its position, and keeps it to its end.

        None: the server does not list the locks, or this account may not read the list.
        """
        try:
            # A client that appends through a view has locked a table of another name.
            if not (self.table_exists(connection, schema, table) and self._execute(connection, _LISTS_LOCKS).scalar()):
                return None
            return {(*lock,) for lock in self._execute(connection, _WRITERS, schema, table)}
        except sa.exc.DBAPIError as error:
            if number_of(error) not in (TABLE_ACCESS_DENIED, ACCESS_DENIED):
                raise
            return None

    def exact_text(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        old = (self.engine.dialect.server_version_info or ()) < (8, 0, 17)
        return sa.collate(self.utf8(text), "utf8mb4_bin" if old else "utf8mb4_0900_bin")
