"""The clients of a proof, each a process of its own: appenders, consumers, queue workers, and readers of four kinds.

Each has a pipe to whoever runs the proof: by a word on it, or by its end, the client is told to stop; then it says what it
saw. Nothing is shared beyond that, so whoever is killed leaves no lock behind.
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
"""Events yet to be projected above which nobody appends: consumers and workers keep up, however slow the machine is."""
SNAPSHOT_WAITS = 2.0
"""The longest pause between a snapshot and the first look at a table in it, in seconds."""
GIVES_UP_AFTER = 20
"""Failures in a row after which a consumer or a worker leaves what is left to do, once the proof is over."""
TABLES = [*KEYS, "applied_events"]


class Role(StrEnum):
    """What a client does in its transactions."""

    APPEND = "append"
    PROJECT = "project"
    READ = "read"
    STRANGER = "stranger"


@dataclass
class Seen:
    """What one client saw.

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
        """One transaction, timed; an error is counted, and the client goes on as a patient application would.

        :param idle: seconds that it waits on purpose
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
    """Appends, and does with each event what the contract asks of an appender."""
    seen, pick = Seen(Role.APPEND), random.Random(number)  # noqa: S311 - spreads, guards nothing
    stores: dict[LiveWriter, live.Store] = {
        LiveWriter.TRANSACTIONAL: partial(live.append_and_project, projectors=PROJECTORS),
        LiveWriter.CHECKPOINTED: events.append,
        LiveWriter.DETACHED: partial(live.append_and_enqueue, queues=WORKERS),
    }
    engine = sa.create_engine(url)

    # Who projects later needs more time for an event than who appends it.
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
    """Whether so much is left to be projected that an application would take on no more."""
    behind = 0
    if backlog := setting.backlog():
        with seen.measured(), engine.connect() as connection:
            behind = connection.exec_driver_sql(backlog).scalar_one()
    return behind > BACKLOG


def _reading_first(store: live.Store) -> live.Store:
    def read_then_store(connection: sa.Connection, event: events.NewEvent) -> object:
        live.look_up(connection, event)
        return store(connection, event)

    return read_then_store


def consumer(url: str, setting: Setting, number: int, pipe: Pipe) -> None:
    """The consumer of the contract checkpointed."""
    engine = sa.create_engine(url)
    _until_done(partial(live.consume, engine, event_store(engine), PROJECTORS), pipe)


def worker(url: str, setting: Setting, number: int, pipe: Pipe) -> None:
    """The worker of one queue of the contract detached."""
    engine = sa.create_engine(url)
    _until_done(partial(live.work_off, engine, event_store(engine), number, PROJECTORS), pipe)


def _until_done(step: Callable[[], int], pipe: Pipe) -> None:
    """Calls a step again and again; once told to finish, until it has nothing left to do."""
    seen, in_a_row = Seen(Role.PROJECT), 0
    while True:
        last, before, found = pipe.poll(), seen.errors.total(), 0
        with seen.measured():
            found = step()
        failed = seen.errors.total() > before
        in_a_row = in_a_row + 1 if failed else 0
        if last and ((not found and not failed) or in_a_row > GIVES_UP_AFTER):
            break
        if not found:
            time.sleep(live.AGAIN_AFTER if failed else THINKING)
    pipe.send(seen)


# Readers -----------------------------------------------------------------------------------------------------------

# By statements of our own: SQLite's driver begins no transaction for reading.
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
    """Reads tables that are never empty, one round after the other, on one connection for as long as nothing fails.

    :param kind: one of :data:`READERS`
    :param leisure: see :class:`Setting`
    """

    def __init__(self, url: str, kind: str, seed: int, leisure: int = 1) -> None:
        self._thinking = leisure * THINKING
        # PostgreSQL's driver prepares by itself: at once, or never.
        options = {"prepare_threshold": 0 if kind == "prepared" else None} if url.startswith("postgresql") else {}
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", connect_args=options)
        self._pick = random.Random(seed)  # noqa: S311 - spreads, guards nothing
        self._prepared: set[str] = set()
        self.seen = Seen(Role.READ)

    def rounds(self, one: Callable[[Reader, sa.Connection], None], pipe: Pipe) -> None:
        """Rounds until told to stop; after an error on a new connection."""
        while not pipe.poll():
            self._prepared.clear()
            failed = self.seen.errors.total()
            with self._engine.connect() as connection:
                while self.seen.errors.total() == failed and not pipe.poll(self._pick.uniform(0, self._thinking)):
                    one(self, connection)
                connection.invalidate()

    def alone(self, connection: sa.Connection) -> None:
        """One statement, committed by itself."""
        with self.seen.measured():
            self._look(connection, self._pick.choice(TABLES))

    def together(self, connection: sa.Connection) -> None:
        """Several tables, in any order, in one transaction."""
        with self.seen.measured():
            for statement in COMMITTED[connection.dialect.name]:
                connection.exec_driver_sql(statement)
            for table in self._pick.sample(TABLES, 3):
                self._look(connection, table)
            connection.exec_driver_sql("COMMIT")

    def prepared(self, connection: sa.Connection) -> None:
        """A statement that the server prepared once and executes again after each switch."""
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
        """A table that a transaction reads for the first time when its snapshot is no longer new."""
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
    """A client that reads; :data:`READERS` says how."""
    made = Reader(url, kind, number, leisure)
    made.rounds(READERS[kind], pipe)
    pipe.send(made.seen)
