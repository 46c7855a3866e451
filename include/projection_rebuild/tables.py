"""Rows of real tables: where a buffer loads from and writes to, in bulk on green or one event at a time on blue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from typing import Any, NoReturn

import sqlalchemy as sa

from include.projection_rebuild.dialects import Dialect, trouble_of
from include.projection_rebuild.errors import RebuildError
from include.projection_rebuild.rows import Changes, Key, RowType, Values
from include.projection_rebuild.trouble import Kind


class WriteError(RebuildError):
    """The database refused rows; names table and reason, never a value.

    :param cause: the kind of the error
    :param event_type: of the event whose rows they are, where that is known
    :param position: of that event
    """

    code = "PR-WRITE-01"

    def __init__(self, message: str, cause: str, event_type: str | None = None, position: int | None = None) -> None:
        self.cause = cause
        self.event_type = event_type
        self.position = position
        super().__init__(message)

    def of(self, event_type: str, position: int) -> WriteError:
        """The same, naming the event whose rows are refused."""
        return WriteError(f"the event {event_type} at position {position:,}: {self.message}", self.cause, event_type, position)


class GreenTables:
    """The tables of a run under their green names, for one worker at a time.

    :param name_of: the green name of a live table
    """

    def __init__(self, dialect: Dialect, connection: sa.Connection, schema: str | None, name_of: Callable[[str], str]) -> None:
        self._dialect = dialect
        self._connection = connection
        self._schema = schema
        self._name_of = name_of
        self._uniques: dict[RowType, list[tuple[int, ...]]] = {}

    def load(self, kind: RowType, keys: Iterable[Key]) -> Iterable[Values]:
        """See :class:`~include.projection_rebuild.rows.RowSource`."""
        return self._dialect.select_rows(self._connection, self._schema, self._name_of(kind.table), kind, keys)

    def load_where(self, kind: RowType, column: str, values: Iterable[Any]) -> Iterable[Values]:
        """See :class:`~include.projection_rebuild.rows.RowSource`."""
        return self._dialect.select_where(
            self._connection, self._schema, self._name_of(kind.table), kind, kind.column(column), values
        )

    def create(self, kind: RowType, values: Values) -> None:
        """Nobody else writes green: a missing row is made in memory."""

    def delete(self, changes: Sequence[Changes]) -> None:
        """Deletes what was removed, in bulk, in the caller's transaction.

        :raises WriteError: the database refused (rows of another table refer to these)
        """
        for change in reversed(changes):
            self._do("delete from", change.kind, self._dialect.delete_rows, change.deleted)

    def put(self, changes: Sequence[Changes]) -> None:
        """Updates and inserts, in bulk, in the caller's transaction.

        :raises WriteError: the database refused rows (a duplicate, a value that does not fit, no parent)
        """
        for change in changes:
            free, tied = split(change, self._unique(change))
            self._do("update", change.kind, self._dialect.update_many, free)
            self._do("update", change.kind, self._dialect.update_rows, tied)
            self._do("insert into", change.kind, self._dialect.load_rows, change.inserted)

    def check(self) -> None:
        """At the end of the caller's transaction: what the database has put off until then.

        :raises WriteError: it refuses rows
        """
        try:
            self._dialect.check_deferred(self._connection)
        except Exception as error:
            _raise_refusal(error, "write rows")

    def learn(self, kinds: Iterable[RowType]) -> None:
        """Looks up the unique keys of the tables, at a time when nobody waits."""
        for kind in kinds:
            found = self._dialect.unique_keys(self._connection, self._schema, self._name_of(kind.table))
            # What holds the rows' key as well is unique by that alone, and what handlers do not write does not change.
            others = [key for key in found if key and key <= {*kind.columns} and not key >= {*kind.key}]
            self._uniques[kind] = [tuple(kind.columns.index(name) for name in sorted(key)) for key in others]

    def _unique(self, change: Changes) -> Sequence[tuple[int, ...]]:
        if change.updated and change.kind not in self._uniques:
            self.learn([change.kind])
        return self._uniques.get(change.kind, ())

    def _do(self, what: str, kind: RowType, verb: Callable[..., None], rows: Sequence[Any]) -> None:
        if not rows:
            return
        table = self._name_of(kind.table)
        try:
            verb(self._connection, self._schema, table, kind, rows)
        except Exception as error:
            _raise_refusal(error, f"{what} {table} ({len(rows)} rows)")


class BlueTables(GreenTables):
    """The live tables, inside the application's own transaction: rows are locked as they are loaded."""

    def __init__(self, dialect: Dialect, connection: sa.Connection, schema: str | None) -> None:
        super().__init__(dialect, connection, schema, lambda table: table)

    def load(self, kind: RowType, keys: Iterable[Key]) -> Iterable[Values]:
        """Loads and locks: another transaction that changes the same row waits, so no change is lost."""
        return self._dialect.select_rows(self._connection, self._schema, kind.table, kind, keys, lock=True)

    def load_where(self, kind: RowType, column: str, values: Iterable[Any]) -> Iterable[Values]:
        """Loads and locks."""
        return self._dialect.select_where(
            self._connection, self._schema, kind.table, kind, kind.column(column), values, lock=True
        )

    def create(self, kind: RowType, values: Values) -> None:
        """Puts a missing row in at once, so that two transactions that both miss it wait for each other."""
        self._dialect.insert_if_absent(self._connection, self._schema, kind.table, kind, values)

    def write(self, changes: Sequence[Changes]) -> None:
        """Writes the few rows of one event."""
        for change in reversed(changes):
            self._dialect.delete_rows(self._connection, self._schema, change.kind.table, change.kind, change.deleted)
        for change in changes:
            self._dialect.update_rows(self._connection, self._schema, change.kind.table, change.kind, change.updated)
            self._dialect.insert_rows(self._connection, self._schema, change.kind.table, change.kind, change.inserted)


