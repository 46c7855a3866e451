"""One setting proved: clients of its contract at work through rebuilds, some killed, all compared after each."""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from include.universal import events, live
from include.universal.schema import create_schema
from projection_rebuild.spec.live_writer import LiveWriter
from tools.prove import witness
from tools.prove.clients import READERS, Role, Seen, appender, consumer, reader, worker
from tools.prove.comparison import Comparison, Rows, compare
from tools.prove.rebuilding import Outcome, Task, Work, run
from tools.prove.setting import WORKERS, Setting
from tools.prove.strangers import FIRST_USER, STRANGERS

EVENTS_BEFORE = 2_000
"""Events in the store when the clients begin, so that no table is ever empty."""
BETWEEN = (0.3, 1.0)
"""Seconds from one rebuild to the next."""
PATIENCE = 300
"""Seconds after which a rebuild counts as hung, and a client as lost."""
KNOWN = "1213"
"""MySQL's deadlock detector ends a client that holds one of the switched tables in a transaction and wants another, never
the RENAME: the one known exception, counted by itself. Everything else breaks the proof."""

# Forked from one process that has imported everything: a client then costs milliseconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tools.prove.clients", "tools.prove.rebuilding"])


@dataclass
class Proof:
    """What was counted; several can be added up.

    :param appended: events that the clients have stored
    :param rollbacks: switches that were taken back, those of rollbacks (the way forward again) included
    :param by_strangers: events among them whose client knows nothing of us
    :param rows: tables with wrong rows, over all comparisons
    :param errors: failed transactions of clients by role and kind
    :param deadlocks: the known exception; not among ``errors``
    :param longest: seconds of the longest transaction by role
    :param pauses: for how many seconds each switch held the writers
    :param gave_up: rebuilds that failed by themselves, with the reason
    """

    appended: int = 0
    by_strangers: int = 0
    rebuilds: int = 0
    rollbacks: int = 0
    kills: int = 0
    retries: int = 0
    lost: int = 0
    doubled: int = 0
    rows: dict[str, Rows] = field(default_factory=dict)
    errors: Counter[tuple[Role, str]] = field(default_factory=Counter)
    samples: dict[tuple[Role, str], str] = field(default_factory=dict)
    deadlocks: int = 0
    empty_reads: int = 0
    longest: dict[Role, float] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)

    def failed(self, role: Role) -> int:
        """Failed transactions of one role, the known exception left out."""
        return sum(count for (of, _), count in self.errors.items() if of is role)

    @property
    def wrong_rows(self) -> int:
        """Rows that are not as the events say, over all tables and comparisons."""
        return sum(each.missing + each.extra + each.different for each in self.rows.values())

    @property
    def holds(self) -> bool:
        """Nothing lost, nothing doubled, nobody failed, no rebuild gave up."""
        return not (self.lost or self.doubled or self.wrong_rows or self.errors.total() or self.empty_reads or self.gave_up)

    def take_comparison(self, found: Comparison) -> None:
        """Adds what one comparison found."""
        self.lost += found.lost
        self.doubled += found.doubled
        for table, rows in found.rows.items():
            self.rows[table] = self.rows.get(table, Rows()) + rows

    def take_client(self, seen: Seen, engine: str) -> None:
        """Adds what one client saw."""
        for kind, count in seen.errors.items():
            if engine == "mysql" and kind.endswith(KNOWN):
                self.deadlocks += count
            else:
                self.errors[seen.role, kind] += count
                self.samples.setdefault((seen.role, kind), seen.samples.get(kind, ""))
        self.empty_reads += seen.empty
        self.longest[seen.role] = max(seen.longest, self.longest.get(seen.role, 0.0))

    def take_run(self, task: Task, outcome: Outcome) -> None:
        """Adds how a run ended."""
        self.retries += outcome.retries
        if outcome.failure:
            self.gave_up.append(f"{task.run_id}: {outcome.failure}")
            return
        self.rebuilds += task.work is Work.REBUILD
        self.rollbacks += task.work is Work.ROLLBACK
        self.pauses.append(outcome.pause)

    def __add__(self, other: Proof) -> Proof:
        tables, roles = self.rows.keys() | other.rows.keys(), self.longest.keys() | other.longest.keys()
        return Proof(
            appended=self.appended + other.appended,
            by_strangers=self.by_strangers + other.by_strangers,
            rebuilds=self.rebuilds + other.rebuilds,
            rollbacks=self.rollbacks + other.rollbacks,
            kills=self.kills + other.kills,
            retries=self.retries + other.retries,
            lost=self.lost + other.lost,
            doubled=self.doubled + other.doubled,
            rows={each: self.rows.get(each, Rows()) + other.rows.get(each, Rows()) for each in tables},
            errors=self.errors + other.errors,
            samples=other.samples | self.samples,
            deadlocks=self.deadlocks + other.deadlocks,
            empty_reads=self.empty_reads + other.empty_reads,
            longest={each: max(self.longest.get(each, 0.0), other.longest.get(each, 0.0)) for each in roles},
            pauses=self.pauses + other.pauses,
            gave_up=self.gave_up + other.gave_up,
        )


