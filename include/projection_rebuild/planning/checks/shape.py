"""Whether the tables match the row classes that write and read them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from projection_rebuild.model.findings import Finding, refusal
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, answers, check
from projection_rebuild.planning.row_classes import lacking, spelled_alike
from projection_rebuild.rows.types import RowType, row_type


@check(Scope.TABLES, "tables")
def written(planned: PreflightInput) -> Iterator[Finding]:
    """Whether each table exists, with the columns and the key of its row class."""
    for kind in planned.kinds.values():
        yield from answers(planned, kind.table, partial(_unlike, planned, kind))


@check(Scope.TABLES, "reads")
def read(planned: PreflightInput) -> Iterator[Finding]:
    """Tables that handlers read and this run does not rebuild: handlers see the live ones."""
    for name in planned.projectors:
        for kind in map(row_type, planned.context.projector(name).reads):
            if kind.table not in planned.kinds:
                yield from _unlike(planned, kind)
                problem = f"{name} reads it, and this run does not rebuild it: handlers see the live table as it is now"
                yield Finding(about=kind.table, problem=problem, remedy="choose its projector as well if its rows are wrong")


def _unlike(planned: PreflightInput, kind: RowType) -> Iterator[Finding]:
    """The findings about a table that does not match its row class."""
    dialect, connection = planned.dialect, planned.connection
    schema, blue = planned.context.schema, kind.table
    if not dialect.inspector.table_exists(connection, schema, blue):
        yield refusal(blue, f"there is no table {blue}", "create it (it may be empty), or correct the projector's row class")
        return
    columns = dialect.inspector.columns(connection, schema, blue)
    if blue in planned.schema_change.definitions:
        # The trial of the new structure has checked the new table, so here a missing column is only a note.
        if missing := [name for name in kind.columns if name not in columns]:
            yield Finding(
                about=blue,
                problem=f"today it has no column {', '.join(missing)}, which {kind.row_class.__name__} writes",
                remedy="let the application write it only where it exists: the live table has it from the switch on",
            )
        return
    unique = dialect.inspector.unique_keys(connection, schema, blue)
    yield from lacking(kind, columns, unique)
    yield from spelled_alike(kind, unique, dialect.inspector.shapes(connection, schema, blue))
