"""The input of the checks: a run before it begins, with the facts that several checks need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import sqlalchemy as sa

from projection_rebuild.authoring.parts import Selection
from projection_rebuild.dialects import Dialect
from projection_rebuild.errors import PlanError
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.model.names import TableSet, TargetSchema
from projection_rebuild.model.plan import Space
from projection_rebuild.planning.schema_trial import SchemaChange, tried
from projection_rebuild.rows.types import RowType
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step
from projection_rebuild.spec.dependencies import sort
from projection_rebuild.spec.options import RunOptions


@dataclass(frozen=True)
class PreflightInput:
    """One run before it begins. It works out each fact once, when a check or the plan first needs it.

    :param step: the run over its connection to the read models
    :param options: the options of the run
    :param part: the part that the run rebuilds; None: everything
    """

    step: Step
    options: RunOptions
    part: Selection | None

    @property
    def context(self) -> Context:
        """What every step of the run works with."""
        return self.step.context

    @property
    def connection(self) -> sa.Connection:
        """The connection to the read models."""
        return self.step.connection

    @property
    def dialect(self) -> Dialect:
        """The read-model database."""
        return self.context.dialect

    @cached_property
    def projectors(self) -> list[str]:
        """The names of the chosen projectors that the spec has, in the order of their dependencies.

        If dependencies form a circle, the projectors are in the order of the options.
        """
        registry = self.context.projectors
        known = tuple(name for name in self.options.projectors or registry if name in registry)
        try:
            return registry.choose(self.options.model_copy(update={"projectors": known}))
        except PlanError:
            return list(known)

    @cached_property
    def kinds(self) -> dict[str, RowType]:
        """The row types of the chosen projectors, by table."""
        return {kind.table: kind for name in self.projectors for kind in self.context.projector(name).kinds()}

    @cached_property
    def tables(self) -> list[TableSet]:
        """The tables that the run would swap, existing or not: read models, and the table of their consumers."""
        consumers = self.context.spec.live_writer.checkpoint
        return [self.context.table_set(name) for name in [*self.kinds, *([consumers.table] if consumers else [])]]

    @cached_property
    def schema_change(self) -> SchemaChange:
        """The result of the trial of the structure that the spec names."""
        read_models = [table for table in self._existing if table.blue in self.kinds]
        return tried(self.step, read_models, self.kinds)

    @cached_property
    def existing(self) -> list[TableSet]:
        """The tables that exist, each with its new structure if the spec names one."""
        change = self.schema_change
        views = tuple(change.views.items())
        return [
            replace(table, target_schema=TargetSchema(change.definitions[table.blue], views))
            if table.blue in change.definitions
            else table
            for table in self._existing
        ]

    @cached_property
    def filling_order(self) -> list[str]:
        """The read models that exist, parents first.

        :raises PlanError: their foreign keys point at each other in a circle
        """
        names = [table.blue for table in self.existing if table.blue in self.kinds]
        parents = {name: self.dialect.dependents.parents(self.connection, self.context.schema, name) for name in names}
        parents |= self.schema_change.parents
        return sort(
            {name: sorted(parents[name] & set(names)) for name in names},
            "the foreign keys of these tables point at each other in a circle",
            "there is no order in which they could be filled. Drop one of these foreign keys",
        )

    @cached_property
    def space(self) -> Space:
        """The disk space that the doubles need, and the free space, in bytes."""
        dialect, connection = self.dialect, self.connection
        needed = sum(dialect.inspector.table_bytes(connection, table.schema, table.blue) for table in self.existing)
        free = dialect.probe.free_bytes(connection)
        if free is not None:
            # The run drops green tables of an earlier attempt before it creates its own.
            leftover = [table for table in self.existing if dialect.inspector.table_exists(connection, table.schema, table.green)]
            free += sum(dialect.inspector.table_bytes(connection, table.schema, table.green) for table in leftover)
        return Space(needed=needed, free=free)

    @cached_property
    def _existing(self) -> list[TableSet]:
        return [table for table in self.tables if self._exists(table)]

    def _exists(self, table: TableSet) -> bool:
        """Whether a live table exists.

        A table that the engine lacks the privilege to see counts as missing: `shape` and `contract` report it.
        """
        try:
            return self.dialect.inspector.table_exists(self.connection, table.schema, table.blue)
        except Exception as error:
            if trouble_of(error) is None or not self.dialect.is_permission_error(error):
                raise
            return False
