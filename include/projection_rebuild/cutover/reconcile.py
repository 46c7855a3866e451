"""The step after the swap: it adds what could not be part of it, checks events and rows, and releases the claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial

import sqlalchemy as sa

from projection_rebuild.cutover.recovery import switched_already
from projection_rebuild.errors import FenceLost, LeftOnOld
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.ledger import INTERRUPTED_AT_SWITCH, Run, RunState
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import BEGINNING, said
from projection_rebuild.model.results import Reconciliation, SwapResult
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.shadow.retire import when_free
from projection_rebuild.spec.live_writer import LiveWriter

AT_WORK = timedelta(seconds=1)
"""The longest time for which a statement after the swap may make other sessions wait."""


def reconcile(context: Context) -> Reconciliation:
    """Finishes the swap and records its findings; the caller may repeat it at any time.

    :returns: the events since the swap, the rows of the new tables, and the findings
    :raises StepOrderError: the run has not swapped its tables
    :raises FenceLost: the engine has done and recorded everything, but events may be missing from the new tables
    :raises LeftOnOld: the engine has done and recorded everything, but a client's change of a live table within the
        swap is on the retired table only
    """
    with open_step(context, requires=RunState.SWITCHED) as step:
        run = step.run
        plan = step.plan
        tables = context.table_sets(plan)
        findings = _finish_keys(step, plan)
        swapped = run.swap_result
        findings += [
            f"{name} stopped at {said(checkpoint.position)} and not at {said(swapped.position)}, where the switch was"
            for name, checkpoint in step.ledger.checkpoints.of_projectors().items()
            if checkpoint.position != swapped.position
        ]
        late = _late(context, plan, run)
        if late and context.spec.live_writer.contract is LiveWriter.CHECKPOINTED:
            findings.append(
                f"{late:,} events appeared at or below {said(swapped.position)} after the switch, where no consumer looks any more: "
                "their ids were handed out long before their INSERT. Rebuild these projectors again"
            )
        if swapped.in_doubt:
            findings.append(in_doubt(swapped))
        left = _still_left_on_old(step, plan, swapped)
        findings += left
        since = context.store.counts(swapped.position, context.store.newest())
        reconciliation = Reconciliation(
            appended_since=_of_run(context, plan, since),
            late=late,
            rows={table.blue: context.dialect.inspector.row_count(step.connection, table.schema, table.blue) for table in tables},
            findings=findings,
        )
        with context.dialect.transaction(step.connection):
            if not run.state.is_reconciled:
                step.ledger.runs.move(RunState.RECONCILED, reconciliation=reconciliation)
            # Only the retention is left to wait for, and it must not block the next rebuild.
            step.ledger.claims.release()
            if plan.part:
                step.ledger.partial_rebuilds.forget()
    if swapped.in_doubt:
        raise FenceLost(in_doubt(swapped))
    if left:
        raise LeftOnOld("\n".join(left))
    return reconciliation


def finish_dead(step: Step, is_over: Callable[[str], bool]) -> None:
    """Finishes dead runs of this rebuild whose worker stopped within or right after their swap.

    Until then the live tables may lack foreign keys, which only the retired tables still show.

    :param is_over: returns whether a run, by its id, has ended
    """
    ledger = step.ledger
    if not ledger.exists():
        return
    tables = [table for projector in step.context.projectors.values() for table in projector.tables()]
    for holder in sorted({holder for table in tables if (holder := ledger.claims.holder(table)) is not None}):
        run = ledger.of(holder).runs.find()
        if holder == step.run_id or run is None or run.state not in INTERRUPTED_AT_SWITCH or not is_over(holder):
            continue
        # A run that needs the spec as it was is left to the operator: the claim of its tables names it.
        if run.rebuild != step.spec.rebuild or step.context.edited(run):
            continue
        plan = run.plan
        step.log(f"the run {holder} is over and was stopped at its switch; finishing it first")
        dead = replace(step.context, run_id=holder)
        if switched_already(Step(dead, step.connection), dead.switched_sets(plan)):
            try:
                step.log(reconcile(dead).describe())
            except (FenceLost, LeftOnOld) as error:
                # The ledger has it. If events are missing, this run rebuilds the tables, which is the remedy.
                step.log(str(error))


def _finish_keys(step: Step, plan: Plan) -> list[str]:
    """Executes the statements that could not be part of the swap, such as foreign keys.

    :returns: a finding for each statement or key that the rows violate; a later call tries those again
    """
    findings = []
    switched = step.context.switched_sets(plan)
    cutover = step.dialect.cutover
    for statement in step.dialect.after_swap(step.connection, switched):
        try:
            names = [table.blue for table in switched]
            when_free(step.context, names, partial(cutover.run_at_work, step.connection, switched, statement, AT_WORK))
        except sa.exc.IntegrityError as error:
            trouble = trouble_of(error)
            findings.append(
                f"{trouble.describe() if trouble else 'refused'}, in {statement}: rows have lost their parents since verification. New rows are checked; correct "
                "the others, then run reconcile again"
            )
    # Foreign keys that the database added without checking the rows.
    lives = [replace(table, green=table.blue) for table in step.context.table_sets(plan)]
    findings += [
        f"{table.blue} has rows that have lost their parents since verification, by the foreign key {key}. Correct them, then run "
        "reconcile again"
        for table, key in cutover.unvalidated_orphans(step.connection, lives)
    ]
    return findings


def _of_run(context: Context, plan: Plan, counts: Mapping[str, int]) -> int:
    """The number of events that the projectors of the run handle.

    :param counts: the number of events, by event type
    """
    types = {event_type for name in plan.projectors for event_type in context.projector(name).stored_types()}
    return sum(count for event_type, count in counts.items() if event_type in types)


def _late(context: Context, plan: Plan, run: Run) -> int:
    """The number of events up to the swap's position that the swap did not see.

    Their append transactions were still open then, and have projected them into the new tables.
    """
    left, position = run.left_behind, run.swap_result.position
    return _of_run(context, plan, context.store.counts(BEGINNING, position)) - _of_run(context, plan, left.events)


def _still_left_on_old(step: Step, plan: Plan, swapped: SwapResult) -> list[str]:
    """Findings about changes that clients made to a live table within the swap, and that the old table still has."""
    now = step.dialect.left_on_old(step.connection, step.context.switched_sets(plan)) if swapped.left_on_old else []
    return [
        f"{change}: a client changed the live table at the very moment of the switch, when no lock could prevent it. Do the same to the "
        "table that is live now, and take it off the retired one (or undo it there), then run reconcile again"
        for change in swapped.left_on_old
        if change in now
    ]


def in_doubt(swapped: SwapResult) -> str:
    """The message about events that may be missing because the fence died within the swap, with the remedy."""
    return (
        f"the connection that held appends back died within the switch. {swapped.in_doubt:,} events above {said(swapped.position)} were "
        "appended around that moment, and some of them may be missing from the new tables: trigger the rebuild of these projectors again"
    )
