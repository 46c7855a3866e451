"""The expressions of a declaration: fields of the payload, parts of the event, and computations with them. Pure.

An expression is a description, and holds no value. Python's operators build larger expressions from it, so that a
declaration reads like a formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Literal
from uuid import UUID

from projection_rebuild.errors import ProjectorError


class _Required(Enum):
    REQUIRED = "an event without the field is an error"


REQUIRED: Final = _Required.REQUIRED
"""Stands for no default: the payload must have the field."""

CONSTANTS = (str, int, float, bool, Decimal, date, datetime, UUID, bytes, type(None))
"""The types of constants in a declaration."""


class Expression:
    """A value that is computed from an event."""

    def __add__(self, other: object) -> Expression:
        return Arithmetic("+", self, expression(other))

    def __radd__(self, other: object) -> Expression:
        return Arithmetic("+", expression(other), self)

    def __sub__(self, other: object) -> Expression:
        return Arithmetic("-", self, expression(other))

    def __rsub__(self, other: object) -> Expression:
        return Arithmetic("-", expression(other), self)

    def __mul__(self, other: object) -> Expression:
        return Arithmetic("*", self, expression(other))

    def __rmul__(self, other: object) -> Expression:
        return Arithmetic("*", expression(other), self)

    def __neg__(self) -> Expression:
        return Arithmetic("-", Constant(0), self)

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        return Comparison("==", self, expression(other))

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return Comparison("!=", self, expression(other))

    def __lt__(self, other: object) -> Condition:
        return Comparison("<", self, expression(other))

    def __le__(self, other: object) -> Condition:
        return Comparison("<=", self, expression(other))

    def __gt__(self, other: object) -> Condition:
        return Comparison(">", self, expression(other))

    def __ge__(self, other: object) -> Condition:
        return Comparison(">=", self, expression(other))

    # By identity, since `==` builds a comparison.
    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise ProjectorError(
            "a declaration has no truth value while it is made: write case((condition, value), otherwise=...), and & | ~ for and, or, not"
        )

    def parts(self) -> tuple[Expression, ...]:
        """The expressions within this one."""
        return ()


class Condition(Expression):
    """An expression that is true or false."""

    def __and__(self, other: Condition) -> Condition:
        return Both("and", self, other)

    def __or__(self, other: Condition) -> Condition:
        return Both("or", self, other)

    def __invert__(self) -> Condition:
        return Not(self)


@dataclass(frozen=True, eq=False)
class Constant(Expression):
    """The same value for every event."""

    value: Any


@dataclass(frozen=True, eq=False)
class Field(Expression):
    """A field of the payload.

    :param default: the value if an event lacks the field; a field that is null stays null
    """

    name: str
    default: Any = REQUIRED


@dataclass(frozen=True, eq=False)
class Part(Expression):
    """A part of the event beside its payload."""

    name: Literal["stream", "position", "type", "recorded_at"]


@dataclass(frozen=True, eq=False)
class Current(Expression):
    """The value of a column of the row before the event."""

    column: str


@dataclass(frozen=True, eq=False)
class Arithmetic(Expression):
    """A sum, a difference or a product of numbers."""

    operator: Literal["+", "-", "*"]
    left: Expression
    right: Expression

    def parts(self) -> tuple[Expression, ...]:
        return self.left, self.right


@dataclass(frozen=True, eq=False)
class Comparison(Condition):
    """A comparison of two values. Texts can only be tested for equality, letter by letter."""

    operator: Literal["==", "!=", "<", "<=", ">", ">="]
    left: Expression
    right: Expression

    def parts(self) -> tuple[Expression, ...]:
        return self.left, self.right


@dataclass(frozen=True, eq=False)
class Both(Condition):
    """Two conditions, joined by `and` or `or`."""

    operator: Literal["and", "or"]
    left: Condition
    right: Condition

    def parts(self) -> tuple[Expression, ...]:
        return self.left, self.right


@dataclass(frozen=True, eq=False)
class Not(Condition):
    """The opposite of a condition."""

    condition: Condition

    def parts(self) -> tuple[Expression, ...]:
        return (self.condition,)


@dataclass(frozen=True, eq=False)
class Case(Expression):
    """The value of the first condition that is true."""

    cases: tuple[tuple[Condition, Expression], ...]
    otherwise: Expression

    def parts(self) -> tuple[Expression, ...]:
        return (*(part for pair in self.cases for part in pair), self.otherwise)


@dataclass(frozen=True, eq=False)
class Coalesce(Expression):
    """The first value that is not null."""

    among: tuple[Expression, ...]

    def parts(self) -> tuple[Expression, ...]:
        return self.among


@dataclass(frozen=True, eq=False)
class Prefix(Expression):
    """The first characters of a text."""

    text: Expression
    length: int

    def parts(self) -> tuple[Expression, ...]:
        return (self.text,)


@dataclass(frozen=True, eq=False)
class Lower(Expression):
    """A text in small letters."""

    text: Expression

    def parts(self) -> tuple[Expression, ...]:
        return (self.text,)


@dataclass(frozen=True, eq=False)
class Concat(Expression):
    """Texts one after the other."""

    texts: tuple[Expression, ...]

    def parts(self) -> tuple[Expression, ...]:
        return self.texts


Unit = Literal["year", "month", "day", "hour"]

UNITS: dict[Unit, tuple[int, str]] = {"year": (4, "-01-01"), "month": (7, "-01"), "day": (10, ""), "hour": (13, ":00:00")}
"""By unit, how many characters of an ISO 8601 text to keep, and which text to append."""


@dataclass(frozen=True, eq=False)
class Truncate(Expression):
    """The beginning of the year, month, day or hour of a moment, as ISO 8601 text."""

    moment: Expression
    unit: Unit

    def parts(self) -> tuple[Expression, ...]:
        return (self.moment,)


def expression(value: object) -> Expression:
    """A value as an expression.

    :raises ProjectorError: a declaration cannot name a value of this type
    """
    if isinstance(value, Expression):
        return value
    if type(value) not in CONSTANTS:
        raise ProjectorError(
            f"a declaration cannot name a value of the type {type(value).__name__}: give fields of the event (event.amount), texts, "
            "numbers, days, True, False or None"
        )
    return Constant(value)


class EventFields:
    """The event of a declaration: ``event.amount_cents`` is a field of its payload.

    ``event.stream``, ``event.position``, ``event.type`` and ``event.recorded_at`` are parts of the event itself. A
    field of one of these names is ``event["stream"]``. ``event.field("note", default=None)`` is a field that old events
    lack.
    """

    stream: Final[Expression] = Part("stream")
    position: Final[Expression] = Part("position")
    type: Final[Expression] = Part("type")
    recorded_at: Final[Expression] = Part("recorded_at")

    def field(self, name: str, default: Any = REQUIRED) -> Expression:
        """A field of the payload.

        :param default: the value if an event lacks the field; without a default, such an event is an error
        :raises ProjectorError: the type of the default cannot be a constant
        """
        if default is not REQUIRED:
            expression(default)
        return Field(name, default)

    def __getitem__(self, name: str) -> Expression:
        return Field(name)

    def __getattr__(self, name: str) -> Expression:
        if name.startswith("__"):
            raise AttributeError(name)
        return Field(name)


class CurrentRow:
    """The row that an update changes, as it is before the event: ``current.renewals + 1``."""

    def __getattr__(self, name: str) -> Expression:
        if name.startswith("__"):
            raise AttributeError(name)
        return Current(name)


event: Final = EventFields()
current: Final = CurrentRow()


def case(*cases: tuple[Condition, object], otherwise: object) -> Expression:
    """The value of the first condition that is true: ``case((event.type == "Paid", "paid"), otherwise="open")``.

    :raises ProjectorError: the first value of a pair is no condition
    """
    if not cases or not all(isinstance(condition, Condition) for condition, _ in cases):
        raise ProjectorError("case() needs pairs of a condition and a value, such as (event.type == 'Paid', 'paid')")
    return Case(tuple((condition, expression(value)) for condition, value in cases), expression(otherwise))


def coalesce(*among: object) -> Expression:
    """The first value that is not null.

    :raises ProjectorError: fewer than two values
    """
    if len(among) < 2:
        raise ProjectorError("coalesce() chooses among two values or more")
    return Coalesce(tuple(map(expression, among)))


def prefix(text: object, length: int) -> Expression:
    """The first ``length`` characters of a text, or the whole text if it is shorter.

    :raises ProjectorError: the length is no positive whole number
    """
    if type(length) is not int or length < 1:
        raise ProjectorError(f"prefix() takes a number of characters, at least 1, and not {length!r}")
    return Prefix(expression(text), length)


def lower(text: object) -> Expression:
    """A text in small letters."""
    return Lower(expression(text))


def concat(*texts: object) -> Expression:
    """Texts one after the other. Numbers are no texts.

    :raises ProjectorError: fewer than two texts
    """
    if len(texts) < 2:
        raise ProjectorError("concat() joins two texts or more")
    return Concat(tuple(map(expression, texts)))


def truncate(moment: object, unit: Unit) -> Expression:
    """The beginning of the year, month, day or hour of a moment in ISO 8601 (``2024-05-17T08:30:00``).

    :returns: ``2024-01-01``, ``2024-05-01``, ``2024-05-17``, or ``2024-05-17T08:00:00``
    :raises ProjectorError: the unit is unknown
    """
    if unit not in UNITS:
        raise ProjectorError(f"truncate() knows {', '.join(UNITS)}, and not {unit!r}")
    return Truncate(expression(moment), unit)


def walk(root: Expression) -> Iterator[Expression]:
    """An expression and all expressions within it, outermost first."""
    yield root
    for part in root.parts():
        yield from walk(part)
