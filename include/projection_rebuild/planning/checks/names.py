"""The names of green and old tables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from projection_rebuild.model.findings import Finding, refusal
from projection_rebuild.model.names import GREEN_SUFFIX, OLD_SUFFIX, TableSet
from projection_rebuild.model.refusals import foreign_green, foreign_old
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, answers, check


@check(Scope.TABLES, "names")
def needed(planned: PreflightInput) -> Iterator[Finding]:
    """Names of doubles that had to be shortened, and names that two tables need."""
    needs: dict[str, list[str]] = {}
    for table in planned.tables:
        for name in (table.blue, table.green, table.old):
            needs.setdefault(name.casefold(), []).append(table.blue)
        if (table.green, table.old) != (table.blue + GREEN_SUFFIX, table.blue + OLD_SUFFIX):
            yield Finding(
                about=table.blue,
                problem=f"its name is too long for {GREEN_SUFFIX} and {OLD_SUFFIX} behind it, so that its doubles are called "
                f"{table.green} and {table.old}",
                remedy="look for them under these names",
            )
    for name, tables in needs.items():
        if len(tables) > 1:
            problem = f"{' and '.join(tables)} need this name, one of them for its double"
            yield refusal(name, problem, "rename one of these tables")


@check(Scope.BESIDE, "names")
def taken(planned: PreflightInput) -> Iterator[Finding]:
    """Tables that no run has created, under the names of green or old tables."""
    run = {table.blue for table in planned.tables}
    for table in planned.tables:
        yield from answers(planned, table.blue, partial(_taken, planned, table, run))


def _taken(planned: PreflightInput, table: TableSet, run: set[str]) -> Iterator[Finding]:
    """Refusals of a table whose green or old name another program's table has.

    :param run: the live names of the run's tables
    """
    ledger = planned.step.ledger
    known = ledger.exists()
    for name, problem in ((table.green, foreign_green(table)), (table.old, foreign_old(table.old))):
        if name in run or not planned.dialect.inspector.table_exists(planned.connection, table.schema, name):
            continue
        ours = known and (
            ledger.owned_tables.run_of_green(name) if name == table.green else ledger.owned_tables.retired(old=name)
        )
        if not ours:
            yield refusal(table.blue, problem)
