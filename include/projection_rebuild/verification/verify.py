"""Whether green may replace blue: counts, checkpoints, events, a sample, keys, foreign keys and the user's own assertions."""

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
from projection_rebuild.shadow import live_tables
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.verification import sample, second_opinion

SAMPLES = 5


def verify(context: Context, stopped: Callable[[], bool] = lambda: False) -> Verification:
    """Adds the foreign keys to green, compares it with blue, and records what was found.

    :param stopped: asked while a program is at work
    :raises ProgramFailed: a program has; a retry makes its tables anew where they have to be
    :raises VerificationFailed: green must not replace blue; the message lists why. Blue is untouched
    """
    began = time.monotonic()
    with context.dialect.connect() as connection:
        context.ledger.create(connection)
        run = context.ledger.runs.get(connection, context.run_id, requires=RunState.CLONED)
        if run.state.has_begun_switch:
            return run.verification
        plan, options = context.plan_of(run), run.record.options
        live_tables.refuse_at_once(context, connection, context.switched_sets(plan), run)
        _begin_anew(context, connection, plan, stopped)
        failures, dead_letters = _check_replays(context, connection, plan), {}
        notes: list[str] = []
        sampled: list[Sampled] = []
        if not failures:
            # To one position, so that every row of a child finds the parent that was there at its time.
            jobs.wait_for_queue(context)
            projectors = CatchUp(context, connection, plan)
            projectors.catch_up(stopped)
            counted = second_opinion.count(context, connection, plan)
            failures, notes = counted.failures, counted.notes
            failures += projectors.too_many_dead_letters()
            dead_letters = projectors.dead_letters()
            sampled = sample.take(context, plan, context.spec.verify.sample)
            failures += [finding for each in sampled for finding in each.findings]
        failures += _constrain(context, connection, plan)
        tables = [
            _compare(context, connection, kind, context.table_set(kind.table, plan), options)
            for kind in _kinds(context, connection, plan)
        ]
        failures += [failure for each in tables for failure in _check_counts(each)]
        failures += _check_assertions(context, connection, plan)
        found = Verification(
            tables=tables,
            failures=failures,
            dead_letters=dead_letters,
            notes=notes,
            sample=sampled,
            at=datetime.now(UTC),
            seconds=time.monotonic() - began,
        )
        state = RunState.VERIFIED if found.passed else RunState.CLONED
        changes = RecordChanges(verification=found)
        if found.passed:
            changes["live_tables"] = live_tables.taken_over(context, connection, context.switched_sets(plan), run)
        with context.dialect.transaction(connection):
            context.ledger.runs.move_unless_switching(connection, context.run_id, state, **changes)
    if not found.passed:
        raise VerificationFailed("green does not pass, blue is untouched:\n" + found.describe())
    return found


def _begin_anew(context: Context, connection: sa.Connection, plan: Plan, stopped: Callable[[], bool]) -> None:
    """A program whose call was cut short since its replay is replayed again, since nobody is held yet; then a retry goes on."""
    for name in [] if plan.rolls_back else plan.projectors:
        if context.ledger.external_calls.is_open(connection, context.run_id, name):
            context.log(replay(context, name, stopped).describe())


def _kinds(context: Context, connection: sa.Connection, plan: Plan) -> list[RowType]:
    by_table = {kind.table: kind for name in plan.projectors for kind in context.projector(name).kinds()}
    for name in plan.projectors:
        if issubclass(context.projector(name), ExternalProjector):
            # What a program writes is not known; so all of it is compared.
            for kind in context.projector(name).kinds():
                columns = context.dialect.columns(connection, context.schema, kind.table)
                by_table[kind.table] = replace(kind, columns=tuple(columns))
    return [by_table[table] for table in plan.tables]


def _check_replays(context: Context, connection: sa.Connection, plan: Plan) -> list[str]:
    failures = []
    checkpoints = context.ledger.checkpoints.of_projectors(connection, context.run_id)
    for name in plan.projectors:
        checkpoint = checkpoints.get(name)
        copied = checkpoint is not None and (plan.part is None or partial.is_copied(context, connection, checkpoint))
        if checkpoint is None or checkpoint.is_behind or not copied:
            failures.append(f"{name} is not replayed to the end; run its replay task again")
    return failures


