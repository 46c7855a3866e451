"""Converts the values of handlers to what the database columns will store, before a handler reads them again.

A converted value has the class that its row class declares, and the engine rounds, cuts or pads it as the column would.
The value is then the same in memory, after the engine has written and loaded it, and live. The engine refuses a value
that the column cannot hold.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from projection_rebuild.errors import UnfitValue
from projection_rebuild.rows.shapes import UNKNOWN, Holds, Shape
from projection_rebuild.rows.values import Convert, from_json, json_text, plain_type

if TYPE_CHECKING:
    from projection_rebuild.rows.types import Key, RowType

REFUSED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""The errors that a conversion raises for a value that it cannot convert."""

_WIDE = Context(prec=5_000)
"""More digits than any column has."""


@dataclass(frozen=True)
class Rule:
    """How to fit values to one column.

    :param exact: the class that every fitting value has
    :param fit: converts a value to what the column stores; raises one of :data:`REFUSED` if the column cannot hold it
    :param unless: an expression over ``v``, a value of that class, which is true if the value does not fit; ``$name``
        stands for one of ``names``
    :param names: the values of the names in the expression
    """

    exact: type
    fit: Convert
    unless: str = ""
    names: Mapping[str, Any] = field(default_factory=dict)

    def wrong(self, number: int, names: dict[str, Any]) -> str:
        """An expression over ``v`` which is true if the value does not fit the column.

        :param number: makes the names of this rule unique among those of other rules
        :param names: the method adds the names of the expression here
        """
        names |= {f"exact{number}": self.exact} | {f"{name}{number}": value for name, value in self.names.items()}
        unless = re.sub(r"\$(\w+)", rf"\g<1>{number}", self.unless)
        return f"v.__class__ is not exact{number}" + (f" or {unless}" if unless else "")


class Fits:
    """Converts the values of one row class to what its columns store.

    :param shapes: the shapes of the table's columns, by column name; without a shape, the row class alone decides
    :ivar fit_key: converts the key and lookup values of a row in place; they never change later
    :ivar fit: converts all other values of a row in place
    """

    def __init__(self, kind: RowType, shapes: Mapping[str, Shape]) -> None:
        self._kind = kind
        self.shapes = {name: shapes.get(name, UNKNOWN) for name in kind.columns}
        self._rules: dict[str, Rule] = {}
        for attribute, column in zip(kind.attributes, kind.columns, strict=True):
            make_rule = _RULES.get(plain_type(kind.types.get(column)))
            if make_rule is not None:
                self._rules[attribute] = make_rule(self.shapes[column])
        self._is_right = self._compiled_check(kind.key_attributes)
        keys = {*kind.key_attributes, *kind.lookups}
        self.fit_key: Callable[[Any], None] = self._compiled(name for name in kind.attributes if name in keys)
        self.fit: Callable[[Any], None] = self._compiled(name for name in kind.attributes if name not in keys)

    def value(self, attribute: str, value: Any) -> Any:
        """A value as the column of an attribute stores it.

        :raises UnfitValue: the column cannot hold the value
        """
        rule = self._rules.get(attribute)
        if value is None or rule is None:
            return value
        try:
            return rule.fit(value)
        except REFUSED:
            raise UnfitValue(self._kind.table, self._kind.column(attribute), type(value), rule.exact) from None

    def key(self, key: Key) -> Key:
        """A key as its columns store it.

        :raises UnfitValue: the columns cannot hold the values, so that no row has this key
        """
        names = self._kind.key_attributes
        if len(names) != len(key) or self._is_right(key):
            return key
        return tuple(map(self.value, names, key))

    def _compiled(self, attributes: Iterable[str]) -> Callable[[Any], None]:
        """Compiles a function that fits these attributes of a row in place.

        The buffer runs it for each row at each event. So the function is generated as source text, as `dataclass`
        generates its methods: for a value that already fits it calls nothing.
        """
        lines, names = [" pass"], dict[str, Any]()
        for number, attribute in enumerate(attributes):
            if rule := self._rules.get(attribute):
                names[f"value{number}"] = partial(self.value, attribute)
                wrong = rule.wrong(number, names)
                lines += [f" v = row.{attribute}", f" if v is not None and ({wrong}):", f"  row.{attribute} = value{number}(v)"]
        fit: Callable[[Any], None] = _function("row", lines, names)
        return fit

    def _compiled_check(self, attributes: Sequence[str]) -> Callable[[Key], bool]:
        """Compiles a function that tells whether the values of a key fit the columns of these attributes."""
        lines, names = list[str](), dict[str, Any]()
        for number, attribute in enumerate(attributes):
            if rule := self._rules.get(attribute):
                lines += [f" v = key[{number}]", f" if {rule.wrong(number, names)}: return False"]
        fits: Callable[[Key], bool] = _function("key", [*lines, " return True"], names)
        return fits


