"""The ledger: our own tables beside the read models. They say which run works on what, and how far it has come.

Each aggregate has a repository of its own. A repository works over SQLAlchemy Core and knows nothing of a database beyond what
SQLAlchemy renders. What belongs to a batch or to a switch is written on the caller's connection, inside its transaction.
"""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.ledger import schema as ledger_schema
from projection_rebuild.ledger.checkpoints import SHARD, Checkpoint, Checkpoints
from projection_rebuild.ledger.claims import Claims
from projection_rebuild.ledger.dead_letters import DeadLetter, DeadLetters
from projection_rebuild.ledger.external_calls import ExternalCalls
from projection_rebuild.ledger.owned_tables import OwnedTables, Retired
from projection_rebuild.ledger.partial_rebuilds import PartialRebuilds, PartialState
from projection_rebuild.ledger.reports import Code, Reports
from projection_rebuild.ledger.run_record import Identities, RecordChanges, Run, RunRecord, refuse_within_switch
from projection_rebuild.ledger.runs import Runs
from projection_rebuild.ledger.shards import Asked, Shards
from projection_rebuild.ledger.signals import Note, Signals, Wait
from projection_rebuild.ledger.states import INTERRUPTED_AT_SWITCH, TRANSITIONS, RunState

__all__ = [
    "INTERRUPTED_AT_SWITCH",
    "SHARD",
    "TRANSITIONS",
    "Asked",
    "Checkpoint",
    "Checkpoints",
    "Claims",
    "Code",
    "DeadLetter",
    "DeadLetters",
    "ExternalCalls",
    "Identities",
    "Ledger",
    "Note",
    "OwnedTables",
    "PartialRebuilds",
    "PartialState",
    "RecordChanges",
    "Reports",
    "Retired",
    "Run",
    "RunRecord",
    "RunState",
    "Runs",
    "Shards",
    "Signals",
    "Wait",
    "refuse_within_switch",
]


class Ledger:
    """The ``projection_rebuild_*`` tables of one read-model database, one repository for each aggregate.

    :param dialect: the database
    :param schema: where the tables are; the same schema as the read models
    """

    def __init__(self, dialect: Dialect, schema: str | None) -> None:
        self._dialect = dialect
        self._schema = ledger_schema.tables_in(schema)
        self.runs = Runs(dialect, self._schema)
        self.claims = Claims(dialect, self._schema)
        self.owned_tables = OwnedTables(dialect, self._schema)
        self.checkpoints = Checkpoints(dialect, self._schema)
        self.shards = Shards(dialect, self._schema, self.checkpoints)
        self.dead_letters = DeadLetters(dialect, self._schema)
        self.partial_rebuilds = PartialRebuilds(dialect, self._schema)
        self.external_calls = ExternalCalls(dialect, self._schema)
        self.signals = Signals(dialect, self._schema)
        self.reports = Reports(dialect, self._schema)

    @property
    def tables(self) -> list[str]:
        """The names of its tables."""
        return [table.name for table in self._schema.tables]

    def create(self, connection: sa.Connection) -> None:
        """Makes the tables that are missing, see :func:`projection_rebuild.ledger.schema.create`."""
        ledger_schema.create(self._dialect, connection, self._schema)

    def exists(self, connection: sa.Connection) -> bool:
        """Whether any run has ever been planned here."""
        return ledger_schema.exists(self._dialect, connection, self._schema.retired)

    def take_over(self, connection: sa.Connection, dead: str, heir: str) -> None:
        """Gives all claims of a run that is over to another, and makes the dead run's workers stop at their next write."""
        self.claims.hand_over(connection, dead, heir)
        self.runs.give_up(connection, dead)
        self.checkpoints.fence(connection, dead)
