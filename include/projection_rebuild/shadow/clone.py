"""Creates the green tables: empty, like blue, and known to the ledger before they exist. Each attempt starts over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

from projection_rebuild.authoring import external
from projection_rebuild.errors import CloneError, SettleTimeout
from projection_rebuild.eventstore.store import PATIENCE
from projection_rebuild.ledger import RunState, refuse_within_switch
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.positions import BEGINNING
from projection_rebuild.model.refusals import foreign_green
from projection_rebuild.run.context import Context
from projection_rebuild.run.jobs import replayable_head
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.shadow import live_tables


def clone_tables(context: Context) -> list[str]:
    """Drops the green tables of an earlier attempt, creates new ones, and resets the checkpoints.

    :returns: the green names
    :raises StepOrderError: the run is in the middle of its cutover
    :raises ClaimRefused: another run has taken the tables over
    """
    with open_step(context, requires=RunState.PLANNED, migrates=True) as step:
        run = step.run
        refuse_within_switch(run)
        plan = step.plan
        # First, workers of an earlier attempt lose their checkpoints: from here on they cannot write.
        program_at_work = step.ledger.external_calls.is_open()
        with context.dialect.transaction(step.connection):
            step.ledger.runs.move(RunState.PLANNED)
            step.ledger.checkpoints.remove()
            if plan.part:
                step.ledger.partial_rebuilds.forget()
        tables = context.switched_sets(plan)
        if program_at_work:
            wait_for_programs(step, tables)
        step.ledger.claims.claim([table.blue for table in tables])
        # Before green is created: a table that takes a live table's place in between has another identity.
        live = live_tables.identities(step, tables)
        remake(step, tables)
        if context.spec.live_writer.checkpoint:
            # The consumers' table is small, and the cutover fills it: it has all of its indexes from the start.
            for statement in context.dialect.shadow.index_green(step.connection, tables[-1]):
                context.dialect.run(step.connection, statement)
        # All shards end at one position, so that a projector's shards can be joined.
        head = replayable_head(context) if plan.shards else BEGINNING
        with context.dialect.transaction(step.connection):
            step.ledger.checkpoints.begin(dict.fromkeys(plan.projectors, (BEGINNING, 0)))
            step.ledger.shards.begin(plan.shards, head)
            # The new green is empty: it lacks the events that an attempt of the cutover drained into the last one.
            fresh = plan.model_copy(update={"already": [] if plan.part else None})
            step.ledger.runs.move(RunState.CLONED, plan=fresh, live_tables=live, replaced_tables={})
    return [table.green for table in tables]


def remake(step: Step, tables: Sequence[TableSet]) -> None:
    """Replaces the green tables by empty ones."""
    for table in reversed(tables):
        drop_leftover(step, table)
    for table in tables:
        _create(step, table)


def drop_leftover(step: Step, table: TableSet) -> None:
    """Drops the table under a green name if an earlier attempt, or a run that is over, has left it.

    :raises CloneError: no run has created that table
    """
    if not step.dialect.inspector.table_exists(step.connection, table.schema, table.green):
        return
    owner = step.ledger.owned_tables.run_of_green(table.green)
    if owner is None:
        raise CloneError(foreign_green(table))
    if owner != step.run_id and step.ledger.of(owner).external_calls.is_open():
        # That run is over, but a worker of it may still live; the worker ends its program when it sees the fence.
        step.ledger.of(owner).checkpoints.fence()
        wait_for_programs(step, [table])
    step.log(f"dropping {table.green}, left by an earlier attempt")
    for statement in step.dialect.shadow.drop_table(step.connection, table, table.green):
        step.dialect.run(step.connection, statement)
    # The table may be an old one that a rollback was about to take back.
    step.ledger.owned_tables.forget_retired([table.green])


def wait_for_programs(step: Step, tables: Sequence[TableSet]) -> None:
    """Waits until a program whose worker has just lost its checkpoint can write nothing more to green tables.

    :raises SettleTimeout: a session still writes one of them
    """
    time.sleep(external.take_over())
    for table in tables:
        if step.dialect.inspector.table_exists(step.connection, table.schema, table.green):
            _wait_for_writers(step.context, table)


def _wait_for_writers(context: Context, table: TableSet) -> None:
    """Waits until no session writes a table. A statement outlives the client that has sent it, and may still commit."""
    dialect, deadline = context.dialect, time.monotonic() + PATIENCE.total_seconds()
    while True:
        try:
            with dialect.events.fence(table.schema, table.green, timedelta(seconds=1)):
                return
        except Exception as error:
            if not dialect.is_lock_timeout(error):
                raise
        if time.monotonic() > deadline:
            raise SettleTimeout(
                f"somebody still writes {table.green} after {PATIENCE.total_seconds():g} s: look for what the program's connections are "
                "executing, end it, then retry"
            )


def _create(step: Step, table: TableSet) -> None:
    # The ledger first: a kill between the two leaves an entry without a table, never a table without an entry.
    step.ledger.owned_tables.add_green(table.green)
    for statement in step.dialect.shadow.create_green(step.connection, table):
        step.dialect.run(step.connection, statement)
    step.log(f"made {table.green} like {table.blue}")
