"""A proof that anyone can run: clients append, project and read through many rebuilds, some of them killed half-way.

``make prove`` or ``python -m tools.prove [--engine postgres] [--rebuilds 20]``. Prints what was lost, doubled and failed on
each database, and holds every table against an independent recomputation from the event store.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.synchronize import Event as Flag
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import Console

from include.projection_rebuild.rebuild import Rebuild
from include.projection_rebuild.spec import RebuildSpec, RunOptions
from include.universal import events, independent, live
from include.universal.projectors import ALL
from include.universal.schema import create_schema
from tests.servers import OwnServer, mariadb_server, mysql_server, postgres_server

SERVERS = {"postgres": postgres_server, "mariadb": mariadb_server, "mysql": mysql_server}
ENGINES = ["sqlite", *SERVERS]
SPEC = {
    "rebuild": "proof",
    "event_store": {"conn_id": "db"},
    "read_models": {"conn_id": "db"},
    "projectors": [f"include.universal.projectors:{each.__name__}" for each in ALL],
    "live_writer": "transactional",
    "verify": {"max_count_drift_percent": 50},
    "replay": {"batch_events": 500},
    "swap": {"attempts": 200},
}
_spawn = multiprocessing.get_context("spawn")


@dataclass
class Client:
    """What one client saw.

    :param longest: seconds of its longest transaction
    """

    done: int = 0
    failed: int = 0
    longest: float = 0.0
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """One transaction, timed; an error is counted, and the client goes on as a patient application would."""
        began = time.monotonic()
        try:
            yield
            self.done += 1
        except Exception as error:
            self.failed += 1
            self.errors.append(f"{type(error).__name__}: {str(getattr(error, 'orig', error))[:200]}")
        self.longest = max(self.longest, time.monotonic() - began)


@dataclass
class Proof:
    """What was counted on one database; all but the first three numbers and the stalls must be 0."""

    engine: str
    appended: int = 0
    rebuilds: int = 0
    kills: int = 0
    lost_or_doubled: int = 0
    failed_appends: int = 0
    failed_reads: int = 0
    longest_append: float = 0.0
    longest_read: float = 0.0
    median_pause: float = 0.0
    errors: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Lines for a terminal."""
        return "\n".join(
            [
                f"{self.engine}: {'holds' if self.holds else 'DOES NOT HOLD'}",
                f"  {self.appended:,} events appended and projected through {self.rebuilds} rebuilds, {self.kills} of them killed and retried",
                f"  lost or doubled: {self.lost_or_doubled}; failed appends: {self.failed_appends}; failed reads: {self.failed_reads}",
                f"  longest append: {self.longest_append * 1000:.0f} ms; longest read: {self.longest_read * 1000:.0f} ms; "
                f"median pause of a switch: {self.median_pause * 1000:.0f} ms",
                *(f"  error: {each}" for each in self.errors),
            ]
        )

    @property
    def holds(self) -> bool:
        """Nothing lost, nothing doubled, nobody failed."""
        return not (self.lost_or_doubled or self.failed_appends or self.failed_reads)


def writer(url: str, seed: int, stop: Flag, results: Any) -> None:
    """A client that appends and projects, an event a transaction."""
    seen = Client()
    live.traffic(sa.create_engine(url), 10_000_000, seed, stopped=stop.is_set, around=seen.measured)
    results.put(("writer", asdict(seen)))


def reader(url: str, in_transaction: bool, stop: Flag, results: Any) -> None:
    """A client that reads all tables, each in a statement of its own or several in one transaction."""
    seen = Client()
    together = "SERIALIZABLE" if url.startswith("sqlite") else "READ COMMITTED"
    engine = sa.create_engine(url, isolation_level=together if in_transaction else "AUTOCOMMIT")
    pick = random.Random(os.getpid())  # noqa: S311 - spreads, guards nothing
    while not stop.is_set():
        with seen.measured(), engine.connect() as connection:
            for table in pick.sample(list(independent.KEYS), 3 if in_transaction else 1):
                connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()  # noqa: S608 - names of ours
        time.sleep(0.002)
    results.put(("reader", asdict(seen)))


def rebuild_once(url: str, run_id: str, results: Any) -> None:
    """One whole rebuild; going on where an earlier process of this run was killed."""
    engine = sa.create_engine(url)
    made = Rebuild(RebuildSpec.model_validate(SPEC), run_id=run_id, event_store=engine, read_models=engine)
    steps = _remaining(made)
    for step in steps:
        step()
    results.put(("pause", made.report().swap.pause_seconds))  # type: ignore[union-attr]


