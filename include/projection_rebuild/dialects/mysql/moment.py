"""Takes tables on MySQL and MariaDB in a moment in which no client uses them, by a check and a lock in one message.

If a statement that waits for tables deadlocks with a client, both servers make the client the victim, never that
statement. One table is enough for that: a client that has read it and then writes to it queues behind the waiting
statement, which waits for the client. So the engine waits for no table that an open transaction may use again. The server
checks and locks in one message: a client that came between two messages could become the victim.
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
"""A condition: the transaction may execute more statements. The server itself retries one of a single statement."""

_OPEN = """FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id
   WHERE (p.DB = DATABASE() OR p.DB IS NULL) AND NOT t.trx_autocommit_non_locking AND p.ID <> CONNECTION_ID()"""

OUT_OF_RANGE, SYNTAX_ERROR = 1690, 1064

STALE = 0.12
"""Seconds without a query after which InnoDB refreshes its list of transactions."""

GLANCES = (0.001, 0.003)
"""The shortest and longest pause between two checks whether the tables are in use, in seconds."""


Question = tuple[str, list[Any]]
"""A query for the clients that use the tables: the text after SELECT's list, and its values."""


def unused(tables: Sequence[tuple[str | None, str]], *, by_transactions: bool = False) -> Question:
    """MySQL's query for the clients that use tables.

    :param tables: schema and name of each
    :param by_transactions: only clients whose transaction may execute more statements
    """
    marks = ", ".join(["(COALESCE(%s, DATABASE()), %s)"] * len(tables))
    held = _HELD.format(tables=marks, transactions=_TRANSACTIONS if by_transactions else "")
    return held + (_AMONG_MORE if by_transactions else ""), [part for table in tables for part in table]


def no_transactions() -> Question:
    """MariaDB's query, for all transactions that may execute more statements: it lists no users of a table."""
    return _OPEN, []


class Moment:
    """A moment in which a query for clients in the way finds none.

    :param question: that query, and its values
    """

    def __init__(self, connection: sa.Connection, question: Question) -> None:
        self._connection = connection
        self._question, self._values = question

    def wait(self, deadline: float) -> None:
        """Waits for the moment.

        :param deadline: by the monotonic clock
        :raises TablesBusy: the moment did not come
        """
        while self._connection.exec_driver_sql(f"SELECT COUNT(*) {self._question}", tuple(self._values)).scalar_one():
            if time.monotonic() > deadline:
                raise TablesBusy
            time.sleep(random.uniform(*GLANCES))  # noqa: S311 - spreads retries, guards nothing

    def take(self, statement: str, deadline: float, bounded: Callable[[], AbstractContextManager[None]]) -> bool:
        """Waits for the moment, and executes a statement in it.

        :param deadline: by the monotonic clock
        :param bounded: entered around each try; ends the statement after the longest wait
        :returns: False: the connection accepts only one statement per message, and has executed nothing
        :raises TablesBusy: the moment did not come
        """
        while True:
            self.wait(deadline)
            with bounded():
                outcome = self._execute_if_free(statement)
            if outcome != OUT_OF_RANGE:
                return outcome != SYNTAX_ERROR
            if time.monotonic() > deadline:
                raise TablesBusy

    def take_at_once(self, statement: str) -> bool:
        """Executes a statement if the moment is now; returns whether it has."""
        return self._execute_if_free(statement) is None

    def _execute_if_free(self, statement: str) -> int | None:
        """Sends check and statement in one message.

        :returns: the number of the error because of which the server has not begun the statement; None: it has
            executed it
        """
        driver: Any = self._connection.connection.driver_connection
        values = tuple(driver.literal(value) for value in self._values)
        # The largest number, plus one if a client is in the way: the overflow is an error, which ends the message.
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
