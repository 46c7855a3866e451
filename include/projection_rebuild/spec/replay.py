"""How the engine replays events: ``replay`` and ``throttle``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, Self

from pydantic import Field

from projection_rebuild.spec.fields import Duration, Flag, Section, ShardCount, Whole
from projection_rebuild.spec.validation import validate


class OnError(StrEnum):
    """What the replay does at a poison event."""

    FAIL = "fail"
    DEAD_LETTER = "dead_letter"


class ReplaySection(Section):
    """How the engine replays events.

    The replay commits its rows with its checkpoint as soon as it reaches one of the first four limits.

    :param batch_events: the most events of one transaction; a retry after a kill repeats at most these. With
        ``on_error: dead_letter`` at most 10,000
    :param commit_every: about the longest time of a transaction of a projector's SQL. For handlers events and rows
        alone count, so that a slow machine does the same work
    :param max_memory: the most MiB for the rows of one projector or shard in its worker, beyond the worker's own
        memory. At the limit the replay writes the rows and loads them again when needed, which is several times slower
    :param max_rows_in_memory: the same limit as a number of rows; null: only ``max_memory`` counts
    :param shards: the number of shards of each projector that can be sharded; or a number for each projector
    :param set_based: whether the replay uses the SQL of projectors that have any, instead of their handlers
    :param on_error: whether a replay ends at a poison event, or sets it aside in the ledger and continues
    :param max_dead_letters: the most dead letters of one projector; the replay ends at the next one
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
        """The number of shards of a projector, if it can be sharded."""
        return self.shards if isinstance(self.shards, int) else self.shards.get(projector, 1)


class ThrottleSection(Section):
    """When a replay slows down to relieve the databases. The engine does not check a limit that is null.

    Above a limit the replay rests half of the time. Above twice the limit it waits until the value is within the limit.

    :param max_active_sessions: the most sessions that execute a statement, without the engine's own; not for SQLite
    :param max_replica_lag: the longest lag of the replicas; on other databases than PostgreSQL this needs
        ``replica_lag``
    :param replica_lag: SQL on the read models' database that returns the lag in seconds
    :param max_commit_latency: the longest time of one of the engine's own commits
    :param look_every: the time between two checks
    """

    max_active_sessions: Whole | None = Field(default=None, ge=0)
    max_replica_lag: Duration | None = None
    replica_lag: str | None = None
    max_commit_latency: Duration | None = None
    look_every: Duration = timedelta(seconds=1)

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """The limits that an operator sets during a run.

        :raises SpecError: a key cannot be used; the message names each such key
        """
        return validate(cls, given, "the limits")
