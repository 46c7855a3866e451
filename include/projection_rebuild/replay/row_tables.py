"""Loads and writes the rows of real tables for a row buffer: in bulk on green, or one event at a time on blue."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from random import choices
from typing import Any, NoReturn, TypeVar
from unicodedata import combining, normalize
from uuid import UUID, uuid4
from weakref import ref

import sqlalchemy as sa

from projection_rebuild.dialects import Dialect
from projection_rebuild.errors import LostRows, RebuildError
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.trouble import Kind
from projection_rebuild.rows.fitting import Fits, fits_of
from projection_rebuild.rows.types import Changes, Key, RowType, Values
from projection_rebuild.rows.values import plain_type

T = TypeVar("T")

_STEPS: dict[type | None, Any] = {
    int: 1,
    float: 1.0,
    Decimal: Decimal(1),
    date: timedelta(days=1),
    datetime: timedelta(days=1),
}
"""By type: what to add to the highest value for a free one."""

LONG, CANDIDATES = 12, 200
"""A random text of at least ``LONG`` characters is certainly free; of shorter ones, ``CANDIDATES`` are tried."""

_SIGNS = "0123456789abcdefghijklmnopqrstuvwxyz!#$&()*+,-./:;<=>?@[]^_{|}~"

FITS = "projection_rebuild_fits"
"""Key in a connection's ``info``: how the columns of live tables convert values, for the current transaction."""

OUTLINES = "projection_rebuild_outlines"
"""Key in a connection's ``info``: the same across transactions, with the table's outline for which it is valid."""


