"""The ways that are measured: what each does, and on how much of the store."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from benchmarks import floor, limits, ours, seed
from benchmarks.composed import COMPOSED
from benchmarks.events import PROJECTORS
from benchmarks.peers import programs
from benchmarks.store import Store
from include.universal.projectors import CategorySummaryProjector, MonthlySummaryProjector
from projection_rebuild.authoring.projector import Projector

BY_HANDLERS = {"set_based": False}
"""The spec's section ``replay``: projectors that give SQL as well are replayed by their handlers."""
DIVIDED = BY_HANDLERS | {"shards": {"SpendingProjector": 6}}
"""What does not fit into ``max_memory`` as a whole is divided so that it does; what fits is not, since each shard reads the store for itself."""
BOUNDED = BY_HANDLERS | {"max_rows_in_memory": 50_000, "batch_events": 50_000}
SUMMARIES = (CategorySummaryProjector, MonthlySummaryProjector)

_runs = itertools.count(1)


class Scope(StrEnum):
    """How much of the store a way gets; tables named so hold the answer of the hand-written SQL to it."""

    ALL = "answer"
    PART = "partanswer"
    PEERS = "peeranswer"


@dataclass(frozen=True)
class Stage:
    """Where a way runs.

    :param part: how many of the first events a slow way gets; peers get three times as many, as they handle some types only
    """

    store: Store
    part: int

    def upto(self, scope: Scope) -> int:
        """The last position that a way gets."""
        sizes = {Scope.ALL: self.store.count, Scope.PART: self.part, Scope.PEERS: 3 * self.part}
        return min(sizes[scope], self.store.count)


@dataclass(frozen=True)
class Measured:
    """What one run of a way came to.

    :param parts: seconds of its parts, where it has some
    """

    seconds: float
    parts: dict[str, float] = field(default_factory=dict)
    peak_mib: float | None = None


@dataclass(frozen=True)
class Way:
    """One way of getting the tables.

    :param name: for the results
    :param title: for people
    :param says: what it does, and does not do
    :param run: does it
    :param suffix: the tables that it leaves; empty: none
    :param projectors: what it fills
    :param scope: how much of the store it gets
    :param strict: whether wrong rows end the benchmark; those of a peer are reported
    :param engines: where it runs; empty: everywhere
    :param rounds: in how many rounds it takes part at most
    """

    name: str
    title: str
    says: str
    run: Callable[[Stage], Measured]
    suffix: str = ""
    projectors: Sequence[type[Projector]] = PROJECTORS
    scope: Scope = Scope.ALL
    strict: bool = True
    engines: Sequence[str] = ()
    rounds: int = 1_000


def _seed(stage: Stage) -> Measured:
    return Measured(seed.run(stage.store, "seed", stage.upto(Scope.PART)))


def _floor(stage: Stage) -> Measured:
    parts = floor.run(stage.store, "floor")
    return Measured(sum(parts.values()), parts)


def _limits(stage: Stage) -> Measured:
    parts = {"read": limits.read(stage.store), "write": limits.write(stage.store, "limit", Scope.ALL)}
    return Measured(sum(parts.values()), parts)


def _ours(setup: ours.Setup) -> Callable[[Stage], Measured]:
    def run(stage: Stage) -> Measured:
        done = ours.run(stage.store, setup, f"benchmark-{next(_runs)}")
        return Measured(done.seconds, done.tasks, done.peak_mib)

    return run


