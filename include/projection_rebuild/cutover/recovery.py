"""On which side of its swap a run is, however the worker ended that was at it."""

from __future__ import annotations

from projection_rebuild.cutover import contracts
from projection_rebuild.errors import SwapNotPossible
from projection_rebuild.ledger import RecordChanges, Run, RunState
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.results import SwapResult
from projection_rebuild.run.step import Step


def switched_already(step: Step, tables: list[TableSet]) -> SwapResult | None:
    """What an earlier attempt did, if it came past the swap, however it ended."""
    run = step.ledger.runs.get()
    if run.state.in_doubt:
        run = _find_side(step, tables)
    return run.swap_result if run.state.has_switched else None


def _find_side(step: Step, tables: list[TableSet]) -> Run:
    """After a crash within a swap that cannot be rolled back: the tables themselves say on which side it is.

    :raises SwapNotPossible: another worker is still at it
    """
    dialect, ledger = step.dialect, step.ledger
    with dialect.cutover.run_mutex(step.connection, step.run_id, 2 * step.spec.swap.max_pause) as reserved:
        if not reserved:
            raise SwapNotPossible(f"another worker of the run {step.run_id} is within its switch; retry when it has ended")
        run = ledger.runs.get()
        if not run.state.in_doubt:
            # It was, until now.
            return run
        left = [table for table in tables if dialect.inspector.table_exists(step.connection, table.schema, table.green)]
        with dialect.transaction(step.connection):
            if left:
                step.log("the last switch did not happen; trying again")
                ledger.owned_tables.forget_retired([table.old for table in tables])
                _back_to_settled(step, run)
            else:
                step.log("the last switch had happened before its task was stopped")
                mark_switched(step, tables, _after_a_crash(step, run))
        return ledger.runs.get()


def _back_to_settled(step: Step, run: Run) -> None:
    """Green was drained beyond the settled head, past appends that were still open: those are looked for once more."""
    left = run.left_behind
    plan = step.context.plan_of(run)
    plan = plan.model_copy(update={"already": sorted({*(plan.already or ()), *left.above})})
    step.ledger.checkpoints.rewind(left.settled)
    step.ledger.runs.move(RunState.VERIFIED, plan=plan)


def _after_a_crash(step: Step, run: Run) -> SwapResult:
    """What the ledger announced, with what is in doubt: the fence of the attempt may have died before the tables
    were renamed."""
    plan = step.context.plan_of(run)
    announced = run.swap_result.model_copy(
        update={"left_on_old": step.dialect.left_on_old(step.connection, step.context.switched_sets(plan))}
    )
    jobs_left = contracts.jobs_may_be_left(step.context, plan)
    if not contracts.needs_fence(step.context, plan) or not step.dialect.cutover.may_have_lost_fence(
        announced.attempts, jobs_left=jobs_left
    ):
        return announced
    doubtful = contracts.appended_since(step.context, plan, run.left_behind)
    return announced.model_copy(update={"in_doubt": doubtful})


def mark_switched(step: Step, tables: list[TableSet], result: SwapResult | None = None) -> None:
    """Has the ledger say that the tables are swapped.

    :param result: what the swap did; None: as it was announced
    """
    changes = RecordChanges() if result is None else RecordChanges(swap=result)
    greens = [table.green for table in tables]
    step.ledger.owned_tables.forget_greens(greens)
    # In a rollback, green was a retired table; it is live now.
    step.ledger.owned_tables.forget_retired(greens)
    runs = step.ledger.runs
    if runs.get().state.is_reconciled:
        # A retry of this step, and then reconcile, came between the renames and here.
        runs.amend(**changes)
    else:
        runs.move(RunState.SWITCHED, **changes)
