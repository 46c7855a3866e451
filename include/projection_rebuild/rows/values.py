"""Converts values between handlers and drivers, by the Python type that a row class declares for a column."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import orjson

if TYPE_CHECKING:
    from projection_rebuild.rows.types import Key, RowType, Values

Convert = Callable[[Any], Any]


def plain_type(annotation: Any) -> type | None:
    """``str`` for ``str``, ``str | None`` and ``Optional[str]``; None if the annotation has no single plain type."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        rest = [member for member in typing.get_args(annotation) if member is not type(None)]
        return plain_type(rest[0]) if len(rest) == 1 else None
    origin = typing.get_origin(annotation)
    if origin is not None:
        return origin if isinstance(origin, type) else None
    return annotation if isinstance(annotation, type) else None


_EXACT = msgspec.json.Encoder(decimal_format="number")


def json_text(value: Any) -> str:
    """A value as JSON text; it keeps every digit of whole numbers and decimals.

    :raises TypeError: JSON cannot represent the value
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # orjson refuses decimals, and numbers beyond 64 bits.
        return _EXACT.encode(value).decode()


def _shortest(digits: str) -> float | Decimal:
    """A float if it is exactly this number, as for each number that was written from a float; otherwise a Decimal."""
    number = float(digits)
    return number if Decimal(repr(number)) == Decimal(digits) else Decimal(digits)


_LOADS = msgspec.json.Decoder(float_hook=_shortest).decode


def from_json(value: Any) -> Any:
    """Decodes the value of a JSON column without losing digits. A value that the driver has decoded stays as it is."""
    return _LOADS(value) if isinstance(value, (str, bytes)) else value


def _from_text(parse: Convert) -> Convert:
    return lambda value: parse(value) if isinstance(value, str) else value


_moment, _date = _from_text(datetime.fromisoformat), _from_text(date.fromisoformat)


def _loaded_moment(value: Any) -> Any:
    return datetime(value.year, value.month, value.day) if type(value) is date else _moment(value)  # noqa: DTZ001 - of a column of dates


# Converts a loaded value to the type that the row class declares; drivers return different types.
_LOADED: dict[type, Convert] = {
    str: str,
    int: lambda value: int.from_bytes(value) if isinstance(value, bytes) else int(value),
    float: float,
    # MySQL returns bits as bytes.
    bool: lambda value: any(value) if isinstance(value, bytes) else bool(value),
    Decimal: lambda value: value if isinstance(value, Decimal) else Decimal(str(value)),
    datetime: _loaded_moment,
    date: lambda value: value.date() if isinstance(value, datetime) else _date(value),
    UUID: lambda value: value if isinstance(value, UUID) else UUID(value),
    dict: from_json,
    list: from_json,
}

# Types that every driver accepts unchanged are not listed.
PORTABLE_BINDS: dict[type, Convert] = {dict: json_text, list: json_text, UUID: str}
TEXT_BINDS: dict[type, Convert] = PORTABLE_BINDS | {
    Decimal: str,
    datetime: lambda value: value.isoformat(sep=" "),
    date: date.isoformat,
}
"""For SQLite, which has no types for decimals and times."""


def _converters(kind: RowType, columns: Sequence[str], by_type: dict[type, Convert]) -> list[tuple[int, Convert]]:
    column_types = ((at, plain_type(kind.types[name])) for at, name in enumerate(columns))
    return [(at, by_type[column_type]) for at, column_type in column_types if column_type in by_type]


def _convert(rows: Sequence[Values], converters: list[tuple[int, Convert]]) -> Sequence[Values]:
    if not converters:
        return rows
    converted = []
    for row in rows:
        values = list(row)
        for at, convert in converters:
            if values[at] is not None:
                values[at] = convert(values[at])
        converted.append(tuple(values))
    return converted


def bound(kind: RowType, rows: Sequence[Values], by_type: dict[type, Convert]) -> Sequence[Values]:
    """Rows in the types that a driver accepts."""
    return _convert(rows, _converters(kind, kind.columns, by_type))


def bound_keys(kind: RowType, columns: Sequence[str], keys: Sequence[Key], by_type: dict[type, Convert]) -> Sequence[Key]:
    """Values of key or lookup columns, in the types that a driver accepts.

    A handler may give a value of any type: this function does not convert a value that has not its column's type.
    """
    lenient = {value_type: _if_of(value_type, convert) for value_type, convert in by_type.items()}
    return _convert(keys, _converters(kind, columns, lenient))


def _if_of(value_type: type, convert: Convert) -> Convert:
    return lambda value: convert(value) if isinstance(value, value_type) else value


def loaded(kind: RowType, rows: Sequence[Values]) -> Sequence[Values]:
    """Rows in the types that the row class declares."""
    return _convert(rows, _converters(kind, kind.columns, _LOADED))
