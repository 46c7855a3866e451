"""The step `plan`: looks at spec, choices and databases, refuses what cannot be done, and claims the tables."""

from __future__ import annotations

from collections.abc import Callable

from projection_rebuild.cutover.reconcile import finish_dead
from projection_rebuild.model.findings import Dependents, Finding, refuse
from projection_rebuild.model.plan import Plan
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.estimate import estimate
from projection_rebuild.planning.preflight import preflight
from projection_rebuild.replay.shards import shard_counts
from projection_rebuild.run.context import Context
from projection_rebuild.run.start import begin
from projection_rebuild.run.statements import planned_swap, printed
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.spec.options import RunOptions


def plan(context: Context, options: RunOptions, is_over: Callable[[str], bool], by: str) -> Plan:
    """See :meth:`projection_rebuild.rebuild.Rebuild.plan`."""
    part = options.part(context.spec.zone)
    with open_step(context) as step:
        if not options.dry_run:
            finish_dead(step, is_over)
        planned = PreflightInput(step, options, part)
        findings = preflight(planned)
        refuse(findings)
        made = _plan_of(planned, findings)
        if options.dry_run:
            carried = _dependents(step, made)
            expected = estimate(context, made.projectors, made.head, made.shards)
            sql = _statements(step, made)
            return made.model_copy(update={"forecasts": expected, "carried": carried, "sql": sql})
        begin(step, made, options, is_over, by)
    return made


def _plan_of(planned: PreflightInput, findings: list[Finding]) -> Plan:
    context, options = planned.context, planned.options
    return Plan(
        rebuild=context.spec.rebuild,
        run_id=context.run_id,
        projectors=planned.projectors,
        tables=planned.filling_order,
        schema_name=context.schema,
        events=context.store.estimate(),
        head=context.store.newest(),
        shards={} if planned.part else shard_counts(context, planned.projectors, options),
        findings=findings,
        space=planned.space,
        forms=planned.schema_change.definitions,
        views=planned.schema_change.views,
        difference=planned.schema_change.difference,
        dry_run=options.dry_run,
        part=planned.part,
    )


STRUCTURAL = {
    "columns", "options", "sequences", "indexes", "constraints", "keys", "checks", "foreign keys", "foreign keys to", "statistics",
    "partitions", "comments",
}  # fmt: skip
"""Kinds of what a new structure speaks of, and so does not take over."""


def _dependents(step: Step, made: Plan) -> list[Dependents]:
    hanging = step.dialect.dependents.dependent_objects(step.connection, step.context.switched_sets(made))
    return [each for each in hanging if each.table not in made.forms or each.kind not in STRUCTURAL]


def _statements(step: Step, made: Plan) -> list[str]:
    """The DDL of a run, in the order in which its steps execute it."""
    dialect, tables = step.dialect, step.context.switched_sets(made)
    statements = [each for table in tables for each in dialect.shadow.create_green(step.connection, table)]
    for table in tables:
        # The indexes that come with the key are part of the statements above.
        statements += [each for each in dialect.shadow.index_green(step.connection, table) if each not in statements]
        statements += dialect.shadow.analyze(step.connection, table)
    statements += [each for table in tables for each in dialect.shadow.constrain_green(step.connection, table, tables)]
    statements += dialect.before_swap(step.connection, tables)
    drops = [each for table in reversed(tables) for each in dialect.shadow.drop_table(step.connection, table, table.old)]
    # What hangs on two tables goes with the first of them.
    return printed(step, [*statements, *planned_swap(step, tables), *dict.fromkeys(drops)])
