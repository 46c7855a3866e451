"""What a cutover waits for before its first attempt, while nobody is held."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from projection_rebuild.cutover import contracts
from projection_rebuild.errors import Interrupted, SwapNotPossible
from projection_rebuild.model.names import TableSet
from projection_rebuild.run.step import Step

MAINTENANCE = timedelta(minutes=2)
"""For how long a cutover waits for a vacuum of its tables; whoever retries the step may wait longer."""


def wait_for_snapshots(
    step: Step,
) -> None:
    """Lets transactions end that began before green was filled: they would find it empty, and take that for an
    answer.

    :raises SwapNotPossible: one is still open after ``swap.wait_for_snapshots``
    """
    patience = step.spec.swap.wait_for_snapshots
    if not patience:
        return
    deadline = time.monotonic() + patience.total_seconds()
    older, spoken = step.dialect.snapshots(step.connection), False
    while older:
        if time.monotonic() > deadline:
            raise SwapNotPossible(
                f"after {patience.total_seconds():g} s there are still transactions that read from a snapshot older than the green tables; "
                f"after the switch they would find these empty: {'; '.join(sorted(older.values()))}. Blue is live and untouched, green "
                "stays. Wait for them or end them, then retry; or change swap.wait_for_snapshots (0s: switch all the same)"
            )
        if not spoken:
            step.log(f"waiting for transactions that are older than the green tables: {'; '.join(sorted(older.values()))}")
            spoken = True
        # InnoDB makes its list of transactions anew only when nobody has read it for a tenth of a second.
        time.sleep(0.15)
        now = step.dialect.snapshots(step.connection)
        older = {transaction: what for transaction, what in older.items() if transaction in now}


def maintenance(step: Step, tables: list[TableSet]) -> list[str]:
    """What holds the tables of the swap, or the event store, until it has ended by itself."""
    names = [name for table in tables for name in (table.blue, table.green)]
    found = step.dialect.maintenance(step.connection, step.schema, names)
    fenced = contracts.needs_fence(step.context, step.context.plan_of(step.ledger.runs.get()))
    return found + (step.context.store.maintenance() if fenced else [])


def wait_for_maintenance(step: Step, tables: list[TableSet], stopped: Callable[[], bool]) -> None:
    """No attempt could succeed while a vacuum goes on: it holds its table for minutes, and nobody is to wait
    behind us for so long.

    :raises SwapNotPossible: it is still going on after :data:`MAINTENANCE`
    :raises Interrupted: ``stopped`` said so
    """
    deadline, spoken = time.monotonic() + MAINTENANCE.total_seconds(), False
    while at_work := maintenance(step, tables):
        if stopped():
            raise Interrupted("the switch was stopped before its first attempt; blue is live and untouched, a retry tries again")
        if time.monotonic() > deadline:
            raise SwapNotPossible(
                f"tables of the switch are still being maintained: {'; '.join(at_work)}. Blue is live and untouched, green stays. "
                "Retry when it is done, or end it"
            )
        if not spoken:
            step.log(f"waiting until the tables have been maintained: {'; '.join(at_work)}")
            spoken = True
        time.sleep(0.5)
