"""The clients of a proof, each a process of its own: appenders, consumers, queue workers, and readers of four kinds.

Each has a pipe to the process that runs the proof. A message on the pipe, or its end, stops the client; the client then
sends its counts. Processes share nothing else, so a killed one leaves no lock behind.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from multiprocessing.connection import Connection as Pipe

import sqlalchemy as sa

from include.universal import events, live
from include.universal.independent import KEYS
from projection_rebuild.spec.live_writer import LiveWriter
from tools.prove.setting import WORKERS, Clients, Setting, event_store
from tools.prove.witness import PROJECTORS

THINKING = 0.01
"""The longest pause of a client between two transactions, in seconds: a busy application, not a flood."""
BACKLOG = 3
"""Appenders wait while more events than this are not projected yet, so that consumers and workers keep up."""
SNAPSHOT_WAITS = 2.0
"""The longest pause between a snapshot and the first look at a table in it, in seconds."""
GIVES_UP_AFTER = 20
"""Failures in a row after which a consumer or a worker gives up its remaining work, once the proof is over."""
TABLES = [*KEYS, "applied_events"]


class Role(StrEnum):
    """The kind of a client's transactions."""

    APPEND = "append"
    PROJECT = "project"
    READ = "read"
    STRANGER = "stranger"


@dataclass
class Seen:
    """The counts of one client.

    :param done: transactions that succeeded
    :param errors: failed ones by kind: the driver's error class and code
    :param samples: the text of one error of each kind
    :param empty: reads that found no row in a table that is never empty
    :param longest: seconds of the longest transaction
    """

    role: Role
    done: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)
    empty: int = 0
    longest: float = 0.0

    @contextmanager
    def measured(self, idle: float = 0.0) -> Iterator[None]:
        """Times one transaction.

        It counts an error and suppresses it, so that the client continues as a patient application would.

        :param idle: seconds of the transaction that the client waits on purpose, which do not count
        """
        began = time.monotonic()
        try:
            yield
            self.done += 1
        except Exception as error:
            self.failed(_kind(error), str(getattr(error, "orig", error)))
        self.longest = max(self.longest, time.monotonic() - began - idle)

    def failed(self, kind: str, text: str) -> None:
        """Counts a failure."""
        self.errors[kind] += 1
        self.samples.setdefault(kind, text.strip()[:300])


