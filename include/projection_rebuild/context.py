"""What every step of one run works with: spec, databases, ledger and names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from include.projection_rebuild.dialects import Dialect
from include.projection_rebuild.event_store import EventStore
from include.projection_rebuild.ledger import Checkpoint, Ledger, Run
from include.projection_rebuild.names import Form, TableSet
from include.projection_rebuild.plan import Plan
from include.projection_rebuild.projector import Projector
from include.projection_rebuild.spec import RebuildSpec, RunOptions


@dataclass(frozen=True)
class Context:
    """One run at work.

    :param dialect: the read-model database
    :param store: the event store, perhaps in another database
    :param schema: the schema of read models and ledger
    :param one_database: whether events and read models commit in the same database
    :param progress: told now and then how far a replay is, with its events per second
    """

    spec: RebuildSpec
    run_id: str
    dialect: Dialect
    store: EventStore
    ledger: Ledger
    schema: str | None
    one_database: bool
    projectors: dict[str, type[Projector]]
    log: Callable[[str], None]
    progress: Callable[[Checkpoint, float], None]

    def projector(self, name: str) -> type[Projector]:
        """A projector of the spec by its name."""
        return self.projectors[name]

    def table_set(self, table: str, plan: Plan | None = None) -> TableSet:
        """The blue, green and old names of a live table, with the structure that a plan gives it."""
        form = Form(plan.forms[table], tuple(plan.views.items())) if plan and table in plan.forms else None
        return TableSet.of(table, schema=self.schema, limit=self.dialect.max_identifier, form=form)

    def table_sets(self, plan: Plan) -> list[TableSet]:
        """The names of all tables of the run, parents first."""
        return [self.table_set(table, plan) for table in plan.tables]

    def switched_sets(self, plan: Plan) -> list[TableSet]:
        """The names of all tables that the run switches: its read models, and the positions of their consumers."""
        consumers = self.spec.live_writer.checkpoint
        return self.table_sets(plan) + ([self.table_set(consumers.table)] if consumers else [])

    @staticmethod
    def plan_of(run: Run) -> Plan:
        """The plan as the ledger keeps it."""
        return Plan.model_validate(run.record["plan"])

    @staticmethod
    def options_of(run: Run) -> RunOptions:
        """The run's choices as the ledger keeps them."""
        return RunOptions.of_record(run.record["options"])
