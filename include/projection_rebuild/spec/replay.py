"""How events are replayed: ``replay`` and ``throttle``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, Self

from pydantic import Field

from projection_rebuild.spec.fields import Duration, Flag, Section, ShardCount, Whole
from projection_rebuild.spec.validation import validate


class OnError(StrEnum):
    """What becomes of an event that cannot be projected."""

    FAIL = "fail"
    DEAD_LETTER = "dead_letter"


class ReplaySection(Section):
    """How events are replayed.

    What has been folded in memory is committed, with its checkpoint, as soon as one of the first four is reached.

    :param batch_events: events per transaction at most: what a retry has to do again after a kill. Where events may be set aside, 10,000
    :param commit_every: about how long a transaction of a projector's SQL may take. Handlers go by events and rows alone, so that the
        work is the same on a slow machine
    :param max_memory: MiB that the rows of one projector, or of one of its shards, may take in its worker, beyond what this takes
        anyway. Then they are written and forgotten, and loaded again when needed, which is several times slower
    :param max_rows_in_memory: the same as a number of rows; null: only ``max_memory`` counts
    :param shards: into how many parts a projector that can be divided is replayed; or the same by projector
    :param set_based: whether projectors that give SQL are replayed by it, instead of by their handlers
    :param on_error: whether a replay ends at an event that cannot be projected, or sets it aside in the ledger and goes on
    :param max_dead_letters: how many events may be set aside per projector before the replay ends all the same
    """

    batch_events: Whole = Field(default=1_000_000, ge=1)
    commit_every: Duration = timedelta(seconds=5)
    max_memory: Whole = Field(default=128, ge=1)
    max_rows_in_memory: Whole | None = Field(default=None, ge=0)
    shards: ShardCount | dict[str, ShardCount] = 1
    set_based: Flag = True
    on_error: OnError = OnError.FAIL
    max_dead_letters: Whole = Field(default=100, ge=1)

    def shards_of(self, projector: str) -> int:
        """Into how many parts a projector is replayed, if it can be divided."""
        return self.shards if isinstance(self.shards, int) else self.shards.get(projector, 1)


class ThrottleSection(Section):
    """When a replay slows down for the sake of the databases. A limit that is null is not looked at.

    Above a limit the replay rests for as long as it works; above twice the limit it waits until it is kept again.

    :param max_active_sessions: sessions that are executing something, ours left out; not known on SQLite
    :param max_replica_lag: how far replicas are behind; PostgreSQL tells, elsewhere ``replica_lag`` has to
    :param replica_lag: SQL on the read models' database that gives the lag in seconds
    :param max_commit_latency: what one of our own commits takes
    :param look_every: the time between two looks
    """

    max_active_sessions: Whole | None = Field(default=None, ge=0)
    max_replica_lag: Duration | None = None
    replica_lag: str | None = None
    max_commit_latency: Duration | None = None
    look_every: Duration = timedelta(seconds=1)

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Limits that are given while a run goes on.

        :raises SpecError: names each key that cannot be used
        """
        return validate(cls, given, "the limits")
