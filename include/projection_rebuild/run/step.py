"""One step of a run: the run over one connection, as the ledger had it when the step began.

A step writes the rows and records of a batch or of the swap over this connection, in the transaction that is open on
it. It reads the run's record once and keeps it. To see what other workers have written since, a step reads the ledger
again, by ``step.ledger.runs.get()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import sqlalchemy as sa

from projection_rebuild.dialects import Dialect
from projection_rebuild.ledger import Run, RunLedger, RunState
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.plan import Plan
from projection_rebuild.run.context import Context
from projection_rebuild.spec.rebuild import RebuildSpec


class Step:
    """One run over one connection.

    :param context: what all steps of the run share
    :param connection: a connection to the read-model database
    :param requires: the state that the run must have reached, for :attr:`run`
    """

    def __init__(self, context: Context, connection: sa.Connection, *, requires: RunState = RunState.PLANNED) -> None:
        self.context = context
        self.connection = connection
        self.ledger: RunLedger = context.ledger.over(connection, context.run_id)
        self._requires = requires

    @cached_property
    def run(self) -> Run:
        """The run as the ledger had it when the step first read it.

        :raises StepOrderError: the ledger has no such run, an operator gave it up, or it has not reached the state that
            the step requires
        """
        return self.ledger.runs.get(requires=self._requires)

    @cached_property
    def plan(self) -> Plan:
        """The plan of the run.

        :raises SpecError: the spec has been edited since the run was planned
        """
        return self.context.plan_of(self.run)

    @property
    def tables(self) -> list[TableSet]:
        """The names of all tables of the run, parents first."""
        return self.context.table_sets(self.plan)

    @property
    def switched_tables(self) -> list[TableSet]:
        """The names of all tables that the run swaps; see :meth:`Context.switched_sets`."""
        return self.context.switched_sets(self.plan)

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self.context.run_id

    @property
    def spec(self) -> RebuildSpec:
        """The spec of the rebuild."""
        return self.context.spec

    @property
    def dialect(self) -> Dialect:
        """The read-model database."""
        return self.context.dialect

    @property
    def schema(self) -> str | None:
        """The schema of read models and ledger."""
        return self.context.schema

    @property
    def log(self) -> Callable[[str], None]:
        """The function that gets what the step reports, a line at a time."""
        return self.context.log


@contextmanager
def open_step(context: Context, *, requires: RunState | None = None, migrates: bool = False) -> Iterator[Step]:
    """Opens a step of the run over a connection of its own.

    :param requires: the state that the run must have reached; None: the step reads the run when it needs it
    :param migrates: the step first creates the ledger's tables that an earlier version did not have
    :raises StepOrderError: the ledger has no such run, an operator gave it up, or it has not reached that state
    """
    with context.dialect.connect() as connection:
        step = Step(context, connection, requires=requires or RunState.PLANNED)
        if migrates:
            step.ledger.create()
        if requires is not None:
            # Refuses at once.
            _ = step.run
        yield step
