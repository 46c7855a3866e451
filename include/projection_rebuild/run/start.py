"""Records a run, and claims its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from projection_rebuild.errors import ClaimRefused, StepOrderError
from projection_rebuild.ledger import INTERRUPTED_AT_SWITCH, RecordChanges
from projection_rebuild.model.limits import NAME, shown
from projection_rebuild.model.plan import Plan
from projection_rebuild.run import agreed
from projection_rebuild.run.context import Context
from projection_rebuild.spec.options import RunOptions


@contextmanager
def _one_at_a_time(context: Context) -> Iterator[None]:
    """Two workers that plan one run at once: the ledger takes the first."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise ClaimRefused(
            f"another worker is planning the run {context.run_id} at this moment. Nothing has been touched; let that one go on"
        ) from None


def begin(
    context: Context, connection: sa.Connection, made: Plan, options: RunOptions, is_over: Callable[[str], bool], by: str
) -> None:
    """Records the run, and claims its tables.

    :param by: who starts it
    :raises StepOrderError: a run of this id is in the middle of its switch, or was not reconciled after it
    :raises ClaimRefused: another run works on one of the tables
    """
    ledger = context.ledger
    ledger.create(connection)
    before = ledger.runs.find(connection, context.run_id)
    if before is not None and before.state in INTERRUPTED_AT_SWITCH:
        raise StepOrderError(
            f"the run {context.run_id} cannot begin anew before anything else is done: {INTERRUPTED_AT_SWITCH[before.state]}"
        )
    with _one_at_a_time(context), context.dialect.transaction(connection):
        relied_on = agreed.of(context.spec, context.projectors, made.projectors)
        record = RecordChanges(options=options, plan=made, by=shown(by, NAME), agreed=relied_on)
        ledger.runs.begin(connection, context.run_id, context.spec.rebuild, record)
    tables = [table.blue for table in context.switched_sets(made)]
    for table in tables:
        holder = ledger.claims.holder(connection, table)
        if holder is not None and holder != context.run_id and is_over(holder):
            _refuse_interrupted(context, connection, table, holder)
            context.log(f"the run {holder} is over and still held {table}; taking its claims over")
            with context.dialect.transaction(connection):
                ledger.take_over(connection, holder, context.run_id)
                # Its worker may not be dead, and may have come to its switch while its claims were waited for.
                _refuse_interrupted(context, connection, table, holder)
    ledger.claims.claim(connection, context.run_id, tables)


def _refuse_interrupted(context: Context, connection: sa.Connection, table: str, holder: str) -> None:
    dead = context.ledger.runs.find(connection, holder)
    if dead is not None and dead.state in INTERRUPTED_AT_SWITCH:
        raise ClaimRefused(
            f"the table {table} is claimed by the run {holder}, which is over, but {INTERRUPTED_AT_SWITCH[dead.state]}"
        )
