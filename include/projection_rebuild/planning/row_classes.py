"""Checks whether a table, live or of another structure, can hold the rows of a row class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from projection_rebuild.model.findings import Finding, refusal
from projection_rebuild.rows.shapes import Shape
from projection_rebuild.rows.types import RowType


def lacking(kind: RowType, columns: Sequence[str], unique: Sequence[set[str]]) -> Iterator[Finding]:
    """Refusals of a table that lacks columns of the row class, or in which the key of the row class is not unique.

    :param columns: the names of the table's columns
    :param unique: the sets of column names that a primary key or a unique constraint covers
    """
    if missing := [name for name in kind.columns if name not in columns]:
        problem = f"it has no column {', '.join(missing)}"
        yield refusal(kind.table, problem, f"correct the row class {kind.row_class.__name__}")
    elif set(kind.key) not in unique:
        yield refusal(
            kind.table,
            f"the key ({', '.join(kind.key)}) of {kind.row_class.__name__} is neither primary key nor unique; rows could not be told apart",
            "add a unique constraint or correct the key",
        )


def spelled_alike(kind: RowType, unique: Iterable[set[str]], shapes: Mapping[str, Shape]) -> Iterator[Finding]:
    """Findings about key columns in which the database considers two texts equal that differ for a handler.

    :param unique: the sets of column names that a primary key or a unique constraint covers
    :param shapes: the shapes of the table's columns, by name
    """
    in_keys = set(kind.key).union(*unique)
    for column in kind.columns:
        alike = shapes[column].alike if column in shapes and column in in_keys else None
        if alike is None:
            continue
        only = " in blanks at the end only" if alike.endswith("_bin") else ""
        what = "key" if column in kind.key else "value of a unique key"
        yield Finding(
            about=f"{kind.table}.{column}",
            problem=f"by its {alike}, texts that differ{only} are the same {what} to the database, but not to a handler: events that give both "
            "end in an error",
            remedy="make sure that events spell a key in one way only, or give the column a collation by which the bytes decide",
        )
