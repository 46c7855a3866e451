"""Finds out whether the swap of a run happened, after its worker may have crashed within it."""

from __future__ import annotations

from projection_rebuild.cutover import contracts
from projection_rebuild.errors import SwapNotPossible
from projection_rebuild.ledger import RecordChanges, Run, RunState
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.results import SwapResult
from projection_rebuild.run.step import Step


def switched_already(step: Step, tables: list[TableSet]) -> SwapResult | None:
    """The result of an earlier attempt that renamed the tables, even if its worker crashed afterwards.

    It also repairs the ledger: a run whose swap was cut short becomes verified or swapped.

    :param tables: the tables that the run swaps
    :returns: the result; None: no attempt has renamed the tables
    :raises SwapNotPossible: another worker of the run is within its swap
    """
    run = step.ledger.runs.get()
    if run.state.in_doubt:
        run = _find_side(step, tables)
    return run.swap_result if run.state.has_switched else None


def _find_side(step: Step, tables: list[TableSet]) -> Run:
    """Decides from the tables whether a swap that a crash cut short has happened, and corrects the ledger.

    :raises SwapNotPossible: another worker is still within the swap
    """
    dialect, ledger = step.dialect, step.ledger
    with dialect.cutover.run_mutex(step.connection, step.run_id, 2 * step.spec.swap.max_pause) as reserved:
        if not reserved:
            raise SwapNotPossible(f"another worker of the run {step.run_id} is within its switch; retry when it has ended")
        run = ledger.runs.get()
        if not run.state.in_doubt:
            # The other worker ended its swap before it released the mutex.
            return run
        greens = [table for table in tables if dialect.inspector.table_exists(step.connection, table.schema, table.green)]
        with dialect.transaction(step.connection):
            if greens:
                step.log("the last switch did not happen; trying again")
                ledger.owned_tables.forget_retired([table.old for table in tables])
                _back_to_settled(step, run)
            else:
                step.log("the last switch had happened before its task was stopped")
                mark_switched(step, tables, _after_a_crash(step, run))
        return ledger.runs.get()


def _back_to_settled(step: Step, run: Run) -> None:
    """Moves the run back to ``verified``, and its checkpoints back to the high-water mark.

    The attempt drained events above the mark, past appends that were still open. The next attempt reads these positions
    again, and skips the events that green holds already.
    """
    left = run.left_behind
    plan = step.context.plan_of(run)
    plan = plan.model_copy(update={"already": sorted({*(plan.already or ()), *left.above})})
    step.ledger.checkpoints.rewind(left.settled)
    step.ledger.runs.move(RunState.VERIFIED, plan=plan)


def _after_a_crash(step: Step, run: Run) -> SwapResult:
    """The result that the attempt announced, with the number of events that are in doubt.

    Events are in doubt if the fence of the attempt may have died before the tables were renamed.
    """
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
    """Records in the ledger that the tables are swapped.

    :param result: what the swap did; None: as the attempt announced it
    """
    changes = RecordChanges() if result is None else RecordChanges(swap=result)
    greens = [table.green for table in tables]
    step.ledger.owned_tables.forget_greens(greens)
    # In a rollback, green was a retired table; it is live now.
    step.ledger.owned_tables.forget_retired(greens)
    runs = step.ledger.runs
    if runs.get().state.is_reconciled:
        # A retry of the swap and then reconcile ran between the renames and this call.
        runs.amend(**changes)
    else:
        runs.move(RunState.SWITCHED, **changes)
