"""Decides whether green may replace blue.

It checks counts, checkpoints, events, a sample, keys, foreign keys and the user's own assertions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import sqlalchemy as sa

from projection_rebuild.authoring.external import ExternalProjector
from projection_rebuild.errors import SpecSqlError, VerificationFailed
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.trouble import MAY_PASS
from projection_rebuild.ledger import RecordChanges, RunState
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.results import Sampled, TableComparison, Verification
from projection_rebuild.replay import partial
from projection_rebuild.replay.catch_up import CatchUp
from projection_rebuild.replay.projector_replay import replay
from projection_rebuild.rows.types import RowType
from projection_rebuild.run import jobs
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.shadow import live_tables
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.verification import sample, second_opinion

SAMPLES = 5


def verify(context: Context, stopped: Callable[[], bool] = lambda: False) -> Verification:
    """Adds the foreign keys to green, compares green with blue, and records the findings.

    :param stopped: returns whether the worker must stop; called while a program runs
    :raises ProgramFailed: a program has failed; a retry recreates its tables if necessary
    :raises VerificationFailed: green must not replace blue; the message lists why. Blue is untouched
    """
    began = time.monotonic()
    with open_step(context, requires=RunState.CLONED, migrates=True) as step:
        run = step.run
        if run.state.has_begun_switch:
            return run.verification
        plan, options = step.plan, run.record.options
        live_tables.refuse_at_once(step, context.switched_sets(plan), run)
        _begin_anew(step, plan, stopped)
        failures, dead_letters = _check_replays(step, plan), {}
        notes: list[str] = []
        sampled: list[Sampled] = []
        if not failures:
            # All projectors catch up to one position, so that each row of a child finds the parent of that time.
            jobs.wait_for_queue(context)
            projectors = CatchUp(step, plan)
            projectors.catch_up(stopped)
            counted = second_opinion.count(step, plan)
            failures, notes = counted.failures, counted.notes
            failures += projectors.too_many_dead_letters()
            dead_letters = projectors.dead_letters()
            sampled = sample.take(context, plan, context.spec.verify.sample)
            failures += [finding for projector_sample in sampled for finding in projector_sample.findings]
        failures += _constrain(step, plan)
        tables = [_compare(step, kind, context.table_set(kind.table, plan), options) for kind in _kinds(step, plan)]
        failures += [failure for table in tables for failure in _check_counts(table)]
        failures += _check_assertions(step, plan)
        verification = Verification(
            tables=tables,
            failures=failures,
            dead_letters=dead_letters,
            notes=notes,
            sample=sampled,
            at=datetime.now(UTC),
            seconds=time.monotonic() - began,
        )
        state = RunState.VERIFIED if verification.passed else RunState.CLONED
        changes = RecordChanges(verification=verification)
        if verification.passed:
            changes["live_tables"] = live_tables.taken_over(step, context.switched_sets(plan), run)
        with context.dialect.transaction(step.connection):
            step.ledger.runs.move_unless_switching(state, **changes)
    if not verification.passed:
        raise VerificationFailed("green does not pass, blue is untouched:\n" + verification.describe())
    return verification


def _begin_anew(step: Step, plan: Plan, stopped: Callable[[], bool]) -> None:
    """Replays each program again whose last call was cut short after its replay.

    No writer waits yet, and a retry goes on from there.
    """
    for name in [] if plan.rolls_back else plan.projectors:
        if step.ledger.external_calls.is_open(name):
            step.log(replay(step.context, name, stopped).describe())


def _kinds(step: Step, plan: Plan) -> list[RowType]:
    by_table = {kind.table: kind for name in plan.projectors for kind in step.context.projector(name).kinds()}
    for name in plan.projectors:
        if issubclass(step.context.projector(name), ExternalProjector):
            # The engine does not know which columns a program writes, so it compares all of them.
            for kind in step.context.projector(name).kinds():
                columns = step.dialect.inspector.columns(step.connection, step.schema, kind.table)
                by_table[kind.table] = replace(kind, columns=tuple(columns))
    return [by_table[table] for table in plan.tables]


def _check_replays(step: Step, plan: Plan) -> list[str]:
    failures = []
    checkpoints = step.ledger.checkpoints.of_projectors()
    for name in plan.projectors:
        checkpoint = checkpoints.get(name)
        copied = checkpoint is not None and (plan.part is None or partial.is_copied(step, checkpoint))
        if checkpoint is None or checkpoint.is_behind or not copied:
            failures.append(f"{name} is not replayed to the end; run its replay task again")
    return failures


def _constrain(step: Step, plan: Plan) -> list[str]:
    """Adds the foreign keys, late, so that they cost the replay nothing; returns those that a row violates."""
    failures = []
    tables = step.context.table_sets(plan)
    for table in tables:
        for statement in step.dialect.shadow.constrain_green(step.connection, table, tables):
            try:
                step.dialect.run(step.connection, statement)
            except sa.exc.IntegrityError:
                failures.append(f"{table.blue}: green has rows without their parent; this foreign key fails: {statement}")
        failures += [
            f"{table.blue}: green has rows without their parent, by the foreign key {orphans}"
            for orphans in step.dialect.shadow.orphans(step.connection, table, tables)
        ]
    return failures


def _check_counts(table: TableComparison) -> list[str]:
    if table.blue_rows and not table.green_rows:
        return [f"{table.table}: green is empty and blue is not"]
    if table.drift_percent > table.tolerance_percent:
        return [
            f"{table.table}: {table.green_rows:,} rows against {table.blue_rows:,} is a drift of {table.drift_percent:.2f} %, more "
            f"than the {table.tolerance_percent:g} % allowed (verify.max_count_drift_percent, or the run's parameter of that name)"
        ]
    return []


def tolerance(context: Context, options: RunOptions, table: str) -> float:
    """The drift allowed for a table, in percent: the run's own, else the table's, else the spec's."""
    if options.max_count_drift_percent is not None:
        return options.max_count_drift_percent
    return context.spec.verify.tables.get(table, context.spec.verify.max_count_drift_percent)