class WriteError(RebuildError):
    """The database refused rows. The message names table and reason, never a value.

    :param cause: the kind of the error
    :param event_type: of the event that changed the rows, if known
    :param position: of that event
    """

    code = "PR-WRITE-01"

    def __init__(self, message: str, cause: str, event_type: str | None = None, position: int | None = None) -> None:
        self.cause = cause
        self.event_type = event_type
        self.position = position
        super().__init__(message)

    def of(self, event_type: str, position: int) -> WriteError:
        """The same error, whose message names the event whose rows are refused."""
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
        self._fits: dict[RowType, Fits] = {}

    def fits(self, kind: RowType) -> Fits:
        """See :class:`~projection_rebuild.rows.types.RowSource`. Green's columns never change, so read them once."""
        if kind not in self._fits:
            self._fits[kind] = fits_of(kind, self._dialect.shapes(self._connection, self._schema, self._name_of(kind.table)))
        return self._fits[kind]

    def load(self, kind: RowType, keys: Iterable[Key]) -> Iterable[Values]:
        """See :class:`~projection_rebuild.rows.types.RowSource`."""
        return self._dialect.select_rows(self._connection, self._schema, self._name_of(kind.table), kind, keys)

    def load_where(self, kind: RowType, column: str, values: Iterable[Any]) -> Iterable[Values]:
        """See :class:`~projection_rebuild.rows.types.RowSource`."""
        return self._dialect.select_where(
            self._connection, self._schema, self._name_of(kind.table), kind, kind.column(column), values
        )

    def create(self, kind: RowType, values: Values) -> None:
        """Does nothing: only this worker writes green, so a new row may stay in memory."""

    def delete(self, changes: Sequence[Changes]) -> None:
        """Deletes the removed rows, in bulk, in the caller's transaction.

        :param changes: parents first
        :raises WriteError: the database refused (rows of another table refer to these)
        :raises LostRows: a row no longer exists
        """
        emptied: set[str] = set()
        for change in reversed(changes):
            if not change.deleted:
                continue
            table = self._name_of(change.kind.table)
            deleted = self._do("delete from", change.kind, self._dialect.delete_rows, change.deleted)
            # A foreign key of the application may cascade: deleting the parents deleted these rows too.
            if deleted < len(change.deleted) and not emptied & self._parents(table):
                raise _lost("delete", table, len(change.deleted), deleted)
            emptied.add(table)

    def _parents(self, table: str) -> set[str]:
        """The tables to which foreign keys of a table refer."""
        schema = self._schema or self._dialect.default_schema(self._connection)
        return self._dialect.parents(self._connection, schema, table)

    def put(self, changes: Sequence[Changes]) -> None:
        """Updates and inserts rows, in bulk, in the caller's transaction.

        :raises WriteError: the database refused rows (a duplicate, a value that does not fit, no parent)
        :raises LostRows: a row to update no longer exists
        """
        for change in changes:
            order = split(change, self._unique(change))
            self._update(change.kind, self._update_many, order.free)
            self._do("update", change.kind, self._park, order.parked)
            self._update(change.kind, self._dialect.update_rows, order.tied)
            self._do("insert into", change.kind, self._insert, change.inserted)

    def _insert(self, *given: Any) -> None:
        self._dialect.load_rows(*given)

    def _update_many(self, *given: Any) -> int:
        return self._dialect.update_many(*given)

    def check(self) -> None:
        """Runs the constraint checks that the database defers to the end of the caller's transaction.

        :raises WriteError: the database refuses rows
        """
        try:
            self._dialect.check_deferred(self._connection)
        except Exception as error:
            _raise_refusal(error, "write rows")

    def learn(self, kinds: Iterable[RowType]) -> None:
        """Reads the unique keys and the columns of the tables, before any writer waits."""
        for kind in kinds:
            # Partial unique indexes too: rows that exchange values may collide in them as well.
            keys = self._dialect.unique_keys(self._connection, self._schema, self._name_of(kind.table), among_some=True)
            # Keys that contain the rows' key cannot collide, nor can keys with a column that handlers do not write.
            others = [key for key in keys if key and key <= {*kind.columns} and not key >= {*kind.key}]
            self._uniques[kind] = [tuple(kind.columns.index(name) for name in sorted(key)) for key in others]
            self.fits(kind)

    def _unique(self, change: Changes) -> Sequence[tuple[int, ...]]:
        """The unique keys among which updated rows may collide, as indexes of their columns."""
        # A single row takes no value from another one.
        if len(change.updated) > 1 and change.kind not in self._uniques:
            self.learn([change.kind])
        return self._uniques.get(change.kind, ())

    def _update(self, kind: RowType, verb: Callable[..., int], rows: Sequence[Values]) -> None:
        if not rows or self._do("update", kind, verb, rows) == len(rows):
            return
        # A driver may count only the rows whose values have changed, so count the rows that exist.
        keys = [_key_of(kind, values) for values in rows]
        table = self._name_of(kind.table)
        existing = sum(1 for _ in self._dialect.select_rows(self._connection, self._schema, table, kind, keys))
        if existing < len(rows):
            raise _lost("update", table, len(rows), existing)

    def _park(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, parked: Sequence[Parked]) -> None:
        """Gives rows of a cycle, which exchange unique values, values that no other row has, until they are updated."""
        fits = self.fits(kind)
        for row in parked:
            for unique in row.unique:
                column, value = self._free_value(table, fits, kind, [kind.columns[index] for index in unique])
                self._dialect.set_column(connection, schema, table, kind, row.key, column, value)

    def _free_value(self, table: str, fits: Fits, kind: RowType, columns: Sequence[str]) -> tuple[str, Any]:
        """A column of a unique key, and a value that no row has in it.

        :raises TypeError: no column is of a type for which the engine knows free values
        """
        for column in columns:
            # To a unique key, NULLs are not equal.
            if fits.shapes[column].nullable and column not in kind.key:
                return column, None
        for column in columns:
            length, attribute = fits.shapes[column].length, kind.attributes[kind.columns.index(column)]
            value_type, random = plain_type(kind.types[column]), uuid4()
            if value_type is str and not fits.shapes[column].names:
                return column, random.hex if length is None else self._free_text(table, kind, attribute, length)
            random_values = {UUID: random, bytes: random.bytes[:length]}
            if value_type in random_values:
                return column, random_values[value_type]
            if value_type in _STEPS:
                highest = fits.value(attribute, self._dialect.highest(self._connection, self._schema, table, column))
                return column, fits.value(attribute, highest + _STEPS[value_type])
        # The caller reports it like any other value that cannot be sent to the database.
        raise TypeError

    def _free_text(self, table: str, kind: RowType, attribute: str, length: int) -> str:
        """A text of at most ``length`` characters that no row has; of short texts most may be taken."""
        if length >= LONG:
            return uuid4().hex[:length]
        candidates = ["".join(choices(_SIGNS, k=length)) for _ in range(CANDIDATES)]  # noqa: S311 - no secret
        index = kind.attributes.index(attribute)
        column = kind.columns[index]
        rows = self._dialect.select_where(self._connection, self._schema, table, kind, column, dict.fromkeys(candidates))
        taken = {_compared(row, [index]) for row in rows}
        return next((text for text in candidates if (text.casefold(),) not in taken), candidates[0])

    def _do(self, what: str, kind: RowType, verb: Callable[..., T], rows: Sequence[Any]) -> T | int:
        if not rows:
            return 0
        table = self._name_of(kind.table)
        try:
            return verb(self._connection, self._schema, table, kind, rows)
        except Exception as error:
            _raise_refusal(error, f"{what} {table} ({len(rows)} rows)", self._spelled_alike(kind))

    def _spelled_alike(self, kind: RowType) -> str:
        """Another possible cause of a refusal, for columns in which different texts may be equal to the database."""
        shapes = self._fits[kind].shapes if kind in self._fits else {}
        alike = [f"{name} ({shape.alike})" for name, shape in shapes.items() if shape.alike]
        return f"; or different texts are equal to the database, in {', '.join(alike)}" if alike else ""


