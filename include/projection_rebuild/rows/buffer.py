"""The buffer of rows in memory: it finds rows by key, hands them to handlers, and collects their changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter, ne
from typing import Any

from projection_rebuild.errors import RowError, UnfitValue
from projection_rebuild.rows.fitting import Fits, fits_of
from projection_rebuild.rows.types import Changes, Key, R, RowSource, RowType, Values, row_type


class _TableState:
    """The known rows of one table, and the values that they had at the first touch since the last settle.

    If the table was empty, all its rows are new until the settle. They need no earlier values, so `before` is `rows`.
    """

    __slots__ = ("absent", "before", "complete", "fits", "index", "kind", "looked_up", "rows")

    def __init__(self, kind: RowType, complete: bool, fits: Fits) -> None:
        self.kind = kind
        self.fits = fits
        self.complete = complete
        self.rows: dict[Key, Any] = {}
        self.absent: set[Key] = set()
        self.before: dict[Key, Any] = self.rows if complete else {}
        self.index: dict[str, dict[Any, set[Key]]] = {name: defaultdict(set) for name in kind.lookups}
        self.looked_up: set[tuple[str, Any]] = set()

    @property
    def is_new(self) -> bool:
        """Whether the source has none of these rows."""
        return self.before is self.rows

    def undo(self) -> None:
        """Takes back all changes since the last settle."""
        if self.is_new:
            self.rows.clear()
        else:
            for key, was in self.before.items():
                # A row that a handler added without looking for it, or removed, is unknown again.
                self.absent.discard(key)
                if was is None:
                    self.rows.pop(key, None)
                else:
                    self.rows[key] = self.kind.row_class(*was)
            self.before = {}
            # A lookup since then may have ignored a loaded row because the buffer had a newer one.
            self.looked_up.clear()
        # A handler that failed may have changed a lookup column.
        for name, index in self.index.items():
            index.clear()
            for key, row in self.rows.items():
                index[getattr(row, name)].add(key)

    def put(self, key: Key, row: Any) -> None:
        self.rows[key] = row
        if self.index:
            for name, index in self.index.items():
                index[getattr(row, name)].add(key)

    def drop(self, key: Key) -> None:
        row = self.rows.pop(key)
        for name, index in self.index.items():
            value = getattr(row, name)
            index[value].discard(key)
            if not index[value]:
                del index[value]
        if not self.complete:
            self.absent.add(key)


@dataclass
class MissLog:
    """The keys that handlers did not find, and the values by which they looked rows up."""

    missed: set[tuple[type, Key]] = field(default_factory=set)
    looked_up: set[tuple[type, str, Any]] = field(default_factory=set)

    def clear(self) -> None:
        """Empties the log."""
        self.missed.clear()
        self.looked_up.clear()


class RowBuffer:
    """Rows in memory over a source: the engine's unit of work. Without a source it is a test double of a read model.

    :param source: loads unknown rows; None: a row that the buffer does not have does not exist
    :param complete: True if the caller knows that the source is empty, so that the buffer need not look anything up
    :param classes: the row classes that handlers may use; None: any
    :param misses: collects the keys that handlers did not find, and their lookups; None: the buffer does not record
        them
    """

    def __init__(
        self,
        source: RowSource | None = None,
        *,
        complete: bool = False,
        classes: Collection[type] | None = None,
        misses: MissLog | None = None,
    ) -> None:
        self._misses = misses
        self._source = source
        self._classes = classes
        self._complete = complete or source is None
        self._tables: dict[type, _TableState] = {}
        # The rows that the current event may have changed, and by row class the function that makes their values fit.
        self._touched: list[Any] = []
        self._fit: dict[type, Callable[[Any], None]] = {}

    # What handlers call ---------------------------------------------------------------------------------------

    # These methods run for each event. They repeat their common code, because a call would cost time.

    def add(self, row: object) -> None:
        """See :meth:`Rows.add`. If the buffer does not know of a duplicate, the table's own key refuses it."""
        table = self._tables.get(row.__class__) or self._table(type(row))
        table.fits.fit_key(row)
        key, rows = table.kind.key_of(row), table.rows
        if key in rows:
            raise RowError(f"{table.kind.table} already has the row that is to be added; use get or get_or_add")
        if table.before is not rows and key not in table.before:
            table.before[key] = None
        if table.absent:
            table.absent.discard(key)
        table.put(key, row)
        self._touched.append(row)

    def get(self, row_class: type[R], *key: Any) -> R:
        """See :meth:`Rows.get`."""
        table = self._tables.get(row_class) or self._table(row_class)
        rows = table.rows
        row: R | None = rows.get(key)
        if row is None:
            row, key = self._row_and_key(table, key)
        if row is None:
            raise RowError(f"{row_type(row_class).table} has no row with the key that the handler gives; use find or get_or_add")
        self._touched.append(row)
        if table.before is not rows and key not in table.before:
            table.before[key] = table.kind.snapshot(row)
        return row

    def find(self, row_class: type[R], *key: Any) -> R | None:
        """See :meth:`Rows.find`."""
        table = self._tables.get(row_class) or self._table(row_class)
        rows = table.rows
        row: R | None = rows.get(key)
        if row is None:
            row, key = self._row_and_key(table, key)
            if row is None:
                return None
        self._touched.append(row)
        if table.before is not rows and key not in table.before:
            table.before[key] = table.kind.snapshot(row)
        return row

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        """See :meth:`Rows.get_or_add`."""
        table = self._tables.get(row_class) or self._table(row_class)
        rows = table.rows
        row: R | None = rows.get(key)
        if row is None:
            key = table.fits.key(key)
            if self._source is not None and self._is_unknown(table, key):
                # Insert before the first look: two live writers that both looked for a missing row first would
                # deadlock.
                offered = table.kind.made_of(key, defaults)
                table.fits.fit_key(offered)
                table.fits.fit(offered)
                self._source.create(table.kind, table.kind.values(offered))
            row = rows.get(key)
            if row is None:
                row = self._load(table, key)
            if row is None:
                new: R = table.kind.made_of(key, defaults)
                # A live buffer reads this row back from the table, so its values fit the columns at once.
                table.fits.fit(new)
                self.add(new)
                return new
        self._touched.append(row)
        if table.before is not rows and key not in table.before:
            table.before[key] = table.kind.snapshot(row)
        return row

    def remove(self, row_class: type, *key: Any) -> None:
        """See :meth:`Rows.remove`."""
        if self.find(row_class, *key) is not None:
            table = self._table(row_class)
            # By the key under which the buffer keeps the row: a handler may have changed the row's own values.
            table.drop(key if key in table.rows else table.fits.key(key))

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        """See :meth:`Rows.where`. Returns rows in the order of their keys, so that each replay gives the same result.

        :raises RowError: the caller names not exactly one column, or one that ``lookups`` does not declare
        """
        table = self._table(row_class)
        if len(column) != 1 or next(iter(column)) not in table.kind.lookups:
            raise RowError(
                f"where() takes exactly one column of the lookups of {table.kind.table}; declare it in @row(..., lookups=[...])"
            )
        name, value = next(iter(column.items()))
        try:
            value = table.fits.value(name, value)
        except UnfitValue:
            # No row can have this value.
            return []
        if self._misses is not None:
            self._misses.looked_up.add((row_class, name, value))
        self._look_up(table, name, value)
        rows, before = table.rows, table.before
        # If a handler changed a row's value and then removed the row, the index still has its key under the old value.
        keys = sorted(key for key in table.index[name].get(value, ()) if key in rows)
        for key in keys:
            if key not in before:
                before[key] = table.kind.snapshot(rows[key])
        matches = [rows[key] for key in keys]
        self._touched += matches
        return matches

    # What the engine calls ------------------------------------------------------------------------------------

    def preload(self, kind: RowType, keys: Iterable[Key]) -> None:
        """Loads the rows of many keys at once, and records the keys that the source does not have as absent."""
        table = self._table(kind.row_class)
        unknown = [k for k in keys if k not in table.rows and k not in table.absent and k not in table.before]
        if self._source is None or table.complete or not unknown:
            return
        self._put_loaded(table, self._source.load(kind, unknown))
        table.absent.update(k for k in unknown if k not in table.rows)

    def preload_where(self, kind: RowType, column: str, values: Iterable[Any]) -> None:
        """Loads all rows for many values of a lookup column at once."""
        table = self._table(kind.row_class)
        unknown = [v for v in values if (column, v) not in table.looked_up]
        if self._source is None or table.complete or not unknown:
            return
        self._put_loaded(table, self._source.load_where(kind, column, unknown))
        table.looked_up.update((column, v) for v in unknown)

    def end_event(self) -> None:
        """Converts the values that a handler has set to what the columns store, before the next handler reads them.

        :raises UnfitValue: a column cannot hold a value
        """
        touched = self._touched
        if touched:
            for row in touched:
                self._fit[row.__class__](row)
            touched.clear()

    def changes(self) -> list[Changes]:
        """The changes since the last :meth:`settle`, table by table."""
        self.end_event()
        return [changes for table in self._tables.values() if (changes := _changes(table))]

    def settle(self) -> None:
        """Records that the caller has committed the changes, so that the source now has these rows."""
        for table in self._tables.values():
            table.before = {}

    def undo(self) -> None:
        """Takes back all changes since the last :meth:`settle`."""
        self._touched.clear()
        for table in self._tables.values():
            table.undo()

    def forget(self) -> None:
        """Drops all rows from memory, so that the buffer loads them again. Only between settle and the next event."""
        self._tables.clear()
        self._complete = self._source is None

    @property
    def is_complete(self) -> bool:
        """Whether the buffer has all existing rows, so that it never loads any."""
        return self._complete

    def touched_values(self, attribute_of: Callable[[RowType], str]) -> Iterator[tuple[RowType, set[Any]]]:
        """Yields for each table the values of one attribute that the touched rows had before, or have now."""
        for table in self._tables.values():
            name, rows = attribute_of(table.kind), table.rows
            now = rows.values() if table.is_new else [rows[key] for key in table.before if key in rows]
            values = set(map(attrgetter(name), now))
            if not table.is_new:
                at = table.kind.attributes.index(name)
                values.update(before[at] for before in table.before.values() if before is not None)
            yield table.kind, values

    def held(self, kind: RowType, attribute: str, values: Iterable[Any]) -> Iterator[Any]:
        """Yields values as a column stores them; leaves out those that it cannot hold."""
        fits = self._table(kind.row_class).fits
        for value in values:
            with suppress(UnfitValue):
                yield fits.value(attribute, value)

    def holds(self, row_class: type, key: Key) -> bool:
        """Whether the buffer has a row with this key in memory now."""
        return key in self._table(row_class).rows

    @property
    def touched(self) -> int:
        """The number of rows that handlers have added, read or removed since the last :meth:`settle`."""
        return sum(len(table.before) for table in self._tables.values())

    def __len__(self) -> int:
        """The number of rows in memory, and of keys and lookups for which the buffer knows that they have no row."""
        return sum(len(table.rows) + len(table.absent) + len(table.looked_up) for table in self._tables.values())

    def all(self, row_class: type[R]) -> list[R]:
        """All rows of a class in memory, in the order of their keys; for tests and small tools."""
        self.end_event()
        rows = self._table(row_class).rows
        return [rows[key] for key in sorted(rows)]

    # Inside ---------------------------------------------------------------------------------------------------

    def _table(self, row_class: type) -> _TableState:
        table = self._tables.get(row_class)
        if table is None:
            if self._classes is not None and row_class not in self._classes:
                raise RowError(
                    f"a handler uses {row_class.__name__}, which its projector neither `owns` nor `reads`; add it to `reads` to read its rows"
                )
            kind = row_type(row_class)
            fits = fits_of(kind, {}) if self._source is None else self._source.fits(kind)
            table = self._tables[row_class] = _TableState(kind, self._complete, fits)
            self._fit[row_class] = fits.fit
        return table

    def _row_and_key(self, table: _TableState, key: Key) -> tuple[Any, Key]:
        """The row with this key, or None, and the key as its columns store it."""
        try:
            key = table.fits.key(key)
        except UnfitValue:
            # No row can have this key, so the buffer need not load it.
            return None, key
        row = table.rows.get(key)
        return (self._load(table, key) if row is None else row), key

    def _is_unknown(self, table: _TableState, key: Key) -> bool:
        """Whether only the source can tell if a row with this key exists."""
        return not (table.complete or key in table.rows or key in table.absent or key in table.before)

    def _load(self, table: _TableState, key: Key) -> Any:
        """Loads a row that is not in memory; None if it does not exist, which the buffer and the misses record."""
        if self._source is not None and self._is_unknown(table, key):
            self._put_loaded(table, self._source.load(table.kind, [key]))
            if (row := table.rows.get(key)) is not None:
                return row
            table.absent.add(key)
        if self._misses is not None:
            self._misses.missed.add((table.kind.row_class, key))
        return None

    def _put_loaded(self, table: _TableState, loaded: Iterable[Values]) -> None:
        for values in loaded:
            row = table.kind.row_class(*values)
            table.fits.fit_key(row)
            table.fits.fit(row)
            key = table.kind.key_of(row)
            # The row in memory is newer than the loaded one, and a row that a handler removed stays removed.
            if key not in table.rows and key not in table.before and key not in table.absent:
                table.put(key, row)

    def _look_up(self, table: _TableState, name: str, value: Any) -> None:
        if self._source is None or table.complete or (name, value) in table.looked_up:
            return
        self._put_loaded(table, self._source.load_where(table.kind, name, [value]))
        table.looked_up.add((name, value))


