"""After the swap: put right what could not be done within it, look once more, and give up the claims."""

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
"""The longest that a statement after the swap may hold others up."""


def reconcile(context: Context) -> Reconciliation:
    """Finishes the swap and records what is found; can be called again at any time.

    :raises StepOrderError: the run has not swapped its tables
    :raises FenceLost: all is done and recorded, but events may be missing from the new tables
    :raises LeftOnOld: all is done and recorded, but what somebody did to a live table within the swap is on the retired one
    """
    with open_step(context, requires=RunState.SWITCHED) as step:
        run = step.run
        plan = step.plan
        tables = context.table_sets(plan)
        findings = _put_right(step, plan)
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
        found = Reconciliation(
            appended_since=_of_run(context, plan, since),
            late=late,
            rows={table.blue: context.dialect.inspector.row_count(step.connection, table.schema, table.blue) for table in tables},
            findings=findings,
        )
        with context.dialect.transaction(step.connection):
            if not run.state.is_reconciled:
                step.ledger.runs.move(RunState.RECONCILED, reconciliation=found)
            # From here on only the retention waits, and that must not block the next rebuild. Tables may have been dropped before.
            step.ledger.claims.release()
            if plan.part:
                step.ledger.partial_rebuilds.forget()
    if swapped.in_doubt:
        raise FenceLost(in_doubt(swapped))
    if left:
        raise LeftOnOld("\n".join(left))
    return found


def finish_dead(step: Step, is_over: Callable[[str], bool]) -> None:
    """Brings dead runs of this rebuild to their end that were stopped within or right after their swap.

    Until then the live tables may lack foreign keys, and the retired ones are all that is known of them.
    """
    ledger = step.ledger
    if not ledger.exists():
        return
    tables = [table for projector in step.context.projectors.values() for table in projector.tables()]
    for holder in sorted({holder for table in tables if (holder := ledger.claims.holder(table)) is not None}):
        run = ledger.of(holder).runs.find()
        if holder == step.run_id or run is None or run.state not in INTERRUPTED_AT_SWITCH or not is_over(holder):
            continue
        # One that needs the spec as it was is left to a person, who is told of it where its tables are claimed.
        if run.rebuild != step.spec.rebuild or step.context.edited(run):
            continue
        plan = run.plan
        step.log(f"the run {holder} is over and was stopped at its switch; finishing it first")
        dead = replace(step.context, run_id=holder)
        if switched_already(Step(dead, step.connection), dead.switched_sets(plan)):
            try:
                step.log(reconcile(dead).describe())
            except (FenceLost, LeftOnOld) as error:
                # It is recorded; if events are missing, this run is what it asks for.
                step.log(str(error))


def _put_right(step: Step, plan: Plan) -> list[str]:
    """Does what could not be done within the swap; what the rows do not allow is a finding, and done by a later call."""
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
    # Keys that were added without a look at the rows.
    lives = [replace(table, green=table.blue) for table in step.context.table_sets(plan)]
    findings += [
        f"{table.blue} has rows that have lost their parents since verification, by the foreign key {key}. Correct them, then run "
        "reconcile again"
        for table, key in cutover.unvalidated_orphans(step.connection, lives)
    ]
    return findings


def _of_run(context: Context, plan: Plan, counts: Mapping[str, int]) -> int:
    types = {each for name in plan.projectors for each in context.projector(name).stored_types()}
    return sum(count for event_type, count in counts.items() if event_type in types)


def _late(context: Context, plan: Plan, run: Run) -> int:
    """Events up to F that the swap did not see; an append transaction that was open then has projected into the new tables."""
    left, position = run.left_behind, run.swap_result.position
    return _of_run(context, plan, context.store.counts(BEGINNING, position)) - _of_run(context, plan, left.events)


def _still_left_on_old(step: Step, plan: Plan, swapped: SwapResult) -> list[str]:
    """What somebody did to a live table within its swap, as long as nobody has put it right."""
    now = step.dialect.left_on_old(step.connection, step.context.switched_sets(plan)) if swapped.left_on_old else []
    return [
        f"{each}: somebody changed the live table at the very moment of the switch, when nothing could keep him from it. Do the same to the "
        "table that is live now, and take it off the retired one (or undo it there), then run reconcile again"
        for each in swapped.left_on_old
        if each in now
    ]


def in_doubt(swapped: SwapResult) -> str:
    """What to do when nothing held appends back for a moment of the swap."""
    return (
        f"the connection that held appends back died within the switch. {swapped.in_doubt:,} events above {said(swapped.position)} were "
        "appended around that moment, and some of them may be missing from the new tables: trigger the rebuild of these projectors again"
    )
