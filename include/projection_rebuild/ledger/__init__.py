"""The ledger: the engine's own tables beside the read models. They record claims, progress and results of runs.

Each aggregate has a repository of its own. Repositories use SQLAlchemy Core and no SQL of a single database. Writes of
a batch or a swap use the caller's connection, in its transaction.
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
    :param schema: the schema of the tables, which is that of the read models
    """

    def __init__(self, dialect: Dialect, schema: str | None) -> None:
        self.dialect = dialect
        self.schema = ledger_schema.tables_in(schema)

    @property
    def tables(self) -> list[str]:
        """The names of the ledger's tables."""
        return [table.name for table in self.schema.tables]

    def create(self, connection: sa.Connection) -> None:
        """Creates missing tables, see :func:`projection_rebuild.ledger.schema.create`."""
        ledger_schema.create(self.dialect, connection, self.schema)

    def over(self, connection: sa.Connection, run_id: str) -> RunLedger:
        """The ledger of one run over one connection."""
        return RunLedger(self, connection, run_id)


class RunLedger:
    """The ledger of one run over one connection, one repository for each aggregate.

    :param ledger: the tables
    :param connection: a connection to the database; writes are part of its open transaction
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
        """Creates missing tables."""
        self._ledger.create(self._connection)

    def exists(self) -> bool:
        """Whether the ledger exists in this schema, so that a run may have been planned."""
        return ledger_schema.exists(self._ledger.dialect, self._connection, self._ledger.schema.retired)

    def take_over(self, dead: str) -> None:
        """Moves all claims of a run that is over to this run, and fences out the workers of that run.

        :param dead: the id of the run that is over
        """
        before = self.of(dead)
        before.claims.hand_over(self._run_id)
        before.runs.give_up()
        before.checkpoints.fence()
