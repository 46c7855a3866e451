"""Compiles declared tables to handlers: one function of an event and rows for each event type.

These functions define the meaning of a declaration; every other form has to agree with them. They run live, in the tail
of a replay, for dead letters, and wherever the database cannot read payloads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import singledispatchmethod
from typing import Any

from projection_rebuild.authoring.declared.evaluation import Source
from projection_rebuild.authoring.declared.expressions import Expression
from projection_rebuild.authoring.declared.tables import (
    Contribution,
    Declared,
    Delete,
    DeleteWhere,
    Groups,
    HowKept,
    Insert,
    Kept,
    Update,
)
from projection_rebuild.authoring.events import Event
from projection_rebuild.rows.types import Key, Rows, RowType

Handle = Callable[[Event, Rows], None]


def handler(tables: Sequence[Declared], event_type: str) -> Handle | None:
    """The handler of declared tables for an event type; None: the type concerns none of them.

    The tables change their rows in the given order.
    """
    concerned = [table for table in tables if event_type in table.actions]
    if not concerned:
        return None
    source = _Handler()
    lines = [line for table in concerned for line in source.lines(table, event_type)]
    text = "\n ".join(["def handle(event, rows):", "payload = event.payload", *lines])
    exec(text, source.names)  # noqa: S102 - names of attributes and fields, quoted, and expressions of this package
    handle: Handle = source.names["handle"]
    return handle


class _Handler(Source):
    """The source of one handler."""

    def lines(self, table: Declared, event_type: str) -> Iterable[str]:
        """The lines of one table for an event type."""
        contributions = [action for action in table.actions[event_type] if isinstance(action, Contribution)]
        if isinstance(table, Groups) and contributions:
            yield self._added(table, contributions)
            return
        for action in table.actions[event_type]:
            yield from self._lines_of(action, table)

    @singledispatchmethod
    def _lines_of(self, action: Any, table: Declared) -> Iterable[str]:
        raise NotImplementedError

    @_lines_of.register
    def _insert(self, action: Insert, table: Declared) -> Iterable[str]:
        kind, values = table.kind, {**action.key, **action.values}
        if not action.replaces:
            yield f"rows.add({self.named(kind.row_class)}({self._keywords(values)}))"
            return
        yield from self._evaluated(action.values)
        given = ", ".join(f"{name}=new_{name}" for name in action.values)
        yield f"row = rows.get_or_add({self.named(kind.row_class)}, {self._key(action.key, kind)}, {given})"
        yield from self._assigned(action.values)

    @_lines_of.register
    def _update(self, action: Update, table: Declared) -> Iterable[str]:
        yield f"row = rows.get({self.named(table.kind.row_class)}, {self._key(action.key, table.kind)})"
        yield from self._evaluated(action.values)
        yield from self._assigned(action.values)

    @_lines_of.register
    def _delete(self, action: Delete, table: Declared) -> Iterable[str]:
        yield f"rows.remove({self.named(table.kind.row_class)}, {self._key(action.key, table.kind)})"

    @_lines_of.register
    def _delete_where(self, action: DeleteWhere, table: Declared) -> Iterable[str]:
        row_class = self.named(table.kind.row_class)
        key = ", ".join(f"row.{name}" for name in table.kind.key_attributes)
        yield f"for row in rows.where({row_class}, {action.column}={self.of(action.value)}): rows.remove({row_class}, {key})"

    def _added(self, table: Groups, contributions: Sequence[Contribution]) -> str:
        adding = self.named(_Adding(table))
        pairs = ", ".join(
            f"(({self._key(contribution.key, table.kind)},), {self._pairs(contribution.values)})"
            for contribution in contributions
        )
        return f"{adding}(rows, [{pairs}])"

    def _pairs(self, values: Mapping[str, Expression]) -> str:
        return "{" + ", ".join(f"{name!r}: {self.of(value)}" for name, value in values.items()) + "}"

    def _kept(self, root: Kept) -> str:
        return self.of(root.value)

    def _negative(self, root: Any) -> str:
        return f"(-{self.of(root.value)})"

    def _key(self, key: Mapping[str, Expression], kind: RowType) -> str:
        return ", ".join(self.of(key[name]) for name in kind.key_attributes)

    def _keywords(self, values: Mapping[str, Expression]) -> str:
        return ", ".join(f"{name}={self.of(value)}" for name, value in values.items())

    def _evaluated(self, values: Mapping[str, Expression]) -> Iterable[str]:
        """Evaluates all values before the first assignment, so that an error leaves the row unchanged."""
        for name, value in values.items():
            yield f"new_{name} = {self.of(value)}"

    def _assigned(self, values: Mapping[str, Expression]) -> Iterable[str]:
        for name in values:
            yield f"row.{name} = new_{name}"


class _Adding:
    """Adds the contributions of one event to its groups."""

    def __init__(self, table: Groups) -> None:
        self._row_class = table.row_class
        self._kept: Mapping[str, HowKept] = dict(table.kept)
        self._vanishes = table.vanishes

    def __call__(self, rows: Rows, contributions: Sequence[tuple[Key, Mapping[str, Any]]]) -> None:
        if len(contributions) > 1:
            # A live read locks its row. With one order for all events, two events wait for each other, but do not
            # deadlock.
            contributions = sorted(contributions, key=lambda contribution: tuple(map(str, contribution[0])))
        for key, values in contributions:
            self._add(rows, key, values)

    def _add(self, rows: Rows, key: Key, values: Mapping[str, Any]) -> None:
        if not self._vanishes:
            self._keep(rows, key, values)
            return
        row: Any = rows.get_or_add(self._row_class, *key)
        for name, value in values.items():
            setattr(row, name, getattr(row, name) + value)
        if not any(getattr(row, name) for name in self._kept):
            rows.remove(self._row_class, *key)

    def _keep(self, rows: Rows, key: Key, values: Mapping[str, Any]) -> None:
        # A sum begins at 0. The other columns may take the value twice, so they need not know whether the row is new.
        begun = {name: 0 if self._kept[name] == "sum" else value for name, value in values.items()}
        row: Any = rows.get_or_add(self._row_class, *key, **begun)
        for name, value in values.items():
            setattr(row, name, _KEPT[self._kept[name]](getattr(row, name), value))


_KEPT: Mapping[HowKept, Callable[[Any, Any], Any]] = {
    "sum": lambda before, value: before + value,
    "maximum": lambda before, value: value if before is None or (value is not None and value > before) else before,
    "minimum": lambda before, value: value if before is None or (value is not None and value < before) else before,
    "first": lambda before, value: before,
    "last": lambda before, value: value,
}
