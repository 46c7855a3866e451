"""Row classes, and what a database has to know of them; the rows that handlers see, and where these come from."""

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
"""Types of values of which nobody can change anything."""


@dataclass(frozen=True)
class RowType:
    """What a row class stands for.

    :param table: the read model's table, by its live name
    :param attributes: the columns that the projector writes by the names that handlers know, in the order of the class
    :param key_attributes: the attributes that identify a row
    :param lookups: further attributes by which handlers look rows up
    :param stream: the attribute that holds the stream of the events that make the row, if one does
    :param columns: the attributes' columns as the database names them, in the same order
    :param key: the columns that identify a row; unique in the table
    :param types: the Python type of each column, as annotated
    :ivar values: gives a row's values
    :ivar key_of: gives a row's key
    :ivar keys_of: gives the keys of many rows
    :ivar snapshot: gives a row's values as they are now, whatever is changed within them later
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
        leads = self.attributes[: len(self.key_attributes)] == self.key_attributes
        object.__setattr__(self, "_leads", leads)
        object.__setattr__(self, "_changing", tuple(self._changing_attributes()))
        object.__setattr__(self, "snapshot", self._deep_values if self._changing else self.values)

    def column(self, attribute: str) -> str:
        """The database's name of an attribute's column."""
        return self.columns[self.attributes.index(attribute)]

    def copy_of(self, row: R) -> R:
        """A row of its own."""
        # Each row that a recording run touches: the module `copy` takes several times as long.
        made = object.__new__(type(row))
        for name, value in zip(self.attributes, self.snapshot(row), strict=True):
            setattr(made, name, value)
        return made

    def made_of(self, key: Key, given: Mapping[str, Any]) -> Any:
        """A row of its key and the values of other attributes.

        :raises RowError: these are more or fewer values than a key has
        """
        if len(key) != len(self.key_attributes):
            raise RowError(f"a row of {self.table} is identified by {', '.join(self.key_attributes)}, not by {len(key)} values")
        # By their places, which is faster, where the key comes first.
        return (
            self.row_class(*key, **given)
            if self._leads
            else self.row_class(**dict(zip(self.key_attributes, key, strict=True)), **given)
        )

    def set_apart(self, row: object) -> None:
        """Gives a row values that nobody else holds and could change: those of JSON columns."""
        for name in self._changing:
            setattr(row, name, _apart(getattr(row, name)))

    def _deep_values(self, row: object) -> Values:
        return tuple(
            _apart(value) if name in self._changing else value
            for name, value in zip(self.attributes, self.values(row), strict=True)
        )

    def _changing_attributes(self) -> Iterator[str]:
        for attribute, column in zip(self.attributes, self.columns, strict=False):
            if not _never_changes(self.types.get(column, str)):
                yield attribute

    values: Callable[[Any], Values] = field(init=False, repr=False, compare=False)
    key_of: Callable[[Any], Key] = field(init=False, repr=False, compare=False)
    keys_of: Callable[[Iterable[Any]], Iterable[Key]] = field(init=False, repr=False, compare=False)
    _leads: bool = field(init=False, repr=False, compare=False)
    snapshot: Callable[[Any], Values] = field(init=False, repr=False, compare=False)
    _changing: tuple[str, ...] = field(init=False, repr=False, compare=False)


def _never_changes(annotation: Any) -> bool:
    """Whether values of a column are what they are, so that a row changes only by setting its attribute."""
    if get_origin(annotation) in (UnionType, Union):
        return all(map(_never_changes, get_args(annotation)))
    return annotation in UNCHANGING


def _apart(value: Any) -> Any:
    """A value's equal that shares nothing with it that could change."""
    kind = type(value)
    if kind is dict:
        return {key: _apart(each) for key, each in value.items()}
    if kind is list:
        return [_apart(each) for each in value]
    return value if kind in UNCHANGING else copy.deepcopy(value)


