"""Translates expressions to Python source, for a function that is compiled once and runs for each event.

The source uses the names ``event``, ``payload`` and, in an update, ``row``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from projection_rebuild.authoring.declared.expressions import (
    REQUIRED,
    UNITS,
    Arithmetic,
    Both,
    Case,
    Coalesce,
    Comparison,
    Concat,
    Constant,
    Current,
    Expression,
    Field,
    Lower,
    Not,
    Part,
    Prefix,
    Truncate,
)

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d(:.*)?)?", re.ASCII)


class Source:
    """Translates expressions to Python source.

    :ivar names: the values of the other names in the source
    """

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self._temporaries = 0

    def named(self, value: Any) -> str:
        """Adds a value to :attr:`names`, and returns its name."""
        name = f"name{len(self.names)}"
        self.names[name] = value
        return name

    def of(self, root: Expression) -> str:
        """The source of an expression."""
        translate: Callable[[Any], str] = getattr(self, f"_{type(root).__name__.lower()}")
        return translate(root)

    def _constant(self, root: Constant) -> str:
        return self.named(root.value)

    def _field(self, root: Field) -> str:
        if root.default is REQUIRED:
            return f"payload[{root.name!r}]"
        return f"payload.get({root.name!r}, {self.named(root.default)})"

    def _part(self, root: Part) -> str:
        return f"event.{root.name}"

    def _current(self, root: Current) -> str:
        return f"row.{root.column}"

    def _arithmetic(self, root: Arithmetic) -> str:
        if root.operator != "*" and any(isinstance(part, (Constant, Current)) for part in root.parts()):
            # One operand is certainly a number, and Python refuses to add any other type to it.
            return f"({self.of(root.left)} {root.operator} {self.of(root.right)})"
        return f"{self.named(_CALCULATED[root.operator])}({self.of(root.left)}, {self.of(root.right)})"

    def _comparison(self, root: Comparison) -> str:
        return f"({self.of(root.left)} {root.operator} {self.of(root.right)})"

    def _both(self, root: Both) -> str:
        return f"({self.of(root.left)} {root.operator} {self.of(root.right)})"

    def _not(self, root: Not) -> str:
        return f"(not {self.of(root.condition)})"

    def _case(self, root: Case) -> str:
        text = self.of(root.otherwise)
        for condition, value in reversed(root.cases):
            text = f"({self.of(value)} if {self.of(condition)} else {text})"
        return text

    def _coalesce(self, root: Coalesce) -> str:
        *first, last = root.among
        text = self.of(last)
        for part in reversed(first):
            # A later expression may fail, for example at a missing field; so evaluate it only if all earlier ones are
            # null.
            self._temporaries += 1
            name = f"value{self._temporaries}"
            text = f"({name} if ({name} := {self.of(part)}) is not None else {text})"
        return text

    def _prefix(self, root: Prefix) -> str:
        return f"{self.named(_prefix)}({self.of(root.text)}, {root.length})"

    def _lower(self, root: Lower) -> str:
        return f"{self.named(_lower)}({self.of(root.text)})"

    def _concat(self, root: Concat) -> str:
        return f"{self.named(_concat)}({', '.join(map(self.of, root.texts))})"

    def _truncate(self, root: Truncate) -> str:
        return f"{self.named(_truncate)}({self.of(root.moment)}, {root.unit!r})"


def _number(value: Any) -> Any:
    """Refuses values that are no numbers: Python would repeat a text, and add True as 1."""
    if isinstance(value, bool) or not hasattr(value, "__add__") or isinstance(value, (str, bytes, list, tuple)):
        raise TypeError(f"a {type(value).__name__} is no number")
    return value


_CALCULATED: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda left, right: _number(left) + _number(right),
    "-": lambda left, right: _number(left) - _number(right),
    "*": lambda left, right: _number(left) * _number(right),
}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} is no text")
    return value


def _prefix(value: Any, length: int) -> str | None:
    return None if value is None else _text(value)[:length]


def _lower(value: Any) -> str | None:
    return None if value is None else _text(value).lower()


def _concat(*values: Any) -> str:
    return "".join(map(_text, values))


def _truncate(value: Any, unit: Any) -> str | None:
    if value is None:
        return None
    length, rest = UNITS[unit]
    if not _MOMENT.fullmatch(_text(value)) or len(value) < length:
        raise ValueError(f"no moment in ISO 8601 with its {unit}")
    return f"{value[:length]}{rest}"