def _compare(step: Step, kind: RowType, table: TableSet, options: RunOptions) -> TableComparison:
    dialect = step.dialect
    blue_rows = dialect.inspector.row_count(step.connection, table.schema, table.blue)
    green_rows = dialect.inspector.row_count(step.connection, table.schema, table.green)
    drift = abs(green_rows - blue_rows) / blue_rows * 100 if blue_rows else (100.0 if green_rows else 0.0)
    both = (
        [dialect.inspector.columns(step.connection, table.schema, name) for name in (table.blue, table.green)]
        if table.target_schema
        else []
    )
    common = [name for name in kind.columns if all(name in columns for columns in both)]
    conditions = _Conditions(step.context, kind, table, common)
    # Without a common key the query cannot match rows, so that all rows count as different.
    counts = {"only_blue": blue_rows, "only_green": green_rows, "differing": 0}
    counts |= {what: int(dialect.execute(step.connection, f"SELECT count(*) {rest}").scalar_one()) for what, rest in conditions}
    samples = {
        what: [" / ".join(map(str, key)) for key in dialect.execute(step.connection, conditions.keys(what, rest))]
        for what, rest in conditions
        if counts[what]
    }
    # An empty blue means the first rebuild of a new read model: green's count has nothing to differ from.
    return TableComparison(
        table=table.blue,
        blue_rows=blue_rows,
        green_rows=green_rows,
        drift_percent=drift if blue_rows else 0.0,
        tolerance_percent=tolerance(step.context, options, table.blue),
        identical=max(0, green_rows - counts["only_green"] - counts["differing"]),
        differing=counts["differing"],
        only_blue=counts["only_blue"],
        only_green=counts["only_green"],
        samples=samples,
        not_compared=[name for name in kind.columns if name not in common],
    )


class _Conditions:
    """The three kinds of difference between two tables, as the FROM and WHERE of a query.

    :param common: the columns that blue has too; if it lacks a column of the key, no query is possible
    """

    def __init__(self, context: Context, kind: RowType, table: TableSet, common: Sequence[str]) -> None:
        dialect = context.dialect
        blue, green = dialect.qualified(table.schema, table.blue), dialect.qualified(table.schema, table.green)
        keys = [dialect.quote(name) for name in kind.key]
        rest = [dialect.quote(name) for name in kind.columns if name not in kind.key and name in common]
        pairs = [(f"b.{key}", f"g.{key}") for key in keys]
        match = " AND ".join(dialect.rows.same(*pair) if table.target_schema else " = ".join(pair) for pair in pairs)
        differs = " OR ".join(dialect.rows.differs(f"b.{name}", f"g.{name}") for name in rest) or "1 = 0"
        self._keys = keys
        self._parts: dict[str, str] = {}
        if not set(kind.key) <= set(common):
            return
        self._parts = {
            "only_blue": f"FROM {blue} b WHERE NOT EXISTS (SELECT 1 FROM {green} g WHERE {match})",
            "only_green": f"FROM {green} g WHERE NOT EXISTS (SELECT 1 FROM {blue} b WHERE {match})",
            "differing": f"FROM {blue} b JOIN {green} g ON {match} WHERE {differs}",
        }

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._parts.items())

    def keys(self, what: str, rest: str) -> str:
        alias = "g" if what == "only_green" else "b"
        columns = ", ".join(f"{alias}.{key}" for key in self._keys)
        return f"SELECT {columns} {rest} ORDER BY {columns} LIMIT {SAMPLES}"


def _check_assertions(step: Step, plan: Plan) -> list[str]:
    names = {table.blue: step.dialect.qualified(table.schema, table.green) for table in step.context.table_sets(plan)}
    return [failure for sql in step.spec.verify.assertions if (failure := _assertion(step.connection, sql, names))]


def _assertion(connection: sa.Connection, sql: str, names: dict[str, str]) -> str | None:
    statement = sql
    for table, green in names.items():
        statement = statement.replace("{" + table + "}", green)
    if "{" in statement:
        # The assertion names a table that is not in this run.
        return None
    try:
        row = connection.execute(sa.text(statement.replace(":", r"\:"))).first()
    except sa.exc.DBAPIError as error:
        trouble = trouble_of(error)
        if trouble is None or trouble.kind in MAY_PASS:
            raise
        raise SpecSqlError(f"the assertion {sql!r} cannot be executed: {trouble.describe()}; correct verify.assertions") from None
    if row is None or (len(row) == 1 and row[0] in (0, None)):
        return None
    return f"the assertion {sql!r} found a row"
