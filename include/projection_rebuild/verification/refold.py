"""Aggregates made anew from their events by nothing but the handlers, one event at a time, for the second opinion.

Rows are kept in plain dicts, without a row buffer. After each event the database says what its columns hold of the values: they are
inserted into a temporary table that has green's columns, and read back. So rounding, padding and precision are the database's own at every event,
as they are for an application that projects live. Aggregates do not touch each other's rows, so the first events of all of them are
projected, then the second ones, and so on, with a few statements for each such round.
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
"""The column by which rows of a temporary table are found."""

REMEMBERED = 10_000
"""Keys of one table of which it is known what its columns hold."""


class Undeclared(Exception):
    """A handler came to a row of another aggregate than its event's; what the projector declares about its rows is not so."""


class Temporary:
    """A temporary table that makes of values what a column of green holds.

    :param table: green's name
    """

    def __init__(self, dialect: Dialect, connection: sa.Connection, schema: str | None, table: str, kind: RowType) -> None:
        self.kind = kind
        self.table = table
        self._dialect = dialect
        self._connection = connection
        self._schema = schema
        self.columns: Mapping[str, ColumnType] = dialect.column_types(connection, schema, table)
        # Two tables have two names, however long these are, and the name of no table of ours, which it would hide from this connection.
        self._name = derived(f"projection_rebuild_held_{kind.table}", "", dialect.max_identifier)
        self.qualified = dialect.temporary(schema, self._name)
        self._number = 0
        self._annotations = [plain_type(kind.types[name]) for name in kind.columns]
        self._types = [self.columns[name] for name in kind.columns]
        self._asked: dict[tuple[Any, ...], Key | None] = {}
        dialect.run(connection, dialect.drop_temporary(schema, self._name))
        for statement in dialect.make_temporary(connection, schema, table, kind.columns, self._name):
            dialect.run(connection, statement)

    def drop(self) -> None:
        """Takes it away again."""
        self._dialect.run(self._connection, self._dialect.drop_temporary(self._schema, self._name))

    def held(self, rows: Sequence[Values]) -> list[tuple[int, Values]]:
        """What the columns hold of the values of rows, each with its number.

        :raises sqlalchemy.exc.DBAPIError: the database refuses a value
        """
        if not rows:
            return []
        numbers = self.put(rows)
        columns = ", ".join(self._read(name) for name in self.kind.columns)
        statement = f"SELECT {NUMBER}, {columns} FROM {self.qualified} WHERE {NUMBER} >= {numbers[0]} ORDER BY {NUMBER}"
        types = [self.kind.types[name] for name in self.kind.columns]
        found = self._dialect.execute(self._connection, statement).all()
        return [(int(row[0]), tuple(map(promised, types, row[1:]))) for row in found]

    def put(self, rows: Sequence[Values]) -> list[int]:
        """Inserts rows, and gives each its number.

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
        """A value as the driver takes it; a time that is given as text, as what it means where the database would not read it so."""
        if isinstance(value, str) and (
            annotation is datetime or (annotation is str and column.kind is ColumnKind.TIME and not self._dialect.reads_offsets)
        ):
            value = _time(value, annotation, column)
        return self._dialect.given(value)

    def stays(self, values: Values) -> bool:
        """Whether the columns hold values for certain as they are, so that the database need not be asked."""
        return all(map(_stays, values, self._annotations, self._types))

    def key(self, columns: Sequence[str], values: Sequence[Any]) -> Key | None:
        """What some columns hold of the values by which a row is found; None: they can hold nothing like these."""
        types = [self.kind.types[name] for name in columns]
        if all(map(_stays, values, map(_plain_type, types), (self.columns[name] for name in columns))):
            return tuple(values)
        asked = (*columns, *map(type, values), *map(repr, values))
        if asked not in self._asked:
            if len(self._asked) >= REMEMBERED:
                self._asked.clear()
            self._asked[asked] = self._held_key(columns, values)
        return self._asked[asked]

    def _held_key(self, columns: Sequence[str], values: Sequence[Any]) -> Key | None:
        given = dict(zip(columns, values, strict=True))
        try:
            (number,) = self.put([tuple(given.get(name) for name in self.kind.columns)])
        except Exception as error:
            # A handler may ask for anything.
            if is_of_the_machine(error):
                raise
            return None
        read = ", ".join(map(self._read, columns))
        statement = f"SELECT {read} FROM {self.qualified} WHERE {NUMBER} = {number}"
        found = self._dialect.execute(self._connection, statement).one()
        return tuple(map(promised, (self.kind.types[name] for name in columns), found))

    def clear(self) -> None:
        """Deletes all rows."""
        self._dialect.run(self._connection, f"DELETE FROM {self.qualified}")

    def _read(self, name: str) -> str:
        quoted, kind = self._dialect.quote(name), self.columns[name].kind
        return self._dialect.as_stored(quoted, kind) if kind is ColumnKind.JSON else quoted

    def same(self, columns: Sequence[str], values: Sequence[Any], among: Sequence[int]) -> set[int]:
        """The numbers of those rows among some whose columns the database takes for equal to these values."""
        if not among:
            return set()
        match = " AND ".join(f"{self._dialect.quote(name)} = {self._dialect.mark}" for name in columns)
        statement = f"SELECT {NUMBER} FROM {self.qualified} WHERE {NUMBER} IN ({', '.join(map(str, among))}) AND {match}"
        return {
            int(each)
            for each in self._dialect.execute(self._connection, statement, [*map(self._dialect.given, values)]).scalars()
        }

    def is_loose(self, columns: Iterable[str]) -> bool:
        """Whether two texts that are not the same may be one to the database in any of these columns."""
        kinds = (ColumnKind.TEXT, ColumnKind.PADDED, ColumnKind.ENUM)
        return any(self.columns[name].kind in kinds and not self.columns[name].compares_bytes for name in columns)


def _time(text: str, annotation: type, column: ColumnType) -> Any:
    """What a text says in the usual way of writing times; any other text as it is."""
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
        # Blanks at the end may be cut off, or not be stored. What fills a character(n) is not padded.
        fills = column.kind is ColumnKind.PADDED and name == f"character({len(value)})"
        return (column.kind is ColumnKind.TEXT or fills) and not value.endswith(" ")
    if kind is datetime:
        return name in ("datetime(6)", "timestamp without time zone") and value.tzinfo is None
    return kind in (bool, UUID) or (kind is int and column.kind is ColumnKind.WHOLE) or (kind is date and name == "date")


_plain_type = cache(plain_type)


def promised(annotation: Any, stored: Any) -> Any:
    """A value of a column as the row class promises it to handlers, whatever the driver makes of it."""
    wanted = _plain_type(annotation)
    if stored is None or wanted is None or type(stored) is wanted:
        return stored
    if wanted in (dict, list):
        return _from_json(stored)
    if wanted is Decimal:
        return Decimal(str(stored))
    if wanted in (datetime, date):
        return wanted.fromisoformat(stored) if isinstance(stored, str) else stored
    if wanted in (str, int, float, bool, UUID):
        return wanted(stored)
    return stored


def _from_json(stored: Any) -> Any:
    if not isinstance(stored, (str, bytes)):
        return stored
    return json.loads(stored, parse_float=_number)


def _number(digits: str) -> float | Decimal:
    """A float where that is the very number."""
    found = float(digits)
    return found if Decimal(repr(found)) == Decimal(digits) else Decimal(digits)


@dataclass
class _Row:
    """One row of an aggregate.

    :param key: under which it is kept
    :param number: in the temporary table; 0: not yet there
    :param known: its values as the columns hold them
    """

    row: Any
    key: Key
    number: int = 0
    known: Values | None = None


class PlainRows:
    """The rows of one aggregate as its handlers see them; see :class:`~projection_rebuild.rows.types.Rows`.

    :param owned: by owned row class, its temporary table
    :param reads: looks into tables of other projectors
    """

    def __init__(
        self, owned: Mapping[type, Temporary], reads: Mapping[type, GreenLook], whose: Mapping[type, str], key: str
    ) -> None:
        self._owned = owned
        self._reads = reads
        self._whose = whose
        self._key = key
        self.rows: dict[type, dict[Key, _Row]] = {each: {} for each in owned}
        self._touched: dict[int, _Row] = {}

    def add(self, row: object) -> None:
        kind = self._kind(type(row))
        self._hold(kind, row)
        key = kind.key_of(row)
        if self._find(type(row), key) is not None:
            raise RowError(f"{kind.table} already has the row that is to be added; use get or get_or_add")
        made = _Row(row, key)
        self.rows[type(row)][key] = made
        self._touch(made)

    def find(self, row_class: type[R], *key: Any) -> R | None:
        if row_class in self._reads:
            seen: R | None = self._reads[row_class].find(key)
            return seen
        found = self._find(row_class, key)
        if found is None:
            return None
        self._touch(found)
        row: R = found.row
        return row

    def get(self, row_class: type[R], *key: Any) -> R:
        found = self.find(row_class, *key)
        if found is None:
            raise RowError(f"{row_type(row_class).table} has no row with the key that was asked for; use find or get_or_add")
        return found

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        found = self.find(row_class, *key)
        if found is None:
            found = self._kind(row_class).made_of(key, defaults)
            self.add(found)
        return found

    def remove(self, row_class: type, *key: Any) -> None:
        kind = self._kind(row_class)
        found = self._find(row_class, key)
        if found is not None:
            del self.rows[row_class][found.key]
            self._touched.pop(id(found), None)
            self._is_own(kind, found.row)

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        if row_class in self._reads:
            return self._reads[row_class].where(column)
        kind = self._kind(row_class)
        if len(column) != 1 or next(iter(column)) not in kind.lookups:
            raise RowError(f"{kind.table} is looked up by one of {list(kind.lookups)}")
        ((name, value),) = column.items()
        wanted = self._owned[row_class].key([kind.column(name)], (value,))
        if wanted is None:
            return []
        # In the order of their keys, as handlers are promised.
        rows = [each for _, each in sorted(self.rows[row_class].items(), key=lambda pair: pair[0])]
        found = [each for each in rows if promised_key(kind, [kind.column(name)], (getattr(each.row, name),)) == wanted]
        loose = self._like(row_class, [kind.column(name)], wanted, [each for each in rows if each not in found])
        these = {id(each) for each in (*found, *loose)}
        given = [each for each in rows if id(each) in these]
        for each in given:
            self._touch(each)
        return [each.row for each in given]

    def touched(self) -> list[_Row]:
        """The rows that handlers have had in their hands since it was asked last, and that are not as the database holds them.

        :raises Undeclared: one of them is another aggregate's
        """
        some, self._touched = list(self._touched.values()), {}
        for each in some:
            self._is_own(row_type(type(each.row)), each.row)
        return [each for each in some if each.known is None or row_type(type(each.row)).values(each.row) != each.known]

    def stays(self, row: _Row) -> None:
        """Told that the database holds a row as it is."""
        row.number, row.known = 0, row_type(type(row.row)).snapshot(row.row)

    def holds(self, row: _Row, number: int, values: Values) -> None:
        """Told what the database holds of a row."""
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
        """By what a row is found it has at once as its columns hold it."""
        names = list(dict.fromkeys([*kind.key_attributes, *kind.lookups]))
        held = self._owned[kind.row_class].key([kind.column(name) for name in names], [getattr(row, name) for name in names])
        if held is None:
            raise RowError(f"a column of {kind.table} can hold nothing like a value that is given for it")
        for name, value in zip(names, held, strict=True):
            setattr(row, name, value)

    def _find(self, row_class: type, key: Key) -> _Row | None:
        kind = self._kind(row_class)
        wanted = promised_key(kind, kind.key, key)
        if wanted not in self.rows[row_class] and len(key) == len(kind.key):
            held = self._owned[row_class].key(kind.key, key)
            if held is None:
                return None
            wanted = held
        attribute = self._whose[row_class]
        if attribute in kind.key_attributes and len(wanted) == len(kind.key):
            if str(wanted[kind.key_attributes.index(attribute)]) != self._key:
                raise Undeclared
        rows = self.rows[row_class]
        found = rows.get(wanted)
        if found is None:
            found = next(iter(self._like(row_class, kind.key, wanted, list(rows.values()))), None)
        return found

    def _like(self, row_class: type, columns: Sequence[str], values: Sequence[Any], rows: Sequence[_Row]) -> list[_Row]:
        """Rows whose columns the database takes for equal to these values, though they are not the same."""
        temporary = self._owned[row_class]
        if not rows or not temporary.is_loose(columns):
            return []
        kind = temporary.kind
        at = [kind.columns.index(name) for name in columns]
        may_be = [each for each in rows if each.known and all(map(_may_be_one, (each.known[i] for i in at), values))]
        unknown = [each for each in may_be if not each.number]
        for each, number in zip(unknown, temporary.put([each.known or () for each in unknown]), strict=True):
            each.number = number
        same = temporary.same(columns, values, [each.number for each in may_be])
        return [each for each in may_be if each.number in same]


def _may_be_one(one: Any, other: Any) -> bool:
    """Whether any collation could take two values for one; where that is not known, it could."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return bool(one == other)
    left, right = (unicodedata.normalize("NFKD", each).casefold() for each in (one, other))
    if not (left.isascii() and right.isascii()):
        return True
    return [each for each in left if each.isalnum()] == [each for each in right if each.isalnum()]


