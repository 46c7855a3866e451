"""The step `plan`: looks at spec, choices and databases, refuses what cannot be done, and claims the tables."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from include.projection_rebuild.clone import foreign_green
from include.projection_rebuild.context import Context
from include.projection_rebuild.errors import PlanError, StepOrderError
from include.projection_rebuild.ledger import RunState
from include.projection_rebuild.names import TableSet
from include.projection_rebuild.plan import Plan, choose, sort
from include.projection_rebuild.rows import RowType
from include.projection_rebuild.spec import LiveWriter, RunOptions
from include.projection_rebuild.swap import foreign_old


def plan(context: Context, options: RunOptions, is_over: Callable[[str], bool]) -> Plan:
    """See :meth:`include.projection_rebuild.rebuild.Rebuild.plan`."""
    projectors = choose(context.projectors, options)
    kinds = [kind for name in projectors for kind in context.projector(name).kinds()]
    context.store.refuse_unreadable()
    with context.dialect.connect() as connection:
        refusals = [refusal for kind in kinds for refusal in _refusals(context, connection, kind)]
        refusals += _contract_refusals(context, connection, projectors)
        if not refusals:
            consumers = context.spec.live_writer.checkpoint
            names = [kind.table for kind in kinds] + ([consumers.table] if consumers else [])
            refusals += context.dialect.cannot_carry(connection, [context.table_set(name) for name in names])
        if refusals:
            raise PlanError("nothing has been touched; this rebuild is refused:\n" + "\n".join(f"- {each}" for each in refusals))
        made = Plan(
            rebuild=context.spec.rebuild,
            run_id=context.run_id,
            projectors=projectors,
            tables=_parents_first(context, connection, [kind.table for kind in kinds]),
            schema_name=context.schema,
            events=context.store.estimate(),
            head=context.store.newest(),
            findings=_findings(context, projectors),
            dry_run=options.dry_run,
        )
        if options.dry_run:
            return made.model_copy(update={"sql": _statements(context, connection, made)})
        _begin(context, connection, made, options, is_over)
    return made


def _refusals(context: Context, connection: sa.Connection, kind: RowType) -> list[str]:
    """What is wrong with one table, before anything is touched."""
    table = context.table_set(kind.table)
    dialect = context.dialect
    if not dialect.table_exists(connection, table.schema, table.blue):
        return [f"there is no table {table.blue}; create it (it may be empty), or correct the projector's row class"]
    refusals = []
    missing = [name for name in kind.columns if name not in dialect.columns(connection, table.schema, table.blue)]
    if missing:
        refusals.append(f"{table.blue} has no column {', '.join(missing)}; correct the row class {kind.row_class.__name__}")
    elif set(kind.key) not in dialect.unique_keys(connection, table.schema, table.blue):
        refusals.append(
            f"{table.blue}: the key ({', '.join(kind.key)}) of {kind.row_class.__name__} is neither primary key nor unique; rows "
            "could not be told apart. Add a unique constraint or correct the key"
        )
    return refusals + _taken_names(context, connection, table)


def _contract_refusals(context: Context, connection: sa.Connection, projectors: list[str]) -> list[str]:
    """Why the live writer's contract cannot be kept as it is declared."""
    contract = context.spec.live_writer.contract
    if contract is LiveWriter.TRANSACTIONAL and not context.one_database:
        return [
            "live_writer: events and read models are in two databases, where no transaction writes both; declare the contract as "
            "checkpointed or detached"
        ]
    consumers = context.spec.live_writer.checkpoint
    if consumers is None:
        return []
    dialect, table = context.dialect, context.table_set(consumers.table)
    if not dialect.table_exists(connection, table.schema, table.blue):
        return [f"live_writer.checkpoint: there is no table {table.blue} beside the read models"]
    columns = dialect.columns(connection, table.schema, table.blue)
    missing = [name for name in (consumers.name_column, consumers.position_column) if name not in columns]
    if missing:
        return [f"live_writer.checkpoint: {table.blue} has no column {', '.join(missing)}"]
    query = sa.select(sa.column(consumers.name_column, sa.String)).select_from(sa.table(table.blue, schema=table.schema))
    there = {str(name) for name in connection.execute(query).scalars()}
    expected = {consumers.names.get(name, "") for name in projectors}
    if there != expected:
        return [
            f"live_writer.checkpoint: {table.blue} has rows of {sorted(there)}, the projectors of this run are {sorted(expected)}; it is "
            "switched as a whole, so choose all of its projectors, and name each in live_writer.checkpoint.names"
        ]
    return _taken_names(context, connection, table)


