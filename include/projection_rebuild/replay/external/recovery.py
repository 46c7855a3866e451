"""What becomes of a call that was cut short: another worker is kept out, and the program begins anew or goes on."""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.authoring.external import ExternalProjector, OnRetry
from projection_rebuild.ledger import Checkpoint, RunState
from projection_rebuild.model.positions import said
from projection_rebuild.run.context import Context
from projection_rebuild.shadow.clone import remake, wait_for_programs


def begin_anew(
    context: Context, connection: sa.Connection, projector: type[ExternalProjector], checkpoint: Checkpoint
) -> Checkpoint:
    """Deals with a call that was cut short, if the last one was.

    What it was executing in the database has come to its end afterwards, so nothing of it appears later.

    :returns: the checkpoint at which the program goes on
    """
    name = projector.name()
    if not context.ledger.external_calls.is_open(connection, context.run_id, name):
        return checkpoint
    checkpoint = _keep_others_out(context, connection, projector)
    if projector.on_retry is OnRetry.REPEAT:
        context.log(f"{name}: its last call was cut short; going on at {said(checkpoint.position)}")
        return checkpoint
    context.log(f"{name}: its last call was cut short; beginning anew with empty tables")
    run = context.ledger.runs.get(connection, context.run_id)
    plan = context.plan_of(run)
    remake(context, connection, [context.table_set(table, plan) for table in projector.tables()])
    with context.dialect.transaction(connection):
        if run.state.is_verified:
            # What was verified is gone.
            context.ledger.runs.move(connection, context.run_id, RunState.CLONED)
        context.ledger.checkpoints.reset(connection, context.run_id, name)
        context.ledger.external_calls.end(connection, context.run_id, name)
    return _read_checkpoint(context, connection, name)


def _keep_others_out(context: Context, connection: sa.Connection, projector: type[ExternalProjector]) -> Checkpoint:
    """Another worker may live, whatever its scheduler believes; without its checkpoint it ends its program."""
    context.ledger.checkpoints.fence(connection, context.run_id, projector.name())
    checkpoint = _read_checkpoint(context, connection, projector.name())
    wait_for_programs(context, connection, [context.table_set(table) for table in projector.tables()])
    return checkpoint


def _read_checkpoint(context: Context, connection: sa.Connection, name: str) -> Checkpoint:
    return context.ledger.checkpoints.of_projectors(connection, context.run_id)[name]