class BlueTables(GreenTables):
    """The live tables, inside the application's own transaction: loading a row locks it."""

    def __init__(self, dialect: Dialect, connection: sa.Connection, schema: str | None) -> None:
        super().__init__(dialect, connection, schema, lambda table: table)
        self._known = _known_in(connection)

    def fits(self, kind: RowType) -> Fits:
        """Constant within a transaction. In the next one the columns may differ, after a migration or a swap."""
        key = self._schema, kind
        if key not in self._known:
            outline = self._dialect.outline(self._connection, self._schema, kind.table)
            earlier = self._connection.info.setdefault(OUTLINES, {})
            if key not in earlier or earlier[key][0] != outline:
                earlier[key] = outline, super().fits(kind)
            self._known[key] = earlier[key][1]
        return self._known[key]

    def load(self, kind: RowType, keys: Iterable[Key]) -> Iterable[Values]:
        """Loads and locks rows: another transaction that changes the same row waits, so no change is lost."""
        return self._dialect.select_rows(self._connection, self._schema, kind.table, kind, keys, lock=True)

    def load_where(self, kind: RowType, column: str, values: Iterable[Any]) -> Iterable[Values]:
        """Loads and locks rows, as :meth:`load` does."""
        return self._dialect.select_where(
            self._connection, self._schema, kind.table, kind, kind.column(column), values, lock=True
        )

    def create(self, kind: RowType, values: Values) -> None:
        """Inserts a missing row at once, so that of two transactions that miss it, one waits for the other."""
        self._dialect.insert_if_absent(self._connection, self._schema, kind.table, kind, values)

    def write(self, changes: Sequence[Changes]) -> None:
        """Writes the few rows of one event. If the database refuses them, the driver's own error is raised.

        :raises LostRows: a row no longer exists
        """
        self.delete(changes)
        self.put(changes)

    def _do(self, what: str, kind: RowType, verb: Callable[..., T], rows: Sequence[Any]) -> T | int:
        return verb(self._connection, self._schema, kind.table, kind, rows) if rows else 0

    def _insert(self, *given: Any) -> None:
        self._dialect.insert_rows(*given)

    def _update_many(self, *given: Any) -> int:
        return self._dialect.update_rows(*given)


def _known_in(connection: sa.Connection) -> dict[tuple[str | None, RowType], Fits]:
    """The cache of live tables' columns for the current transaction: in the next one they may differ."""
    transaction, known = connection.get_transaction(), connection.info.get(FITS)
    if known is None or transaction is None or known[0]() is not transaction:
        known = connection.info[FITS] = (ref(transaction) if transaction else lambda: None, {})
    cache: dict[tuple[str | None, RowType], Fits] = known[1]
    return cache


@dataclass(frozen=True)
class Parked:
    """A row that gets free values in unique columns before it takes over another row's values.

    :param key: of the row
    :param unique: for each unique key in which the row changes, the indexes of the key's columns
    """

    key: Key
    unique: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Order:
    """The order in which updated rows are written.

    :param free: rows that may be written in any order
    :param parked: rows of a cycle, which first get values that no other row has
    :param tied: rows to write after that, each after the row whose value it takes over
    """

    free: list[Values]
    parked: list[Parked]
    tied: list[Values]


