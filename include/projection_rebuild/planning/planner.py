"""The step ``plan``: checks spec, options and databases, refuses a rebuild that cannot work, and claims the tables."""

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
    """Plans a rebuild, and claims its tables; see :meth:`projection_rebuild.rebuild.Rebuild.plan`."""
    part = options.part(context.spec.zone)
    with open_step(context) as step:
        if not options.dry_run:
            finish_dead(step, is_over)
        planned = PreflightInput(step, options, part)
        findings = preflight(planned)
        refuse(findings)
        plan = _plan_of(planned, findings)
        if options.dry_run:
            carried = _dependents(step, plan)
            estimates = estimate(context, plan.projectors, plan.head, plan.shards)
            sql = _statements(step, plan)
            return plan.model_copy(update={"forecasts": estimates, "carried": carried, "sql": sql})
        begin(step, plan, options, is_over, by)
    return plan


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
"""Kinds of dependent objects that a new structure defines itself, so that a run does not carry them over."""


def _dependents(step: Step, plan: Plan) -> list[Dependents]:
    """The dependent objects that the run carries over."""
    dependents = step.dialect.dependents.dependent_objects(step.connection, step.context.switched_sets(plan))
    return [objects for objects in dependents if objects.table not in plan.forms or objects.kind not in STRUCTURAL]


def _statements(step: Step, plan: Plan) -> list[str]:
    """The DDL of a run, in the order in which its steps execute it."""
    shadow, connection, tables = step.dialect.shadow, step.connection, step.context.switched_sets(plan)
    statements = [statement for table in tables for statement in shadow.create_green(connection, table)]
    for table in tables:
        # The statements above already have the indexes that come with the key.
        statements += [statement for statement in shadow.index_green(connection, table) if statement not in statements]
        statements += shadow.analyze(connection, table)
    statements += [statement for table in tables for statement in shadow.constrain_green(connection, table, tables)]
    statements += step.dialect.before_swap(connection, tables)
    drops = [statement for table in reversed(tables) for statement in shadow.drop_table(connection, table, table.old)]
    # An object that depends on two tables is dropped with the first of them, so each statement stands here once.
    return printed(step, [*statements, *planned_swap(step, tables), *dict.fromkeys(drops)])
