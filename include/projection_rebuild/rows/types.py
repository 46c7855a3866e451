"""Row classes and their description for the database, the rows that handlers see, and the source that loads them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Protocol, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints
from uuid import UUID

from projection_rebuild.errors import ProjectorError, RowError
from projection_rebuild.rows.fitting import Fits

R = TypeVar("R")


Key = tuple[Any, ...]


Values = tuple[Any, ...]


UNCHANGING = frozenset({str, int, float, bool, bytes, Decimal, date, datetime, UUID, NoneType})
"""Types with immutable values."""


@dataclass(frozen=True)
class RowType:
    """The description of a row class.

    :param table: the live name of the read model's table
    :param attributes: the attributes of the class in their order, one for each column that the projector writes
    :param key_attributes: the attributes that identify a row
    :param lookups: further attributes by which handlers look rows up
    :param stream: the attribute with the stream whose events project the row; None: there is no such attribute
    :param columns: the column names of the attributes, in the same order
    :param key: the columns that identify a row; unique in the table
    :param types: the annotated Python type of each column, by column name
    :ivar values: returns a row's values
    :ivar key_of: returns a row's key
    :ivar keys_of: returns the keys of many rows
    :ivar snapshot: returns a copy of a row's values, so that later changes within the row do not change it
    """

    row_class: type
    table: str
    attributes: tuple[str, ...]
    key_attributes: tuple[str, ...]
    lookups: tuple[str, ...]
    stream: str | None
    columns: tuple[str, ...]
    key: tuple[str, ...]
    types: dict[str, Any] = field(hash=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _tuple_getter(self.attributes))
        object.__setattr__(self, "key_of", _tuple_getter(self.key_attributes))
        object.__setattr__(self, "keys_of", _tuples_getter(self.key_attributes))
        comes_first = self.attributes[: len(self.key_attributes)] == self.key_attributes
        object.__setattr__(self, "_key_comes_first", comes_first)
        object.__setattr__(self, "_mutable_attributes", tuple(self._find_mutable_attributes()))
        object.__setattr__(self, "snapshot", self._deep_values if self._mutable_attributes else self.values)

    def column(self, attribute: str) -> str:
        """The name of an attribute's column in the database."""
        return self.columns[self.attributes.index(attribute)]

    def copy_of(self, row: R) -> R:
        """An independent copy of a row."""
        # A recording run copies each row that it touches, and the module `copy` takes several times as long.
        duplicate = object.__new__(type(row))
        for name, value in zip(self.attributes, self.snapshot(row), strict=True):
            setattr(duplicate, name, value)
        return duplicate

    def made_of(self, key: Key, given: Mapping[str, Any]) -> Any:
        """A new row with this key and these values of other attributes.

        :raises RowError: the key has a wrong number of values
        """
        if len(key) != len(self.key_attributes):
            raise RowError(f"a row of {self.table} is identified by {', '.join(self.key_attributes)}, not by {len(key)} values")
        # Positional arguments are faster; they are possible if the key attributes come first.
        return (
            self.row_class(*key, **given)
            if self._key_comes_first
            else self.row_class(**dict(zip(self.key_attributes, key, strict=True)), **given)
        )

    def set_apart(self, row: object) -> None:
        """Replaces the mutable values of a row (those of JSON columns) by copies that no other object shares."""
        for name in self._mutable_attributes:
            setattr(row, name, _deep_copy(getattr(row, name)))

    def _deep_values(self, row: object) -> Values:
        return tuple(
            _deep_copy(value) if name in self._mutable_attributes else value
            for name, value in zip(self.attributes, self.values(row), strict=True)
        )

    def _find_mutable_attributes(self) -> Iterator[str]:
        for attribute, column in zip(self.attributes, self.columns, strict=False):
            if not _is_immutable(self.types.get(column, str)):
                yield attribute

    values: Callable[[Any], Values] = field(init=False, repr=False, compare=False)
    key_of: Callable[[Any], Key] = field(init=False, repr=False, compare=False)
    keys_of: Callable[[Iterable[Any]], Iterable[Key]] = field(init=False, repr=False, compare=False)
    _key_comes_first: bool = field(init=False, repr=False, compare=False)
    snapshot: Callable[[Any], Values] = field(init=False, repr=False, compare=False)
    _mutable_attributes: tuple[str, ...] = field(init=False, repr=False, compare=False)


def _is_immutable(annotation: Any) -> bool:
    """Whether the values of a column are immutable, so that a row changes only when code sets its attribute."""
    if get_origin(annotation) in (UnionType, Union):
        return all(map(_is_immutable, get_args(annotation)))
    return annotation in UNCHANGING


def _deep_copy(value: Any) -> Any:
    """A copy of a value that shares no mutable object with it."""
    kind = type(value)
    if kind is dict:
        return {key: _deep_copy(item) for key, item in value.items()}
    if kind is list:
        return [_deep_copy(item) for item in value]
    return value if kind in UNCHANGING else copy.deepcopy(value)


