"""What a declaration says of a value: fields of the payload, parts of the event, and what is made of them. Pure.

An expression is a description, and holds no value. Python's operators make larger expressions of it, so that a declaration reads like
the formula that it stands for.
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
"""In place of a default: the payload has to have the field."""

CONSTANTS = (str, int, float, bool, Decimal, date, datetime, UUID, bytes, type(None))
"""The types of values that a declaration may name."""


class Expression:
    """A value that is made of an event."""

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

    # By identity: two equal descriptions are two places in a declaration.
    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise ProjectorError(
            "a declaration has no truth value while it is made: write case((condition, value), otherwise=...), and & | ~ for and, or, not"
        )

    def parts(self) -> tuple[Expression, ...]:
        """The expressions that it is made of."""
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

    :param default: of an event that lacks the field; a field that is null is null
    """

    name: str
    default: Any = REQUIRED


@dataclass(frozen=True, eq=False)
class Part(Expression):
    """A part of the event beside its payload."""

    name: Literal["stream", "position", "type", "recorded_at"]


@dataclass(frozen=True, eq=False)
class Current(Expression):
    """What the row holds before the event."""

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
    """Whether two values are equal, or one is less. Texts are only compared for being equal, letter by letter."""

    operator: Literal["==", "!=", "<", "<=", ">", ">="]
    left: Expression
    right: Expression

    def parts(self) -> tuple[Expression, ...]:
        return self.left, self.right


@dataclass(frozen=True, eq=False)
class Both(Condition):
    """Two conditions together."""

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
        return (*(each for pair in self.cases for each in pair), self.otherwise)


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
"""How many characters of an ISO 8601 text name a unit, and what makes a moment of them again."""


@dataclass(frozen=True, eq=False)
class Truncate(Expression):
    """The beginning of the year, month, day or hour that an ISO 8601 text is in, as such a text."""

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

    ``event.stream``, ``event.position``, ``event.type`` and ``event.recorded_at`` are parts of the event itself. A field of one of
    these names is ``event["stream"]``. ``event.field("note", default=None)`` is a field that old events lack.
    """

    stream: Final[Expression] = Part("stream")
    position: Final[Expression] = Part("position")
    type: Final[Expression] = Part("type")
    recorded_at: Final[Expression] = Part("recorded_at")

    def field(self, name: str, default: Any = REQUIRED) -> Expression:
        """A field of the payload.

        :param default: of an event that lacks it; none: such an event is an error, as it is in a handler that asks for it
        :raises ProjectorError: the default is nothing that a declaration can name
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

    :raises ProjectorError: a condition is none
    """
    if not cases or not all(isinstance(condition, Condition) for condition, _ in cases):
        raise ProjectorError("case() needs pairs of a condition and a value, such as (event.type == 'Paid', 'paid')")
    return Case(tuple((condition, expression(value)) for condition, value in cases), expression(otherwise))


def coalesce(*among: object) -> Expression:
    """The first value that is not null.

    :raises ProjectorError: there are fewer than two
    """
    if len(among) < 2:
        raise ProjectorError("coalesce() chooses among two values or more")
    return Coalesce(tuple(map(expression, among)))


def prefix(text: object, length: int) -> Expression:
    """The first characters of a text, as many as there are up to ``length``.

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

    :raises ProjectorError: there are fewer than two
    """
    if len(texts) < 2:
        raise ProjectorError("concat() joins two texts or more")
    return Concat(tuple(map(expression, texts)))


def truncate(moment: object, unit: Unit) -> Expression:
    """The beginning of the year, month, day or hour that an ISO 8601 text (``2024-05-17T08:30:00``) is in.

    :returns: ``2024-01-01``, ``2024-05-01``, ``2024-05-17``, or ``2024-05-17T08:00:00``
    :raises ProjectorError: there is no such unit
    """
    if unit not in UNITS:
        raise ProjectorError(f"truncate() knows {', '.join(UNITS)}, and not {unit!r}")
    return Truncate(expression(moment), unit)


def walk(root: Expression) -> Iterator[Expression]:
    """An expression and all that it is made of, from the outside in."""
    yield root
    for part in root.parts():
        yield from walk(part)
