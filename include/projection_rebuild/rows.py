"""Rows as a projector's handlers see them: typed, found by key, changed in memory, and blind to blue and green.

Imports nothing but the errors. Where rows come from and go to is a :class:`RowSource`; without one, a
:class:`RowBuffer` is a complete little read model for unit tests.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Protocol, TypeVar, dataclass_transform, get_type_hints

from include.projection_rebuild.errors import ProjectorError, RowError

R = TypeVar("R")
Key = tuple[Any, ...]
Values = tuple[Any, ...]


@dataclass(frozen=True)
class RowType:
    """What a row class stands for.

    :param table: the read model's table, by its live name
    :param columns: the columns that the projector writes, in the order of the class
    :param key: the columns that identify a row; unique in the table
    :param lookups: further columns by which handlers look rows up
    :param types: the Python type of each column, as annotated
    """

    row_class: type
    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    lookups: tuple[str, ...]
    types: dict[str, Any] = field(hash=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _tuple_getter(self.columns))
        object.__setattr__(self, "key_of", _tuple_getter(self.key))

    values: Callable[[Any], Values] = field(init=False, repr=False, compare=False)
    key_of: Callable[[Any], Key] = field(init=False, repr=False, compare=False)


def _tuple_getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Like ``attrgetter``, which gives a bare value for a single name; a key is always a tuple here."""
    getter = attrgetter(*names)
    if len(names) > 1:
        return getter
    return lambda row: (getter(row),)


@dataclass_transform()
def row(table: str, *, key: str | Sequence[str], lookups: Sequence[str] = ()) -> Callable[[type[R]], type[R]]:
    """Makes a class of annotated columns into a row of ``table``.

    .. code-block:: python

        @row("subscriptions", key="id")
        class Subscription:
            id: str
            plan: str
            status: str = "active"

    Columns of the table that the class leaves out take their default in the database.

    :param table: the table's live name; which table is written is decided by the engine
    :param key: the column or columns that identify a row
    :param lookups: columns by which handlers call :meth:`Rows.where`
    :raises ProjectorError: a key or lookup is not a column of the class
    """

    def decorate(cls: type[R]) -> type[R]:
        made = dataclass(slots=True)(cls)
        columns = tuple(f.name for f in fields(made))  # type: ignore[arg-type]
        keys = (key,) if isinstance(key, str) else tuple(key)
        for name in (*keys, *lookups):
            if name not in columns:
                raise ProjectorError(f"{cls.__name__}: {name!r} is not among its columns {list(columns)}")
        made.__row__ = RowType(made, table, columns, keys, tuple(lookups), get_type_hints(made))  # type: ignore[attr-defined]
        return made

    return decorate


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

    def load(self, kind: RowType, keys: Iterable[Key]) -> Iterable[Values]:
        """The rows that exist among these keys, as values in the order of ``kind.columns``."""

    def load_where(self, kind: RowType, column: str, values: Iterable[Any]) -> Iterable[Values]:
        """The rows whose column has one of these values."""

    def create(self, kind: RowType, values: Values) -> None:
        """Told that a row is wanted whether it is there or not; live, it is put in at once if it is missing."""


@dataclass
class Changes:
    """What a buffer holds for one table since its last :meth:`RowBuffer.settle`: three lists of values or keys."""

    kind: RowType
    inserted: list[Values] = field(default_factory=list)
    updated: list[Values] = field(default_factory=list)
    deleted: list[Key] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inserted) + len(self.updated) + len(self.deleted)


class _TableState:
    """The known rows of one table, and what they were when they were first touched since the last settle."""

    __slots__ = ("absent", "before", "complete", "index", "kind", "looked_up", "rows")

    def __init__(self, kind: RowType, complete: bool) -> None:
        self.kind = kind
        self.complete = complete
        self.rows: dict[Key, Any] = {}
        self.absent: set[Key] = set()
        self.before: dict[Key, Values | None] = {}
        self.index: dict[str, dict[Any, set[Key]]] = {name: defaultdict(set) for name in kind.lookups}
        self.looked_up: set[tuple[str, Any]] = set()

    def put(self, key: Key, row: Any) -> None:
        self.rows[key] = row
        for name, index in self.index.items():
            index[getattr(row, name)].add(key)