def _function(parameter: str, lines: Sequence[str], names: dict[str, Any]) -> Any:
    source = "\n".join([f"def compiled({parameter}):", *lines])
    exec(source, names)  # noqa: S102 - names of attributes, and expressions of this module
    return names["compiled"]


def fits_of(kind: RowType, shapes: Mapping[str, Shape]) -> Fits:
    """The :class:`Fits` of a row class for these shapes; cached, since live code calls this at each event."""
    return _cached_fits(kind, tuple(shapes.items()))


@lru_cache(maxsize=1_000)
def _cached_fits(kind: RowType, shapes: tuple[tuple[str, Shape], ...]) -> Fits:
    return Fits(kind, dict(shapes))


# Text ---------------------------------------------------------------------------------------------------------------


def _as_text(value: Any) -> str:
    """A value as the text to which every database converts it."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (int, float, Decimal, UUID)) and not isinstance(value, bool):
        return str(value)
    raise TypeError


def _shortened(shape: Shape, value: Any) -> str:
    """A text within its length: like the databases, this cuts blanks beyond the length, but refuses letters."""
    text = _as_text(value)
    if shape.holds is Holds.PADDED:
        text = text.rstrip(" ")
    if shape.length is not None and len(text) > shape.length:
        if text[shape.length :].strip(" "):
            raise ValueError
        text = text[: shape.length]
    return text


def _name(shape: Shape, value: Any) -> str:
    """The name as the table's definition spells it. Any other text stays as it is, and the database refuses it."""
    text = _as_text(value)
    spelled = {name.casefold(): name for name in shape.names}
    return text if text in shape.names else spelled.get(text.rstrip(" ").casefold(), text)


def _names(shape: Shape, value: Any) -> str:
    given = {_name(shape, part) for part in _as_text(value).split(",")}
    return ",".join(name for name in shape.names if name in given) if given <= {*shape.names} else _as_text(value)


_LOOKS_LIKE_A_NUMBER = r"[ \t\n\v\f\r]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ \t\n\v\f\r]*"
_is_number = re.compile(_LOOKS_LIKE_A_NUMBER, re.ASCII).fullmatch


def _text(shape: Shape) -> Rule:
    length = "" if shape.length is None else f"len(v) > {shape.length}"
    match shape.holds:
        case Holds.TEXT:
            return Rule(str, partial(_shortened, shape), length)
        case Holds.PADDED:
            return Rule(str, partial(_shortened, shape), " or ".join(["v[-1:] == ' '", *([length] if length else [])]))
        case Holds.NAMES | Holds.SETS:
            return Rule(
                str, partial(_name if shape.holds is Holds.NAMES else _names, shape), "v not in $names", {"names": shape.names}
            )
    if shape.holds in (Holds.LOOSE, Holds.LOOSE_REAL):
        # A text that begins with a digit and has two dashes is a date or a time, not a number.
        return _remembered(partial(_loose_text, shape), "(v[4:8:3] != '--' or v[0] <= ' ') and ")
    if shape.holds is Holds.DATE:
        return _remembered(_day_text)
    text_format = _WRITTEN.get(shape.holds)
    if text_format is None:
        return Rule(str, _as_text)
    canonical, convert = text_format
    # A text in the canonical form fits; all others are parsed as the type that the column holds.
    is_canonical = re.compile(canonical(shape)).fullmatch
    return Rule(str, partial(convert, shape), "not $is_canonical(v)", {"is_canonical": is_canonical})


REMEMBERED = 10_000
"""The most fitting texts that a rule keeps for one column; 27 years have about as many days."""


def _remembered(convert: Convert, only_if: str = "") -> Rule:
    """A rule for columns with few distinct texts, such as dates: it keeps the texts that fit."""
    fitting: set[str] = set()

    def fit(value: Any) -> Any:
        text = convert(value)
        if len(fitting) < REMEMBERED:
            fitting.add(text)
        return text

    return Rule(str, fit, f"{only_if}v not in $fitting", {"fitting": fitting})