def promised_key(kind: RowType, columns: Sequence[str], values: Sequence[Any]) -> Key:
    """What a handler asks for, in the types that the row class gives its columns, where that is possible."""
    return tuple(_lenient(kind.types[name], value) for name, value in zip(columns, values, strict=False))


def _lenient(annotation: Any, value: Any) -> Any:
    try:
        found = promised(annotation, value)
        hash(found)
    except (ValueError, TypeError, InvalidOperation):
        return repr(value)
    return found


class GreenLook:
    """Rows of another projector's table, for handlers that only look at them: green's where it is in the run, else the live one's."""

    def __init__(self, dialect: Dialect, connection: sa.Connection, schema: str | None, table: str, kind: RowType) -> None:
        self._dialect = dialect
        self._connection = connection
        self._kind = kind
        self._columns = dialect.column_types(connection, schema, table)
        self._from = dialect.qualified(schema, table)

    def find(self, key: Key) -> Any:
        """A row by its key; None: there is none."""
        return next(iter(self._rows(self._kind.key, promised_key(self._kind, self._kind.key, key))), None)

    def where(self, column: Mapping[str, Any]) -> list[Any]:
        """Rows by one column."""
        ((name, value),) = column.items()
        return self._rows([self._kind.column(name)], (value,))

    def _rows(self, columns: Sequence[str], values: Sequence[Any]) -> list[Any]:
        quote = self._dialect.quote
        bound = [each for each in values if each is not None]
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
        found = self._dialect.execute(
            self._connection, f"SELECT {', '.join(read)} FROM {self._from} WHERE {match}", [*map(self._dialect.given, bound)]
        )
        types = [self._kind.types[name] for name in self._kind.columns]
        return [self._kind.row_class(*map(promised, types, row)) for row in found]