def _remaining(made: Rebuild) -> list[Callable[[], object]]:
    try:
        state = made.report().state
    except Exception:
        state = "new"
    steps: list[Callable[[], object]] = []
    if state == "new":
        steps.append(lambda: made.plan(RunOptions(keep_old=False)))
    if state in ("new", "planned"):
        steps.append(made.clone_tables)
    if state in ("new", "planned", "cloned"):
        steps += [lambda: [made.replay(name) for name in made.chosen()], made.verify]
    return [*steps, made.swap, made.reconcile, made.drop_old]


def prove(kind: str, url: str, rebuilds: int, kills: int, writers: int = 3, readers: int = 2, seed: int = 1) -> Proof:
    """Runs clients through ``rebuilds`` rebuilds, ``kills`` of which are killed at a random moment and run again."""
    proof, pick = Proof(kind), random.Random(seed)  # noqa: S311 - has to repeat
    engine = sa.create_engine(url)
    if kind == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    create_schema(engine)
    events.append_all(engine, events.generate(2_000))
    engine.dispose()
    results, stop = _spawn.Queue(), _spawn.Event()
    _run(url, "fill", results)
    clients = [_spawn.Process(target=writer, args=(url, 100 + number, stop, results)) for number in range(writers)]
    clients += [_spawn.Process(target=reader, args=(url, number % 2 == 1, stop, results)) for number in range(readers)]
    for client in clients:
        client.start()
    try:
        doomed = set(pick.sample(range(rebuilds), min(kills, rebuilds)))
        for number in range(rebuilds):
            if number in doomed:
                proof.kills += _run(url, f"run-{number}", results, die_after=pick.uniform(0.8, 2.5))
            _run(url, f"run-{number}", results)
            proof.rebuilds += 1
    finally:
        stop.set()
        _collect(proof, clients, results)
    proof.lost_or_doubled = _differences(engine)
    return proof


def _run(url: str, run_id: str, results: Any, die_after: float | None = None) -> int:
    """A rebuild in a process of its own; returns 1 if it was killed before its end."""
    worker = _spawn.Process(target=rebuild_once, args=(url, run_id, results))
    worker.start()
    worker.join(die_after)
    if worker.is_alive() and die_after is not None and worker.pid:
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        return 1
    worker.join(300)
    if worker.exitcode != 0:
        raise RuntimeError(f"the rebuild {run_id} failed by itself (exit code {worker.exitcode})")
    return 0


def _collect(proof: Proof, clients: list[Any], results: Any) -> None:
    pauses, waiting = [], len(clients)
    while waiting:
        what, found = results.get(timeout=60)
        if what == "pause":
            pauses.append(found)
            continue
        waiting -= 1
        proof.errors += found["errors"][:5]
        if what == "writer":
            proof.appended += found["done"]
            proof.failed_appends += found["failed"]
            proof.longest_append = max(proof.longest_append, found["longest"])
        else:
            proof.failed_reads += found["failed"]
            proof.longest_read = max(proof.longest_read, found["longest"])
    for client in clients:
        client.join()
    proof.median_pause = sorted(pauses)[len(pauses) // 2] if pauses else 0.0


def _differences(engine: sa.Engine) -> int:
    """Rows that are not as the events say, over all tables."""
    expected, actual = independent.expected_tables(engine), independent.actual_tables(engine)
    return sum(
        expected[table].get(key) != actual[table].get(key)
        for table in independent.KEYS
        for key in expected[table].keys() | actual[table].keys()
    )


def main() -> int:
    """The command line; 0 if the proof holds on every engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this one (may be repeated)")
    parser.add_argument("--rebuilds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=6)
    given = parser.parse_args()
    say, held = Console(highlight=False, soft_wrap=True), True
    for kind in given.engine or ENGINES:
        with _database(kind) as url:
            proof = prove(kind, url, given.rebuilds, given.kills)
        say.print(proof.describe())
        held = held and proof.holds
    return 0 if held else 1


@contextmanager
def _database(kind: str) -> Iterator[str]:
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'proof.db'}"
        return
    server = SERVERS[kind]()
    try:
        yield server.create_database("proof").render_as_string(hide_password=False)
    finally:
        if isinstance(server, OwnServer):
            server.remove()


if __name__ == "__main__":
    raise SystemExit(main())
