"""What a proof is about: a database, a contract of its live writers, and what their transactions look like."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from include.universal.live import CONSUMER
from projection_rebuild.dialects import dialect_for
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.spec.live_writer import LiveWriter
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.stores import EventStoreSection
from tools.prove.witness import PROJECTORS

ENGINES = ("sqlite", "postgres", "mariadb", "mysql")
WORKERS = 2
"""Queues of the contract detached, each with a worker of its own."""


class Clients(StrEnum):
    """What an appending transaction does first."""

    APPEND = "append"
    RBA = "rba"
    """It reads a projection row, then appends."""


@dataclass(frozen=True)
class Setting:
    """One combination that is proved.

    :param engine: one of :data:`ENGINES`
    :param contract: what the clients keep
    :param declared: what the spec says of them; a wrong one shows what harm its protocol prevents
    :param leisure: how many times as long all clients think between two transactions as they do by default
    """

    engine: str
    contract: LiveWriter
    clients: Clients
    declared: LiveWriter | None = None
    leisure: int = 1

    def describe(self) -> str:
        """``mysql, detached, rba``."""
        wrong = f" (declared as {self.declared})" if self.declared not in (None, self.contract) else ""
        return f"{self.engine}, {self.contract}{wrong}, {self.clients}"

    def spec(self) -> RebuildSpec:
        """The rebuild of all tables; its bounds are the product's own."""
        return RebuildSpec.model_validate(
            {
                "rebuild": "proof",
                "event_store": {"conn_id": "db"},
                "read_models": {"conn_id": "db"},
                "projectors": [f"{each.__module__}:{each.__name__}" for each in PROJECTORS],
                "live_writer": _LIVE_WRITERS[self.declared or self.contract],
                # Blue goes on growing while green is compared with it.
                "verify": {"max_count_drift_percent": 100},
                "replay": {"batch_events": 500},
            }
        )

    def projected(self) -> str:
        """A WHERE clause: the events that blue must hold now; a consumer or a job has yet to project the others."""
        return _PROJECTED[self.contract]

    def backlog(self) -> str:
        """A query: how many events a consumer or a worker has yet to project; empty where they project at once."""
        return _BACKLOG[self.contract]


_LIVE_WRITERS: dict[LiveWriter, Any] = {
    LiveWriter.TRANSACTIONAL: "transactional",
    LiveWriter.CHECKPOINTED: {
        "contract": "checkpointed",
        "checkpoint": {
            "table": "consumer_positions",
            "name_column": "name",
            "position_column": "position",
            "names": {each.__name__: CONSUMER for each in PROJECTORS},
        },
    },
    LiveWriter.DETACHED: {"contract": "detached", "jobs_left": "SELECT position FROM jobs"},
}
_PROJECTED = {
    LiveWriter.TRANSACTIONAL: "",
    LiveWriter.CHECKPOINTED: "WHERE id <= (SELECT min(position) FROM consumer_positions)",
    LiveWriter.DETACHED: "WHERE id NOT IN (SELECT position FROM jobs)",
}
_BACKLOG = {
    LiveWriter.TRANSACTIONAL: "",
    LiveWriter.CHECKPOINTED: "SELECT (SELECT max(id) FROM stored_events) - (SELECT min(position) FROM consumer_positions)",
    LiveWriter.DETACHED: "SELECT count(*) FROM jobs",
}


def event_store(engine: sa.Engine) -> EventStore:
    """The application's event store, as its consumers and workers read it."""
    return EventStore(dialect_for(engine), EventStoreSection(conn_id="db"))
