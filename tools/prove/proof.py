"""Proves one setting: clients work during many rebuilds, some of them killed, and a comparison follows each rebuild."""

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
"""The code of the only known exception, which the proof counts separately; any other error breaks the proof.

A client's transaction may hold one of the swapped tables and wait for another one. MySQL's deadlock detector then ends
the client, never the RENAME.
"""

# All clients fork from one process that has imported all modules, so that a client starts within milliseconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tools.prove.clients", "tools.prove.rebuilding"])


@dataclass
class Proof:
    """The counts of a proof; several proofs can be added up.

    :param appended: events that the clients have stored
    :param by_strangers: how many of them a stranger has stored (:mod:`tools.prove.strangers`)
    :param rollbacks: rollbacks done, including rollbacks of rollbacks
    :param rows: the wrong rows by table, over all comparisons
    :param errors: failed transactions of clients by role and kind
    :param deadlocks: occurrences of the known exception; not among ``errors``
    :param longest: seconds of the longest transaction by role
    :param pauses: for how many seconds each swap held the writers
    :param gave_up: rebuilds that failed without being killed, with the reason
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
        """The number of failed transactions of one role, without the known exception."""
        return sum(count for (failed_role, _), count in self.errors.items() if failed_role is role)

    @property
    def wrong_rows(self) -> int:
        """The number of wrong rows, over all tables and comparisons."""
        return sum(rows.missing + rows.extra + rows.different for rows in self.rows.values())

    @property
    def holds(self) -> bool:
        """Whether no event was lost or doubled, no row is wrong, no client failed, and no rebuild gave up."""
        return not (self.lost or self.doubled or self.wrong_rows or self.errors.total() or self.empty_reads or self.gave_up)

    def take_comparison(self, comparison: Comparison) -> None:
        """Adds the counts of one comparison."""
        self.lost += comparison.lost
        self.doubled += comparison.doubled
        for table, rows in comparison.rows.items():
            self.rows[table] = self.rows.get(table, Rows()) + rows

    def take_client(self, seen: Seen, engine: str) -> None:
        """Adds the counts of one client."""
        for kind, count in seen.errors.items():
            if engine == "mysql" and kind.endswith(KNOWN):
                self.deadlocks += count
            else:
                self.errors[seen.role, kind] += count
                self.samples.setdefault((seen.role, kind), seen.samples.get(kind, ""))
        self.empty_reads += seen.empty
        self.longest[seen.role] = max(seen.longest, self.longest.get(seen.role, 0.0))

    def take_run(self, task: Task, outcome: Outcome) -> None:
        """Adds the outcome of one run."""
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
            rows={table: self.rows.get(table, Rows()) + other.rows.get(table, Rows()) for table in tables},
            errors=self.errors + other.errors,
            samples=other.samples | self.samples,
            deadlocks=self.deadlocks + other.deadlocks,
            empty_reads=self.empty_reads + other.empty_reads,
            longest={role: max(self.longest.get(role, 0.0), other.longest.get(role, 0.0)) for role in roles},
            pauses=self.pauses + other.pauses,
            gave_up=self.gave_up + other.gave_up,
        )


def prove(setting: Setting, url: str, rebuilds: int, kills: int, writers: int = 3, seed: int = 1) -> Proof:
    """Runs clients during ``rebuilds`` rebuilds. It kills ``kills`` of these at a random moment, and runs them again.

    A rollback follows every third rebuild, and a rollback of the rollback every other time. The kill may hit these as
    well.

    :param url: an empty database of the setting's kind
    :param writers: the number of appending clients
    :param seed: selects the runs and moments of the kills
    :raises RuntimeError: the first rebuild failed, before any client worked
    """
    proof, pick = Proof(), random.Random(seed)  # noqa: S311 - has to repeat
    engine = sa.create_engine(url)
    _prepare(engine, setting)
    began = time.monotonic()
    outcome = _run(url, setting, Task("fill", Work.REBUILD))
    duration = time.monotonic() - began
    if outcome is None or outcome.failure:
        raise RuntimeError(f"{setting.describe()}: the first rebuild failed, before any client worked: {outcome}")
    with_kill = set(pick.sample(range(rebuilds), min(kills, rebuilds)))
    with _clients(engine, url, setting, writers) as seen:
        for number in range(rebuilds):
            tasks = _tasks(number)
            killed_task = pick.choice(tasks) if number in with_kill else None
            for task in tasks:
                time.sleep(pick.uniform(*BETWEEN))
                kill_after = pick.uniform(0.05, 0.95) * duration if task is killed_task else None
                _run_and_compare(proof, engine, url, setting, task, kill_after)
            if proof.gave_up:
                # The proof does not hold, and the next rebuild would give up after the same time.
                break
    for client in seen:
        proof.take_client(client, setting.engine)
    last = compare(engine)
    proof.take_comparison(last)
    proof.appended = last.events - EVENTS_BEFORE
    with engine.connect() as connection:
        strangers = f"SELECT count(*) FROM expenses WHERE user_id >= {FIRST_USER}"
        proof.by_strangers = connection.exec_driver_sql(strangers).scalar_one()
    engine.dispose()
    return proof


def _tasks(number: int) -> list[Task]:
    """The runs of one round: a rebuild of all rows, a rebuild of a part, or a rebuild with its rollbacks."""
    rebuild = f"run-{number}"
    if number % 3 != 1:
        return [Task(rebuild, Work.REBUILD, part=number % 3 == 2)]
    tasks = [Task(rebuild, Work.REBUILD, keep_old=True), Task(f"{rebuild}-back", Work.ROLLBACK, keep_old=number % 2 == 0)]
    return tasks if number % 2 else [*tasks, Task(f"{rebuild}-forward", Work.ROLLBACK)]


def _run_and_compare(proof: Proof, engine: sa.Engine, url: str, setting: Setting, task: Task, kill_after: float | None) -> None:
    """Does one run and compares at once, because the next run would repair its damage.

    :param kill_after: kills its process after so many seconds, and runs it again; None: does not kill it
    """
    outcome = None
    if kill_after is not None:
        outcome = _run(url, setting, task, kill_after)
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
    """Runs the clients; the list has their counts once the context has ended."""
    seen: list[Seen] = []
    projecting = {LiveWriter.CHECKPOINTED: (consumer, 1), LiveWriter.DETACHED: (worker, WORKERS)}
    project, count = projecting.get(setting.contract, (consumer, 0))
    front = [(Role.APPEND, _Process(appender, url, setting, number)) for number in range(writers)]
    front += [(Role.READ, _Process(reader, url, kind, setting.leisure, number)) for number, kind in enumerate(READERS)]
    back = [(Role.PROJECT, _Process(project, url, setting, number)) for number in range(count)]
    with ExitStack() as strangers:
        if stranger := STRANGERS.get(setting.engine):
            folder = strangers.enter_context(tempfile.TemporaryDirectory())
            program = strangers.enter_context(stranger(engine.url, setting, Path(folder)))
            seen.append(program.seen)
        try:
            yield seen
        finally:
            strangers.close()
            # Appenders stop first, so that consumers and workers can project all remaining events.
            for group in (front, back):
                for _, process in group:
                    process.stop()
                seen += [process.seen(role) for role, process in group]


class _Process:
    """A started process with a pipe, by which this process stops it and receives its result."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self._pipe, pipe_of_process = _processes.Pipe()
        self._process = _processes.Process(target=target, args=(*arguments, pipe_of_process))
        self._process.start()
        pipe_of_process.close()

    def stop(self) -> None:
        """Asks the process to stop, if it still runs."""
        with suppress(BrokenPipeError):
            self._pipe.send("stop")

    def result(self, timeout: float = PATIENCE) -> Any:
        """The result that the process sends at its end; None: it died, or was killed after ``timeout`` seconds."""
        result = None
        with suppress(EOFError, ConnectionResetError):
            if self._pipe.poll(timeout):
                result = self._pipe.recv()
        if result is None:
            self._process.kill()
        self._process.join()
        return result

    def seen(self, role: Role) -> Seen:
        """The counts of a client. A client that died or hangs counts as one failure."""
        result = self.result()
        if isinstance(result, Seen):
            return result
        lost = Seen(role)
        lost.failed("died", f"the client's process ended with the exit code {self._process.exitcode} and sent no counts")
        return lost


def _run(url: str, setting: Setting, task: Task, kill_after: float = PATIENCE) -> Outcome | None:
    """Does a run in a process of its own, and kills it after so many seconds; None: it was killed or died."""
    result = _Process(run, url, setting, task).result(kill_after)
    return result if isinstance(result, Outcome) else None
