"""The step `plan`: looks at spec, choices and databases, refuses what cannot be done, and claims the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from projection_rebuild import agreed
from projection_rebuild.context import Context
from projection_rebuild.errors import ClaimRefused, StepOrderError
from projection_rebuild.findings import Carried, refuse
from projection_rebuild.forecast import forecast
from projection_rebuild.ledger import INTERRUPTED_AT_SWITCH, RecordChanges
from projection_rebuild.limits import NAME, shown
from projection_rebuild.names import TableSet
from projection_rebuild.plan import Plan
from projection_rebuild.preflight import preflight
from projection_rebuild.reconcile import finish_dead
from projection_rebuild.shards import shard_counts
from projection_rebuild.spec import RunOptions


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
    statements += dialect.before_switch(connection, tables)
    drops = [each for table in reversed(tables) for each in dialect.drop_table(connection, table, table.old)]
    # What hangs on two tables goes with the first of them.
    return printed(context, connection, [*statements, *planned_switch(context, connection, tables), *dict.fromkeys(drops)])


def planned_switch(context: Context, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
    """The statements of a switch and what follows it at once, before there is anything to be switched."""
    dialect = context.dialect
    switch = within(context, dialect.switch(connection, tables, planned=True))
    return [*switch, *dialect.planned_after_switch(connection, tables, planned=True)]


def within(context: Context, statements: Sequence[str]) -> list[str]:
    """In one transaction, where that holds them together."""
    return [*statements] if context.dialect.ddl_commits else [context.dialect.begin, *statements, "COMMIT"]


def printed(context: Context, connection: sa.Connection, statements: Sequence[str]) -> list[str]:
    """The statements as they stand in a shell, after the settings of the session in which they are meant."""
    dialect = context.dialect
    return [*dialect.session(connection), *map(dialect.as_it_stands, statements)]


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
            dead = ledger.runs.find(connection, holder)
            if dead is not None and dead.state in INTERRUPTED_AT_SWITCH:
                raise ClaimRefused(
                    f"the table {table} is claimed by the run {holder}, which is over, but {INTERRUPTED_AT_SWITCH[dead.state]}"
                )
            context.log(f"the run {holder} is over and still held {table}; taking its claims over")
            with context.dialect.transaction(connection):
                ledger.take_over(connection, holder, context.run_id)
    ledger.claims.claim(connection, context.run_id, tables)
