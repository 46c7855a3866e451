"""Rows that only record what a handler reads, so that the replay can load it beforehand."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.types import Key, R, row_type


class Unknown(Exception):
    """In a recording run a handler needs a row that the replay has to load first."""


class RecordingRows:
    """Records which rows handlers need, so that a batch loads them at once.

    Handlers are pure functions of event and rows, so the engine may run one twice. In a recording run each handler
    works on copies, which this class throws away. The first unknown row ends the handler.
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
        kind = row_type(type(row))
        # The row may share a part of the event's payload, which the handler may change later.
        kind.set_apart(row)
        self._buffer._table(type(row)).fits.fit_key(row)
        self._scratch[type(row), kind.key_of(row)] = row

    def get(self, row_class: type[R], *key: Any) -> R:
        row = self.find(row_class, *key)
        if row is None:
            raise Unknown
        return row

    def find(self, row_class: type[R], *key: Any) -> R | None:
        key = self._buffer._table(row_class).fits.key(key)
        if (row_class, key) not in self._scratch:
            self._scratch[row_class, key] = self._copy(row_class, key)
        row: R | None = self._scratch[row_class, key]
        return row

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        row = self.find(row_class, *key)
        if row is None:
            new: R = row_type(row_class).made_of(key, defaults)
            self._buffer._table(row_class).fits.fit(new)
            self.add(new)
            return new
        return row

    def remove(self, row_class: type, *key: Any) -> None:
        if self.find(row_class, *key) is not None:
            self._scratch[row_class, self._buffer._table(row_class).fits.key(key)] = None

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        name, value = next(iter(column.items()))
        table = self._buffer._table(row_class)
        value = table.fits.value(name, value)
        if not table.complete and (name, value) not in table.looked_up:
            self.wanted_where[row_class, name].add(value)
            raise Unknown
        return [table.kind.copy_of(row) for row in self._buffer.where(row_class, **column)]

    def _copy(self, row_class: type, key: Key) -> Any:
        table = self._buffer._table(row_class)
        row = table.rows.get(key)
        if row is not None:
            return table.kind.copy_of(row)
        if table.complete or key in table.absent or key in table.before:
            return None
        self.wanted[row_class].add(key)
        raise Unknown

    def load_wanted(self) -> bool:
        """Loads all rows that handlers need at once.

        :returns: False if they need none
        """
        any_wanted = bool(self.wanted or self.wanted_where)
        for row_class, keys in self.wanted.items():
            self._buffer.preload(row_type(row_class), keys)
        for (row_class, column), values in self.wanted_where.items():
            self._buffer.preload_where(row_type(row_class), column, values)
        self.wanted.clear()
        self.wanted_where.clear()
        return any_wanted