def _kind(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
    if code is None and cause.args and isinstance(cause.args[0], int):
        code = cause.args[0]
    return f"{type(cause).__name__} {code or ''}".strip()


# Writers -----------------------------------------------------------------------------------------------------------


def appender(url: str, setting: Setting, number: int, pipe: Pipe) -> None:
    """Appends events, and projects or enqueues each of them as the contract requires of an appender."""
    seen, pick = Seen(Role.APPEND), random.Random(number)  # noqa: S311 - spreads, guards nothing
    stores: dict[LiveWriter, live.Store] = {
        LiveWriter.TRANSACTIONAL: partial(live.append_and_project, projectors=PROJECTORS),
        LiveWriter.CHECKPOINTED: events.append,
        LiveWriter.DETACHED: partial(live.append_and_enqueue, queues=WORKERS),
    }
    engine = sa.create_engine(url)

    # A consumer or a worker needs more time for an event than its appender.
    thinking = setting.leisure * (THINKING if setting.contract is LiveWriter.TRANSACTIONAL else 5 * THINKING)

    def stopped() -> bool:
        while not (stopping := pipe.poll(pick.uniform(0, thinking))) and _behind(engine, setting, seen):
            continue
        return stopping

    live.traffic(
        engine,
        10_000_000,
        seed=100 + number,
        store=_reading_first(stores[setting.contract]) if setting.clients is Clients.RBA else stores[setting.contract],
        stopped=stopped,
        around=seen.measured,
    )
    pipe.send(seen)


def _behind(engine: sa.Engine, setting: Setting, seen: Seen) -> bool:
    """Whether more than :data:`BACKLOG` events are not projected yet."""
    backlog = 0
    if query := setting.backlog():
        with seen.measured(), engine.connect() as connection:
            backlog = connection.exec_driver_sql(query).scalar_one()
    return backlog > BACKLOG


def _reading_first(store: live.Store) -> live.Store:
    def read_then_store(connection: sa.Connection, event: events.NewEvent) -> object:
        live.look_up(connection, event)
        return store(connection, event)

    return read_then_store


def consumer(url: str, setting: Setting, number: int, pipe: Pipe) -> None:
    """Projects events as the consumer of the contract checkpointed."""
    engine = sa.create_engine(url)
    _until_done(partial(live.consume, engine, event_store(engine), PROJECTORS), pipe)


def worker(url: str, setting: Setting, number: int, pipe: Pipe) -> None:
    """Projects events as the worker of one queue of the contract detached."""
    engine = sa.create_engine(url)
    _until_done(partial(live.work_off, engine, event_store(engine), number, PROJECTORS), pipe)


def _until_done(step: Callable[[], int], pipe: Pipe) -> None:
    """Calls a step repeatedly until the pipe stops the client and the step has no work left.

    :param step: returns 0 if it had no work
    """
    seen, failures_in_a_row = Seen(Role.PROJECT), 0
    while True:
        stopping, errors_before, work = pipe.poll(), seen.errors.total(), 0
        with seen.measured():
            work = step()
        failed = seen.errors.total() > errors_before
        failures_in_a_row = failures_in_a_row + 1 if failed else 0
        if stopping and ((not work and not failed) or failures_in_a_row > GIVES_UP_AFTER):
            break
        if not work:
            time.sleep(live.AGAIN_AFTER if failed else THINKING)
    pipe.send(seen)


# Readers -----------------------------------------------------------------------------------------------------------

# The statements are explicit because SQLite's driver begins no transaction for a read.
COMMITTED = {
    "postgresql": ["BEGIN ISOLATION LEVEL READ COMMITTED"],
    "mysql": ["SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION"],
    "sqlite": ["BEGIN"],
}
SNAPSHOT = {
    "postgresql": ["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"],
    "mysql": ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT"],
    "sqlite": ["BEGIN", "SELECT count(*) FROM sqlite_master"],
}


class Reader:
    """Reads tables that are never empty, in rounds; it keeps one connection until a read fails.

    :param kind: one of :data:`READERS`
    :param leisure: see :class:`Setting`
    """

    def __init__(self, url: str, kind: str, seed: int, leisure: int = 1) -> None:
        self._thinking = leisure * THINKING
        # PostgreSQL's driver prepares statements itself: at once, or never.
        options = {"prepare_threshold": 0 if kind == "prepared" else None} if url.startswith("postgresql") else {}
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", connect_args=options)
        self._pick = random.Random(seed)  # noqa: S311 - spreads, guards nothing
        self._prepared: set[str] = set()
        self.seen = Seen(Role.READ)

    def rounds(self, read: Callable[[Reader, sa.Connection], None], pipe: Pipe) -> None:
        """Calls ``read`` until the pipe stops the client. After an error it continues on a new connection."""
        while not pipe.poll():
            self._prepared.clear()
            errors_before = self.seen.errors.total()
            with self._engine.connect() as connection:
                while self.seen.errors.total() == errors_before and not pipe.poll(self._pick.uniform(0, self._thinking)):
                    read(self, connection)
                connection.invalidate()

    def alone(self, connection: sa.Connection) -> None:
        """Reads one table, without a transaction around the statement."""
        with self.seen.measured():
            self._look(connection, self._pick.choice(TABLES))

    def together(self, connection: sa.Connection) -> None:
        """Reads several tables, in any order, in one transaction."""
        with self.seen.measured():
            for statement in COMMITTED[connection.dialect.name]:
                connection.exec_driver_sql(statement)
            for table in self._pick.sample(TABLES, 3):
                self._look(connection, table)
            connection.exec_driver_sql("COMMIT")

    def prepared(self, connection: sa.Connection) -> None:
        """Executes a statement that the server prepared once, also after each swap."""
        with self.seen.measured():
            table = self._pick.choice(TABLES)
            if connection.dialect.name != "mysql":
                self._look(connection, table)
                return
            if table not in self._prepared:
                connection.exec_driver_sql(f"PREPARE read_{table} FROM 'SELECT * FROM {table} LIMIT 20'")
                self._prepared.add(table)
            self._rows(connection.exec_driver_sql(f"EXECUTE read_{table}"))

    def snapshot(self, connection: sa.Connection) -> None:
        """Reads a table for the first time in a transaction some time after its snapshot."""
        idle = self._pick.uniform(0, SNAPSHOT_WAITS)
        with self.seen.measured(idle):
            for statement in SNAPSHOT[connection.dialect.name]:
                connection.exec_driver_sql(statement)
            time.sleep(idle)
            self._look(connection, self._pick.choice(TABLES))
            connection.exec_driver_sql("COMMIT")

    def _look(self, connection: sa.Connection, table: str) -> None:
        self._rows(connection.exec_driver_sql(f"SELECT * FROM {table} LIMIT 20"))

    def _rows(self, result: sa.CursorResult[*tuple[object, ...]]) -> None:
        if not result.fetchall():
            self.seen.empty += 1


READERS = {"alone": Reader.alone, "together": Reader.together, "prepared": Reader.prepared, "snapshot": Reader.snapshot}


def reader(url: str, kind: str, leisure: int, number: int, pipe: Pipe) -> None:
    """Reads tables.

    :param kind: the way to read, one of :data:`READERS`
    """
    client = Reader(url, kind, number, leisure)
    client.rounds(READERS[kind], pipe)
    pipe.send(client.seen)
