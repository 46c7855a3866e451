"""Begins a run: records it in the ledger, and claims its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from projection_rebuild.errors import ClaimRefused, StoppedAtCutover
from projection_rebuild.ledger import INTERRUPTED_AT_SWITCH, RecordChanges
from projection_rebuild.model.limits import NAME, shown
from projection_rebuild.model.plan import Plan
from projection_rebuild.run import agreed
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step
from projection_rebuild.spec.options import RunOptions


@contextmanager
def _one_at_a_time(context: Context) -> Iterator[None]:
    """Refuses a second worker that plans the same run at the same time.

    :raises ClaimRefused: the ledger has accepted the record of the other worker
    """
    try:
        yield
    except sa.exc.IntegrityError:
        raise ClaimRefused(
            f"another worker is planning the run {context.run_id} at this moment. Nothing has been touched; let that one go on"
        ) from None


def begin(step: Step, plan: Plan, options: RunOptions, is_over: Callable[[str], bool], by: str) -> None:
    """Records the run, and claims its tables.

    :param is_over: returns whether a run, by its id, has ended; the engine then takes its claims over
    :param by: the name of the person or program that starts the run
    :raises StepOrderError: a run of this id is within its swap, or has not been reconciled after it
    :raises ClaimRefused: another run works on one of the tables
    """
    ledger = step.ledger
    ledger.create()
    before = ledger.runs.find()
    if before is not None and before.state in INTERRUPTED_AT_SWITCH:
        raise StoppedAtCutover(
            f"the run {step.run_id} cannot begin anew before anything else is done: {INTERRUPTED_AT_SWITCH[before.state]}"
        )
    with _one_at_a_time(step.context), step.dialect.transaction(step.connection):
        relied_on = agreed.of(step.spec, step.context.projectors, plan.projectors)
        record = RecordChanges(options=options, plan=plan, by=shown(by, NAME), agreed=relied_on)
        ledger.runs.begin(step.spec.rebuild, record)
    tables = [table.blue for table in step.context.switched_sets(plan)]
    for table in tables:
        holder = ledger.claims.holder(table)
        if holder is not None and holder != step.run_id and is_over(holder):
            _refuse_interrupted(step, table, holder)
            step.log(f"the run {holder} is over and still held {table}; taking its claims over")
            with step.dialect.transaction(step.connection):
                ledger.take_over(holder)
                # Its worker may be alive, and may have begun its swap while this one waited for the claims.
                _refuse_interrupted(step, table, holder)
    ledger.claims.claim(tables)


def _refuse_interrupted(step: Step, table: str, holder: str) -> None:
    """Refuses to take over the claims of a run that was stopped within its swap.

    :raises ClaimRefused: the run that holds the claim is in such a state
    """
    dead = step.ledger.of(holder).runs.find()
    if dead is not None and dead.state in INTERRUPTED_AT_SWITCH:
        raise ClaimRefused(
            f"the table {table} is claimed by the run {holder}, which is over, but {INTERRUPTED_AT_SWITCH[dead.state]}"
        )
