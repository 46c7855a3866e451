"""Refolds aggregates from their events with the handlers alone, one event at a time, for the sample.

It keeps rows in plain dicts, without a row buffer. After each event it inserts the values into a temporary table that
has green's columns, and reads them back. So each value is rounded, padded and cut by the database itself at every
event, as for an application that projects live. Aggregates do not touch each other's rows. So the engine projects the
first events of all aggregates, then the second ones, and so on, with a few statements for each such round.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.dialects import Dialect
from projection_rebuild.errors import PoisonEvent, RowError
from projection_rebuild.errors.boundary import is_of_the_machine, trouble_at_event, word_for
from projection_rebuild.model.column_kinds import ColumnKind, ColumnType
from projection_rebuild.model.names import derived
from projection_rebuild.rows.types import Key, RowType, Values, row_type
from projection_rebuild.rows.values import plain_type

R = TypeVar("R")

NUMBER = "projection_rebuild_row"
"""The column that numbers the rows of a temporary table."""

REMEMBERED = 10_000
"""How many keys of one table the engine remembers with the values that the columns hold."""


class Undeclared(Exception):
    """A handler has reached a row of another aggregate than its event's, against the projector's declaration."""


class Temporary:
    """A temporary table with green's columns, which converts values as these columns do.

    :param table: green's name
    """

    def __init__(self, dialect: Dialect, connection: sa.Connection, schema: str | None, table: str, kind: RowType) -> None:
        self.kind = kind
        self.table = table
        self._dialect = dialect
        self._connection = connection
        self._schema = schema
        self.columns: Mapping[str, ColumnType] = dialect.inspector.column_types(connection, schema, table)
        # Each table has another temporary name, however long its own name is. No real table has that name: the
        # temporary table would hide it from this connection.
        self._name = derived(f"projection_rebuild_held_{kind.table}", "", dialect.max_identifier)
        self.qualified = dialect.rows.temporary(schema, self._name)
        self._number = 0
        self._annotations = [plain_type(kind.types[name]) for name in kind.columns]
        self._types = [self.columns[name] for name in kind.columns]
        self._held_keys: dict[tuple[Any, ...], Key | None] = {}
        dialect.run(connection, dialect.rows.drop_temporary(schema, self._name))
        for statement in dialect.rows.make_temporary(connection, schema, table, kind.columns, self._name):
            dialect.run(connection, statement)

    def drop(self) -> None:
        """Drops the temporary table."""
        self._dialect.run(self._connection, self._dialect.drop_temporary(self._schema, self._name))

    def held(self, rows: Sequence[Values]) -> list[tuple[int, Values]]:
        """Inserts rows, and returns the values that the columns hold, each row with its number.

        :raises sqlalchemy.exc.DBAPIError: the database refuses a value
        """
        if not rows:
            return []
        numbers = self.put(rows)
        columns = ", ".join(self._read(name) for name in self.kind.columns)
        statement = f"SELECT {NUMBER}, {columns} FROM {self.qualified} WHERE {NUMBER} >= {numbers[0]} ORDER BY {NUMBER}"
        types = [self.kind.types[name] for name in self.kind.columns]
        stored_rows = self._dialect.execute(self._connection, statement).all()
        return [(int(row[0]), tuple(map(promised, types, row[1:]))) for row in stored_rows]

    def put(self, rows: Sequence[Values]) -> list[int]:
        """Inserts rows, and returns the number of each.

        :raises sqlalchemy.exc.DBAPIError: the database refuses a value
        """
        mark = self._dialect.mark
        names = ", ".join([NUMBER, *map(self._dialect.quote, self.kind.columns)])
        marks = ", ".join([mark] * (len(self.kind.columns) + 1))
        numbers = [*range(self._number + 1, self._number + 1 + len(rows))]
        self._number += len(rows)
        values = [
            (number, *map(self._given, row, self._annotations, self._types)) for number, row in zip(numbers, rows, strict=True)
        ]
        if values:
            self._dialect.execute_many(self._connection, f"INSERT INTO {self.qualified} ({names}) VALUES ({marks})", values)
        return numbers

    def _given(self, value: Any, annotation: type | None, column: ColumnType) -> Any:
        """A value as the driver takes it; converts a text to a time if the database would not read it as one."""
        if isinstance(value, str) and (
            annotation is datetime or (annotation is str and column.kind is ColumnKind.TIME and not self._dialect.reads_offsets)
        ):
            value = _time(value, annotation, column)
        return self._dialect.given(value)

    def stays(self, values: Values) -> bool:
        """Whether the columns are sure to hold the values unchanged, so that no query is necessary."""
        return all(map(_stays, values, self._annotations, self._types))

    def key(self, columns: Sequence[str], values: Sequence[Any]) -> Key | None:
        """The values that some columns hold for the values of a lookup; None: the columns cannot hold such values."""
        types = [self.kind.types[name] for name in columns]
        if all(map(_stays, values, map(_plain_type, types), (self.columns[name] for name in columns))):
            return tuple(values)
        lookup = (*columns, *map(type, values), *map(repr, values))
        if lookup not in self._held_keys:
            if len(self._held_keys) >= REMEMBERED:
                self._held_keys.clear()
            self._held_keys[lookup] = self._held_key(columns, values)
        return self._held_keys[lookup]

    def _held_key(self, columns: Sequence[str], values: Sequence[Any]) -> Key | None:
        by_column = dict(zip(columns, values, strict=True))
        try:
            (number,) = self.put([tuple(by_column.get(name) for name in self.kind.columns)])
        except Exception as error:
            # A handler may look up any value, even one that no driver takes.
            if is_of_the_machine(error):
                raise
            return None
        read = ", ".join(map(self._read, columns))
        statement = f"SELECT {read} FROM {self.qualified} WHERE {NUMBER} = {number}"
        stored = self._dialect.execute(self._connection, statement).one()
        return tuple(map(promised, (self.kind.types[name] for name in columns), stored))

    def clear(self) -> None:
        """Deletes all rows."""
        self._dialect.run(self._connection, f"DELETE FROM {self.qualified}")

    def _read(self, name: str) -> str:
        quoted, kind = self._dialect.quote(name), self.columns[name].kind
        return self._dialect.as_stored(quoted, kind) if kind is ColumnKind.JSON else quoted

    def same(self, columns: Sequence[str], values: Sequence[Any], among: Sequence[int]) -> set[int]:
        """The numbers of the rows, among those given, whose columns equal these values to the database."""
        if not among:
            return set()
        match = " AND ".join(f"{self._dialect.quote(name)} = {self._dialect.mark}" for name in columns)
        statement = f"SELECT {NUMBER} FROM {self.qualified} WHERE {NUMBER} IN ({', '.join(map(str, among))}) AND {match}"
        return {
            int(number)
            for number in self._dialect.execute(self._connection, statement, [*map(self._dialect.given, values)]).scalars()
        }

    def is_loose(self, columns: Iterable[str]) -> bool:
        """Whether two different texts may be equal to the database in any of these columns."""
        kinds = (ColumnKind.TEXT, ColumnKind.PADDED, ColumnKind.ENUM)
        return any(self.columns[name].kind in kinds and not self.columns[name].compares_bytes for name in columns)


def _time(text: str, annotation: type, column: ColumnType) -> Any:
    """The time that a text in ISO 8601 means; any other text unchanged."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    if annotation is datetime:
        return moment
    if moment.tzinfo is None:
        return text
    return moment.date() if column.name.lower() == "date" else moment


