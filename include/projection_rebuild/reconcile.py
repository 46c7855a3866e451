"""After the switch: put right what could not be done within it, look once more, and give up the claims."""

from __future__ import annotations

from pydantic import BaseModel

from include.projection_rebuild.context import Context
from include.projection_rebuild.ledger import RunState
from include.projection_rebuild.swap import SwapResult


class Reconciliation(BaseModel):
    """What was found after the switch.

    :param appended_since: events of the run's types since F; the live projectors have projected them into the new tables
    :param rows: each table's rows now
    """

    appended_since: int
    rows: dict[str, int]
    findings: list[str]

    def describe(self) -> str:
        """Lines for a log."""
        counts = ", ".join(f"{table} {rows:,}" for table, rows in self.rows.items())
        return "\n".join([f"{self.appended_since:,} events since the switch; rows now: {counts}", *self.findings])


def reconcile(context: Context) -> Reconciliation:
    """Finishes the switch and records what is found; can be called again at any time.

    :raises StepOrderError: the run has not switched
    """
    with context.dialect.connect() as connection:
        run = context.ledger.run(connection, context.run_id, at_least=RunState.SWITCHED)
        plan = context.plan_of(run)
        tables = context.table_sets(plan)
        for statement in context.dialect.after_switch(connection, context.switched_sets(plan)):
            context.dialect.run(connection, statement)
        swapped = SwapResult.model_validate(run.record["swap"])
        findings = [
            f"{name} stopped at {checkpoint.position:,} and not at {swapped.position:,}, the position of the switch"
            for name, checkpoint in context.ledger.checkpoints(connection, context.run_id).items()
            if checkpoint.position != swapped.position
        ]
        types = {each for name in plan.projectors for each in context.projector(name).event_types()}
        since = context.store.counts(swapped.position, context.store.newest())
        found = Reconciliation(
            appended_since=sum(count for event_type, count in since.items() if event_type in types),
            rows={table.blue: context.dialect.row_count(connection, table.schema, table.blue) for table in tables},
            findings=findings,
        )
        if not run.state.at_least(RunState.RECONCILED):
            with context.dialect.transaction(connection):
                context.ledger.move(connection, context.run_id, RunState.RECONCILED, reconciliation=found.model_dump())
                # From here on only the retention waits, and that must not block the next rebuild.
                context.ledger.release(connection, context.run_id)
    return found