def split(change: Changes, unique: Iterable[Sequence[int]]) -> Order:
    """The order in which no updated row takes over a unique value that another row still has.

    :param unique: for each unique key, the indexes of its columns
    """
    waits: dict[int, set[int]] = {}
    gives: dict[int, list[Sequence[int]]] = {}
    for key in unique:
        pairs = [
            (_compared(before, key), _compared(after, key)) for before, after in zip(change.before, change.updated, strict=True)
        ]
        holders: dict[tuple[Any, ...], list[int]] = {}
        for number, (before, after) in enumerate(pairs):
            if before != after:
                # Several rows, if values that are equal here differ to the database.
                holders.setdefault(before, []).append(number)
        for number, (before, after) in enumerate(pairs):
            if before != after:
                gives.setdefault(number, []).append(key)
                if None not in after and after in holders:
                    waits.setdefault(number, set()).update(holders[after])
    tied, parked = _in_order(waits)
    among = {*tied}
    return Order(
        free=[row for number, row in enumerate(change.updated) if number not in among] if tied else change.updated,
        parked=[Parked(_key_of(change.kind, change.updated[number]), gives[number]) for number in parked],
        tied=[change.updated[number] for number in tied],
    )


def _in_order(waits: Mapping[int, Collection[int]]) -> tuple[list[int], list[int]]:
    """Sorts numbers topologically, and breaks cycles.

    :param waits: for each number, those that it waits for
    :returns: the numbers, each after those that it waits for; and the numbers to remove from all waits, so that this
        order exists
    """
    order: list[int] = []
    parked: dict[int, None] = {}
    open_ones, seen = set[int](), set[int]()
    for first in waits:
        # Iterative, not recursive: a chain may be as long as a batch.
        path = [] if first in seen else [(first, iter(sorted(waits[first])))]
        seen.add(first)
        open_ones.update(number for number, _ in path)
        while path:
            number, remaining = path[-1]
            other = next(remaining, None)
            if other is None:
                path.pop()
                open_ones.remove(number)
                order.append(number)
            elif other in open_ones:
                # A cycle.
                parked[other] = None
            elif other not in seen:
                seen.add(other)
                open_ones.add(other)
                path.append((other, iter(sorted(waits.get(other, ())))))
    return order, [*parked]


def _key_of(kind: RowType, values: Values) -> Key:
    return tuple(values[kind.columns.index(name)] for name in kind.key)


def _lost(verb: str, table: str, expected: int, affected: int) -> LostRows:
    return LostRows(
        f"cannot {verb} {expected - affected} of {expected} rows of {table}: they are gone, though they existed when they were loaded or "
        "written. Somebody else has changed the table. Nothing of it is written; run clone_tables and what follows it again"
    )


def _compared(values: Values, key: Sequence[int]) -> tuple[Any, ...]:
    """Values as a database may compare them: it may ignore case, accents, and spaces at the end."""
    compared = (values[index] for index in key)
    return tuple(_bare(value) if isinstance(value, str) else _hashable(value) for value in compared)


def _bare(text: str) -> str:
    """A text without case, accents, and spaces at the end."""
    if text.isascii():
        return text.casefold().rstrip()
    decomposed = normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not combining(character)).rstrip()


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, (dict, list)) else value


def _raise_refusal(error: Exception, what: str, or_else: str = "") -> NoReturn:
    """Raises a :class:`WriteError` for a refused value, and any other error as it is.

    :param or_else: another possible cause, to end the sentence with
    """
    # Without the driver's text and without the chain: both quote values.
    trouble = trouble_of(error)
    if trouble is not None and trouble.kind is Kind.VALUE:
        why, cause = trouble.describe(), trouble.code or "a refused value"
    elif isinstance(error, _NO_VALUES):
        why, cause = f"a value cannot be sent to the database ({type(error).__name__})", type(error).__name__
    else:
        raise error
    raise WriteError(
        f"cannot {what}: {why}. A handler adds a row twice, or gives a value that the column does not take{or_else}; nothing of this batch was written",
        cause,
    ) from None


_NO_VALUES = (ArithmeticError, TypeError, ValueError)
"""Raised by drivers and conversions for values that they cannot send: too large numbers, invalid Unicode, objects."""
