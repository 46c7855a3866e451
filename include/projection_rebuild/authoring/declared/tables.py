"""Declarations of tables: which events add, change and remove rows, or add to groups.

A declaration must give the same rows wherever a replay divides the events into ranges. The declaring call refuses all
others, with column and reason; for them the author writes a handler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin
from uuid import UUID

from projection_rebuild.authoring.declared.expressions import (
    Arithmetic,
    Comparison,
    Concat,
    Condition,
    Constant,
    Current,
    Expression,
    Lower,
    Prefix,
    Truncate,
    expression,
    walk,
)
from projection_rebuild.errors import ProjectorError
from projection_rebuild.rows.types import RowType, row_type

NUMBERS = (int, float, Decimal)
EXACT = (int, Decimal)
TEXTS = (str, date, datetime, UUID)
"""The types of columns that accept a text of the payload."""

Values = Mapping[str, Expression]


@dataclass(frozen=True)
class Insert:
    """Adds a row with these values; with ``replaces``, also sets them in an existing row."""

    key: Values
    values: Values
    replaces: bool = False


@dataclass(frozen=True)
class Update:
    """Sets these values in an existing row."""

    key: Values
    values: Values


@dataclass(frozen=True)
class Delete:
    """Removes a row, if it exists."""

    key: Values


@dataclass(frozen=True)
class DeleteWhere:
    """Removes all rows with this value in a lookup column."""

    column: str
    value: Expression


@dataclass(frozen=True)
class Contribution:
    """Adds to the columns of a group, or keeps their largest, smallest, first or last value."""

    key: Values
    values: Values


Action = Insert | Update | Delete | DeleteWhere | Contribution

HowKept = Literal["sum", "maximum", "minimum", "first", "last"]


@dataclass(frozen=True, eq=False)
class Kept(Expression):
    """A value of which a group keeps the largest, smallest, first or last one."""

    how: HowKept
    value: Expression

    def parts(self) -> tuple[Expression, ...]:
        return (self.value,)


def maximum(value: object) -> Kept:
    """A group keeps the largest value. No event can subtract from this group."""
    return Kept("maximum", expression(value))


def minimum(value: object) -> Kept:
    """A group keeps the smallest value. No event can subtract from this group."""
    return Kept("minimum", expression(value))


def first(value: object) -> Kept:
    """A group keeps the value of its first event. No event can subtract from this group."""
    return Kept("first", expression(value))


def last(value: object) -> Kept:
    """A group keeps the value of its last event. No event can subtract from this group."""
    return Kept("last", expression(value))


class Declared:
    """The declaration of one table.

    :param row_class: a class that :func:`projection_rebuild.authoring.row` decorates
    :ivar actions: the actions by event type, in the order of the declaration
    """

    def __init__(self, row_class: type) -> None:
        self.row_class = row_class
        self.kind: RowType = row_type(row_class)
        self.actions: dict[str, list[Action]] = {}
        self._required = {
            field.name for field in fields(row_class) if field.default is MISSING and field.default_factory is MISSING
        }

    def refuse(self, text: str) -> ProjectorError:
        """The error for this declaration.

        :param text: the reason
        """
        return ProjectorError(f"the declaration of {self.row_class.__name__}: {text}")

    def finish(self) -> None:
        """Checks the whole declaration, when a projector names it.

        :raises ProjectorError: the declaration is empty or wrong
        """
        if not self.actions:
            raise self.refuse("no event makes a row; say which do")

    def type_of(self, attribute: str) -> Any:
        """The Python type of a column, as annotated."""
        return self.kind.types[self.kind.column(attribute)]

    def _add(self, event_types: tuple[str, ...], action: Action) -> None:
        if not event_types or not all(isinstance(event_type, str) and event_type for event_type in event_types):
            raise self.refuse("give one event type or more, as texts, before the columns")
        for event_type in event_types:
            self.actions.setdefault(event_type, []).append(action)

    def _checked(self, given: Mapping[str, object], *, row: bool = False) -> dict[str, Expression]:
        """The checked expressions by column.

        :param row: whether the expressions may use values of an existing row
        """
        expressions = {name: expression(value) for name, value in given.items()}
        for name, value in expressions.items():
            self._check_column(name)
            self._check_current(name, value, row)
            self._check_type(name, value)
        return expressions

    def _check_column(self, name: str) -> None:
        if name not in self.kind.attributes:
            near = get_close_matches(name, self.kind.attributes, 1)
            hint = f"; is it {near[0]}?" if near else f"; it has {', '.join(self.kind.attributes)}"
            raise self.refuse(f"the row class has no column {name}{hint}")

    def _check_current(self, name: str, value: Expression, row: bool) -> None:
        used = [part for part in walk(value) if isinstance(part, Current)]
        if not used:
            return
        counts = isinstance(value, Arithmetic) and value.operator != "*" and _is_current(value.left, name)
        if not row:
            raise self.refuse(f"{name}: only an update has a row whose values it can use (current.{used[0].column})")
        if not (counts and len(used) == 1):
            raise self.refuse(
                f"{name}: an update may add to its own column (current.{name} + ...) or subtract from it. Whatever else depends on the row's state "
                "would depend on where a replay is cut into ranges: write a handler"
            )
        if _plain(self.type_of(name)) not in EXACT:
            raise self.refuse(f"{name}: only whole numbers and decimals are counted; floats depend on the order of events")

    def _check_type(self, name: str, value: Expression) -> None:
        annotated = self.type_of(name)
        for part in walk(value):
            if isinstance(part, Arithmetic) and not any(isinstance(above, Comparison) for above in walk(value)):
                self._wants(name, annotated, NUMBERS, "a number")
        if isinstance(value, (Prefix, Lower, Concat, Truncate)):
            self._wants(name, annotated, TEXTS, "a text")
        if isinstance(value, Condition):
            self._wants(name, annotated, (bool,), "true or false")
        if isinstance(value, Constant):
            self._check_constant(name, annotated, value.value)

    def _check_constant(self, name: str, annotated: Any, value: Any) -> None:
        if value is None:
            if not _is_optional(annotated):
                raise self.refuse(f"{name}: the column is never None by its row class; annotate it as optional")
            return
        plain = _plain(annotated)
        fits = isinstance(value, bool) == (plain is bool) and (
            not isinstance(plain, type) or isinstance(value, plain) or (plain in (float, Decimal) and isinstance(value, int))
        )
        if not fits and not (plain in TEXTS and isinstance(value, str)):
            raise self.refuse(f"{name}: a {type(value).__name__} is no value of this column")

    def _wants(self, name: str, annotated: Any, types: tuple[type, ...], what: str) -> None:
        if _plain(annotated) not in types:
            raise self.refuse(f"{name}: the expression gives {what}, and the column is no such thing by its row class")


class Entity(Declared):
    """A table with one row for each key, which events insert, update and delete.

    .. code-block:: python

        Entity(Subscription, key=event.stream)
            .insert("SubscriptionCreated", user_id=event.user_id, status="active")
            .update("SubscriptionRenewed", renewals=current.renewals + 1)
            .delete("SubscriptionErased")

    :param key: the key of an event's row: one expression, or an expression by name for each key column
    :raises ProjectorError: the names are not those of the key columns
    """

    def __init__(self, row_class: type, *, key: object) -> None:
        super().__init__(row_class)
        names = self.kind.key_attributes
        given = dict(key) if isinstance(key, Mapping) else {names[0]: key}
        if set(given) != set(names):
            raise self.refuse(f"the key is {', '.join(names)}: give key={{...}} with an expression for each")
        checked = self._checked(given)
        self._key = {name: checked[name] for name in names}

    def insert(self, *event_types: str, **columns: object) -> Self:
        """Declares events that add a row; an existing row with this key is an error.

        :param columns: an expression for each column; a missing column has the default of the row class
        :raises ProjectorError: a column is unknown, missing, or cannot have this value
        """
        self._add(event_types, Insert(self._key, self._whole(columns)))
        return self

    def upsert(self, *event_types: str, **columns: object) -> Self:
        """Declares events that add a row, or set all values of an existing row.

        :param columns: an expression for each column without a default in the row class
        :raises ProjectorError: a column is unknown, missing, or cannot have this value
        """
        self._add(event_types, Insert(self._key, self._whole(columns), replaces=True))
        return self

    def update(self, *event_types: str, **columns: object) -> Self:
        """Declares events that change a row; a missing row is an error.

        :param columns: an expression for each column that changes; ``current.<column> + ...`` counts
        :raises ProjectorError: a column is unknown, part of the key, or cannot have this value
        """
        values = self._checked(columns, row=True)
        if not values:
            raise self.refuse("an update changes at least one column")
        if fixed := sorted(set(values) & set(self._key)):
            raise self.refuse(f"an update cannot change {', '.join(fixed)}, which identifies the row")
        self._add(event_types, Update(self._key, values))
        return self

    def delete(self, *event_types: str) -> Self:
        """Declares events that remove a row, if it exists."""
        self._add(event_types, Delete(self._key))
        return self

    def delete_where(self, *event_types: str, **column: object) -> Self:
        """Declares events that remove all rows of a parent: ``.delete_where("OrderErased", order_id=event.stream)``.

        :param column: one lookup column of the row class, and its value
        :raises ProjectorError: the row class has no lookup of this name, or several columns are given
        """
        values = self._checked(column)
        if len(values) != 1 or next(iter(values)) not in self.kind.lookups:
            raise self.refuse(f"delete_where takes one of the lookups of the row class: @row(..., lookups={[*column]!r})")
        name, value = next(iter(values.items()))
        self._add(event_types, DeleteWhere(name, value))
        return self

    def finish(self) -> None:
        """See :meth:`Declared.finish`."""
        super().finish()
        actions = [(event_type, action) for event_type, listed in self.actions.items() for action in listed]
        if not any(isinstance(action, Insert) for _, action in actions):
            raise self.refuse("no event inserts a row")
        looked_up = {action.column for _, action in actions if isinstance(action, DeleteWhere)}
        changed = {name for _, action in actions if isinstance(action, Update) for name in action.values}
        if moving := sorted(looked_up & changed):
            raise self.refuse(
                f"rows are deleted by {', '.join(moving)}, which an update changes: which rows go would depend on the order of other "
                "rows' events. Write a handler"
            )
        for event_type, listed in self.actions.items():
            self._refuse_twice(event_type, listed)
        counted = {
            name for _, action in actions if isinstance(action, Update) for name in action.values if _counts(action.values[name])
        }
        for name in sorted(counted):
            self._refuse_mixed(name, actions)

    def _refuse_twice(self, event_type: str, listed: list[Action]) -> None:
        if sum(not isinstance(action, DeleteWhere) for action in listed) > 1:
            raise self.refuse(f"{event_type} inserts, updates or deletes the same row twice; say it in one")

    def _refuse_mixed(self, name: str, actions: list[tuple[str, Action]]) -> None:
        """Refuses an update or upsert that sets a counter: only the insert of its row may."""
        for event_type, action in actions:
            sets = isinstance(action, Update) and name in action.values and not _counts(action.values[name])
            replaces = isinstance(action, Insert) and action.replaces
            if sets or replaces:
                raise self.refuse(f"{name} is counted, and {event_type} sets it: only the row's insert may. Write a handler")

    def _whole(self, columns: Mapping[str, object]) -> Values:
        values = self._checked(columns)
        if fixed := sorted(set(values) & set(self._key)):
            raise self.refuse(f"{', '.join(fixed)} comes from the key; leave it out")
        if missing := sorted(self._required - set(values) - set(self._key)):
            raise self.refuse(f"{', '.join(missing)} has no default in the row class; give each a value")
        return values


class Groups(Declared):
    """A table with one row for each group, to which events add.

    .. code-block:: python

        Groups(CategorySummary)
            .add("ExpenseRecorded", user_id=event.user_id, category=event.category, expenses=1, total=event.amount)
            .subtract("ExpenseDeleted", user_id=event.user_id, category=event.category, expenses=1, total=event.amount)

    A group has no row if and only if all its sums are zero. No other rule gives the same rows wherever a replay divides
    the events into ranges. A group with a largest, smallest, first or last value has a row from its first event on, and
    no event may subtract from it.
    """

    def add(self, *event_types: str, **columns: object) -> Self:
        """Declares events that add to a group.

        :param columns: an expression for each key column and each column that changes: a number to add, or
            :func:`maximum`, :func:`minimum`, :func:`first` or :func:`last` of a value
        :raises ProjectorError: a column is unknown, missing, or cannot have this value
        """
        self._add(event_types, self._contribution(columns))
        return self

    def subtract(self, *event_types: str, **columns: object) -> Self:
        """Declares events that subtract what others have added.

        :param columns: as for :meth:`add`, with the numbers to subtract
        :raises ProjectorError: a column is unknown, missing, or cannot have this value
        """
        contribution = self._contribution(columns)
        self._add(
            event_types, Contribution(contribution.key, {name: _negative(value) for name, value in contribution.values.items()})
        )
        return self

    @property
    def kept(self) -> Mapping[str, HowKept]:
        """By column that events change, which value the group keeps."""
        return {
            name: _how(value)
            for actions in self.actions.values()
            for action in actions
            if isinstance(action, Contribution)
            for name, value in action.values.items()
        }

    @property
    def vanishes(self) -> bool:
        """Whether an empty group has no row."""
        return all(how == "sum" for how in self.kept.values())

    def finish(self) -> None:
        """See :meth:`Declared.finish`."""
        super().finish()
        self._refuse_mixed()
        left_out = self._required - set(self.kind.key_attributes) - set(self.kept)
        if left_out:
            raise self.refuse(
                f"no event adds to {', '.join(sorted(left_out))}; give it a default in the row class, or leave it out there"
            )
        for field in fields(self.row_class):
            if field.name in self.kept and self.kept[field.name] == "sum" and field.default not in (0, MISSING):
                raise self.refuse(f"{field.name}: a sum begins at 0, and the row class gives it another default")

    def _refuse_mixed(self) -> None:
        known: dict[str, HowKept] = {}
        for event_type, actions in self.actions.items():
            for name, how in (
                (name, _how(value))
                for action in actions
                if isinstance(action, Contribution)
                for name, value in action.values.items()
            ):
                if known.setdefault(name, how) != how:
                    raise self.refuse(f"{name} is kept as its {known[name]} and, at {event_type}, as its {how}; choose one")
        other = sorted(name for name, how in known.items() if how != "sum")
        if other and any(
            _is_negative(value)
            for actions in self.actions.values()
            for action in actions
            if isinstance(action, Contribution)
            for value in action.values.values()
        ):
            raise self.refuse(
                f"a group that keeps the {known[other[0]]} ({other[0]}) cannot be subtracted from: what it was before is not known. Write a handler"
            )

    def _contribution(self, columns: Mapping[str, object]) -> Contribution:
        values = self._checked(columns)
        if missing := [name for name in self.kind.key_attributes if name not in values]:
            raise self.refuse(f"{', '.join(missing)} identifies the group; give it an expression")
        key = {name: values.pop(name) for name in self.kind.key_attributes}
        if not values:
            raise self.refuse("give at least one column to which the event adds")
        for name, value in values.items():
            self._check_kept(name, value)
        return Contribution(key, values)

    def _check_kept(self, name: str, value: Expression) -> None:
        plain, how = _plain(self.type_of(name)), _how(value)
        if how == "sum" and plain not in EXACT:
            raise self.refuse(
                f"{name}: a sum is a whole number or a Decimal. Sums of floats depend on the order in which they are added, and texts "
                "are not added"
            )
        if how in ("maximum", "minimum") and plain not in NUMBERS:
            raise self.refuse(f"{name}: the {how} is kept of numbers; each database orders texts in its own way")


def _how(value: Expression) -> HowKept:
    return value.how if isinstance(value, Kept) else "sum"


@dataclass(frozen=True, eq=False)
class Negative(Expression):
    """A number to subtract."""

    value: Expression

    def parts(self) -> tuple[Expression, ...]:
        return (self.value,)


def _negative(value: Expression) -> Expression:
    return value if isinstance(value, Kept) else Negative(value)


def _is_negative(value: Expression) -> bool:
    return isinstance(value, Negative)


def _is_current(value: Expression, name: str) -> bool:
    return isinstance(value, Current) and value.column == name


def _counts(value: Expression) -> bool:
    return any(isinstance(part, Current) for part in walk(value))


def _plain(annotated: Any) -> Any:
    """The type of a column without None."""
    if get_origin(annotated) in (Union, UnionType):
        members = [member for member in get_args(annotated) if member is not NoneType]
        return members[0] if len(members) == 1 else annotated
    return annotated


def _is_optional(annotated: Any) -> bool:
    return annotated is Any or NoneType in get_args(annotated)


def declared_types(tables: tuple[Declared, ...]) -> Iterator[str]:
    """The event types of these tables, without duplicates."""
    yield from dict.fromkeys(event_type for table in tables for event_type in table.actions)