_DAY = r"\d{4}-\d\d-\d\d"


def _moment_pattern(shape: Shape) -> str:
    digits = "" if not shape.digits else rf"(\.(?!0{{6}})\d{{{shape.digits}}}0{{{6 - shape.digits}}})?"
    return rf"{_DAY} \d\d:\d\d:\d\d{digits}" + (r"\+00:00" if shape.holds is Holds.ZONED else "")


def _moment_text(shape: Shape, value: Any) -> str:
    text = _as_text(value)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        # The text may be in the database's own format, which depends on its settings.
        return text
    if shape.drops_offsets:
        moment = moment.replace(tzinfo=None)
    return str(_moment(shape, moment))


def _day_text(value: Any) -> str:
    text = _as_text(value)
    try:
        return datetime.fromisoformat(text).date().isoformat()
    except ValueError:
        return text


def _loose(shape: Shape, value: str) -> int | float:
    """The number to which SQLite converts a text that looks like one."""
    bare = value.strip(" \t\n\v\f\r")
    if shape.holds is Holds.LOOSE_REAL:
        return float(bare)
    if bare.lstrip("+-").isdigit() and -(2**63) <= int(bare) < 2**63:
        return int(bare)
    number = float(bare)
    return int(number) if number.is_integer() and abs(number) < 2**63 else number


def _loose_text(shape: Shape, value: Any) -> str:
    text = _as_text(value)
    return str(_loose(shape, text)) if _is_number(text) else text


_WRITTEN: dict[Holds, tuple[Callable[[Shape], str], Callable[[Shape, Any], str]]] = {
    Holds.UUID: (
        lambda shape: r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        lambda shape, value: str(_uuid(value)),
    ),
    Holds.MOMENT: (_moment_pattern, _moment_text),
    Holds.ZONED: (_moment_pattern, _moment_text),
    Holds.WHOLE: (lambda shape: r"0|-?[1-9][0-9]*", lambda shape, value: str(_whole(value))),
    Holds.DECIMAL: (lambda shape: r"(?!)", lambda shape, value: str(_decimal(shape, value))),
    Holds.DOUBLE: (lambda shape: r"(?!)", lambda shape, value: str(float(value))),
    Holds.SINGLE: (lambda shape: r"(?!)", lambda shape, value: str(single(float(value)))),
}


# Numbers ------------------------------------------------------------------------------------------------------------


def _whole(value: Any) -> int:
    if isinstance(value, str):
        # Without the underscores that Python allows between digits.
        if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", value):
            raise ValueError
        return int(value)
    if isinstance(value, (int, float, Decimal)):
        whole = int(value)
        if whole == value:
            return whole
    raise TypeError


def _whole_rule(shape: Shape) -> Rule:
    if shape.holds in (Holds.DOUBLE, Holds.LOOSE_REAL):
        return Rule(int, lambda value: int(float(_whole(value))), f"not {-(2**53)} <= v <= {2**53}")
    if shape.holds is Holds.SINGLE:
        return Rule(int, lambda value: int(single(float(_whole(value)))), "True")
    return Rule(int, _whole)


def single(value: float) -> float:
    """The number with the fewest digits that is the same float in single precision; databases show this number."""
    if not math.isfinite(value):
        return value
    packed = struct.pack("f", value)
    (exact,) = struct.unpack("f", packed)
    candidates = (float(f"{exact:.{digits}g}") for digits in range(6, 10))
    return next(candidate for candidate in candidates if struct.pack("f", candidate) == packed)


def _float(value: Any) -> float:
    if isinstance(value, (int, float, Decimal, str)):
        return float(value)
    raise TypeError


def _float_rule(shape: Shape) -> Rule:
    match shape.holds:
        case Holds.SINGLE:
            return Rule(float, lambda value: single(_fixed(shape, _float(value))), "True")
        case Holds.DOUBLE if shape.scale is not None:
            return Rule(float, lambda value: _fixed(shape, _float(value)), "True")
        case Holds.DECIMAL:
            return Rule(float, lambda value: float(_decimal(shape, _float(value))), "True")
        case Holds.WHOLE:
            return Rule(float, lambda value: float(_whole(_float(value))), "not v.is_integer()")
        case Holds.TEXT | Holds.PADDED if shape.length is not None:
            # MySQL and MariaDB would drop digits in every SQL mode.
            return Rule(float, partial(_short_float, shape.length), f"len(repr(v)) > {shape.length}")
        case Holds.KEPT_TEXT:
            # SQLite writes fifteen digits when it converts a number to text.
            return Rule(float, lambda value: float(f"{_float(value):.15g}"), "True")
    return Rule(float, _float)


