"""On which side of its swap a run is, however the worker ended that was at it."""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.cutover import contracts
from projection_rebuild.errors import SwapNotPossible
from projection_rebuild.ledger import RecordChanges, Run, RunState
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.results import SwapResult
from projection_rebuild.run.context import Context


def switched_already(context: Context, connection: sa.Connection, tables: list[TableSet]) -> SwapResult | None:
    """What an earlier attempt did, if it came past the swap, however it ended."""
    run = context.ledger.runs.get(connection, context.run_id)
    if run.state.in_doubt:
        run = _find_side(context, connection, tables)
    return run.swap_result if run.state.has_switched else None


def _find_side(context: Context, connection: sa.Connection, tables: list[TableSet]) -> Run:
    """After a crash within a swap that cannot be rolled back: the tables themselves say on which side it is.

    :raises SwapNotPossible: another worker is still at it
    """
    dialect, ledger = context.dialect, context.ledger
    with dialect.cutover.run_mutex(connection, context.run_id, 2 * context.spec.swap.max_pause) as reserved:
        if not reserved:
            raise SwapNotPossible(f"another worker of the run {context.run_id} is within its switch; retry when it has ended")
        run = ledger.runs.get(connection, context.run_id)
        if not run.state.in_doubt:
            # It was, until now.
            return run
        left = [table for table in tables if dialect.table_exists(connection, table.schema, table.green)]
        with dialect.transaction(connection):
            if left:
                context.log("the last switch did not happen; trying again")
                ledger.owned_tables.forget_retired(connection, [table.old for table in tables])
                _back_to_settled(context, connection, run)
            else:
                context.log("the last switch had happened before its task was stopped")
                mark_switched(context, connection, tables, _after_a_crash(context, connection, run))
        return ledger.runs.get(connection, context.run_id)


def _back_to_settled(context: Context, connection: sa.Connection, run: Run) -> None:
    """Green was drained beyond the settled head, past appends that were still open: those are looked for once more."""
    left = run.left_behind
    plan = context.plan_of(run)
    plan = plan.model_copy(update={"already": sorted({*(plan.already or ()), *left.above})})
    context.ledger.checkpoints.rewind(connection, context.run_id, left.settled)
    context.ledger.runs.move(connection, context.run_id, RunState.VERIFIED, plan=plan)


def _after_a_crash(context: Context, connection: sa.Connection, run: Run) -> SwapResult:
    """What the ledger announced, with what is in doubt: the fence of the attempt may have died before the tables
    were renamed."""
    plan = context.plan_of(run)
    announced = run.swap_result.model_copy(
        update={"left_on_old": context.dialect.left_on_old(connection, context.switched_sets(plan))}
    )
    jobs_left = contracts.jobs_may_be_left(context, plan)
    if not contracts.needs_fence(context, plan) or not context.dialect.cutover.may_have_lost_fence(
        announced.attempts, jobs_left=jobs_left
    ):
        return announced
    doubtful = contracts.appended_since(context, plan, run.left_behind)
    return announced.model_copy(update={"in_doubt": doubtful})


def mark_switched(context: Context, connection: sa.Connection, tables: list[TableSet], result: SwapResult | None = None) -> None:
    """Has the ledger say that the tables are swapped.

    :param result: what the swap did; None: as it was announced
    """
    changes = RecordChanges() if result is None else RecordChanges(swap=result)
    greens = [table.green for table in tables]
    context.ledger.owned_tables.forget_greens(connection, greens)
    # In a rollback, green was a retired table; it is live now.
    context.ledger.owned_tables.forget_retired(connection, greens)
    runs = context.ledger.runs
    if runs.get(connection, context.run_id).state.is_reconciled:
        # A retry of this step, and then reconcile, came between the renames and here.
        runs.amend(connection, context.run_id, **changes)
    else:
        runs.move(connection, context.run_id, RunState.SWITCHED, **changes)
