"""The moment at which a swap may ask for its tables on MySQL and MariaDB, and asking in the same message.

Both servers end the client when a statement that waits for tables deadlocks with it, never that statement. And a client needs
no second table for that: once somebody waits for a table that it has read, it waits behind him to write there. So nothing waits for tables
that a transaction may want more of. The server looks and asks in one message: whoever comes between two messages would be the victim.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import TablesBusy

_HELD = """FROM performance_schema.metadata_locks l{transactions} WHERE l.OBJECT_TYPE = 'TABLE' AND (l.OBJECT_SCHEMA, l.OBJECT_NAME) IN ({tables}) AND l.OWNER_THREAD_ID <> PS_CURRENT_THREAD_ID()"""

_TRANSACTIONS = (
    " LEFT JOIN performance_schema.events_transactions_current t ON t.THREAD_ID = l.OWNER_THREAD_ID AND t.STATE = 'ACTIVE'"
)

_AMONG_MORE = " AND COALESCE(t.AUTOCOMMIT, 'NO') = 'NO'"
"""Of a transaction that may have more statements to come. One that is a single statement is tried again by the server itself."""

_OPEN = """FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id
   WHERE (p.DB = DATABASE() OR p.DB IS NULL) AND NOT t.trx_autocommit_non_locking AND p.ID <> CONNECTION_ID()"""

OUT_OF_RANGE, SYNTAX_ERROR = 1690, 1064

STALE = 0.12
"""Seconds without a look after which InnoDB makes its list of transactions anew."""

GLANCES = (0.001, 0.003)
"""Seconds between two looks whether the tables are in use."""


Question = tuple[str, list[Any]]
"""Who is in the way: what follows SELECT, and its values."""


def unused(tables: Sequence[tuple[str | None, str]], *, by_transactions: bool = False) -> Question:
    """MySQL's question for who uses some tables.

    :param by_transactions: only those that may have more statements to come
    """
    marks = ", ".join(["(COALESCE(%s, DATABASE()), %s)"] * len(tables))
    held = _HELD.format(tables=marks, transactions=_TRANSACTIONS if by_transactions else "")
    return held + (_AMONG_MORE if by_transactions else ""), [each for table in tables for each in table]


def no_transactions() -> Question:
    """MariaDB's, which keeps no list of who uses which table: for transactions that may have more statements to come."""
    return _OPEN, []


class Moment:
    """A moment in which a question for those who are in the way finds nobody."""

    def __init__(self, connection: sa.Connection, question: Question) -> None:
        self._connection = connection
        self._question, self._values = question

    def wait(self, deadline: float) -> None:
        """Looks until it is there.

        :param deadline: by the monotonic clock
        :raises TablesBusy: it did not come
        """
        while self._connection.exec_driver_sql(f"SELECT COUNT(*) {self._question}", tuple(self._values)).scalar_one():
            if time.monotonic() > deadline:
                raise TablesBusy
            time.sleep(random.uniform(*GLANCES))  # noqa: S311 - spreads retries, guards nothing

    def take(self, statement: str, deadline: float, bounded: Callable[[], AbstractContextManager[None]]) -> bool:
        """Has the statement executed in it.

        :param bounded: entered around each try: ends the statement when it has waited for long enough
        :returns: False: nothing was executed, as the connection takes one statement at a time
        :raises TablesBusy: the moment did not come
        """
        while True:
            self.wait(deadline)
            with bounded():
                outcome = self._ask(statement)
            if outcome != OUT_OF_RANGE:
                return outcome != SYNTAX_ERROR
            if time.monotonic() > deadline:
                raise TablesBusy

    def take_at_once(self, statement: str) -> bool:
        """Has the statement executed if it is there now; returns whether it was."""
        return self._ask(statement) is None

    def _ask(self, statement: str) -> int | None:
        """Has the server look and execute; gives the number of the error before which the server has not begun with the statement."""
        driver: Any = self._connection.connection.driver_connection
        values = tuple(driver.literal(each) for each in self._values)
        # The largest number there is, and one more where anybody is in the way: an error, after which the rest is left.
        look = f"SELECT 18446744073709551615 + SIGN(COUNT(*)) {self._question}".encode() % values
        with closing(driver.cursor()) as cursor:
            try:
                cursor.execute(look + b"; " + statement.encode())
            except driver.Error as error:
                if error.args[0] not in (OUT_OF_RANGE, SYNTAX_ERROR):
                    raise
                return int(error.args[0])
            while cursor.nextset() is not None:
                pass
        return None