def _taken_names(context: Context, connection: sa.Connection, table: TableSet) -> list[str]:
    """Tables in green's or old's place that no run has made."""
    dialect, refusals = context.dialect, []
    known = context.ledger.exists(connection)
    if dialect.table_exists(connection, table.schema, table.green) and not (
        known and context.ledger.is_our_green(connection, table.green)
    ):
        refusals.append(foreign_green(table))
    if dialect.table_exists(connection, table.schema, table.old) and not (
        known and context.ledger.retired(connection, old=table.old)
    ):
        refusals.append(foreign_old(table))
    return refusals


def _parents_first(context: Context, connection: sa.Connection, tables: list[str]) -> list[str]:
    graph = {table: sorted(context.dialect.parents(connection, context.schema, table) & set(tables)) for table in tables}
    return sort(graph, "the foreign keys of these tables point at each other in a circle")


def _findings(context: Context, projectors: list[str]) -> list[str]:
    """Event types without a handler, and handlers without events: often a type that was renamed on one side only."""
    stored = set(context.store.types())
    handled = {each for projector in context.projectors.values() for each in projector.event_types()}
    findings = []
    if stored - handled:
        findings.append(f"no projector of this spec handles {', '.join(sorted(stored - handled))}")
    for name in projectors:
        unseen = set(context.projector(name).event_types()) - stored
        if unseen:
            findings.append(f"{name} handles {', '.join(sorted(unseen))}, which the store does not hold")
    return findings


def _statements(context: Context, connection: sa.Connection, made: Plan) -> list[str]:
    """The DDL of a run, in the order in which its steps execute it."""
    dialect, tables = context.dialect, context.switched_sets(made)
    statements = [each for table in tables for each in dialect.create_green(connection, table)]
    for table in tables:
        # The indexes that come with the key are part of the statements above.
        statements += [each for each in dialect.index_green(connection, table) if each not in statements]
        statements.append(dialect.analyze(table.schema, table.green))
    statements += [each for table in tables for each in dialect.constrain_green(connection, table, tables)]
    statements += dialect.switch(connection, tables)
    statements += [dialect.drop_table(table.schema, table.old) for table in reversed(tables)]
    # The drivers format their statements, so percent signs are doubled in them.
    return [each.replace("%%", "%") for each in statements]


def _begin(context: Context, connection: sa.Connection, made: Plan, options: RunOptions, is_over: Callable[[str], bool]) -> None:
    ledger = context.ledger
    ledger.create(connection)
    before = ledger.find_run(connection, context.run_id)
    if before is not None and before.state == RunState.SWITCHING:
        raise StepOrderError(f"the run {context.run_id} was stopped within its switch; retry atomic_swap before anything else")
    with context.dialect.transaction(connection):
        record = {"options": options.model_dump(mode="json"), "plan": made.model_dump(mode="json")}
        ledger.begin(connection, context.run_id, context.spec.rebuild, record)
    tables = [table.blue for table in context.switched_sets(made)]
    for table in tables:
        holder = ledger.claimant(connection, table)
        if holder not in (None, context.run_id) and is_over(str(holder)):
            context.log(f"the run {holder} is over and still held {table}; taking its claims over")
            with context.dialect.transaction(connection):
                ledger.take_over(connection, str(holder), context.run_id)
    ledger.claim(connection, context.run_id, tables)