def ways() -> list[Way]:
    """All of them, in the order of a round."""
    one = programs.PROJECTORS
    return [
        Way(
            "seed",
            "the seed's way: ORM, a commit per event",
            "One event at a time through the SQLAlchemy ORM into tables with all their indexes, a commit per event. No checkpoint.",
            _seed,
            "seed",
            scope=Scope.PART,
        ),
        Way(
            "floor",
            "hand-written SQL, one session",
            "One INSERT ... SELECT per table, from the events; key, indexes and statistics afterwards. No resume: all or nothing.",
            _floor,
            "floor",
        ),
        Way(
            "limit",
            "limit: read all events, load the finished rows",
            "What the database can do: every event to a client that throws it away, then the finished rows by COPY (LOAD DATA on "
            "MariaDB and MySQL, INSERT on SQLite), key, indexes and statistics. Nobody computes anything.",
            _limits,
            "limit",
        ),
        Way(
            "python1",
            "ours, Python handlers, 1 worker",
            "The projectors of the example application, a pass for each, one task after the other. Checkpoints commit with their rows.",
            _ours(ours.Setup(replay=BY_HANDLERS)),
            ours.SUFFIX,
        ),
        Way(
            "python2",
            "ours, Python handlers, 2 workers",
            "The same; two processes take the tasks.",
            _ours(ours.Setup(workers=2, replay=BY_HANDLERS)),
            ours.SUFFIX,
        ),
        Way(
            "composed1",
            "ours, Python handlers, expenses and summaries in one pass, 6 shards, 1 worker",
            "The same handlers; the three projectors that read the same events are composed to one (`composed_of`), which is divided into six "
            "shards, so that each fits into `max_memory`. One after the other.",
            _ours(ours.Setup(projectors=COMPOSED, replay=DIVIDED)),
            ours.SUFFIX,
        ),
        Way(
            "composed2",
            "ours, Python handlers, expenses and summaries in one pass, 6 shards, 2 workers",
            "The same; two processes take the tasks.",
            _ours(ours.Setup(workers=2, projectors=COMPOSED, replay=DIVIDED)),
            ours.SUFFIX,
        ),
        Way(
            "bounded",
            "ours, bounded fallback, 1 worker",
            "Transactions of 50,000 events at most, and 50,000 rows in memory at most; then all are forgotten, and those that events touch are "
            "loaded, changed and written back.",
            _ours(ours.Setup(replay=BOUNDED)),
            ours.SUFFIX,
            rounds=1,
        ),
        Way(
            "sets",
            "ours, the two summaries by SQL, 1 worker",
            "The summary projectors' set-based handlers: their SQL for one range of events after the other, each committed with its "
            "checkpoint, so that it adds to what is there. Compared with the hand-written SQL of these two tables.",
            _ours(ours.Setup(projectors=SUMMARIES)),
            ours.SUFFIX,
            projectors=SUMMARIES,
        ),
        Way(
            "sets2",
            "ours, the two summaries by SQL, 2 workers",
            "The same; each process takes one.",
            _ours(ours.Setup(workers=2, projectors=SUMMARIES)),
            ours.SUFFIX,
            projectors=SUMMARIES,
            rounds=1,
        ),
        Way(
            "one",
            "ours, Python handlers, subscriptions only, 1 worker",
            "One of the four projectors, reading its own event types; events count if it handles them.",
            _ours(ours.Setup(projectors=one)),
            ours.SUFFIX,
            projectors=one,
        ),
        *_peers(),
    ]


def _peers() -> list[Way]:
    known: dict[str, Any] = {
        "projectors": programs.PROJECTORS,
        "scope": Scope.PEERS,
        "strict": False,
        "engines": ("postgres",),
        "rounds": 1,
    }
    return [
        Way(
            "pyeventsourcing",
            "pyeventsourcing, ProjectionRunner, subscriptions only",
            "Follows an application live, from the beginning: each event in its own transaction, together with its position. It has no "
            "rebuild of its own, no batches and no switch. Its events are stored in its own format, without our padding.",
            lambda stage: Measured(programs.pyeventsourcing(stage.store, "pyeventsourcing", stage.upto(Scope.PEERS))),
            "pyeventsourcing",
            **known,
        ),
        *(
            Way(
                f"emmett{batch}",
                f"Emmett, rebuildPostgreSQLProjections, batches of {batch}, subscriptions only",
                "Its own rebuild, on Node: truncates and replays in place, a transaction per batch, a round trip per event, "
                "the checkpoint in the same transaction; no wait between batches (its default is 50 ms). " + of_it,
                partial(_emmett, batch=batch),
                f"emmett{batch}",
                **known,
            )
            for batch, of_it in ((100, "100 is its default."), (1_000, "Tuned."))
        ),
    ]


def _emmett(stage: Stage, batch: int) -> Measured:
    return Measured(programs.emmett(stage.store, f"emmett{batch}", stage.upto(Scope.PEERS), batch))
