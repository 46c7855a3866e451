"""Rows in memory: found by key, changed by handlers, and what has changed since they were written."""

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
    """The known rows of one table, and what they were when they were first touched since the last settle.

    All rows of a table that was empty are new until then: what they were need not be kept beside them, and `before` is `rows`.
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
        """Whether the source has none of the rows."""
        return self.before is self.rows

    def undo(self) -> None:
        """Takes back whatever was done since the last settle."""
        if self.is_new:
            self.rows.clear()
        else:
            for key, was in self.before.items():
                # One that was added without a look, or removed since, is unknown again.
                self.absent.discard(key)
                if was is None:
                    self.rows.pop(key, None)
                else:
                    self.rows[key] = self.kind.row_class(*was)
            self.before = {}
            # What was loaded since may have been passed over for a row that was here.
            self.looked_up.clear()
        # A handler that failed may have changed what it is found by.
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
    """What handlers asked for that was not there, and by what they looked rows up."""

    missed: set[tuple[type, Key]] = field(default_factory=set)
    looked_up: set[tuple[type, str, Any]] = field(default_factory=set)

    def clear(self) -> None:
        """Begins anew."""
        self.missed.clear()
        self.looked_up.clear()


class RowBuffer:
    """Rows in memory over a source. The engine's unit of work, and without a source the test double of a read model.

    :param source: where unknown rows are loaded from; None: what is not here does not exist
    :param complete: True if the source is known to be empty so far, so that nothing has to be looked up
    :param classes: those that handlers may ask for; None: any
    :param misses: where to note what was asked for; None: nowhere
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
        # What the event at hand may have changed, and what makes it right.
        self._touched: list[Any] = []
        self._fit: dict[type, Callable[[Any], None]] = {}

    # What handlers call ---------------------------------------------------------------------------------------

    # Run for each event, so what each has in common with the others stands in each.

    def add(self, row: object) -> None:
        """See :meth:`Rows.add`. A duplicate that the buffer does not know is refused by the database's own key."""
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
        found: R | None = rows.get(key)
        if found is None:
            found, key = self._found(table, key)
        if found is None:
            raise RowError(f"{row_type(row_class).table} has no row with the key that was asked for; use find or get_or_add")
        self._touched.append(found)
        if table.before is not rows and key not in table.before:
            table.before[key] = table.kind.snapshot(found)
        return found

    def find(self, row_class: type[R], *key: Any) -> R | None:
        """See :meth:`Rows.find`."""
        table = self._tables.get(row_class) or self._table(row_class)
        rows = table.rows
        found: R | None = rows.get(key)
        if found is None:
            found, key = self._found(table, key)
            if found is None:
                return None
        self._touched.append(found)
        if table.before is not rows and key not in table.before:
            table.before[key] = table.kind.snapshot(found)
        return found

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        """See :meth:`Rows.get_or_add`."""
        table = self._tables.get(row_class) or self._table(row_class)
        rows = table.rows
        found: R | None = rows.get(key)
        if found is None:
            key = table.fits.key(key)
            if self._source is not None and self._is_unknown(table, key):
                # Before anybody looks: two live writers that both looked for a missing row first would deadlock.
                offered = table.kind.made_of(key, defaults)
                table.fits.fit_key(offered)
                table.fits.fit(offered)
                self._source.create(table.kind, table.kind.values(offered))
            found = rows.get(key)
            if found is None:
                found = self._loaded(table, key)
            if found is None:
                made: R = table.kind.made_of(key, defaults)
                # Live, the row has been in the table and come back.
                table.fits.fit(made)
                self.add(made)
                return made
        self._touched.append(found)
        if table.before is not rows and key not in table.before:
            table.before[key] = table.kind.snapshot(found)
        return found

    def remove(self, row_class: type, *key: Any) -> None:
        """See :meth:`Rows.remove`."""
        found = self.find(row_class, *key)
        if found is not None:
            table = self._table(row_class)
            # By the key that it is kept by, whatever a handler has made of the row since.
            table.drop(key if key in table.rows else table.fits.key(key))

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        """See :meth:`Rows.where`. In the order of the keys, so that a replay gives the same result each time.

        :raises RowError: not exactly one column, or one that is not declared in ``lookups``
        """
        table = self._table(row_class)
        if len(column) != 1 or next(iter(column)) not in table.kind.lookups:
            raise RowError(
                f"{table.kind.table} is looked up by something else than one column of its lookups; declare that column in @row(..., lookups=[...])"
            )
        name, value = next(iter(column.items()))
        try:
            value = table.fits.value(name, value)
        except UnfitValue:
            # No row can have it.
            return []
        if self._misses is not None:
            self._misses.looked_up.add((row_class, name, value))
        self._look_up(table, name, value)
        rows, before = table.rows, table.before
        # One that was given another value, and removed then, is still there by this one.
        found = sorted(key for key in table.index[name].get(value, ()) if key in rows)
        for key in found:
            if key not in before:
                before[key] = table.kind.snapshot(rows[key])
        given = [rows[key] for key in found]
        self._touched += given
        return given

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

    def end_event(self) -> None:
        """An event has been handled: what its handler has given becomes what the columns hold, before the next one reads it.

        :raises UnfitValue: a column can hold nothing like it
        """
        touched = self._touched
        if touched:
            for row in touched:
                self._fit[row.__class__](row)
            touched.clear()

    def changes(self) -> list[Changes]:
        """What has to be written, table by table, since the last :meth:`settle`."""
        self.end_event()
        return [made for table in self._tables.values() if (made := _changes(table))]

    def settle(self) -> None:
        """The changes have been committed: from here on they are what is known to be in the source."""
        for table in self._tables.values():
            table.before = {}

    def undo(self) -> None:
        """Takes back whatever was done since the last :meth:`settle`."""
        self._touched.clear()
        for table in self._tables.values():
            table.undo()

    def forget(self) -> None:
        """Drops every row from memory: from here on the source is asked. Only between settle and the next event."""
        self._tables.clear()
        self._complete = self._source is None

    @property
    def is_complete(self) -> bool:
        """Whether what is not here does not exist, so that nothing ever has to be loaded."""
        return self._complete

    def touched_values(self, attribute_of: Callable[[RowType], str]) -> Iterator[tuple[RowType, set[Any]]]:
        """By table, the values of one attribute that the touched rows had before, or have now."""
        for table in self._tables.values():
            name, rows = attribute_of(table.kind), table.rows
            now = rows.values() if table.is_new else [rows[key] for key in table.before if key in rows]
            values = set(map(attrgetter(name), now))
            if not table.is_new:
                at = table.kind.attributes.index(name)
                values.update(before[at] for before in table.before.values() if before is not None)
            yield table.kind, values

    def held(self, kind: RowType, attribute: str, values: Iterable[Any]) -> Iterator[Any]:
        """What a column makes of values; those that it can hold nothing like are left out."""
        fits = self._table(kind.row_class).fits
        for each in values:
            with suppress(UnfitValue):
                yield fits.value(attribute, each)

    def holds(self, row_class: type, key: Key) -> bool:
        """Whether there is such a row in memory now."""
        return key in self._table(row_class).rows

    @property
    def touched(self) -> int:
        """The number of rows that have been added, asked for or removed since the last :meth:`settle`."""
        return sum(len(table.before) for table in self._tables.values())

    def __len__(self) -> int:
        """How many rows, and keys and lookups without a row, are held in memory."""
        return sum(len(table.rows) + len(table.absent) + len(table.looked_up) for table in self._tables.values())

    def all(self, row_class: type[R]) -> list[R]:
        """Every row that is held of a class, by key; for tests and small tools."""
        self.end_event()
        rows = self._table(row_class).rows
        return [rows[key] for key in sorted(rows)]

    # Inside ---------------------------------------------------------------------------------------------------

    def _table(self, row_class: type) -> _TableState:
        table = self._tables.get(row_class)
        if table is None:
            if self._classes is not None and row_class not in self._classes:
                raise RowError(
                    f"a handler asks for {row_class.__name__}, which its projector neither `owns` nor `reads`; add it to `reads` to look at "
                    "its rows"
                )
            kind = row_type(row_class)
            fits = fits_of(kind, {}) if self._source is None else self._source.fits(kind)
            table = self._tables[row_class] = _TableState(kind, self._complete, fits)
            self._fit[row_class] = fits.fit
        return table

    def _found(self, table: _TableState, key: Key) -> tuple[Any, Key]:
        """The row whose key's columns hold this; None if there is none. And the key as they hold it."""
        try:
            key = table.fits.key(key)
        except UnfitValue:
            # No row can have it, so nobody has to be asked.
            return None, key
        found = table.rows.get(key)
        return (self._loaded(table, key) if found is None else found), key

    def _is_unknown(self, table: _TableState, key: Key) -> bool:
        """Whether only the source can tell if there is such a row."""
        return not (table.complete or key in table.rows or key in table.absent or key in table.before)

    def _loaded(self, table: _TableState, key: Key) -> Any:
        """The row that was not in memory; None, which is noted, if there is none."""
        if self._source is not None and self._is_unknown(table, key):
            self._take(table, self._source.load(table.kind, [key]))
            if (found := table.rows.get(key)) is not None:
                return found
            table.absent.add(key)
        if self._misses is not None:
            self._misses.missed.add((table.kind.row_class, key))
        return None

    def _take(self, table: _TableState, loaded: Iterable[Values]) -> None:
        for values in loaded:
            row = table.kind.row_class(*values)
            table.fits.fit_key(row)
            table.fits.fit(row)
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
    if table.is_new:
        return _additions(table)
    made = Changes(table.kind)
    rows, values_of, key_of = table.rows, table.kind.values, table.kind.key_of
    index = table.index
    for key, before in table.before.items():
        row = rows.get(key)
        if row is None:
            if before is not None:
                made.deleted.append(key)
            continue
        values = values_of(row)
        if before == values:
            continue
        # Key and lookup columns say where a row is kept, so a handler may not change them under the buffer.
        if key_of(row) != key or (index and _is_kept_elsewhere(index, key, row)):
            raise _moved(table.kind)
        if before is None:
            made.inserted.append(values)
        else:
            made.updated.append(values)
            made.before.append(before)
    return made if len(made) else None


def _additions(table: _TableState) -> Changes | None:
    """All rows of a table that was empty."""
    kind, rows, index = table.kind, table.rows, table.index
    if any(map(ne, kind.keys_of(rows.values()), rows)) or (
        index and any(_is_kept_elsewhere(index, key, row) for key, row in rows.items())
    ):
        raise _moved(kind)
    return Changes(kind, list(map(kind.values, rows.values()))) if rows else None


def _is_kept_elsewhere(index: Mapping[str, Mapping[Any, Collection[Key]]], key: Key, row: Any) -> bool:
    """Whether a lookup column of a row has another value than when it was put there."""
    return any(key not in keys.get(getattr(row, name), ()) for name, keys in index.items())


def _moved(kind: RowType) -> RowError:
    return RowError(
        f"a handler changed a key or lookup column ({', '.join(dict.fromkeys((*kind.key_attributes, *kind.lookups)))}) of a row of "
        f"{kind.table}; remove the row and add another"
    )
