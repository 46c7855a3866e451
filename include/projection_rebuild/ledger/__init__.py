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
    "RunLedger",
    "RunRecord",
    "RunState",
    "Runs",
    "Shards",
    "Signals",
    "Wait",
    "refuse_within_switch",
]


class Ledger:
    """The ``projection_rebuild_*`` tables of one read-model database.

    :param dialect: the database
    :param schema: where the tables are; the same schema as the read models
    """

    def __init__(self, dialect: Dialect, schema: str | None) -> None:
        self.dialect = dialect
        self.schema = ledger_schema.tables_in(schema)

    @property
    def tables(self) -> list[str]:
        """The names of its tables."""
        return [table.name for table in self.schema.tables]

    def create(self, connection: sa.Connection) -> None:
        """Makes the tables that are missing, see :func:`projection_rebuild.ledger.schema.create`."""
        ledger_schema.create(self.dialect, connection, self.schema)

    def over(self, connection: sa.Connection, run_id: str) -> RunLedger:
        """What it holds of one run, over one connection."""
        return RunLedger(self, connection, run_id)


class RunLedger:
    """The ledger of one run over one connection, one repository for each aggregate.

    :param ledger: the tables
    :param connection: to the database; what is written is part of the transaction that is open on it
    :param run_id: the run
    """

    def __init__(self, ledger: Ledger, connection: sa.Connection, run_id: str) -> None:
        self._ledger = ledger
        self._connection = connection
        self._run_id = run_id
        of_run = ledger.dialect, ledger.schema, connection, run_id
        self.runs = Runs(*of_run)
        self.claims = Claims(*of_run)
        self.owned_tables = OwnedTables(*of_run)
        self.checkpoints = Checkpoints(*of_run)
        self.shards = Shards(*of_run)
        self.dead_letters = DeadLetters(*of_run)
        self.partial_rebuilds = PartialRebuilds(*of_run)
        self.external_calls = ExternalCalls(*of_run)
        self.signals = Signals(*of_run)
        self.reports = Reports(*of_run)

    def of(self, run_id: str) -> RunLedger:
        """The ledger of another run over the same connection."""
        return RunLedger(self._ledger, self._connection, run_id)

    def create(self) -> None:
        """Makes the tables that are missing."""
        self._ledger.create(self._connection)

    def exists(self) -> bool:
        """Whether any run has ever been planned here."""
        return ledger_schema.exists(self._ledger.dialect, self._connection, self._ledger.schema.retired)

    def take_over(self, dead: str) -> None:
        """Gives this run all claims of a run that is over, and makes the dead run's workers stop at their next write."""
        before = self.of(dead)
        before.claims.hand_over(self._run_id)
        before.runs.give_up()
        before.checkpoints.fence()
