"""Our own ways: a rebuild's clone and replay as a scheduler runs them, by worker processes that take one task after the other."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.events import PROJECTORS
from benchmarks.store import Store
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec

SUFFIX = "rebuild"
"""Green tables are named so."""


@dataclass(frozen=True)
class Setup:
    """How ours is run.

    :param workers: how many processes share the tasks
    :param replay: the spec's section ``replay``; whatever is missing is the product's default
    :param projectors: what is rebuilt
    """

    workers: int = 1
    replay: dict[str, Any] = field(default_factory=dict)
    projectors: Sequence[type[Projector]] = PROJECTORS

    def spec(self) -> dict[str, Any]:
        """The rebuild, as a YAML file would say it."""
        return {
            "rebuild": "benchmark",
            "event_store": {"conn_id": "db"},
            "read_models": {"conn_id": "db"},
            "projectors": [f"{each.__module__}:{each.__name__}" for each in self.projectors],
            "live_writer": "transactional",
            "replay": self.replay,
        }


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    :param tasks: seconds of each task
    :param peak_mib: the largest resident memory of a worker
    """

    seconds: float
    tasks: dict[str, float]
    peak_mib: float


def run(store: Store, setup: Setup, run_id: str) -> Outcome:
    """Clones and replays into the green tables, indexes and statistics included.

    Timed from the first statement of ``clone_tables`` to the end of the last replay. The workers have been started before, as
    the sessions of all other ways have; what a scheduler adds to start a task is not in it.
    """
    with _workers(store, setup) as workers:
        rebuild = rebuild_of(store.url, setup.spec(), run_id)
        try:
            plan = rebuild.plan(RunOptions(keep_old=False), is_over=lambda other: True)
            store.settle()
            began = time.monotonic()
            rebuild.clone_tables()
            done = _scheduled(workers, rebuild, run_id, plan.projectors)
            seconds = time.monotonic() - began
            rebuild.abandon()
        finally:
            rebuild.close()
    return Outcome(seconds, {task: took for task, took, _ in done}, max(peak for _, _, peak in done))


def _scheduled(workers: Pool, rebuild: Rebuild, run_id: str, projectors: Iterable[str]) -> list[tuple[str, float, float]]:
    """All tasks of the replays, in the order in which the DAG has them: shards, what is not divided beside them, and the joins."""
    shards = rebuild.shards()
    divided = {name for name, _ in shards}
    first = workers.starmap_async(_replay, [(run_id, *each) for each in shards], chunksize=1)
    whole = workers.starmap_async(_replay, [(run_id, name, None) for name in projectors if name not in divided], chunksize=1)
    done = first.get()
    joins = workers.starmap_async(_replay, [(run_id, name, None) for name in projectors if name in divided], chunksize=1)
    return [*done, *whole.get(), *joins.get()]


def rebuild_of(url: str, spec: dict[str, Any], run_id: str) -> Rebuild:
    """A run, over connections of its own.

    :param spec: see :meth:`Setup.spec`
    """
    engine = sa.create_engine(url)
    return Rebuild(RebuildSpec.model_validate(spec), run_id=run_id, event_store=engine, read_models=engine)


# In a worker's process ------------------------------------------------------------------------------------------------


@dataclass
class _Worker:
    """What a worker's process was started with."""

    url: str = ""
    spec: dict[str, Any] = field(default_factory=dict)


_worker = _Worker()


@contextmanager
def _workers(store: Store, setup: Setup) -> Iterator[Pool]:
    """Processes that are up and wait for tasks. Begun anew for each run, so that each one's memory is its own."""
    # Forked from a process that has imported all this and nothing else, and holds no connection.
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload([__name__, *{each.__module__ for each in setup.projectors}])
    all_up, begun = fresh.Barrier(setup.workers + 1), fresh.Event()
    # Each task has a process of its own, as a scheduler gives it one.
    with fresh.Pool(setup.workers, _start, (store.url, setup.spec(), all_up, begun), maxtasksperchild=1) as pool:
        all_up.wait()
        begun.set()
        yield pool


def _start(url: str, spec: dict[str, Any], all_up: Barrier, begun: Event) -> None:
    _worker.url, _worker.spec = url, spec
    if not begun.is_set():
        all_up.wait()


def _replay(run_id: str, projector: str, shard: int | None) -> tuple[str, float, float]:
    began = time.monotonic()
    rebuild = rebuild_of(_worker.url, _worker.spec, run_id)
    try:
        if shard is None:
            rebuild.replay(projector)
        else:
            rebuild.replay_shard(projector, shard)
    finally:
        rebuild.close()
    task = projector if shard is None else f"{projector}, shard {shard}"
    return task, time.monotonic() - began, _peak_mib()


def _peak_mib() -> float:
    """This process's largest resident memory. Not from getrusage: that one inherits the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell VmHWM")