def _stays(value: Any, annotation: type | None, column: ColumnType) -> bool:
    kind, name = type(value), column.name.lower()
    if value is None or kind is not annotation:
        return value is None
    if kind is str:
        # The database may cut off or not store trailing blanks. It does not pad a text that fills a character(n).
        fills = column.kind is ColumnKind.PADDED and name == f"character({len(value)})"
        return (column.kind is ColumnKind.TEXT or fills) and not value.endswith(" ")
    if kind is datetime:
        return name in ("datetime(6)", "timestamp without time zone") and value.tzinfo is None
    return kind in (bool, UUID) or (kind is int and column.kind is ColumnKind.WHOLE) or (kind is date and name == "date")


_plain_type = cache(plain_type)


def promised(annotation: Any, stored: Any) -> Any:
    """A column's value in the type that the row class promises to handlers, whatever type the driver returns."""
    promised_type = _plain_type(annotation)
    if stored is None or promised_type is None or type(stored) is promised_type:
        return stored
    if promised_type in (dict, list):
        return _from_json(stored)
    if promised_type is Decimal:
        return Decimal(str(stored))
    if promised_type in (datetime, date):
        return promised_type.fromisoformat(stored) if isinstance(stored, str) else stored
    if promised_type in (str, int, float, bool, UUID):
        return promised_type(stored)
    return stored


