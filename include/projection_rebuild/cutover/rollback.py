"""The rollback of a swap: retired tables become green again, catch up, and are swapped by the same protocol.

A rollback is a run whose green tables are the retired ones. So an operator can kill and retry it at any moment. To go
forward again, an operator rolls the rollback back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import sqlalchemy as sa

from projection_rebuild.cutover.reconcile import finish_dead
from projection_rebuild.errors import OldTableGone, PlanError, StoppedAtCutover, UnknownRun
from projection_rebuild.ledger import Retired, Run, RunState
from projection_rebuild.model.findings import Finding, refusal, refuse
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import BEGINNING, Place, said
from projection_rebuild.replay.catch_up import CatchUp
from projection_rebuild.run.context import Context
from projection_rebuild.run.start import begin
from projection_rebuild.run.statements import planned_swap, printed, within
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.shadow import live_tables
from projection_rebuild.shadow.clone import drop_leftover
from projection_rebuild.shadow.retire import when_free
from projection_rebuild.spec.options import RunOptions


def plan_rollback(context: Context, options: RunOptions, of: str | None, is_over: Callable[[str], bool], by: str) -> Plan:
    """Plans the rollback of a swap, and claims its tables.

    See :meth:`projection_rebuild.rebuild.Rebuild.plan_rollback`.
    """
    with open_step(context) as step:
        if not options.dry_run:
            finish_dead(step, is_over)
        target, retired = _target(step, of)
        before = target.plan
        if before.forms:
            raise PlanError(
                f"nothing has been touched; the switch of {target.run_id} cannot be taken back: it gave {', '.join(before.forms)} another "
                "structure, and the objects that depend on the tables fit only that one. To go back, name the earlier structure in the "
                "spec (`structure`) and trigger a rebuild: it makes the tables from the events, and switches them as this run did"
            )
        left = target.left_behind
        refuse(_refusals(step, before, retired), f"the switch of {target.run_id} cannot be taken back")
        above = {*left.above, *_applied_before(step, target)}
        head = context.store.newest()
        plan = Plan(
            rebuild=context.spec.rebuild,
            run_id=context.run_id,
            projectors=before.projectors,
            tables=before.tables,
            schema_name=context.schema,
            events=sum(context.store.counts(left.settled, head).values()),
            head=head,
            dry_run=options.dry_run,
            rolls_back=target.run_id,
            already=sorted(above) if context.spec.live_writer.checkpoint is None else [],
        )
        if options.dry_run:
            return plan.model_copy(update={"sql": _statements(step, context.switched_sets(plan))})
        begin(step, plan, options, is_over, by)
    return plan


def _statements(step: Step, tables: list[TableSet]) -> list[str]:
    """The DDL of a rollback. It adds the foreign keys before the renames, which keep them."""
    dialect, retired = step.dialect, [replace(table, green=table.old) for table in tables]
    keys = [statement for table in retired for statement in dialect.shadow.constrain_green(step.connection, table, retired)]
    back = dialect.restore_names(step.connection, tables)
    # Both lists may have the statement that frees a name.
    before = [statement for statement in dialect.before_swap(step.connection, tables) if statement not in back]
    return printed(step, [*keys, *within(step.context, back), *before, *planned_swap(step, tables)])


def _applied_before(step: Step, target: Run) -> list[int]:
    """The positions above its checkpoints whose events this run already holds, if it was planned before.

    Attempts at its swap that were undone have applied them.
    """
    before = step.ledger.runs.find() if step.ledger.exists() else None
    if before is None or (plan := before.plan).rolls_back != target.run_id:
        return []
    return plan.already or []


def _target(step: Step, of: str | None) -> tuple[Run, list[Retired]]:
    """The run whose swap the rollback takes back, and the tables that it retired.

    :param of: its id; None: the run that has retired tables of this spec last
    :raises PlanError: no run qualifies
    """
    ours = {table for projector in step.context.projectors.values() for table in projector.tables()}
    retired = [old for old in step.ledger.owned_tables.retired() if old.table in ours] if step.ledger.exists() else []
    if of is None and not retired:
        raise PlanError(
            "there is nothing to take back: no switch of these tables has kept its old ones, or they are dropped by now"
        )
    wanted = of or max(retired, key=lambda old: old.retired_at).run_id
    run = step.ledger.of(wanted).runs.find()
    if run is None:
        raise PlanError(f"the ledger has no run {wanted}; runs whose old tables are kept: {_run_ids(retired)}")
    if wanted == step.run_id:
        raise PlanError("this run has switched already; to go forward again, trigger a new rollback")
    if run.record.left_behind is None or not run.state.has_switched:
        raise PlanError(
            f"the ledger does not know what the old tables of {wanted} hold: it has not switched, or was planned anew since"
        )
    return run, step.ledger.owned_tables.retired(run_id=wanted)


def _run_ids(retired: list[Retired]) -> str:
    return ", ".join(sorted({old.run_id for old in retired})) or "none"


def _refusals(step: Step, plan: Plan, retired: list[Retired]) -> list[Finding]:
    """The reasons why the old tables of a run cannot become live again."""
    kept = {old.table: old for old in retired}
    refusals: list[Finding] = []
    for table in step.context.switched_sets(plan):
        old = kept.get(table.blue)
        if old is None:
            later = step.ledger.owned_tables.retired(old=table.old)
            who = f"{later[0].old} is what the run {later[0].run_id} has retired since, take that one back first" if later else ""
            refusals.append(refusal(table.blue, "its old table has been dropped", who))
        else:
            refusals += _not_the_same(step, old)
    refusals += [
        refusal("", f"{name} is no projector of this spec any more; its tables cannot be brought up to date")
        for name in plan.projectors
        if name not in step.context.projectors
    ]
    if refusals:
        return refusals
    return [
        *_missing_columns(step, plan, kept),
        *step.dialect.dependents.unsupported_objects(step.connection, step.context.switched_sets(plan)),
    ]


def _not_the_same(step: Step, old: Retired) -> Iterator[Finding]:
    """A refusal if the retired table no longer exists, or another table has its name."""
    if not step.dialect.inspector.table_exists(step.connection, step.schema, old.old):
        yield refusal(old.table, f"there is no table {old.old} any more; another program or a person has dropped it")
    elif old.identity not in (None, step.dialect.inspector.identity(step.connection, step.schema, old.old)):
        yield refusal(old.table, f"{old.old} is not the table that was retired; another table has its name now")


def _missing_columns(step: Step, plan: Plan, kept: dict[str, Retired]) -> Iterator[Finding]:
    """Refusals of old tables that lack columns which today's projectors write.

    :param kept: the retired tables, by the name of the live table
    """
    for kind in [kind for name in plan.projectors for kind in step.context.projector(name).kinds()]:
        columns = step.dialect.inspector.columns(step.connection, step.schema, kept[kind.table].old)
        if missing := [name for name in kind.columns if name not in columns]:
            yield refusal(
                kind.table,
                f"the old table has no column {', '.join(missing)}, which {kind.row_class.__name__} writes; it cannot be brought up to "
                "date by today's projectors",
            )


def bring_back(context: Context, stopped: Callable[[], bool] = lambda: False) -> Place:
    """Renames the retired tables to green, and replays into them the events since they were live.

    :param stopped: returns whether the worker must stop; called while a program works
    :returns: the position that the tables have reached
    :raises StepOrderError: the run is within its swap, is no rollback, or a retired table no longer exists
    :raises ClaimRefused: another run has taken the tables over
    """
    with open_step(context, requires=RunState.PLANNED, migrates=True) as step:
        run = step.run
        plan = step.plan
        if run.state.has_switched:
            context.log("this run has switched already; there is nothing to bring back")
            return run.swap_result.position
        if run.state.in_doubt or plan.rolls_back is None:
            raise StoppedAtCutover(
                f"the run {context.run_id} is {run.state} and no rollback that begins; retry atomic_swap before anything else"
            )
        tables = context.switched_sets(plan)
        step.ledger.claims.claim([table.blue for table in tables])
        live_tables.refuse_at_once(step, tables, run)
        plan = _restore(step, plan, tables)
        for table in tables:
            for statement in context.dialect.shadow.index_green(step.connection, table):
                context.dialect.run(step.connection, statement)
        projectors = CatchUp(step, plan)
        context.log(f"the old tables stand at {said(projectors.position)}")
        projectors.catch_up(stopped)
        # On databases where the swap removes the foreign keys of retired tables.
        for table in tables:
            for statement in context.dialect.shadow.constrain_green(step.connection, table, tables):
                context.dialect.run(step.connection, statement)
        with context.dialect.transaction(step.connection):
            step.ledger.runs.move_unless_switching(RunState.VERIFIED)
        context.log(f"the old tables are up to date at {said(projectors.position)}")
        return projectors.position


def _restore(step: Step, plan: Plan, tables: list[TableSet]) -> Plan:
    """Renames the tables that still have their old names, and sets the checkpoints.

    If another rollback of the same swap has stopped half-way, this one takes its tables and checkpoints over.

    :returns: the plan, with the positions above the checkpoints whose events that rollback has projected
    :raises StepOrderError: a retired table no longer exists
    """
    dialect, ledger = step.dialect, step.ledger
    to_rename = [table for table in tables if not _is_back(step, plan, table)]
    for table in to_rename:
        if not dialect.inspector.table_exists(step.connection, table.schema, table.old):
            raise OldTableGone(f"{table.old} is gone: it cannot be taken back any more. Blue is live and untouched")
    for table in reversed(to_rename):
        drop_leftover(step, table)
    for table in to_rename:
        # Before the rename: if the worker is killed between the two, an entry without its table does no harm.
        ledger.owned_tables.add_green(table.green)
    if to_rename:
        with dialect.short_lock_wait(step.connection, step.spec.swap.lock_timeout):
            when_free(step.context, [table.old for table in to_rename], lambda: _rename(step, to_rename))
    with dialect.transaction(step.connection):
        _rename_in_ledger(step, tables)
        plan = plan.model_copy(update={"already": _set_checkpoints(step, plan, tables)})
        # The first attempt records the live tables, so that a later one does not accept another table as live.
        before = ledger.runs.get().record.live_tables
        live = before or live_tables.identities(step, tables)
        ledger.runs.move(RunState.CLONED, plan=plan, live_tables=live)
    return plan


def _is_back(step: Step, plan: Plan, table: TableSet) -> bool:
    """Whether this rollback, or another one of the same swap, has already renamed the table to green."""
    if step.dialect.inspector.table_exists(step.connection, table.schema, table.old):
        return False
    by = step.ledger.owned_tables.run_of_green(table.green)
    run = step.ledger.of(by).runs.find() if by else None
    exists = step.dialect.inspector.table_exists(step.connection, table.schema, table.green)
    return exists and run is not None and run.plan.rolls_back == plan.rolls_back


def _rename(step: Step, tables: list[TableSet]) -> None:
    dialect = step.dialect
    with dialect.ddl_transaction(step.connection):
        for statement in dialect.restore_names(step.connection, tables):
            dialect.run(step.connection, statement)


def _rename_in_ledger(step: Step, tables: list[TableSet]) -> None:
    for table in tables:
        step.ledger.owned_tables.rename_retired(table.old, table.green)


def _set_checkpoints(step: Step, plan: Plan, tables: list[TableSet]) -> list[int] | None:
    """Sets the checkpoints of the rollback: its own, those of an unfinished rollback, or those of the retirement.

    :returns: the positions above the checkpoints whose events the tables already hold
    """
    ledger = step.ledger
    before = ledger.owned_tables.run_of_green(tables[0].green)
    for table in tables:
        ledger.owned_tables.add_green(table.green)
    if before not in (None, step.run_id) and ledger.of(str(before)).checkpoints.of_projectors():
        ledger.of(str(before)).checkpoints.hand_over(step.run_id)
        # That rollback may have drained events above the high-water mark, and then not swapped.
        if (dead := ledger.of(str(before)).runs.find()) is not None:
            return dead.plan.already
    elif ledger.checkpoints.of_projectors():
        ledger.checkpoints.fence()
    else:
        ledger.checkpoints.begin(_start(step, plan, tables))
    return plan.already


def _start(step: Step, plan: Plan, tables: list[TableSet]) -> dict[str, tuple[Place, int]]:
    """The state of the retired tables when the swap retired them.

    :returns: the position, and the number of events that the tables hold, by projector
    :raises StepOrderError: the ledger no longer has the run whose swap is taken back
    """
    target = step.ledger.of(str(plan.rolls_back)).runs.find()
    if target is None:
        raise UnknownRun(f"the ledger no longer has the run {plan.rolls_back}; its switch cannot be taken back")
    left = target.left_behind
    consumers = step.spec.live_writer.checkpoint
    if consumers is None:
        return {name: (left.settled, _handled(step.context, name, left.events)) for name in plan.projectors}
    # Consumers wrote their positions in the same transactions as their rows.
    table = sa.table(tables[-1].green, sa.column(consumers.name_column), sa.column(consumers.position_column), schema=step.schema)
    # A consumer whose position is NULL has not begun.
    positions = {str(name): None if at is None else int(at) for name, at in step.connection.execute(sa.select(table))}
    started = {name: positions[consumers.names[name]] for name in plan.projectors}
    return {name: (at, _handled(step.context, name, step.context.store.counts(BEGINNING, at))) for name, at in started.items()}


def _handled(context: Context, projector: str, events: dict[str, int]) -> int:
    """The number of events that a projector handles, of the given numbers by event type."""
    return sum(events.get(event_type, 0) for event_type in context.projector(projector).stored_types())
