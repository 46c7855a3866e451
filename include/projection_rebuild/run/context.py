"""The context that all steps of a run share: spec, databases, ledger and names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.dialects import Dialect
from projection_rebuild.errors import SpecError
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.ledger import Checkpoint, Ledger, Run
from projection_rebuild.model.limits import shown
from projection_rebuild.model.names import TableSet, TargetSchema
from projection_rebuild.model.plan import Plan
from projection_rebuild.run import agreed
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.registry import ProjectorRegistry


@dataclass(frozen=True)
class Context:
    """What all steps of a run share.

    :param dialect: the read-model database
    :param store: the event store, perhaps in another database
    :param schema: the schema of read models and ledger; None: a connection has just one
    :param one_database: whether events and read models commit in the same database
    :param log: gets what a step reports, a line at a time
    :param progress: gets the checkpoint of a replay from time to time, with its events per second
    """

    spec: RebuildSpec
    run_id: str
    dialect: Dialect
    store: EventStore
    ledger: Ledger
    schema: str | None
    one_database: bool
    projectors: ProjectorRegistry
    log: Callable[[str], None]
    progress: Callable[[Checkpoint, float], None]

    def projector(self, name: str) -> type[Projector]:
        """A projector of the spec by its name.

        :raises SpecError: the spec has none of this name
        """
        if name not in self.projectors:
            raise SpecError(f"this spec has no projector {shown(name)}; it has {', '.join(self.projectors)}")
        return self.projectors[name]

    def table_set(self, table: str, plan: Plan | None = None) -> TableSet:
        """The blue, green and old names of a live table.

        :param plan: a plan that may give the table a new structure
        """
        target_schema = TargetSchema(plan.forms[table], tuple(plan.views.items())) if plan and table in plan.forms else None
        return TableSet.of(table, schema=self.schema, limit=self.dialect.max_identifier, target_schema=target_schema)

    def table_sets(self, plan: Plan) -> list[TableSet]:
        """The names of all tables of the run, parents first."""
        return [self.table_set(table, plan) for table in plan.tables]

    def switched_sets(self, plan: Plan) -> list[TableSet]:
        """The names of all tables that the run swaps: its read models, and the table of their consumers' positions."""
        consumers = self.spec.live_writer.checkpoint
        return self.table_sets(plan) + ([self.table_set(consumers.table)] if consumers else [])

    def plan_of(self, run: Run) -> Plan:
        """The plan of a run, for a step that works by it.

        :raises SpecError: it is the plan of this run, and the spec has been edited since; names the edits
        """
        if run.run_id == self.run_id and (changed := self.edited(run)):
            raise agreed.refusal(run, changed)
        return run.plan

    def edited(self, run: Run) -> list[str]:
        """The edits of the spec since a run was planned that matter to the rest of the run, each in words."""
        return agreed.edited(self.spec, self.projectors, run)
