"""Rows as the lines of text that COPY and LOAD DATA read: made column by column, where Python has loops of its own.

Imports nothing but the shapes of rows; which types it can write, and how, its callers say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from projection_rebuild.rows.types import Values

ROWS_AT_ONCE = 5_000
"""Rows in one text: enough to make statements cheap, and few megabytes."""

Format = Callable[[Any], str]

FORMATS: Mapping[type, Format] = {
    int: str,
    float: repr,
    Decimal: str,
    # In UTC, because a column without a time zone leaves the offset out.
    datetime: lambda value: (value.astimezone(UTC) if value.tzinfo else value).isoformat(sep=" "),
    date: date.isoformat,
}
"""What every database reads alike; ``str`` needs no format."""

NULL = r"\N"
_SPECIAL = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_ESCAPES = str.maketrans(_SPECIAL)
_NONE = type(None)


def slices(rows: Sequence[Values]) -> Iterator[Sequence[Values]]:
    """The rows, :data:`ROWS_AT_ONCE` at a time."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]


def as_text(rows: Sequence[Values], formats: Mapping[type, Format]) -> str | None:
    """A line per row: columns separated by tabs, nulls as ``\\N``, and escapes by backslashes.

    :param formats: the types that may occur, by exact class; what they make holds nothing that would have to be escaped
    :returns: None if there is a value of any other type
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
    made = formats.get(kinds.pop())
    if made is None:
        return None
    return [NULL if value is None else made(value) for value in values] if has_nulls else list(map(made, values))


def _strings(values: Sequence[Any], has_nulls: bool) -> Sequence[str]:
    together = "".join(value for value in values if value is not None) if has_nulls else "".join(values)
    if any(each in together for each in _SPECIAL):
        return [NULL if value is None else value.translate(_ESCAPES) for value in values]
    return [NULL if value is None else value for value in values] if has_nulls else values


def _mixed(values: Sequence[Any], formats: Mapping[type, Format]) -> Sequence[str]:
    return [
        NULL if value is None else value.translate(_ESCAPES) if type(value) is str else formats[type(value)](value)
        for value in values
    ]