def _tuple_getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Like ``attrgetter``, but returns a tuple also for a single name."""
    getter = attrgetter(*names)
    if len(names) > 1:
        return getter
    return lambda row: (getter(row),)


def _tuples_getter(names: Sequence[str]) -> Callable[[Iterable[Any]], Iterable[tuple[Any, ...]]]:
    """Like :func:`_tuple_getter`, for many rows, without a Python call for each row."""
    getter = attrgetter(*names)
    if len(names) > 1:
        return lambda rows: map(getter, rows)
    return lambda rows: zip(map(getter, rows), strict=False)


@dataclass_transform()
def row(
    table: str,
    *,
    key: str | Sequence[str],
    lookups: Sequence[str] = (),
    stream: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Callable[[type[R]], type[R]]:
    """Turns a class of annotated columns into a row class of ``table``.

    .. code-block:: python

        @row("subscriptions", key="id")
        class Subscription:
            id: str
            plan: str
            status: str = "active"

    For columns of the table that the class leaves out, the database uses their defaults.

    :param table: the live name of the table; the engine decides whether it writes blue or green
    :param key: the attribute or attributes that identify a row
    :param lookups: attributes by which handlers call :meth:`Rows.where`
    :param stream: the attribute with the stream of all events that add and change the row; then the engine can replay
        the table in shards (see :attr:`Projector.partition_by`)
    :param columns: ``{attribute: column}`` for columns whose names differ from their attributes
    :raises ProjectorError: a key, lookup, stream or renamed column is not an attribute of the class, or two attributes
        have the same column
    """

    def decorate(cls: type[R]) -> type[R]:
        row_class = dataclass(slots=True)(cls)
        attributes = tuple(f.name for f in fields(row_class))  # type: ignore[arg-type]
        keys = (key,) if isinstance(key, str) else tuple(key)
        for name in (*keys, *lookups, *([stream] if stream else []), *(columns or ())):
            if name not in attributes:
                raise ProjectorError(f"{cls.__name__}: {name!r} is not among its columns {list(attributes)}")
        names = _column_names(cls, attributes, columns or {})
        types = {names[attribute]: annotated for attribute, annotated in get_type_hints(row_class).items() if attribute in names}
        row_class.__row__ = RowType(  # type: ignore[attr-defined]
            row_class=row_class,
            table=table,
            attributes=attributes,
            key_attributes=keys,
            lookups=tuple(lookups),
            stream=stream,
            columns=tuple(names.values()),
            key=tuple(names[name] for name in keys),
            types=types,
        )
        return row_class

    return decorate


def _column_names(cls: type, attributes: Sequence[str], renamed: Mapping[str, str]) -> dict[str, str]:
    """``{attribute: column}`` of a class, in the order of its attributes."""
    names = {attribute: renamed.get(attribute, attribute) for attribute in attributes}
    owners: dict[str, str] = {}
    for attribute, name in names.items():
        if not isinstance(name, str) or not name:
            raise ProjectorError(f"{cls.__name__}: columns[{attribute!r}] is {name!r}; give the column's name in the table")
        if name in owners:
            raise ProjectorError(
                f"{cls.__name__}: {owners[name]} and {attribute} are both the column {name!r}; correct @row(..., columns={{...}})"
            )
        owners[name] = attribute
    return names


def row_type(row_class: type) -> RowType:
    """The :class:`RowType` of a class that :func:`row` decorates.

    :raises ProjectorError: :func:`row` does not decorate the class
    """
    kind = getattr(row_class, "__row__", None)
    if not isinstance(kind, RowType):
        raise ProjectorError(f'{row_class!r} is not a row class: decorate it with @row("table", key="...")')
    return kind


class Rows(Protocol):
    """The rows that a handler may read and change. To change a row, a handler sets its attributes."""

    def add(self, row: object) -> None:
        """Adds a new row; fails if a row with its key exists."""

    def get(self, row_class: type[R], *key: Any) -> R:
        """The row with this key; raises :class:`RowError` if it does not exist."""

    def find(self, row_class: type[R], *key: Any) -> R | None:
        """The row with this key, or None."""

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        """The row with this key; adds it with the defaults if it does not exist."""

    def remove(self, row_class: type, *key: Any) -> None:
        """Removes the row with this key; does nothing if it does not exist."""

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        """All rows whose lookup column has this value: ``rows.where(Item, subscription_id=...)``."""


class RowSource(Protocol):
    """Loads the rows that a buffer does not know."""

    def fits(self, kind: RowType) -> Fits:
        """The conversion of values to what the table's columns store."""

    def load(self, kind: RowType, keys: Iterable[Key]) -> Iterable[Values]:
        """The rows that exist among these keys, as values in the order of ``kind.columns``."""

    def load_where(self, kind: RowType, column: str, values: Iterable[Any]) -> Iterable[Values]:
        """The rows whose column has one of these values; ``column`` is the attribute that handlers use."""

    def create(self, kind: RowType, values: Values) -> None:
        """The buffer calls this for a row that has to exist; a live source inserts it at once if it is missing."""


@dataclass
class Changes:
    """The changes of one table since the last :meth:`RowBuffer.settle`, as lists of values or keys.

    :param before: the earlier values of the updated rows, in the same order
    """

    kind: RowType
    inserted: list[Values] = field(default_factory=list)
    updated: list[Values] = field(default_factory=list)
    before: list[Values] = field(default_factory=list)
    deleted: list[Key] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inserted) + len(self.updated) + len(self.deleted)
