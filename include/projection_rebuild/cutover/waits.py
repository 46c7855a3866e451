"""The waits of a cutover before its first attempt, while writers continue."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from projection_rebuild.cutover import contracts
from projection_rebuild.errors import Interrupted, SwapNotPossible
from projection_rebuild.model.names import TableSet
from projection_rebuild.run.step import Step

MAINTENANCE = timedelta(minutes=2)
"""For how long a cutover waits for a vacuum of its tables. A retry of the step waits as long again."""


def wait_for_snapshots(
    step: Step,
) -> None:
    """Waits for transactions whose snapshot is older than green's rows: after the swap they would read empty tables.

    :raises SwapNotPossible: one is still open after ``swap.wait_for_snapshots``
    """
    patience = step.spec.swap.wait_for_snapshots
    if not patience:
        return
    deadline = time.monotonic() + patience.total_seconds()
    older, logged = step.dialect.snapshots(step.connection), False
    while older:
        if time.monotonic() > deadline:
            raise SwapNotPossible(
                f"after {patience.total_seconds():g} s there are still transactions that read from a snapshot older than the green tables; "
                f"after the switch they would find these empty: {'; '.join(sorted(older.values()))}. Blue is live and untouched, green "
                "stays. Wait for them or end them, then retry; or change swap.wait_for_snapshots (0s: switch all the same)"
            )
        if not logged:
            step.log(f"waiting for transactions that are older than the green tables: {'; '.join(sorted(older.values()))}")
            logged = True
        # InnoDB refreshes its list of transactions only after a tenth of a second without a read of it.
        time.sleep(0.15)
        now = step.dialect.snapshots(step.connection)
        older = {transaction: what for transaction, what in older.items() if transaction in now}


def maintenance(step: Step, tables: list[TableSet]) -> list[str]:
    """The maintenance, such as a vacuum, that locks the tables of the swap or a store that the cutover must fence.

    :returns: one description each; empty: no maintenance is going on
    """
    names = [name for table in tables for name in (table.blue, table.green)]
    of_tables = step.dialect.maintenance(step.connection, step.schema, names)
    fenced = contracts.needs_fence(step.context, step.context.plan_of(step.ledger.runs.get()))
    return of_tables + (step.context.store.maintenance() if fenced else [])


def wait_for_maintenance(step: Step, tables: list[TableSet], stopped: Callable[[], bool]) -> None:
    """Waits for a vacuum of the tables to end. It locks its table for minutes, so that no attempt could succeed.

    :param stopped: returns whether the worker must stop
    :raises SwapNotPossible: it is still going on after :data:`MAINTENANCE`
    :raises Interrupted: ``stopped`` returned True
    """
    deadline, logged = time.monotonic() + MAINTENANCE.total_seconds(), False
    while at_work := maintenance(step, tables):
        if stopped():
            raise Interrupted("the switch was stopped before its first attempt; blue is live and untouched, a retry tries again")
        if time.monotonic() > deadline:
            raise SwapNotPossible(
                f"tables of the switch are still being maintained: {'; '.join(at_work)}. Blue is live and untouched, green stays. "
                "Retry when it is done, or end it"
            )
        if not logged:
            step.log(f"waiting until the tables have been maintained: {'; '.join(at_work)}")
            logged = True
        time.sleep(0.5)
