"""MariaDB: it renames no table that it has locked, so a switch is a RENAME behind a fence, and behind keepers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import Manners, TablesBusy, died
from projection_rebuild.dialects.mariadb import hanging as around
from projection_rebuild.dialects.mariadb import preflight
from projection_rebuild.dialects.mariadb.sentries import GATE, STEP, Keepers, door_of, shut
from projection_rebuild.dialects.mysql import create_table as text
from projection_rebuild.dialects.mysql import moment
from projection_rebuild.dialects.mysql import session as ours
from projection_rebuild.dialects.mysql.base import ACCESS_DENIED, ending, number_of
from projection_rebuild.dialects.mysql.cutover import different
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.dialects.mysql.hanging import TRIGGERS_OF
from projection_rebuild.dialects.mysql.inspector import HOLDS, OLDEST_TRANSACTION, file_name
from projection_rebuild.dialects.mysql.unsupported import CHILDREN
from projection_rebuild.errors import ConnectionRefused
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.positions import Place
from projection_rebuild.rows.shapes import Holds

NO_KEEPERS = frozenset({1040, 1203, 1226, 1044, 1142})
"""The server gives no more connections, or we may not lock the tables: then there is the fence alone."""

KEPT = "projection_rebuild_keepers"

# READ COMMITTED takes a new snapshot for each statement, and a statement by itself cannot come to another table later.
_SNAPSHOTS = """
SELECT t.trx_mysql_thread_id, t.trx_started FROM information_schema.INNODB_TRX t
  JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id AND (p.DB = DATABASE() OR p.DB IS NULL)
 WHERE t.trx_isolation_level = 'REPEATABLE READ' AND NOT t.trx_autocommit_non_locking AND p.ID <> CONNECTION_ID()"""


class MariaDBDialect(MySQLFamily):
    """See :class:`MySQLFamily`."""

    database = "mariadb"
    holds_tables = False
    own_settings = ours.MARIADB
    column_holds = HOLDS | {"json": Holds.JSON}
    innodb_tables = "INNODB_SYS_TABLES"
    # Here it counts with `userstat` on, and in the first place only with a performance schema.
    read_counters = (
        """SELECT SUM(COUNT_READ) FROM performance_schema.table_io_waits_summary_by_table
 WHERE OBJECT_SCHEMA = COALESCE(%s, DATABASE()) AND OBJECT_NAME IN ({marks})""",
        """SELECT SUM(ROWS_READ) FROM information_schema.TABLE_STATISTICS
 WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME IN ({marks})""",
    )
    open_snapshots = _SNAPSHOTS
    preflights = preflight.MariaDBPreflight

    def are_held(self, connection: sa.Connection) -> bool:
        return KEPT in connection.info

    # Looking at tables ------------------------------------------------------------------------------------------

    def _cuts_fractions(self, modes: Collection[str]) -> bool:
        return "TIME_ROUND_FRACTIONAL" not in modes

    def identities(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> dict[str, str | None]:
        query = "SELECT NAME, TABLE_ID FROM information_schema.INNODB_SYS_TABLES"
        return self._identities(connection, schema, tables, query, file_name)

    def _renamed_checks(self, table: text.Definition) -> Sequence[text.Check]:
        return []

    def hanging(self, connection: sa.Connection, tables: Sequence[TableSet]) -> str:
        if KEPT in connection.info:
            # Nobody can look past a keeper, or come past it.
            return str(connection.info[KEPT][2])
        return around.hanging(partial(self._execute, connection), partial(self._all_if_allowed, connection), tables, file_name)

    def _process_list(self, connection: sa.Connection) -> str:
        return "information_schema.PROCESSLIST"

    def transaction_age(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        # Nobody tells here who has touched which table; so it is the oldest transaction of the database.
        query = f"""{OLDEST_TRANSACTION} JOIN information_schema.PROCESSLIST p ON p.ID = x.trx_mysql_thread_id
                    WHERE p.DB = COALESCE(%s, DATABASE()) AND p.ID <> CONNECTION_ID()"""
        found = self._if_allowed(connection, query, tables[0].schema)
        return None if found is None else float(found)

    def _oldest(self) -> tuple[int, ...]:
        return preflight.OLDEST

    # Making green -----------------------------------------------------------------------------------------------

    def _rows_as_written(self, wanted: text.Definition) -> Iterable[str]:
        return wanted.rows()

    def _name_on_green(self, check: str, table: TableSet) -> str:
        # The name of a CHECK is its table's.
        return check

    def analyze(self, connection: sa.Connection, table: TableSet) -> list[str]:
        green = self.qualified(table.schema, table.green)
        return [f"ANALYZE TABLE {green}{' PERSISTENT FOR ALL' if self._persistent(connection, table, table.blue) else ''}"]

    def _statistics_since(self, connection: sa.Connection, table: TableSet) -> list[str]:
        kept, made = (self._persistent(connection, table, name) for name in (table.blue, table.green))
        return self.analyze(connection, table) if kept and not made else []

    def _persistent(self, connection: sa.Connection, table: TableSet, name: str) -> bool:
        """Whether there are statistics that the server itself keeps beside those of the storage engine."""
        query = "SELECT COUNT(*) FROM mysql.column_stats WHERE db_name = COALESCE(%s, DATABASE()) AND table_name = %s"
        return any(count for (count,) in self._all_if_allowed(connection, query, table.schema, name))

    # Switching --------------------------------------------------------------------------------------------------

    @contextmanager
    def hold(
        self, connection: sa.Connection, tables: Sequence[TableSet], manners: Manners, beside: Sequence[str]
    ) -> Iterator[None]:
        self.limit_lock_wait(connection, manners.timeout)
        self._limit_silence(connection, manners.longest)
        with (
            ending(lambda: self._limit_silence(connection, None)),
            self._with_keepers(connection, tables, manners) if manners.tables_first else nullcontext(),
        ):
            yield

    def was_cut(self, error: BaseException) -> bool:
        # Whatever it has left is waited for by `alone`, before anybody tries again.
        return died(error) or super().was_cut(error)

    @contextmanager
    def alone(self, connection: sa.Connection, name: str, patience: timedelta = timedelta(0)) -> Iterator[bool]:
        # It goes with the session, so not before what that is executing, even if its client is gone.
        with self._named_lock(connection, name, patience) as alone:
            yield alone

    @contextmanager
    def _with_keepers(self, connection: sa.Connection, tables: Sequence[TableSet], manners: Manners) -> Iterator[None]:
        """Keepers at the blue tables, from a moment on in which nobody used them."""
        schema, names = tables[0].schema, sorted((each.blue for each in tables), key=str.encode)
        if names[-1].encode() > GATE.encode():
            # They would come to the gate before they have their table.
            yield
            return
        gate, blues = self.qualified(schema, GATE), [self.qualified(schema, name) for name in names]
        with ExitStack() as stack:
            try:
                lookout, guard, *posts = [stack.enter_context(self._connect_apart(manners)) for _ in range(2 + len(blues))]
                door = None if manners.confirm is None else self.qualified(schema, door_of(names[0]))
                stack.enter_context(shut(self, guard, *([gate] if door is None else [gate, door])))
                locks = ", ".join(f"{blue} WRITE" for blue in blues)
                self._without_waiting(lookout, f"LOCK TABLES {locks}", manners.longest.total_seconds() / 4)
                manners.begins()
            except (sa.exc.DBAPIError, ConnectionRefused) as error:
                cause = error.__cause__ if isinstance(error, ConnectionRefused) else error
                if cause is None or number_of(cause) not in NO_KEEPERS:
                    raise
                raise TablesBusy from error
            # Nobody can change them any more; and past a keeper nobody can look at them, not even we.
            statements, seen = self.switch(connection, tables), self.hanging(connection, tables)
            keepers = Keepers(self, lookout, guard, door)
            stack.callback(keepers.leave)
            for post, blue in zip(posts, blues, strict=True):
                # At the gate they wait until they are sent away, however long the drain takes.
                self.limit_lock_wait(post, 2 * manners.longest)
                keepers.post(post, blue, gate)
            keepers.wait_until_posted(time.monotonic() + manners.timeout.total_seconds())
            self._execute(lookout, "UNLOCK TABLES")
            connection.info[KEPT] = keepers, statements, seen
            stack.callback(connection.info.pop, KEPT)
            yield

    @contextmanager
    def _connect_apart(self, manners: Manners) -> Iterator[sa.Connection]:
        """A connection that the pool does not count: there is one for each table."""
        with self.connect() as connection:
            connection.detach()
            self.limit_lock_wait(connection, manners.timeout)
            self._limit_silence(connection, manners.longest)
            yield connection

    def switch(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> list[str]:
        if KEPT in connection.info:
            return list(connection.info[KEPT][1])
        return super().switch(connection, tables, planned=planned)

    def left_on_old(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return [each for table in tables for each in self._left_on_old(connection, table)]

    def _left_on_old(self, connection: sa.Connection, table: TableSet) -> Iterator[str]:
        live, old = (self._definition(connection, table.schema, name) for name in (table.blue, table.old))
        for each in different(old, live, {}) if table.target_schema is None else []:
            yield f"{each} is not the same on {table.blue} and {table.old}"
        for (name,) in self._execute(connection, TRIGGERS_OF, table.schema, table.old):
            yield f"trigger {name} is on {table.old}"
        for beside, schema, child, name in self._execute(connection, CHILDREN, table.schema, table.old):
            yield f"foreign key {name} of {child if beside else f'{schema}.{child}'} refers to {table.old}"

    def run_switch(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], manners: Manners
    ) -> bool:
        self._still_fenced(manners)
        *counters, rename = statements
        for statement in counters:
            manners.stay_in_time()
            with self._killed_after(connection, min(manners.timeout, manners.rest)):
                self._execute(connection, statement)
        manners.stay_in_time()
        if KEPT in connection.info:
            seconds, rest = manners.timeout.total_seconds() + 10 * STEP * len(tables), manners.rest.total_seconds()
            if manners.confirm is not None:
                # The answer takes a while on a busy machine, and the tables are held already.
                seconds = max(seconds, rest / 2)
            seconds = min(seconds, rest)
            keepers = connection.info[KEPT][0]
            rename = keepers.through_the_door(rename)
            with keepers.making_way(self.session_id(connection), time.monotonic() + seconds, manners.confirm):
                self._execute(connection, f"SET STATEMENT max_statement_time = {seconds:.3f} FOR {rename}")
            if not keepers.confirmed:
                # The door was opened by its guard's end.
                return False
        elif manners.polite:
            if manners.fence:
                self._without_waiting(connection, rename, manners.look)
            else:
                # Nobody is held meanwhile, and there is time to look for the moment, and whether an ALTER has come before it.
                seconds = manners.longest.total_seconds() / 4
                self._without_waiting(connection, rename, seconds, again=lambda: self.switch(connection, tables))
        else:
            self._wait_in_the_queue(connection, rename, min(manners.timeout, manners.rest))
        return manners.fence is None or manners.fence.holds()

    def _wait_in_the_queue(self, connection: sa.Connection, statement: str, timeout: timedelta) -> None:
        """For tables that are always being read, which never have a free moment.

        :raises TablesBusy: a transaction is open, and might be the victim of a deadlock; or nobody may say that none is
        """
        self.limit_lock_wait(connection, timeout)
        time.sleep(moment.STALE)
        # The server's own watchdog: it works even if this process is gone.
        watched = f"SET STATEMENT max_statement_time = {timeout.total_seconds():.3f} FOR {statement}"
        try:
            taken = moment.Moment(connection, moment.no_transactions()).take_at_once(watched)
        except self.engine.dialect.loaded_dbapi.Error as error:
            if number_of(error) != ACCESS_DENIED:
                raise
            taken = False
        if not taken:
            raise TablesBusy

    def _without_waiting(
        self, connection: sa.Connection, statement: str, seconds: float, again: Callable[[], object] = lambda: None
    ) -> None:
        """Again and again, until it gets its locks at once. A second is the shortest wait here but none at all.

        :param again: called before each further try
        """
        deadline = time.monotonic() + seconds
        self._execute(connection, "SET SESSION lock_wait_timeout = 0")
        refused = False
        while True:
            try:
                if refused:
                    again()
                self._execute(connection, statement)
                return
            except sa.exc.DBAPIError as error:
                if not self.lock_was_refused(error) or time.monotonic() > deadline:
                    raise
            refused = True
            time.sleep(random.uniform(*moment.GLANCES))  # noqa: S311 - spreads retries, guards nothing

    def _alter_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        timeout /= 2
        try:
            self._without_waiting(connection, statement, timeout.total_seconds())
        except sa.exc.DBAPIError as error:
            if not self.lock_was_refused(error):
                raise
            self._wait_in_the_queue(connection, statement, timeout)

    # The second opinion, and the event store --------------------------------------------------------------------

    def _last_in_text(self, text: str, path: str) -> str:
        # It gives the first one to a single path, and all of them to two.
        each = f"JSON_EXTRACT({text}, '{path}', '{path}')"
        return f"JSON_EXTRACT({each}, CONCAT('$[', JSON_LENGTH({each}) - 1, ']'))"

    def _last(self, text: sa.ColumnElement[Any], path: str) -> sa.ColumnElement[Any]:
        # Of a field that a payload has twice it gives the first to one path, and all of them to two.
        all_of_them = sa.func.json_extract(text, path, path)
        return sa.func.json_extract(all_of_them, sa.func.concat("$[", sa.func.json_length(all_of_them) - 1, "]"))

    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> Place:
        began = time.monotonic()
        with self.connect() as connection:
            highest = self.newest_position(connection, schema, table, position_column)
        # Nobody keeps a list of the transactions that may append.
        self._wait_at_the_fence(schema, table, began, patience)
        return highest

    def exact_text(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.collate(self.utf8(text), "utf8mb4_nopad_bin")