def _from_json(stored: Any) -> Any:
    if not isinstance(stored, (str, bytes)):
        return stored
    return json.loads(stored, parse_float=_number)


def _number(digits: str) -> float | Decimal:
    """A float if it represents the number exactly, else a Decimal."""
    number = float(digits)
    return number if Decimal(repr(number)) == Decimal(digits) else Decimal(digits)


@dataclass
class _Row:
    """One row of an aggregate.

    :param key: the key under which the aggregate keeps it
    :param number: its number in the temporary table; 0: it is not in the table
    :param known: its values as the columns hold them; None: not known yet
    """

    row: Any
    key: Key
    number: int = 0
    known: Values | None = None


class PlainRows:
    """The rows of one aggregate as its handlers see them; see :class:`~projection_rebuild.rows.types.Rows`.

    :param owned: by owned row class, its temporary table
    :param reads: by row class, lookups in tables of other projectors
    :param whose: by owned row class, the attribute that names a row's aggregate
    :param key: the aggregate
    """

    def __init__(
        self, owned: Mapping[type, Temporary], reads: Mapping[type, GreenLook], whose: Mapping[type, str], key: str
    ) -> None:
        self._owned = owned
        self._reads = reads
        self._whose = whose
        self._key = key
        self.rows: dict[type, dict[Key, _Row]] = {row_class: {} for row_class in owned}
        self._touched: dict[int, _Row] = {}

    def add(self, row: object) -> None:
        kind = self._kind(type(row))
        self._hold(kind, row)
        key = kind.key_of(row)
        if self._find(type(row), key) is not None:
            raise RowError(f"{kind.table} already has the row that is to be added; use get or get_or_add")
        entry = _Row(row, key)
        self.rows[type(row)][key] = entry
        self._touch(entry)

    def find(self, row_class: type[R], *key: Any) -> R | None:
        if row_class in self._reads:
            foreign_row: R | None = self._reads[row_class].find(key)
            return foreign_row
        entry = self._find(row_class, key)
        if entry is None:
            return None
        self._touch(entry)
        row: R = entry.row
        return row

    def get(self, row_class: type[R], *key: Any) -> R:
        row = self.find(row_class, *key)
        if row is None:
            raise RowError(f"{row_type(row_class).table} has no row with the key that was asked for; use find or get_or_add")
        return row

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        row = self.find(row_class, *key)
        if row is None:
            row = self._kind(row_class).made_of(key, defaults)
            self.add(row)
        return row

    def remove(self, row_class: type, *key: Any) -> None:
        kind = self._kind(row_class)
        entry = self._find(row_class, key)
        if entry is not None:
            del self.rows[row_class][entry.key]
            self._touched.pop(id(entry), None)
            self._is_own(kind, entry.row)

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        if row_class in self._reads:
            return self._reads[row_class].where(column)
        kind = self._kind(row_class)
        if len(column) != 1 or next(iter(column)) not in kind.lookups:
            raise RowError(f"{kind.table} is looked up by one of {list(kind.lookups)}")
        ((name, value),) = column.items()
        held = self._owned[row_class].key([kind.column(name)], (value,))
        if held is None:
            return []
        # In the order of their keys, as the engine promises to handlers.
        entries = [entry for _, entry in sorted(self.rows[row_class].items(), key=lambda pair: pair[0])]
        exact = [entry for entry in entries if promised_key(kind, [kind.column(name)], (getattr(entry.row, name),)) == held]
        loose = self._like(row_class, [kind.column(name)], held, [entry for entry in entries if entry not in exact])
        ids = {id(entry) for entry in (*exact, *loose)}
        matching = [entry for entry in entries if id(entry) in ids]
        for entry in matching:
            self._touch(entry)
        return [entry.row for entry in matching]

    def touched(self) -> list[_Row]:
        """The rows that handlers have used since the last call, and that differ from what the database holds.

        :raises Undeclared: one of them belongs to another aggregate
        """
        entries, self._touched = list(self._touched.values()), {}
        for entry in entries:
            self._is_own(row_type(type(entry.row)), entry.row)
        return [entry for entry in entries if entry.known is None or row_type(type(entry.row)).values(entry.row) != entry.known]

    def stays(self, row: _Row) -> None:
        """Records that the database holds a row unchanged."""
        row.number, row.known = 0, row_type(type(row.row)).snapshot(row.row)

    def holds(self, row: _Row, number: int, values: Values) -> None:
        """Records the values that the database holds for a row."""
        kind = row_type(type(row.row))
        for name, value in zip(kind.attributes, values, strict=True):
            setattr(row.row, name, value)
        row.number, row.known = number, kind.snapshot(row.row)
        key = kind.key_of(row.row)
        if key != row.key:
            del self.rows[kind.row_class][row.key]
            self.rows[kind.row_class][key] = row
            row.key = key

    def _touch(self, row: _Row) -> None:
        self._touched[id(row)] = row

    def _is_own(self, kind: RowType, row: object) -> None:
        if str(getattr(row, self._whose[kind.row_class])) != self._key:
            raise Undeclared

    def _kind(self, row_class: type) -> RowType:
        if row_class not in self._owned:
            raise RowError(f"a handler asks for rows of {row_type(row_class).table}, which its projector does not own")
        return row_type(row_class)

    def _hold(self, kind: RowType, row: object) -> None:
        """Sets a row's keys and lookup attributes to what their columns hold, at once, so that lookups find the row."""
        names = list(dict.fromkeys([*kind.key_attributes, *kind.lookups]))
        held = self._owned[kind.row_class].key([kind.column(name) for name in names], [getattr(row, name) for name in names])
        if held is None:
            raise RowError(f"a column of {kind.table} can hold nothing like a value that is given for it")
        for name, value in zip(names, held, strict=True):
            setattr(row, name, value)

    def _find(self, row_class: type, key: Key) -> _Row | None:
        kind = self._kind(row_class)
        promised_values = promised_key(kind, kind.key, key)
        if promised_values not in self.rows[row_class] and len(key) == len(kind.key):
            held = self._owned[row_class].key(kind.key, key)
            if held is None:
                return None
            promised_values = held
        attribute = self._whose[row_class]
        if attribute in kind.key_attributes and len(promised_values) == len(kind.key):
            if str(promised_values[kind.key_attributes.index(attribute)]) != self._key:
                raise Undeclared
        entries = self.rows[row_class]
        entry = entries.get(promised_values)
        if entry is None:
            entry = next(iter(self._like(row_class, kind.key, promised_values, list(entries.values()))), None)
        return entry

    def _like(self, row_class: type, columns: Sequence[str], values: Sequence[Any], entries: Sequence[_Row]) -> list[_Row]:
        """Rows whose columns equal these values to the database, though they differ in Python."""
        temporary = self._owned[row_class]
        if not entries or not temporary.is_loose(columns):
            return []
        kind = temporary.kind
        at = [kind.columns.index(name) for name in columns]
        candidates = [entry for entry in entries if entry.known and all(map(_may_be_equal, (entry.known[i] for i in at), values))]
        unknown = [entry for entry in candidates if not entry.number]
        for entry, number in zip(unknown, temporary.put([entry.known or () for entry in unknown]), strict=True):
            entry.number = number
        same = temporary.same(columns, values, [entry.number for entry in candidates])
        return [entry for entry in candidates if entry.number in same]


