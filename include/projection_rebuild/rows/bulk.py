"""Formats rows as the lines of text that COPY and LOAD DATA read, column by column, with loops that run in C.

Imports nothing but the shapes of rows; the callers say which types occur, and how to write them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from projection_rebuild.rows.types import Values

ROWS_AT_ONCE = 5_000
"""Rows in one text: enough to make statements cheap, and only a few megabytes."""

Format = Callable[[Any], str]

FORMATS: Mapping[type, Format] = {
    int: str,
    float: repr,
    Decimal: str,
    # In UTC, because a column without a time zone drops the offset.
    datetime: lambda value: (value.astimezone(UTC) if value.tzinfo else value).isoformat(sep=" "),
    date: date.isoformat,
}
"""The formats that every database reads in the same way; ``str`` needs no format."""

NULL = r"\N"
_SPECIAL = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_ESCAPES = str.maketrans(_SPECIAL)
_NONE = type(None)


def slices(rows: Sequence[Values]) -> Iterator[Sequence[Values]]:
    """The rows, :data:`ROWS_AT_ONCE` at a time."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]


def as_text(rows: Sequence[Values], formats: Mapping[type, Format]) -> str | None:
    """One line for each row: tabs between columns, ``\\N`` for NULL, backslashes as escapes.

    :param formats: how to write each type that may occur, by exact class; the written text needs no escapes
    :returns: None if a value has another type
    """
    columns = []
    for values in zip(*rows, strict=True):
        column = _column(values, formats)
        if column is None:
            return None
        columns.append(column)
    return "\n".join(map("\t".join, zip(*columns, strict=True))) + "\n"


def _column(values: Sequence[Any], formats: Mapping[type, Format]) -> Sequence[str] | None:
    kinds = set(map(type, values))
    has_nulls = _NONE in kinds
    kinds.discard(_NONE)
    if kinds <= {str}:
        return _strings(values, has_nulls)
    if len(kinds) > 1:
        return _mixed(values, formats) if kinds <= {str, *formats} else None
    write = formats.get(kinds.pop())
    if write is None:
        return None
    return [NULL if value is None else write(value) for value in values] if has_nulls else list(map(write, values))


def _strings(values: Sequence[Any], has_nulls: bool) -> Sequence[str]:
    joined = "".join(value for value in values if value is not None) if has_nulls else "".join(values)
    if any(character in joined for character in _SPECIAL):
        return [NULL if value is None else value.translate(_ESCAPES) for value in values]
    return [NULL if value is None else value for value in values] if has_nulls else values


def _mixed(values: Sequence[Any], formats: Mapping[type, Format]) -> Sequence[str]:
    return [
        NULL if value is None else value.translate(_ESCAPES) if type(value) is str else formats[type(value)](value)
        for value in values
    ]