class RowBuffer:
    """Rows in memory over a source. The engine's unit of work, and without a source the test double of a read model.

    :param source: where unknown rows are loaded from; None: what is not here does not exist
    :param complete: True if the source is known to be empty so far, so that nothing has to be looked up
    """

    def __init__(self, source: RowSource | None = None, *, complete: bool = False) -> None:
        self._source = source
        self._complete = complete or source is None
        self._tables: dict[type, _TableState] = {}

    # What handlers call ---------------------------------------------------------------------------------------

    def add(self, row: object) -> None:
        """See :meth:`Rows.add`. A duplicate that the buffer does not know is refused by the database's own key."""
        table = self._table(type(row))
        key = table.kind.key_of(row)
        if key in table.rows:
            raise RowError(f"{table.kind.table} already has the row that is to be added; use get or get_or_add")
        if key not in table.before:
            table.before[key] = None
        table.put(key, row)

    def get(self, row_class: type[R], *key: Any) -> R:
        """See :meth:`Rows.get`."""
        found = self.find(row_class, *key)
        if found is None:
            raise RowError(f"{row_type(row_class).table} has no row with the key that was asked for; use find or get_or_add")
        return found

    def find(self, row_class: type[R], *key: Any) -> R | None:
        """See :meth:`Rows.find`."""
        table = self._tables.get(row_class) or self._table(row_class)
        found: R | None = table.rows.get(key)
        if found is None:
            if not self._is_unknown(table, key):
                return None
            found = self._load(table, key)
            if found is None:
                return None
        if key not in table.before:
            table.before[key] = table.kind.values(found)
        return found

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        """See :meth:`Rows.get_or_add`."""
        table = self._table(row_class)
        if self._source is not None and self._is_unknown(table, key):
            made = row_class(**dict(zip(table.kind.key, key, strict=True)), **defaults)
            # Before anybody looks: two live writers that both looked for a missing row first would deadlock.
            self._source.create(table.kind, table.kind.values(made))
        found = self.find(row_class, *key)
        if found is None:
            found = row_class(**dict(zip(table.kind.key, key, strict=True)), **defaults)
            self.add(found)
        return found

    def remove(self, row_class: type, *key: Any) -> None:
        """See :meth:`Rows.remove`."""
        if self.find(row_class, *key) is not None:
            table = self._table(row_class)
            del table.rows[key]
            table.absent.add(key)

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        """See :meth:`Rows.where`. In the order of the keys, so that a replay gives the same result each time.

        :raises RowError: not exactly one column, or one that is not declared in ``lookups``
        """
        table = self._table(row_class)
        if len(column) != 1 or next(iter(column)) not in table.kind.lookups:
            raise RowError(
                f"{table.kind.table} is looked up by {list(column)}; declare the one column in @row(..., lookups=[...])"
            )
        name, value = next(iter(column.items()))
        self._look_up(table, name, value)
        # The index keeps the keys of removed rows; find() gives nothing for them.
        found = (self.find(row_class, *key) for key in sorted(table.index[name][value]))
        return [each for each in found if each is not None]

    # What the engine calls ------------------------------------------------------------------------------------

    def preload(self, kind: RowType, keys: Iterable[Key]) -> None:
        """Loads many keys at once; those that the source does not have are known to be absent from now on."""
        table = self._table(kind.row_class)
        unknown = [k for k in keys if k not in table.rows and k not in table.absent and k not in table.before]
        if self._source is None or table.complete or not unknown:
            return
        self._take(table, self._source.load(kind, unknown))
        table.absent.update(k for k in unknown if k not in table.rows)

    def preload_where(self, kind: RowType, column: str, values: Iterable[Any]) -> None:
        """Loads all rows for many values of a lookup column at once."""
        table = self._table(kind.row_class)
        unknown = [v for v in values if (column, v) not in table.looked_up]
        if self._source is None or table.complete or not unknown:
            return
        self._take(table, self._source.load_where(kind, column, unknown))
        table.looked_up.update((column, v) for v in unknown)

    def changes(self) -> list[Changes]:
        """What has to be written, table by table, since the last :meth:`settle`."""
        return [made for table in self._tables.values() if (made := _changes(table))]

    def settle(self) -> None:
        """The changes have been committed: from here on they are what is known to be in the source."""
        for table in self._tables.values():
            table.before.clear()

    def forget(self) -> None:
        """Drops every row from memory: from here on the source is asked. Only between settle and the next event."""
        self._tables.clear()
        self._complete = self._source is None

    @property
    def is_complete(self) -> bool:
        """Whether what is not here does not exist, so that nothing ever has to be loaded."""
        return self._complete

    def __len__(self) -> int:
        """The number of rows held in memory."""
        return sum(len(table.rows) for table in self._tables.values())

    def all(self, row_class: type[R]) -> list[R]:
        """Every row that is held of a class, by key; for tests and small tools."""
        rows = self._table(row_class).rows
        return [rows[key] for key in sorted(rows)]

    # Inside ---------------------------------------------------------------------------------------------------

    def _table(self, row_class: type) -> _TableState:
        table = self._tables.get(row_class)
        if table is None:
            table = self._tables[row_class] = _TableState(row_type(row_class), self._complete)
        return table

    def _is_unknown(self, table: _TableState, key: Key) -> bool:
        """Whether only the source can tell if there is such a row."""
        return not (table.complete or key in table.rows or key in table.absent or key in table.before)

    def _load(self, table: _TableState, key: Key) -> Any:
        if self._source is None:
            return None
        self._take(table, self._source.load(table.kind, [key]))
        found = table.rows.get(key)
        if found is None:
            table.absent.add(key)
        return found

    def _take(self, table: _TableState, loaded: Iterable[Values]) -> None:
        for values in loaded:
            row = table.kind.row_class(*values)
            key = table.kind.key_of(row)
            # What is in memory is newer than what was loaded, and a row that was removed here stays removed.
            if key not in table.rows and key not in table.before and key not in table.absent:
                table.put(key, row)

    def _look_up(self, table: _TableState, name: str, value: Any) -> None:
        if self._source is None or table.complete or (name, value) in table.looked_up:
            return
        self._take(table, self._source.load_where(table.kind, name, [value]))
        table.looked_up.add((name, value))