def _changes(table: _TableState) -> Changes | None:
    if table.is_new:
        return _additions(table)
    changes = Changes(table.kind)
    rows, values_of, key_of = table.rows, table.kind.values, table.kind.key_of
    index = table.index
    for key, before in table.before.items():
        row = rows.get(key)
        if row is None:
            if before is not None:
                changes.deleted.append(key)
            continue
        values = values_of(row)
        if before == values:
            continue
        # The buffer finds a row by its key and lookup columns, so a handler may not change them.
        if key_of(row) != key or (index and _is_kept_elsewhere(index, key, row)):
            raise _moved(table.kind)
        if before is None:
            changes.inserted.append(values)
        else:
            changes.updated.append(values)
            changes.before.append(before)
    return changes if len(changes) else None


def _additions(table: _TableState) -> Changes | None:
    """All rows of a table that was empty, as inserts."""
    kind, rows, index = table.kind, table.rows, table.index
    if any(map(ne, kind.keys_of(rows.values()), rows)) or (
        index and any(_is_kept_elsewhere(index, key, row) for key, row in rows.items())
    ):
        raise _moved(kind)
    return Changes(kind, list(map(kind.values, rows.values()))) if rows else None


def _is_kept_elsewhere(index: Mapping[str, Mapping[Any, Collection[Key]]], key: Key, row: Any) -> bool:
    """Whether a lookup column of a row has another value than in the index."""
    return any(key not in keys.get(getattr(row, name), ()) for name, keys in index.items())


def _moved(kind: RowType) -> RowError:
    return RowError(
        f"a handler changed a key or lookup column ({', '.join(dict.fromkeys((*kind.key_attributes, *kind.lookups)))}) of a row of "
        f"{kind.table}; remove the row and add another"
    )