def _fixed(shape: Shape, value: float) -> float:
    """A float rounded to ``scale`` digits as MySQL and MariaDB round it: by its binary value, ties to even."""
    if shape.scale is None or not math.isfinite(value):
        return value
    whole, unit = math.floor(value), float(10**shape.scale)
    return whole + round((value - whole) * unit) / unit


def _short_float(length: int, value: Any) -> float:
    number = _float(value)
    if len(repr(number)) > length:
        raise ValueError
    return number


def _given_decimal(value: Any) -> Decimal:
    if isinstance(value, (Decimal, str)):
        return Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    raise TypeError


def _decimal(shape: Shape, value: Any) -> Decimal:
    given = _given_decimal(value)
    if not given.is_finite():
        return given
    if shape.scale is None:
        exponent = given.as_tuple().exponent
        # Databases store decimals without an exponent.
        return given.quantize(Decimal(1), context=_WIDE) if isinstance(exponent, int) and exponent > 0 else given
    rounded = given.quantize(Decimal(1).scaleb(-shape.scale), rounding=ROUND_HALF_UP, context=_WIDE)
    if not rounded:
        # Databases have no negative zero for decimals.
        rounded = abs(rounded)
    if shape.precision is not None and abs(rounded) >= Decimal(1).scaleb(shape.precision - shape.scale):
        raise ValueError
    return rounded if shape.scale >= 0 else rounded.quantize(Decimal(1), context=_WIDE)


def _loose_decimal(shape: Shape, value: Any) -> Decimal:
    return Decimal(str(_loose(shape, str(_given_decimal(value)))))


def _decimal_rule(shape: Shape) -> Rule:
    match shape.holds:
        case Holds.DECIMAL if shape.scale is not None and shape.scale >= 0:
            return Rule(
                Decimal,
                partial(_decimal, shape),
                "not v.same_quantum($quantum) or not v and v.is_signed()",
                {"quantum": Decimal(1).scaleb(-shape.scale)},
            )
        case Holds.DECIMAL:
            return Rule(Decimal, partial(_decimal, shape), "True")
        case Holds.WHOLE:
            return Rule(
                Decimal,
                partial(_decimal, Shape(Holds.DECIMAL, scale=0)),
                "not v.same_quantum($quantum) or not v and v.is_signed()",
                {"quantum": Decimal(1)},
            )
        case Holds.DOUBLE:
            return Rule(Decimal, lambda value: Decimal(str(_fixed(shape, float(_given_decimal(value))))), "True")
        case Holds.SINGLE:
            return Rule(Decimal, lambda value: Decimal(str(single(_fixed(shape, float(_given_decimal(value)))))), "True")
        case Holds.LOOSE | Holds.LOOSE_REAL:
            return Rule(Decimal, partial(_loose_decimal, shape), "True")
    return Rule(Decimal, _given_decimal)


_WORDS = frozenset({Holds.TEXT, Holds.PADDED, Holds.NAMES, Holds.SETS})
"""Text columns: each database writes a bool to text in another way, and Python's bool() of any such text is true."""


def _refused(value: Any) -> NoReturn:
    raise TypeError


def _truth(value: Any) -> bool:
    if isinstance(value, int):
        return bool(value)
    raise TypeError


# Times --------------------------------------------------------------------------------------------------------------


def _given_moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - the column decides the zone
    return datetime.fromisoformat(value)


def _moment(shape: Shape, value: Any) -> datetime:
    moment = _given_moment(value)
    if shape.holds is Holds.ZONED:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    elif moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return _to_digits(shape, moment)


def _to_digits(shape: Shape, moment: datetime) -> datetime:
    unit = 10 ** (6 - shape.digits)
    rest = moment.microsecond % unit
    if not rest:
        return moment
    even = moment.replace(microsecond=moment.microsecond - rest)
    if shape.cuts or rest * 2 < unit:
        return even
    if rest * 2 == unit and shape.rounds_from is not None and moment.year < shape.rounds_from:
        return even
    return even + timedelta(microseconds=unit)