def split(change: Changes, unique: Iterable[Sequence[int]]) -> tuple[list[Values], list[Values]]:
    """The updated rows that may be written in any order; and those of which one takes over what is unique from another, each of them
    after the one that has it. Where they go round in a circle there is no such order.

    :param unique: places of the columns of unique keys
    """
    waits: dict[int, set[int]] = {}
    for key in unique:
        pairs = [
            (_compared(before, key), _compared(after, key)) for before, after in zip(change.before, change.updated, strict=True)
        ]
        holders = {before: number for number, (before, after) in enumerate(pairs) if before != after}
        for number, (before, after) in enumerate(pairs):
            if before != after and None not in after and after in holders:
                waits.setdefault(number, set()).add(holders[after])
    try:
        tied = [*TopologicalSorter(waits).static_order()]
    except CycleError:
        tied = sorted({*waits, *chain.from_iterable(waits.values())})
    free = [row for number, row in enumerate(change.updated) if number not in {*tied}] if tied else change.updated
    return free, [change.updated[number] for number in tied]


def _compared(values: Values, key: Sequence[int]) -> tuple[Any, ...]:
    """As a database may compare them: letters of either case may be equal, and blanks at the end nothing."""
    found = (values[at] for at in key)
    return tuple(value.casefold().rstrip() if isinstance(value, str) else _hashable(value) for value in found)


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, (dict, list)) else value


def _raise_refusal(error: Exception, what: str) -> NoReturn:
    # Without the driver's text and without the chain: both quote values.
    trouble = trouble_of(error)
    if trouble is not None and trouble.kind is Kind.VALUE:
        why, cause = trouble.describe(), trouble.code or "a refused value"
    elif isinstance(error, _NO_VALUES):
        why, cause = f"a value cannot be sent to the database ({type(error).__name__})", type(error).__name__
    else:
        raise error
    raise WriteError(
        f"cannot {what}: {why}. A handler adds a row twice, or gives a value that the column does not take; nothing of this batch was written",
        cause,
    ) from None


_NO_VALUES = (ArithmeticError, TypeError, ValueError)
"""What drivers, and what makes values into theirs, raise at a number that is too large, a text that is no Unicode, an object."""
