"""Recovers from an interrupted call of a program: fences out the other worker; then the program restarts or goes on."""

from __future__ import annotations

from projection_rebuild.authoring.external import ExternalProjector, OnRetry
from projection_rebuild.ledger import Checkpoint, RunState
from projection_rebuild.model.positions import said
from projection_rebuild.run.step import Step
from projection_rebuild.shadow.clone import remake, wait_for_programs


def begin_anew(step: Step, projector: type[ExternalProjector], checkpoint: Checkpoint) -> Checkpoint:
    """Recovers from the last call if it was interrupted.

    It waits until the interrupted call's statements have ended in the database, so none of them can still commit.

    :returns: the checkpoint at which the program goes on
    """
    name = projector.name()
    if not step.ledger.external_calls.is_open(name):
        return checkpoint
    checkpoint = _keep_others_out(step, projector)
    if projector.on_retry is OnRetry.REPEAT:
        step.log(f"{name}: its last call was cut short; going on at {said(checkpoint.position)}")
        return checkpoint
    step.log(f"{name}: its last call was cut short; beginning anew with empty tables")
    run = step.ledger.runs.get()
    plan = step.context.plan_of(run)
    remake(step, [step.context.table_set(table, plan) for table in projector.tables()])
    with step.dialect.transaction(step.connection):
        if run.state.is_verified:
            # The verified rows are gone.
            step.ledger.runs.move(RunState.CLONED)
        step.ledger.checkpoints.reset(name)
        step.ledger.external_calls.end(name)
    return _read_checkpoint(step, name)


def _keep_others_out(step: Step, projector: type[ExternalProjector]) -> Checkpoint:
    """Fences out a worker that may still live, even if its scheduler counts it as dead; it then ends its program."""
    step.ledger.checkpoints.fence(projector.name())
    checkpoint = _read_checkpoint(step, projector.name())
    wait_for_programs(step, [step.context.table_set(table) for table in projector.tables()])
    return checkpoint


def _read_checkpoint(step: Step, name: str) -> Checkpoint:
    return step.ledger.checkpoints.of_projectors()[name]
