"""Values on their way between handlers and a database, by the Python type that a row class gives its columns."""

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
    """``str`` for ``str``, ``str | None`` and ``Optional[str]``; None where there is no single plain type."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        rest = [each for each in typing.get_args(annotation) if each is not type(None)]
        return plain_type(rest[0]) if len(rest) == 1 else None
    origin = typing.get_origin(annotation)
    if origin is not None:
        return origin if isinstance(origin, type) else None
    return annotation if isinstance(annotation, type) else None


_EXACT = msgspec.json.Encoder(decimal_format="number")


def json_text(value: Any) -> str:
    """A value as JSON; whole numbers of any size and decimals to their last digit.

    :raises TypeError: JSON has nothing like it
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Of a decimal, and of a number beyond 64 bits.
        return _EXACT.encode(value).decode()


def _shortest(digits: str) -> float | Decimal:
    """A float where that is the same number, as it is for those that were written from one; otherwise it stays exact."""
    found = float(digits)
    return found if Decimal(repr(found)) == Decimal(digits) else Decimal(digits)


_LOADS = msgspec.json.Decoder(float_hook=_shortest).decode


def from_json(value: Any) -> Any:
    """What a column of JSON holds, to the last digit. What a driver has decoded already stays as it is."""
    return _LOADS(value) if isinstance(value, (str, bytes)) else value


def _from_text(parse: Convert) -> Convert:
    return lambda value: parse(value) if isinstance(value, str) else value


_moment, _date = _from_text(datetime.fromisoformat), _from_text(date.fromisoformat)


def _loaded_moment(value: Any) -> Any:
    return datetime(value.year, value.month, value.day) if type(value) is date else _moment(value)  # noqa: DTZ001 - of a column of dates


# How a loaded value becomes what the row class promises; databases differ in what they hand back.
_LOADED: dict[type, Convert] = {
    str: str,
    int: lambda value: int.from_bytes(value) if isinstance(value, bytes) else int(value),
    float: float,
    # MySQL hands bits over as bytes.
    bool: lambda value: any(value) if isinstance(value, bytes) else bool(value),
    Decimal: lambda value: value if isinstance(value, Decimal) else Decimal(str(value)),
    datetime: _loaded_moment,
    date: lambda value: value.date() if isinstance(value, datetime) else _date(value),
    UUID: lambda value: value if isinstance(value, UUID) else UUID(value),
    dict: from_json,
    list: from_json,
}

# What every driver takes as it stands is not listed.
PORTABLE_BINDS: dict[type, Convert] = {dict: json_text, list: json_text, UUID: str}
TEXT_BINDS: dict[type, Convert] = PORTABLE_BINDS | {
    Decimal: str,
    datetime: lambda value: value.isoformat(sep=" "),
    date: date.isoformat,
}
"""For SQLite, which knows neither decimals nor times."""


def _converters(kind: RowType, columns: Sequence[str], by_type: dict[type, Convert]) -> list[tuple[int, Convert]]:
    wanted = ((at, plain_type(kind.types[name])) for at, name in enumerate(columns))
    return [(at, by_type[found]) for at, found in wanted if found in by_type]


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
    """Rows as a driver takes them."""
    return _convert(rows, _converters(kind, kind.columns, by_type))


def bound_keys(kind: RowType, columns: Sequence[str], keys: Sequence[Key], by_type: dict[type, Convert]) -> Sequence[Key]:
    """Values of some columns, by which rows are looked for, as a driver takes them.

    Handlers may ask for anything: what is not of its column's type goes as it is.
    """
    lenient = {each: _if_of(each, convert) for each, convert in by_type.items()}
    return _convert(keys, _converters(kind, columns, lenient))


def _if_of(of: type, convert: Convert) -> Convert:
    return lambda value: convert(value) if isinstance(value, of) else value


def loaded(kind: RowType, rows: Sequence[Values]) -> Sequence[Values]:
    """Rows as the row class promises them."""
    return _convert(rows, _converters(kind, kind.columns, _LOADED))