def _tuple_getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Like ``attrgetter``, which gives a bare value for a single name; a key is always a tuple here."""
    getter = attrgetter(*names)
    if len(names) > 1:
        return getter
    return lambda row: (getter(row),)


def _tuples_getter(names: Sequence[str]) -> Callable[[Iterable[Any]], Iterable[tuple[Any, ...]]]:
    """The same for many rows, without a call of Python's for each."""
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
    """Makes a class of annotated columns into a row of ``table``.

    .. code-block:: python

        @row("subscriptions", key="id")
        class Subscription:
            id: str
            plan: str
            status: str = "active"

    Columns of the table that the class leaves out take their default in the database.

    :param table: the table's live name; which table is written is decided by the engine
    :param key: the attribute or attributes that identify a row
    :param lookups: attributes by which handlers call :meth:`Rows.where`
    :param stream: the attribute that holds the stream of all events that make and change the row; then it can be replayed in
        shards (see :attr:`Projector.partition_by`)
    :param columns: ``{attribute: column}`` for columns whose names are not those of the class
    :raises ProjectorError: a key, lookup, stream or renamed column is not an attribute of the class, or two are the same column
    """

    def decorate(cls: type[R]) -> type[R]:
        made = dataclass(slots=True)(cls)
        attributes = tuple(f.name for f in fields(made))  # type: ignore[arg-type]
        keys = (key,) if isinstance(key, str) else tuple(key)
        for name in (*keys, *lookups, *([stream] if stream else []), *(columns or ())):
            if name not in attributes:
                raise ProjectorError(f"{cls.__name__}: {name!r} is not among its columns {list(attributes)}")
        names = _column_names(cls, attributes, columns or {})
        types = {names[attribute]: annotated for attribute, annotated in get_type_hints(made).items() if attribute in names}
        made.__row__ = RowType(  # type: ignore[attr-defined]
            row_class=made,
            table=table,
            attributes=attributes,
            key_attributes=keys,
            lookups=tuple(lookups),
            stream=stream,
            columns=tuple(names.values()),
            key=tuple(names[name] for name in keys),
            types=types,
        )
        return made

    return decorate


def _column_names(cls: type, attributes: Sequence[str], renamed: Mapping[str, str]) -> dict[str, str]:
    """``{attribute: column}`` of a class, in its order."""
    names = {each: renamed.get(each, each) for each in attributes}
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
    """The :class:`RowType` of a class made by :func:`row`.

    :raises ProjectorError: the class was not made by :func:`row`
    """
    found = getattr(row_class, "__row__", None)
    if not isinstance(found, RowType):
        raise ProjectorError(f'{row_class!r} is not a row class: decorate it with @row("table", key="...")')
    return found


class Rows(Protocol):
    """What a handler may do with rows. A row that was got or found is changed by setting its attributes."""

    def add(self, row: object) -> None:
        """A new row. Fails if one with this key is there."""

    def get(self, row_class: type[R], *key: Any) -> R:
        """The row with this key; :class:`RowError` if there is none."""

    def find(self, row_class: type[R], *key: Any) -> R | None:
        """The row with this key, or None."""

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        """The row with this key, made from the key and the defaults if there is none."""

    def remove(self, row_class: type, *key: Any) -> None:
        """Removes the row with this key; does nothing if there is none."""

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        """All rows whose lookup column has this value: ``rows.where(Item, subscription_id=...)``."""


class RowSource(Protocol):
    """Where a buffer loads rows that it does not know."""

    def fits(self, kind: RowType) -> Fits:
        """What the table's columns make of values."""

    def load(self, kind: RowType, keys: Iterable[Key]) -> Iterable[Values]:
        """The rows that exist among these keys, as values in the order of ``kind.columns``."""

    def load_where(self, kind: RowType, column: str, values: Iterable[Any]) -> Iterable[Values]:
        """The rows whose column has one of these values; ``column`` as the handlers name it."""

    def create(self, kind: RowType, values: Values) -> None:
        """Told that a row is wanted whether it is there or not; live, it is put in at once if it is missing."""


@dataclass
class Changes:
    """What a buffer holds for one table since its last :meth:`RowBuffer.settle`: lists of values or keys.

    :param before: what the updated rows were, in the same order
    """

    kind: RowType
    inserted: list[Values] = field(default_factory=list)
    updated: list[Values] = field(default_factory=list)
    before: list[Values] = field(default_factory=list)
    deleted: list[Key] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inserted) + len(self.updated) + len(self.deleted)