def _changes(table: _TableState) -> Changes | None:
    made = Changes(table.kind)
    values_of = table.kind.values
    for key, before in table.before.items():
        row = table.rows.get(key)
        if row is None:
            if before is not None:
                made.deleted.append(key)
        elif before is None:
            _refuse_moved(table, key, row)
            made.inserted.append(values_of(row))
        elif before != (values := values_of(row)):
            _refuse_moved(table, key, row)
            made.updated.append(values)
    return made if len(made) else None


def _refuse_moved(table: _TableState, key: Key, row: Any) -> None:
    """Key and lookup columns say where a row is kept, so a handler may not change them under the buffer."""
    kind = table.kind
    moved = kind.key_of(row) != key or any(key not in index[getattr(row, name)] for name, index in table.index.items())
    if moved:
        raise RowError(
            f"a handler changed a key or lookup column ({', '.join((*kind.key, *kind.lookups))}) of a row of "
            f"{kind.table}; remove the row and add another"
        )


class Unknown(Exception):
    """A probing handler came to a row that has to be loaded first."""


class ProbeRows:
    """Runs handlers for nothing but to learn which rows they will ask for, so that a batch loads them at once.

    Handlers are pure functions of event and rows, so running one twice is safe. Each probe works on copies and is
    thrown away; the first unknown row ends the handler.
    """

    def __init__(self, buffer: RowBuffer) -> None:
        self._buffer = buffer
        self._scratch: dict[tuple[type, Key], Any] = {}
        self.wanted: dict[type, set[Key]] = defaultdict(set)
        self.wanted_where: dict[tuple[type, str], set[Any]] = defaultdict(set)

    def next_event(self) -> None:
        """Forgets what the last event's handler did."""
        self._scratch.clear()

    def add(self, row: object) -> None:
        self._scratch[type(row), row_type(type(row)).key_of(row)] = row

    def get(self, row_class: type[R], *key: Any) -> R:
        found = self.find(row_class, *key)
        if found is None:
            raise Unknown
        return found

    def find(self, row_class: type[R], *key: Any) -> R | None:
        if (row_class, key) not in self._scratch:
            self._scratch[row_class, key] = self._copy(row_class, key)
        found: R | None = self._scratch[row_class, key]
        return found

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        found = self.find(row_class, *key)
        if found is None:
            found = row_class(**dict(zip(row_type(row_class).key, key, strict=True)), **defaults)
            self._scratch[row_class, key] = found
        return found

    def remove(self, row_class: type, *key: Any) -> None:
        if self.find(row_class, *key) is not None:
            self._scratch[row_class, key] = None

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        name, value = next(iter(column.items()))
        table = self._buffer._table(row_class)
        if not table.complete and (name, value) not in table.looked_up:
            self.wanted_where[row_class, name].add(value)
            raise Unknown
        return [copy.copy(each) for each in self._buffer.where(row_class, **column)]

    def _copy(self, row_class: type, key: Key) -> Any:
        table = self._buffer._table(row_class)
        found = table.rows.get(key)
        if found is not None:
            return copy.copy(found)
        if table.complete or key in table.absent or key in table.before:
            return None
        self.wanted[row_class].add(key)
        raise Unknown

    def load_wanted(self) -> bool:
        """Loads what the probes asked for, at once; False if there was nothing."""
        found = bool(self.wanted or self.wanted_where)
        for row_class, keys in self.wanted.items():
            self._buffer.preload(row_type(row_class), keys)
        for (row_class, column), values in self.wanted_where.items():
            self._buffer.preload_where(row_type(row_class), column, values)
        self.wanted.clear()
        self.wanted_where.clear()
        return found
