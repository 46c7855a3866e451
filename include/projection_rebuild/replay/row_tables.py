"""Rows of real tables: where a buffer loads from and writes to, in bulk on green or one event at a time on blue."""

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
"""To a value above the highest."""

LONG, CANDIDATES = 12, 200
"""From so many letters on a text of chance is nobody's; of a shorter one so many are tried."""

_SIGNS = "0123456789abcdefghijklmnopqrstuvwxyz!#$&()*+,-./:;<=>?@[]^_{|}~"

FITS = "projection_rebuild_fits"
"""In the info of a connection: what the columns of live tables make of values, in the transaction at hand."""

OUTLINES = "projection_rebuild_outlines"
"""In the info of a connection: the same, whatever the transaction, with the outline of the table for which it holds."""


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
        self._fits: dict[RowType, Fits] = {}

    def fits(self, kind: RowType) -> Fits:
        """See :class:`~projection_rebuild.rows.types.RowSource`. Green changes its columns for nobody, so they are asked for once."""
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
        """Nobody else writes green: a missing row is made in memory."""

    def delete(self, changes: Sequence[Changes]) -> None:
        """Deletes what was removed, in bulk, in the caller's transaction.

        :raises WriteError: the database refused (rows of another table refer to these)
        """
        emptied: set[str] = set()
        for change in reversed(changes):
            if not change.deleted:
                continue
            table = self._name_of(change.kind.table)
            found = self._do("delete from", change.kind, self._dialect.delete_rows, change.deleted)
            # A foreign key of the application's may have taken them along with their parents.
            if found < len(change.deleted) and not emptied & self._parents(table):
                raise _lost("delete", table, len(change.deleted), found)
            emptied.add(table)

    def _parents(self, table: str) -> set[str]:
        schema = self._schema or self._dialect.default_schema(self._connection)
        return self._dialect.parents(self._connection, schema, table)

    def put(self, changes: Sequence[Changes]) -> None:
        """Updates and inserts, in bulk, in the caller's transaction.

        :raises WriteError: the database refused rows (a duplicate, a value that does not fit, no parent)
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
        """At the end of the caller's transaction: what the database has put off until then.

        :raises WriteError: it refuses rows
        """
        try:
            self._dialect.check_deferred(self._connection)
        except Exception as error:
            _raise_refusal(error, "write rows")

    def learn(self, kinds: Iterable[RowType]) -> None:
        """Looks up the unique keys and the columns of the tables, at a time when nobody waits."""
        for kind in kinds:
            # What is unique among some rows only orders them just as well.
            found = self._dialect.unique_keys(self._connection, self._schema, self._name_of(kind.table), among_some=True)
            # What holds the rows' key as well is unique by that alone, and what handlers do not write does not change.
            others = [key for key in found if key and key <= {*kind.columns} and not key >= {*kind.key}]
            self._uniques[kind] = [tuple(kind.columns.index(name) for name in sorted(key)) for key in others]
            self.fits(kind)

    def _unique(self, change: Changes) -> Sequence[tuple[int, ...]]:
        # One row by itself takes nothing from another one.
        if len(change.updated) > 1 and change.kind not in self._uniques:
            self.learn([change.kind])
        return self._uniques.get(change.kind, ())

    def _update(self, kind: RowType, verb: Callable[..., int], rows: Sequence[Values]) -> None:
        if not rows or self._do("update", kind, verb, rows) == len(rows):
            return
        # A driver may count changed rows only: what is not there at all counts.
        keys = [_key_of(kind, values) for values in rows]
        table = self._name_of(kind.table)
        there = sum(1 for _ in self._dialect.select_rows(self._connection, self._schema, table, kind, keys))
        if there < len(rows):
            raise _lost("update", table, len(rows), there)

    def _park(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, parked: Sequence[Parked]) -> None:
        """Takes rows out of the circle of those that exchange what is unique: for a moment they have what nobody else has."""
        fits = self.fits(kind)
        for each in parked:
            for key in each.unique:
                column, value = self._free_value(table, fits, kind, [kind.columns[at] for at in key])
                self._dialect.set_column(connection, schema, table, kind, each.key, column, value)

    def _free_value(self, table: str, fits: Fits, kind: RowType, columns: Sequence[str]) -> tuple[str, Any]:
        """A column of a unique key, and a value that no row has there."""
        for column in columns:
            # One NULL is no other's equal.
            if fits.shapes[column].nullable and column not in kind.key:
                return column, None
        for column in columns:
            length, attribute = fits.shapes[column].length, kind.attributes[kind.columns.index(column)]
            wanted, made = plain_type(kind.types[column]), uuid4()
            if wanted is str and not fits.shapes[column].names:
                return column, made.hex if length is None else self._free_text(table, kind, attribute, length)
            of_chance = {UUID: made, bytes: made.bytes[:length]}
            if wanted in of_chance:
                return column, of_chance[wanted]
            if wanted in _STEPS:
                highest = fits.value(attribute, self._dialect.highest(self._connection, self._schema, table, column))
                return column, fits.value(attribute, highest + _STEPS[wanted])
        # Said as any other value that cannot be sent.
        raise TypeError

    def _free_text(self, table: str, kind: RowType, attribute: str, length: int) -> str:
        """A text of at most so many letters that no row has; of a few letters most may be taken."""
        if length >= LONG:
            return uuid4().hex[:length]
        tried = ["".join(choices(_SIGNS, k=length)) for _ in range(CANDIDATES)]  # noqa: S311 - no secret
        at = kind.attributes.index(attribute)
        found = self._dialect.select_where(self._connection, self._schema, table, kind, kind.columns[at], dict.fromkeys(tried))
        taken = {_compared(row, [at]) for row in found}
        return next((each for each in tried if (each.casefold(),) not in taken), tried[0])

    def _do(self, what: str, kind: RowType, verb: Callable[..., T], rows: Sequence[Any]) -> T | int:
        if not rows:
            return 0
        table = self._name_of(kind.table)
        try:
            return verb(self._connection, self._schema, table, kind, rows)
        except Exception as error:
            _raise_refusal(error, f"{what} {table} ({len(rows)} rows)", self._spelled_alike(kind))

    def _spelled_alike(self, kind: RowType) -> str:
        """What else may be the cause, where the database does not compare texts as handlers do."""
        shapes = self._fits[kind].shapes if kind in self._fits else {}
        alike = [f"{name} ({shape.alike})" for name, shape in shapes.items() if shape.alike]
        return f"; or texts that differ are one to the database, by {', '.join(alike)}" if alike else ""


class BlueTables(GreenTables):
    """The live tables, inside the application's own transaction: rows are locked as they are loaded."""

    def __init__(self, dialect: Dialect, connection: sa.Connection, schema: str | None) -> None:
        super().__init__(dialect, connection, schema, lambda table: table)
        self._known = _known_in(connection)

    def fits(self, kind: RowType) -> Fits:
        """The same within a transaction. In the next one the columns may be others, after a migration or a switch."""
        at = self._schema, kind
        if at not in self._known:
            outline = self._dialect.outline(self._connection, self._schema, kind.table)
            earlier = self._connection.info.setdefault(OUTLINES, {})
            if at not in earlier or earlier[at][0] != outline:
                earlier[at] = outline, super().fits(kind)
            self._known[at] = earlier[at][1]
        return self._known[at]

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
        """Writes the few rows of one event. What the database refuses is the driver's own error.

        :raises LostRows: a row is not there any more
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
    """What is known of the columns of live tables, for as long as the transaction: in the next one they may be others."""
    transaction, known = connection.get_transaction(), connection.info.get(FITS)
    if known is None or transaction is None or known[0]() is not transaction:
        known = connection.info[FITS] = (ref(transaction) if transaction else lambda: None, {})
    found: dict[tuple[str | None, RowType], Fits] = known[1]
    return found


@dataclass(frozen=True)
class Parked:
    """A row that gives up what is unique before it takes another's.

    :param key: of the row
    :param unique: places of the columns of each unique key of which it changes something
    """

    key: Key
    unique: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Order:
    """In which order updated rows are written.

    :param free: these may be written in any order
    :param parked: these first get values that nobody has, because rows go round in a circle
    :param tied: then these, each of them after the one that has what it takes over
    """

    free: list[Values]
    parked: list[Parked]
    tied: list[Values]


def split(change: Changes, unique: Iterable[Sequence[int]]) -> Order:
    """The order in which no updated row takes what is unique from one that still has it.

    :param unique: places of the columns of unique keys
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
                # Several, where the database tells values apart that are one here.
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
    """Numbers, each after those that it waits for; and those for which nobody waits any more, so that there is such an order."""
    order: list[int] = []
    parked: dict[int, None] = {}
    open_ones, seen = set[int](), set[int]()
    for first in waits:
        # Not recursive: a chain may be as long as a batch.
        path = [] if first in seen else [(first, iter(sorted(waits[first])))]
        seen.add(first)
        open_ones.update(number for number, _ in path)
        while path:
            number, left = path[-1]
            other = next(left, None)
            if other is None:
                path.pop()
                open_ones.remove(number)
                order.append(number)
            elif other in open_ones:
                # Round in a circle.
                parked[other] = None
            elif other not in seen:
                seen.add(other)
                open_ones.add(other)
                path.append((other, iter(sorted(waits.get(other, ())))))
    return order, [*parked]


def _key_of(kind: RowType, values: Values) -> Key:
    return tuple(values[kind.columns.index(name)] for name in kind.key)


def _lost(what: str, table: str, wanted: int, found: int) -> LostRows:
    return LostRows(
        f"cannot {what} {wanted - found} of {wanted} rows of {table}: they are not there, though they were when they were loaded or written. "
        "Somebody else has changed the table. Nothing of it is written; run clone_tables and what follows it again"
    )


def _compared(values: Values, key: Sequence[int]) -> tuple[Any, ...]:
    """As a database may compare them: letters of either case and with any accent may be equal, and blanks at the end nothing."""
    found = (values[at] for at in key)
    return tuple(_bare(value) if isinstance(value, str) else _hashable(value) for value in found)


def _bare(text: str) -> str:
    if text.isascii():
        return text.casefold().rstrip()
    apart = normalize("NFKD", text.casefold())
    return "".join(each for each in apart if not combining(each)).rstrip()


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, (dict, list)) else value


def _raise_refusal(error: Exception, what: str, or_else: str = "") -> NoReturn:
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
"""What drivers, and what makes values into theirs, raise at a number that is too large, a text that is no Unicode, an object."""