def _kept_moment(value: Any) -> datetime:
    """A time as its ISO text keeps it: with an offset, but without the name of a zone."""
    return datetime.fromisoformat(_given_moment(value).isoformat())


def _moment_rule(shape: Shape) -> Rule:
    unit = 10 ** (6 - shape.digits)
    finer = f" or v.microsecond % {unit}" if unit > 1 else ""
    match shape.holds:
        case Holds.ZONED:
            return Rule(datetime, partial(_moment, shape), "v.tzinfo is not $utc" + finer, {"utc": UTC})
        case Holds.MOMENT:
            return Rule(datetime, partial(_moment, shape), "v.tzinfo is not None" + finer)
        case Holds.DATE:
            return Rule(
                datetime,
                lambda value: _given_moment(_moment(Shape(Holds.MOMENT), value).date()),
                "v.tzinfo is not None or v.hour or v.minute or v.second or v.microsecond",
            )
    return Rule(datetime, _kept_moment, "v.tzinfo is not None")


def _day(value: Any) -> date:
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).date()
    if isinstance(value, date):
        return value
    return date.fromisoformat(value)


# The rest -----------------------------------------------------------------------------------------------------------


def _uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    if isinstance(value, str):
        return UUID(value)
    raise TypeError


def _bytes(shape: Shape, value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError
    stored = bytes(value)
    if shape.length is not None and len(stored) > shape.length:
        raise ValueError
    return stored.ljust(shape.length, b"\0") if shape.fills and shape.length else stored


def _bytes_rule(shape: Shape) -> Rule:
    length = "" if shape.length is None else f"len(v) {'!=' if shape.fills else '>'} {shape.length}"
    return Rule(bytes, partial(_bytes, shape), length)


_UNCHANGING = frozenset({str, bool, type(None)})


def _is_json(value: Any, holds: Holds) -> bool:
    """Whether a value stays the same when a column stores it as JSON and returns it."""
    kind = value.__class__
    if kind in _UNCHANGING:
        return True
    if kind is int:
        return holds is not Holds.NARROW_JSON or -(2**63) <= value < 2**64
    if kind is float:
        return math.isfinite(value) and (holds is not Holds.SORTED_JSON or "e" not in repr(value))
    if kind is list:
        return all(_is_json(item, holds) for item in value)
    if kind is not dict or not all(key.__class__ is str for key in value):
        return False
    in_order = holds is Holds.JSON or list(value) == sorted(value, key=_sort_key)
    return in_order and all(_is_json(item, holds) for item in value.values())


def _sort_key(key: str) -> tuple[int, bytes]:
    """The sort key by which PostgreSQL and MySQL order the keys of a JSON document."""
    stored = key.encode("utf-8", "surrogatepass")
    return len(stored), stored


def _stored_json(value: Any, holds: Holds) -> Any:
    if isinstance(value, dict):
        keys = value if holds is Holds.JSON else sorted(value, key=_sort_key)
        return {key: _stored_json(value[key], holds) for key in keys}
    if isinstance(value, list):
        return [_stored_json(item, holds) for item in value]
    if holds is Holds.NARROW_JSON and isinstance(value, (int, Decimal)) and not _is_json(value, holds):
        return float(value)
    if holds is Holds.SORTED_JSON and isinstance(value, float) and value.is_integer() and "e" in repr(value):
        return int(Decimal(repr(value)))
    return value


def _json_rule(shape: Shape) -> Rule:
    holds = shape.holds if shape.holds in (Holds.SORTED_JSON, Holds.NARROW_JSON) else Holds.JSON

    def fit(value: Any) -> Any:
        # Return the same object if possible: a handler may change the row's own object in place.
        return value if _is_json(value, holds) else _stored_json(from_json(json_text(value)), holds)

    return Rule(dict, fit, "True")


_RULES: dict[type | None, Callable[[Shape], Rule]] = {
    str: _text,
    int: _whole_rule,
    float: _float_rule,
    bool: lambda shape: Rule(bool, _truth) if shape.holds not in _WORDS else Rule(bool, _refused, "True"),
    Decimal: _decimal_rule,
    datetime: _moment_rule,
    date: lambda shape: Rule(date, _day),
    UUID: lambda shape: Rule(UUID, _uuid),
    bytes: _bytes_rule,
    dict: _json_rule,
    list: _json_rule,
}