def _may_be_equal(one: Any, other: Any) -> bool:
    """Whether two values may be equal in some collation; True if that is not known."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return bool(one == other)
    left, right = (unicodedata.normalize("NFKD", text).casefold() for text in (one, other))
    if not (left.isascii() and right.isascii()):
        return True
    return [letter for letter in left if letter.isalnum()] == [letter for letter in right if letter.isalnum()]


def promised_key(kind: RowType, columns: Sequence[str], values: Sequence[Any]) -> Key:
    """A handler's lookup values in the types of the row class, as far as the values can be converted."""
    return tuple(_lenient(kind.types[name], value) for name, value in zip(columns, values, strict=False))


def _lenient(annotation: Any, value: Any) -> Any:
    try:
        converted = promised(annotation, value)
        hash(converted)
    except (ValueError, TypeError, InvalidOperation):
        return repr(value)
    return converted


class GreenLook:
    """Lookups in a table that handlers only read: green if the run has it, else the live table."""

    def __init__(self, dialect: Dialect, connection: sa.Connection, schema: str | None, table: str, kind: RowType) -> None:
        self._dialect = dialect
        self._connection = connection
        self._kind = kind
        self._columns = dialect.inspector.column_types(connection, schema, table)
        self._from = dialect.qualified(schema, table)

    def find(self, key: Key) -> Any:
        """The row with a key; None: the table has no such row."""
        return next(iter(self._rows(self._kind.key, promised_key(self._kind, self._kind.key, key))), None)

    def where(self, column: Mapping[str, Any]) -> list[Any]:
        """The rows with a value in one column."""
        ((name, value),) = column.items()
        return self._rows([self._kind.column(name)], (value,))

    def _rows(self, columns: Sequence[str], values: Sequence[Any]) -> list[Any]:
        quote = self._dialect.quote
        bound = [value for value in values if value is not None]
        match = " AND ".join(
            f"{quote(name)} IS NULL" if value is None else f"{quote(name)} = {self._dialect.mark}"
            for name, value in zip(columns, values, strict=True)
        )
        read = [
            self._dialect.as_stored(quote(name), self._columns[name].kind)
            if self._columns[name].kind is ColumnKind.JSON
            else quote(name)
            for name in self._kind.columns
        ]
        stored_rows = self._dialect.execute(
            self._connection, f"SELECT {', '.join(read)} FROM {self._from} WHERE {match}", [*map(self._dialect.given, bound)]
        )
        types = [self._kind.types[name] for name in self._kind.columns]
        return [self._kind.row_class(*map(promised, types, row)) for row in stored_rows]