def _constrain(context: Context, connection: sa.Connection, plan: Plan) -> list[str]:
    """Foreign keys come late, so that they cost the replay nothing; a row that violates one shows here."""
    failures = []
    tables = context.table_sets(plan)
    for table in tables:
        for statement in context.dialect.constrain_green(connection, table, tables):
            try:
                context.dialect.run(connection, statement)
            except sa.exc.IntegrityError:
                failures.append(f"{table.blue}: green has rows without their parent; this foreign key fails: {statement}")
        failures += [
            f"{table.blue}: green has rows without their parent, by the foreign key {each}"
            for each in context.dialect.orphans(connection, table, tables)
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
    """The drift allowed for a table: the run's own, else the table's, else the spec's."""
    if options.max_count_drift_percent is not None:
        return options.max_count_drift_percent
    return context.spec.verify.tables.get(table, context.spec.verify.max_count_drift_percent)


def _compare(context: Context, connection: sa.Connection, kind: RowType, table: TableSet, options: RunOptions) -> TableComparison:
    dialect = context.dialect
    blue_rows = dialect.row_count(connection, table.schema, table.blue)
    green_rows = dialect.row_count(connection, table.schema, table.green)
    drift = abs(green_rows - blue_rows) / blue_rows * 100 if blue_rows else (100.0 if green_rows else 0.0)
    both = [dialect.columns(connection, table.schema, name) for name in (table.blue, table.green)] if table.target_schema else []
    there = [name for name in kind.columns if all(name in columns for columns in both)]
    conditions = _Conditions(context, kind, table, there)
    # Without a common key no row is known to be the same as another.
    counts = {"only_blue": blue_rows, "only_green": green_rows, "differing": 0}
    counts |= {what: int(dialect.execute(connection, f"SELECT count(*) {rest}").scalar_one()) for what, rest in conditions}
    samples = {
        what: [" / ".join(map(str, key)) for key in dialect.execute(connection, conditions.keys(what, rest))]
        for what, rest in conditions
        if counts[what]
    }
    # Blue holds nothing yet: the first rebuild of a new read model. There is no count to hold green against.
    return TableComparison(
        table=table.blue,
        blue_rows=blue_rows,
        green_rows=green_rows,
        drift_percent=drift if blue_rows else 0.0,
        tolerance_percent=tolerance(context, options, table.blue),
        identical=max(0, green_rows - counts["only_green"] - counts["differing"]),
        differing=counts["differing"],
        only_blue=counts["only_blue"],
        only_green=counts["only_green"],
        samples=samples,
        not_compared=[name for name in kind.columns if name not in there],
    )


class _Conditions:
    """The three kinds of difference between two tables, as the FROM and WHERE of a query.

    :param there: the columns that blue has; without all of the key there is nothing to ask
    """

    def __init__(self, context: Context, kind: RowType, table: TableSet, there: Sequence[str]) -> None:
        dialect = context.dialect
        blue, green = dialect.qualified(table.schema, table.blue), dialect.qualified(table.schema, table.green)
        keys = [dialect.quote(name) for name in kind.key]
        rest = [dialect.quote(name) for name in kind.columns if name not in kind.key and name in there]
        pairs = [(f"b.{key}", f"g.{key}") for key in keys]
        match = " AND ".join(dialect.same(*pair) if table.target_schema else " = ".join(pair) for pair in pairs)
        differs = " OR ".join(dialect.differs(f"b.{name}", f"g.{name}") for name in rest) or "1 = 0"
        self._keys = keys
        self._parts: dict[str, str] = {}
        if not set(kind.key) <= set(there):
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


def _check_assertions(context: Context, connection: sa.Connection, plan: Plan) -> list[str]:
    names = {table.blue: context.dialect.qualified(table.schema, table.green) for table in context.table_sets(plan)}
    return [failure for sql in context.spec.verify.assertions if (failure := _assertion(connection, sql, names))]


def _assertion(connection: sa.Connection, sql: str, names: dict[str, str]) -> str | None:
    statement = sql
    for table, green in names.items():
        statement = statement.replace("{" + table + "}", green)
    if "{" in statement:
        # It speaks of a table that is not in this run.
        return None
    try:
        found = connection.execute(sa.text(statement.replace(":", r"\:"))).first()
    except sa.exc.DBAPIError as error:
        trouble = trouble_of(error)
        if trouble is None or trouble.kind in MAY_PASS:
            raise
        raise SpecSqlError(f"the assertion {sql!r} cannot be executed: {trouble.describe()}; correct verify.assertions") from None
    if found is None or (len(found) == 1 and found[0] in (0, None)):
        return None
    return f"the assertion {sql!r} found a row"