def prove(setting: Setting, url: str, rebuilds: int, kills: int, writers: int = 3, seed: int = 1) -> Proof:
    """Runs clients through ``rebuilds`` rebuilds, ``kills`` of which are killed at a random moment and run again.

    One in three is rolled back, and every other one of those rolled forward again; the kill may hit these as well.

    :param url: an empty database of the setting's kind
    """
    proof, pick = Proof(), random.Random(seed)  # noqa: S311 - has to repeat
    engine = sa.create_engine(url)
    _prepare(engine, setting)
    began = time.monotonic()
    filled = _run(url, setting, Task("fill", Work.REBUILD))
    lasts = time.monotonic() - began
    if filled is None or filled.failure:
        raise RuntimeError(f"{setting.describe()}: the first rebuild, with nobody at work, failed: {filled}")
    doomed = set(pick.sample(range(rebuilds), min(kills, rebuilds)))
    with _clients(engine, url, setting, writers) as seen:
        for number in range(rebuilds):
            tasks = _tasks(number)
            victim = pick.choice(tasks) if number in doomed else None
            for task in tasks:
                time.sleep(pick.uniform(*BETWEEN))
                die_after = pick.uniform(0.05, 0.95) * lasts if task is victim else None
                _one(proof, engine, url, setting, task, die_after)
            if proof.gave_up:
                # It does not hold, and the next one would take as long to find that out.
                break
    for each in seen:
        proof.take_client(each, setting.engine)
    last = compare(engine)
    proof.take_comparison(last)
    proof.appended = last.events - EVENTS_BEFORE
    with engine.connect() as connection:
        strangers = f"SELECT count(*) FROM expenses WHERE user_id >= {FIRST_USER}"
        proof.by_strangers = connection.exec_driver_sql(strangers).scalar_one()
    engine.dispose()
    return proof


def _tasks(number: int) -> list[Task]:
    """A rebuild, of everything or of a part, or one that is taken back."""
    rebuild = f"run-{number}"
    if number % 3 != 1:
        return [Task(rebuild, Work.REBUILD, part=number % 3 == 2)]
    back = [Task(rebuild, Work.REBUILD, keep_old=True), Task(f"{rebuild}-back", Work.ROLLBACK, keep_old=number % 2 == 0)]
    return back if number % 2 else [*back, Task(f"{rebuild}-forward", Work.ROLLBACK)]


def _one(proof: Proof, engine: sa.Engine, url: str, setting: Setting, task: Task, die_after: float | None) -> None:
    """One run, compared at once: the next one would repair what this one has harmed."""
    outcome = None
    if die_after is not None:
        outcome = _run(url, setting, task, die_after)
        proof.kills += outcome is None
    outcome = outcome or _run(url, setting, task)
    proof.take_run(task, outcome or Outcome(failure="its process died or hung"))
    proof.take_comparison(compare(engine, setting.projected()))


def _prepare(engine: sa.Engine, setting: Setting) -> None:
    if setting.engine == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    create_schema(engine)
    witness.metadata.create_all(engine)
    live.metadata.create_all(engine)
    live.add_consumer(engine)
    events.append_all(engine, events.generate(EVENTS_BEFORE))
    engine.dispose()


@contextmanager
def _clients(engine: sa.Engine, url: str, setting: Setting, writers: int) -> Iterator[list[Seen]]:
    """Clients at work; the list has what they saw once the context has ended."""
    seen: list[Seen] = []
    projecting = {LiveWriter.CHECKPOINTED: (consumer, 1), LiveWriter.DETACHED: (worker, WORKERS)}
    project, count = projecting.get(setting.contract, (consumer, 0))
    front = [(Role.APPEND, _Started(appender, url, setting, number)) for number in range(writers)]
    front += [(Role.READ, _Started(reader, url, kind, setting.leisure, number)) for number, kind in enumerate(READERS)]
    back = [(Role.PROJECT, _Started(project, url, setting, number)) for number in range(count)]
    with ExitStack() as strangers:
        if stranger := STRANGERS.get(setting.engine):
            folder = strangers.enter_context(tempfile.TemporaryDirectory())
            begun = strangers.enter_context(stranger(engine.url, setting, Path(folder)))
            seen.append(begun.seen)
        try:
            yield seen
        finally:
            strangers.close()
            # What is left to be projected is projected when nobody appends any more.
            for group in (front, back):
                for _, each in group:
                    each.stop()
                seen += [each.seen(role) for role, each in group]


class _Started:
    """A process, and the pipe by which it is told to stop and says at its end what it saw."""

    def __init__(self, target: Callable[..., None], *given: Any) -> None:
        self._pipe, its = _processes.Pipe()
        self._process = _processes.Process(target=target, args=(*given, its))
        self._process.start()
        its.close()

    def stop(self) -> None:
        """Tells it to stop; it may have died."""
        with suppress(BrokenPipeError):
            self._pipe.send("stop")

    def result(self, timeout: float = PATIENCE) -> Any:
        """What it says at its end; None if it dies before, or if it had to be killed because it took too long."""
        found = None
        with suppress(EOFError, ConnectionResetError):
            if self._pipe.poll(timeout):
                found = self._pipe.recv()
        if found is None:
            self._process.kill()
        self._process.join()
        return found

    def seen(self, role: Role) -> Seen:
        """What a client saw; one that died or hangs is a failed one."""
        found = self.result()
        if isinstance(found, Seen):
            return found
        lost = Seen(role)
        lost.failed("died", f"the client's process ended with the exit code {self._process.exitcode} and said nothing")
        return lost


def _run(url: str, setting: Setting, task: Task, die_after: float = PATIENCE) -> Outcome | None:
    """A run in a process of its own; None if it was killed (or died) before its end."""
    found = _Started(run, url, setting, task).result(die_after)
    return found if isinstance(found, Outcome) else None
