"""Whether green may replace blue: counts, checkpoints, events, keys, foreign keys and the user's own assertions."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from pydantic import BaseModel

from include.projection_rebuild.context import Context
from include.projection_rebuild.errors import RebuildError, VerificationFailed
from include.projection_rebuild.ledger import RunState
from include.projection_rebuild.lockstep import Lockstep
from include.projection_rebuild.names import TableSet
from include.projection_rebuild.plan import Plan
from include.projection_rebuild.rows import RowType
from include.projection_rebuild.spec import RunOptions

SAMPLES = 5


class TableComparison(BaseModel):
    """Green against blue. Blue moves while it is read, and differences are what a rebuild is for: they only inform.

    :param drift_percent: how far green's count is from blue's, in percent of blue's
    :param samples: keys of rows that are not the same, a few of each kind, never their contents
    """

    table: str
    blue_rows: int
    green_rows: int
    drift_percent: float
    tolerance_percent: float
    identical: int
    differing: int
    only_blue: int
    only_green: int
    samples: dict[str, list[str]] = {}

    def describe(self) -> str:
        """One line for a log."""
        return (
            f"{self.table}: {self.blue_rows:,} -> {self.green_rows:,} rows (drift {self.drift_percent:.2f} %, allowed "
            f"{self.tolerance_percent:g} %); {self.identical:,} identical, {self.differing:,} differ, {self.only_blue:,} only in "
            f"blue, {self.only_green:,} only in green"
        )


class Verification(BaseModel):
    """What was found; ``failures`` decide."""

    tables: list[TableComparison]
    failures: list[str]

    @property
    def passed(self) -> bool:
        """Whether green may replace blue."""
        return not self.failures

    def describe(self) -> str:
        """All findings as lines for a log."""
        return "\n".join([each.describe() for each in self.tables] + [f"FAILED: {each}" for each in self.failures])


def verify(context: Context) -> Verification:
    """Adds the foreign keys to green, compares it with blue, and records what was found.

    :raises VerificationFailed: green must not replace blue; the message lists why. Blue is untouched
    """
    with context.dialect.connect() as connection:
        run = context.ledger.run(connection, context.run_id, at_least=RunState.CLONED)
        if run.state.at_least(RunState.SWITCHING):
            return Verification.model_validate(run.record["verification"])
        plan, options = context.plan_of(run), context.options_of(run)
        failures = _check_replays(context, connection, plan)
        if not failures:
            # To one position, so that every row of a child finds the parent that was there at its time.
            projectors = Lockstep(context, connection, plan)
            projectors.catch_up()
            failures = projectors.miscounted(context.store.counts(0, projectors.position))
        failures += _constrain(context, connection, plan)
        tables = [_compare(context, connection, kind, options) for kind in _kinds(context, plan)]
        failures += [failure for each in tables for failure in _check_counts(each)]
        failures += _check_assertions(context, connection, plan)
        found = Verification(tables=tables, failures=failures)
        state = RunState.VERIFIED if found.passed else RunState.CLONED
        with context.dialect.transaction(connection):
            context.ledger.move(connection, context.run_id, state, verification=found.model_dump())
    if not found.passed:
        raise VerificationFailed("green does not pass, blue is untouched:\n" + found.describe())
    return found


def _kinds(context: Context, plan: Plan) -> list[RowType]:
    by_table = {kind.table: kind for name in plan.projectors for kind in context.projector(name).kinds()}
    return [by_table[table] for table in plan.tables]


def _check_replays(context: Context, connection: sa.Connection, plan: Plan) -> list[str]:
    failures = []
    checkpoints = context.ledger.checkpoints(connection, context.run_id)
    for name in plan.projectors:
        checkpoint = checkpoints.get(name)
        if checkpoint is None or checkpoint.position < checkpoint.head:
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


def _compare(context: Context, connection: sa.Connection, kind: RowType, options: RunOptions) -> TableComparison:
    table = context.table_set(kind.table)
    dialect = context.dialect
    blue_rows = dialect.row_count(connection, table.schema, table.blue)
    green_rows = dialect.row_count(connection, table.schema, table.green)
    drift = abs(green_rows - blue_rows) / blue_rows * 100 if blue_rows else (100.0 if green_rows else 0.0)
    conditions = _Conditions(context, kind, table)
    counts = {what: int(connection.exec_driver_sql(f"SELECT count(*) {rest}", ()).scalar_one()) for what, rest in conditions}
    samples = {
        what: [" / ".join(map(str, key)) for key in connection.exec_driver_sql(conditions.keys(what, rest), ())]
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
    )


class _Conditions:
    """The three kinds of difference between two tables, as the FROM and WHERE of a query."""

    def __init__(self, context: Context, kind: RowType, table: TableSet) -> None:
        dialect = context.dialect
        blue, green = dialect.qualified(table.schema, table.blue), dialect.qualified(table.schema, table.green)
        keys = [dialect.quote(name) for name in kind.key]
        rest = [dialect.quote(name) for name in kind.columns if name not in kind.key]
        match = " AND ".join(f"b.{key} = g.{key}" for key in keys)
        differs = " OR ".join(dialect.differs(f"b.{name}", f"g.{name}") for name in rest) or "1 = 0"
        self._keys = keys
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
    names = {
        table.blue: context.dialect.qualified(table.schema, table.green).replace("%%", "%") for table in context.table_sets(plan)
    }
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
        raise RebuildError(
            f"the assertion {sql!r} cannot be executed ({type(error.orig).__name__}); correct verify.assertions"
        ) from None
    if found is None or (len(found) == 1 and found[0] in (0, None)):
        return None
    return f"the assertion {sql!r} found a row"