@dataclass
class Aggregate:
    """One aggregate, with its events that the engine has not projected yet, in their order.

    :param failed: why one of its events cannot be projected; empty: none has failed
    """

    key: str
    waiting: Iterator[Event]
    rows: PlainRows
    failed: str = ""


class Refold:
    """Refolds aggregates of one projector.

    :param whose: by owned row class, the attribute that names a row's aggregate
    """

    def __init__(
        self,
        projector: type[Projector],
        owned: Mapping[type, Temporary],
        reads: Mapping[type, GreenLook],
        whose: Mapping[type, str],
    ) -> None:
        self._type = projector
        self._projector = projector()
        self._owned = owned
        self._reads = reads
        self._whose = whose

    def made(self, events: Mapping[str, Sequence[Event]]) -> list[Aggregate]:
        """Projects the events of each aggregate, one after the other.

        :raises Undeclared: an event reaches rows of another aggregate
        :raises sqlalchemy.exc.DBAPIError: the database refuses what a column is to hold
        """
        aggregates = [
            Aggregate(key, self._current(stream_events), PlainRows(self._owned, self._reads, self._whose, key))
            for key, stream_events in events.items()
        ]
        waiting = aggregates
        while waiting:
            waiting = [aggregate for aggregate in waiting if self._next(aggregate)]
            self._settle(waiting)
        return aggregates

    def _current(self, events: Iterable[Event]) -> Iterator[Event]:
        """Upcasts events lazily: columns hold the rows of an event's first part before the second is projected."""
        for event in events:
            yield from self._type.upcasters.current(event)

    def _next(self, aggregate: Aggregate) -> bool:
        """Projects the next event of an aggregate; False if it has no event left, or the event fails."""
        try:
            event = next(aggregate.waiting, None)
        except PoisonEvent as error:
            aggregate.failed = f"the event {error.event_type} at position {error.position:,} cannot be read ({error.cause})"
            return False
        if event is None:
            return False
        try:
            self._projector.project(event, aggregate.rows)
        except Undeclared:
            raise
        except Exception as error:
            if trouble := trouble_at_event(error, self._type.name(), event.type, event.position):
                raise trouble from None
            aggregate.failed = f"a handler fails at the event {event.type} at position {event.position:,} with {word_for(error)}"
        return not aggregate.failed

    def _settle(self, aggregates: Sequence[Aggregate]) -> None:
        """Sets the touched rows to the values that the database holds for them."""
        touched: dict[type, list[tuple[Aggregate, _Row]]] = {}
        for aggregate in aggregates:
            for entry in aggregate.rows.touched():
                touched.setdefault(type(entry.row), []).append((aggregate, entry))
        for row_class, entries in touched.items():
            values, temporary = row_type(row_class).values, self._owned[row_class]
            unsure = []
            for aggregate, entry in entries:
                if temporary.stays(values(entry.row)):
                    aggregate.rows.stays(entry)
                else:
                    unsure.append((aggregate, entry))
            for (aggregate, entry), (number, held) in zip(
                unsure, temporary.held([values(entry.row) for _, entry in unsure]), strict=True
            ):
                aggregate.rows.holds(entry, number, held)
