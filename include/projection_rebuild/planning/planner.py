"""The step `plan`: looks at spec, choices and databases, refuses what cannot be done, and claims the tables."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from projection_rebuild.cutover.reconcile import finish_dead
from projection_rebuild.model.findings import Carried, refuse
from projection_rebuild.model.plan import Plan
from projection_rebuild.planning.estimate import forecast
from projection_rebuild.planning.preflight import preflight
from projection_rebuild.replay.shards import shard_counts
from projection_rebuild.run.context import Context
from projection_rebuild.run.start import begin
from projection_rebuild.run.statements import planned_swap, printed
from projection_rebuild.spec.options import RunOptions


def plan(context: Context, options: RunOptions, is_over: Callable[[str], bool], by: str) -> Plan:
    """See :meth:`projection_rebuild.rebuild.Rebuild.plan`."""
    part = options.part(context.spec.zone)
    with context.dialect.connect() as connection:
        if not options.dry_run:
            finish_dead(context, connection, is_over)
        found = preflight(context, connection, options)
        refuse(found.findings)
        made = Plan(
            rebuild=context.spec.rebuild,
            run_id=context.run_id,
            projectors=found.projectors,
            tables=found.tables,
            schema_name=context.schema,
            events=context.store.estimate(),
            head=context.store.newest(),
            shards={} if part else shard_counts(context, found.projectors, options),
            findings=found.findings,
            space=found.space,
            forms=found.structure.forms,
            views=found.structure.views,
            difference=found.structure.difference,
            dry_run=options.dry_run,
            part=part,
        )
        if options.dry_run:
            carried = _carried(context, connection, made)
            expected = forecast(context, made.projectors, made.head, made.shards)
            sql = _statements(context, connection, made)
            return made.model_copy(update={"forecasts": expected, "carried": carried, "sql": sql})
        begin(context, connection, made, options, is_over, by)
    return made


STRUCTURAL = {
    "columns", "options", "sequences", "indexes", "constraints", "keys", "checks", "foreign keys", "foreign keys to", "statistics",
    "partitions", "comments",
}  # fmt: skip
"""Kinds of what a new structure speaks of, and so does not take over."""


def _carried(context: Context, connection: sa.Connection, made: Plan) -> list[Carried]:
    hanging = context.dialect.carried(connection, context.switched_sets(made))
    return [each for each in hanging if each.table not in made.forms or each.kind not in STRUCTURAL]


def _statements(context: Context, connection: sa.Connection, made: Plan) -> list[str]:
    """The DDL of a run, in the order in which its steps execute it."""
    dialect, tables = context.dialect, context.switched_sets(made)
    statements = [each for table in tables for each in dialect.create_green(connection, table)]
    for table in tables:
        # The indexes that come with the key are part of the statements above.
        statements += [each for each in dialect.index_green(connection, table) if each not in statements]
        statements += dialect.analyze(connection, table)
    statements += [each for table in tables for each in dialect.constrain_green(connection, table, tables)]
    statements += dialect.before_swap(connection, tables)
    drops = [each for table in reversed(tables) for each in dialect.drop_table(connection, table, table.old)]
    # What hangs on two tables goes with the first of them.
    return printed(context, connection, [*statements, *planned_swap(context, connection, tables), *dict.fromkeys(drops)])