@dataclass
class Aggregate:
    """One aggregate, and what is to be projected for it, in its order."""

    key: str
    waiting: Iterator[Event]
    rows: PlainRows
    failed: str = ""


class Refold:
    """The aggregates of one projector, made anew.

    :param whose: by owned row class, the attribute that says whose row it is
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
        made = [
            Aggregate(key, self._current(some), PlainRows(self._owned, self._reads, self._whose, key))
            for key, some in events.items()
        ]
        left = made
        while left:
            left = [each for each in left if self._next(each)]
            self._settle(left)
        return made

    def _current(self, events: Iterable[Event]) -> Iterator[Event]:
        """Events as they are today. Of one that was split, columns hold the rows of the first part before the second is projected."""
        for event in events:
            yield from self._type.upcasters.current(event)

    def _next(self, aggregate: Aggregate) -> bool:
        """Projects the next event of an aggregate; False if there is none, or it fails."""
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
        """Gives the rows that were touched the values that the database holds of them."""
        touched: dict[type, list[tuple[Aggregate, _Row]]] = {}
        for each in aggregates:
            for row in each.rows.touched():
                touched.setdefault(type(row.row), []).append((each, row))
        for row_class, some in touched.items():
            values, temporary = row_type(row_class).values, self._owned[row_class]
            asked = []
            for each, row in some:
                if temporary.stays(values(row.row)):
                    each.rows.stays(row)
                else:
                    asked.append((each, row))
            for (each, row), (number, held) in zip(asked, temporary.held([values(row.row) for _, row in asked]), strict=True):
                each.rows.holds(row, number, held)
