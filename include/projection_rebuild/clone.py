"""Making the green tables: empty, like blue, and known to the ledger before they exist. Starts over each time."""

from __future__ import annotations

import sqlalchemy as sa

from include.projection_rebuild.context import Context
from include.projection_rebuild.errors import CloneError, StepOrderError
from include.projection_rebuild.ledger import RunState
from include.projection_rebuild.names import TableSet


def clone_tables(context: Context) -> list[str]:
    """Drops what an earlier attempt left of the run's green tables, makes them anew, and resets the checkpoints.

    :returns: the green names
    :raises StepOrderError: the run is in the middle of its switch
    :raises ClaimRefused: another run has taken the tables over
    """
    with context.dialect.connect() as connection:
        run = context.ledger.run(connection, context.run_id)
        if run.state == RunState.SWITCHING:
            raise StepOrderError(
                f"the run {context.run_id} was stopped within its switch; retry atomic_swap before anything else"
            )
        plan = context.plan_of(run)
        # First of all, workers of an earlier attempt lose their checkpoints: from here on they cannot write.
        with context.dialect.transaction(connection):
            context.ledger.move(connection, context.run_id, RunState.PLANNED)
            context.ledger.remove_checkpoints(connection, context.run_id)
        tables = context.switched_sets(plan)
        context.ledger.claim(connection, context.run_id, [table.blue for table in tables])
        for table in reversed(tables):
            _drop_leftover(context, connection, table)
        for table in tables:
            _create(context, connection, table)
        if context.spec.live_writer.checkpoint:
            # Small, and filled within the switch: it has all of its indexes from the start.
            for statement in context.dialect.index_green(connection, tables[-1]):
                context.dialect.run(connection, statement)
        with context.dialect.transaction(connection):
            context.ledger.reset_checkpoints(connection, context.run_id, plan.projectors)
            context.ledger.move(connection, context.run_id, RunState.CLONED)
    return [table.green for table in tables]


def _drop_leftover(context: Context, connection: sa.Connection, table: TableSet) -> None:
    if not context.dialect.table_exists(connection, table.schema, table.green):
        return
    if not context.ledger.is_our_green(connection, table.green):
        raise CloneError(foreign_green(table))
    context.log(f"dropping {table.green}, left by an earlier attempt")
    context.dialect.run(connection, context.dialect.drop_table(table.schema, table.green))


def foreign_green(table: TableSet) -> str:
    """The refusal of a table in green's place that no run has made."""
    return (
        f"there is a table {table.green} that no rebuild has made; rename or drop it yourself if nobody needs it, "
        "since a rebuild replaces it"
    )


def _create(context: Context, connection: sa.Connection, table: TableSet) -> None:
    # Known to be ours before it exists: a kill between the two leaves a note without a table, never the reverse.
    context.ledger.note_green(connection, context.run_id, table.green)
    for statement in context.dialect.create_green(connection, table):
        context.dialect.run(connection, statement)
    context.log(f"made {table.green} like {table.blue}")
