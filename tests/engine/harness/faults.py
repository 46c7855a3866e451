"""Faults for crash tests: an action right before or right after the n-th statement of a run's connections."""

from __future__ import annotations

import itertools
import re
import select
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import Dialect
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.dialects.postgres.dialect import PostgresDialect
from projection_rebuild.errors import RebuildError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions

Strike = Callable[[Any], None]
"""An action on the driver's connection. If it raises an error, the statement fails with it."""

EVERYTHING = re.compile("")
WRITES = re.compile(
    r"\s*(INSERT|UPDATE|DELETE|COPY|CREATE|ALTER|DROP|RENAME|LOCK|FLUSH|UNLOCK|ANALYZE|VACUUM|BEGIN|START|COMMIT|SET autocommit|SET CONSTRAINTS"
    # The engine sends these together with PostgreSQL's locks.
    r"|SET LOCAL (idle_in_transaction|lock_timeout)|SELECT pg_catalog.setval)",
    re.IGNORECASE,
)


class Fault:
    """Strikes once, at the ``at``-th statement.

    :param at: the number of the statement, from 1, over all connections
    :param strike: the action
    :param after: strikes after the statement has been executed; if the strike raises, the client loses the answer
    :param only: counts only statements that match
    :ivar struck: the statement at which it struck; None: the run had fewer statements
    """

    def __init__(self, at: int, strike: Strike, *, after: bool = False, only: re.Pattern[str] = EVERYTHING) -> None:
        self.struck: str | None = None
        self._at, self._strike, self._after, self._only = at, strike, after, only
        self._seen = 0

    @contextmanager
    def on(self, made: Rebuild) -> Iterator[None]:
        """Counts the statements of a run's connections within it, including COPY, and strikes."""
        engine = made._context.dialect.engine
        moment = "after_cursor_execute" if self._after else "before_cursor_execute"

        def reached(connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
            self._reached(connection, statement)

        sa.event.listen(engine, moment, reached)
        try:
            with (
                mock.patch.object(PostgresDialect, "_copy", self._copies(PostgresDialect._copy)),
                mock.patch.object(PostgresDialect, "read", self._reads(PostgresDialect.read)),
                mock.patch.object(MySQLFamily, "read", self._reads(MySQLFamily.read)),
            ):
                yield
        finally:
            sa.event.remove(engine, moment, reached)

    # SQLAlchemy's events do not report the copies and reads of the drivers.

    def _copies(self, copy: Callable[..., None]) -> Callable[..., None]:
        def counted(
            dialect: PostgresDialect, connection: sa.Connection, target: str, kind: object, rows: Sequence[object]
        ) -> None:
            if rows and not self._after:
                self._reached(connection, f"COPY {target}")
            copy(dialect, connection, target, kind, rows)
            if rows and self._after:
                self._reached(connection, f"COPY {target}")

        return counted

    def _reads(self, read: Callable[..., Generator[Any, None, None]]) -> Callable[..., Generator[Any, None, None]]:
        def counted(dialect: Dialect, connection: sa.Connection, query: object, size: int) -> Generator[Any, None, None]:
            if not self._after:
                self._reached(connection, "SELECT")
            yield from read(dialect, connection, query, size)
            if self._after:
                self._reached(connection, "SELECT")

        return counted

    def _reached(self, connection: sa.Connection, statement: str) -> None:
        if not self._only.match(statement):
            return
        self._seen += 1
        if self._seen == self._at:
            self.struck = statement
            self._strike(connection.connection.driver_connection)


def refusals(backend: str) -> list[Strike]:
    """Strikes with errors of a correct statement: no disk space, no memory, cancelled by an operator.

    The server itself raises each error, so that the transaction is afterwards in the state that a real error leaves.
    """
    match backend:
        case "postgresql":
            codes = ["53100", "53200", "57014"]
            return [_said(f"DO $$ BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = '{code}'; END $$") for code in codes]
        case "sqlite":
            return [_sqlite(name) for name in ("SQLITE_FULL", "SQLITE_NOMEM", "SQLITE_INTERRUPT")]
        case _:
            return [_said(f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}") for number in (1021, 1041, 1317)]


def _said(statement: str) -> Strike:
    def strike(driver: Any) -> None:
        driver.cursor().execute(statement)
        raise AssertionError("the server refused nothing")

    return strike


def _sqlite(name: str) -> Strike:
    def strike(driver: sqlite3.Connection) -> None:
        # At these errors SQLite itself may roll back the transaction.
        if driver.in_transaction:
            driver.rollback()
        error = sqlite3.OperationalError(name)
        error.sqlite_errorname = name
        raise error

    return strike


def cut(url: sa.URL) -> Callable[[Any], None]:
    """A strike that ends the connection on the server, from another session."""
    others = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")

    postgres = others.dialect.name == "postgresql"

    def strike(driver: Any) -> None:
        end = f"SELECT pg_terminate_backend({driver.info.backend_pid})" if postgres else f"KILL {driver.thread_id()}"
        with others.connect() as connection:
            connection.exec_driver_sql(end)
        # Wait until the server has closed the connection, perhaps with a last message.
        assert select.select([driver.fileno()], [], [], 300)[0], "the connection is still open"

    return strike


def answerless(strike: Strike) -> Strike:
    """A strike for use after a statement: its client finds a dead connection in place of the answer."""

    def struck(driver: Any) -> None:
        strike(driver)
        driver.cursor().execute("SELECT 1")
        raise AssertionError("the connection is still alive")

    return struck


def until(holds: Callable[[], object], seconds: float = 300) -> None:
    """Waits until a condition holds.

    :raises AssertionError: it does not hold within so many seconds
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.01)


class Stopped(RebuildError):
    """The test has stopped the worker between two statements."""


def stopped_between_statements(run: Rebuild, monkeypatch: pytest.MonkeyPatch, every: int) -> int:
    """Does a whole run, and stops each step before one of its statements.

    It then begins the step again, and stops it some statements later.

    :param every: by how many statements the next stop is later
    :returns: the number of stops
    """
    dialect = type(run._context.dialect)
    original: Callable[[Dialect, sa.Connection, str], None] = dialect.run
    left = 0

    def stopping(self: Dialect, connection: sa.Connection, statement: str) -> None:
        nonlocal left
        if left == 0:
            raise Stopped
        left -= 1
        original(self, connection, statement)

    monkeypatch.setattr(dialect, "run", stopping)
    stops = 0
    steps: list[Callable[[], object]] = [
        lambda: run.plan(RunOptions()),
        run.clone_tables,
        lambda: [run.replay(name) for name in run.chosen()],
        run.verify,
        run.swap,
        run.reconcile,
        run.drop_old,
    ]
    for step in steps:
        for patience in itertools.count(0, every):
            left = patience
            try:
                step()
                break
            except Stopped:
                stops += 1
    return stops
