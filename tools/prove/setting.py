"""The setting of a proof: a database, the contract of its live writers, and the form of their transactions."""

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
    """The form of an appending transaction."""

    APPEND = "append"
    RBA = "rba"
    """Reads a row of a read model, then appends ("read before append")."""


@dataclass(frozen=True)
class Setting:
    """One combination to prove.

    :param engine: one of :data:`ENGINES`
    :param contract: the contract by which the clients work
    :param declared: the contract that the spec declares; None: the same. A wrong one shows the harm that the right one
        prevents
    :param leisure: the factor for the pauses of all clients between two transactions
    """

    engine: str
    contract: LiveWriter
    clients: Clients
    declared: LiveWriter | None = None
    leisure: int = 1

    def describe(self) -> str:
        """The setting in words, such as ``mysql, detached, rba``."""
        wrong = f" (declared as {self.declared})" if self.declared not in (None, self.contract) else ""
        return f"{self.engine}, {self.contract}{wrong}, {self.clients}"

    def spec(self) -> RebuildSpec:
        """The spec of a rebuild of all tables, with the default bounds of the cutover."""
        return RebuildSpec.model_validate(
            {
                "rebuild": "proof",
                "event_store": {"conn_id": "db"},
                "read_models": {"conn_id": "db"},
                "projectors": [f"{projector.__module__}:{projector.__name__}" for projector in PROJECTORS],
                "live_writer": _LIVE_WRITERS[self.declared or self.contract],
                # Clients append to blue while the verification compares green with it.
                "verify": {"max_count_drift_percent": 100},
                "replay": {"batch_events": 500},
            }
        )

    def projected(self) -> str:
        """A ``WHERE`` clause that selects the events that blue must contain now.

        A consumer or a job has yet to project the others.
        """
        return _PROJECTED[self.contract]

    def backlog(self) -> str:
        """A query for the number of events that are not projected yet; empty: appenders project at once."""
        return _BACKLOG[self.contract]


_LIVE_WRITERS: dict[LiveWriter, Any] = {
    LiveWriter.TRANSACTIONAL: "transactional",
    LiveWriter.CHECKPOINTED: {
        "contract": "checkpointed",
        "checkpoint": {
            "table": "consumer_positions",
            "name_column": "name",
            "position_column": "position",
            "names": {projector.__name__: CONSUMER for projector in PROJECTORS},
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
