"""Reads and decodes the events of single aggregates with code of its own, for the sample.

It shares no query and no decoder with :mod:`projection_rebuild.eventstore.store`, so that the sample shows a fault of
that module. It uses the author's own code as it is: ``event_store.decoder``, and the mapper of pyeventsourcing.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NoReturn
from uuid import UUID

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event, Undecodable
from projection_rebuild.dialects import Dialect
from projection_rebuild.errors.boundary import is_of_the_machine, word_for
from projection_rebuild.eventstore import pyeventsourcing
from projection_rebuild.model.column_kinds import ColumnKind, ColumnType
from projection_rebuild.model.positions import Place
from projection_rebuild.spec.presets import Preset
from projection_rebuild.spec.stores import EventStoreSection, StreamFormat, TimeUnit
from projection_rebuild.verification.second_opinion import only_these, text_of

AT_ONCE = 1_000
"""Rows per fetch, and values in one list of a statement."""

_UNKNOWN = ColumnType("unknown", ColumnKind.OTHER)
_UNITS = {TimeUnit.SECONDS: 0, TimeUnit.MILLISECONDS: 3, TimeUnit.MICROSECONDS: 6, TimeUnit.NANOSECONDS: 9}


class RawEvents:
    """The rows of one event store, read over a connection of its own.

    :param connection: to the event store
    :ivar kept: the size of all stored payloads that it has decoded so far
    :raises SpecError: the decoder or mapper of the payloads cannot be imported or called
    """

    def __init__(self, dialect: Dialect, connection: sa.Connection, section: EventStoreSection) -> None:
        self._dialect = dialect
        self._connection = connection
        self._section = section
        self._schema = section.db_schema or dialect.inspector.default_schema(connection)
        self._kinds = dialect.inspector.column_types(connection, self._schema, section.table)
        self._table = dialect.qualified(self._schema, section.table)
        self._place = dialect.quote(section.columns.position)
        self._only, self._only_values = only_these(dialect, section)
        self._make = self._decoder()
        # Rows that the last statement for streams has returned.
        self._last_count = 0
        self.kept = 0

    # The catalog ------------------------------------------------------------------------------------------------

    def finds(self, column: str) -> bool:
        """Whether an index begins with a column, so that the database finds a few rows without reading all."""
        inspector = sa.inspect(self._connection)
        indexes: list[Sequence[str | None]] = [
            index["column_names"] for index in inspector.get_indexes(self._section.table, schema=self._schema)
        ]
        primary = inspector.get_pk_constraint(self._section.table, schema=self._schema)["constrained_columns"]
        return any(columns and columns[0] == column for columns in (*indexes, primary))

    def size(self) -> int:
        """The number of events by the database's statistics, roughly."""
        return self._dialect.row_estimate(self._connection, self._schema, self._section.table)

    @property
    def has_json(self) -> bool:
        """Whether payloads are JSON."""
        return self._section.decoder is None and self._section.preset is not Preset.PYEVENTSOURCING

    # Aggregates -------------------------------------------------------------------------------------------------

    def newest_streams(self, most: int, types: Collection[str]) -> Iterator[str]:
        """The streams of the newest events of these types, the newest first; skips streams that cannot be decoded."""
        conditions, values = self._of_types(types)
        columns = self._stored(self._section.columns.stream)
        statement = (
            f"SELECT {columns} FROM {self._table} WHERE {self._and(conditions)} ORDER BY {self._place} DESC LIMIT {int(most)}"
        )
        for row in self._rows(statement, [*self._only_values, *values]):
            yield from self._readable(row[0])

    def newest_payloads(self, most: int, types: Collection[str]) -> Iterator[Any]:
        """The stored payloads of the newest events of these types, the newest first."""
        conditions, values = self._of_types(types)
        columns = self._stored(self._section.columns.payload)
        statement = (
            f"SELECT {columns} FROM {self._table} WHERE {self._and(conditions)} ORDER BY {self._place} DESC LIMIT {int(most)}"
        )
        for row in self._rows(statement, [*self._only_values, *values]):
            yield row[0]

    def typical_size(self, types: Collection[str]) -> int:
        """The mean size of the newest stored payloads of these types; at least 1."""
        sizes = [_size(payload) for payload in self.newest_payloads(20, types)]
        return max(1, sum(sizes) // max(1, len(sizes)))

    def next_to(self, position: int, upto: int) -> Iterator[tuple[str, Any]]:
        """Stream and payload of the first event of any type at or above a position, if its stream can be decoded."""
        names = self._section.columns
        columns = ", ".join(map(self._stored, (names.stream, names.payload)))
        where = f"{self._place} >= {int(position)} AND {self._place} <= {int(upto)}"
        for stream, payload in self._rows(
            f"SELECT {columns} FROM {self._table} WHERE {where} ORDER BY {self._place} LIMIT 1", []
        ):
            for decoded_stream in self._readable(stream):
                yield decoded_stream, payload

    def _readable(self, stored: Any) -> Iterator[str]:
        try:
            stream = self._stream(stored)
        except ValueError:
            return
        if stream is not None:
            yield stream

    def first(self) -> Place:
        """The lowest position; the beginning for an empty store."""
        lowest = self._dialect.execute(self._connection, f"SELECT min({self._place}) FROM {self._table}").scalar()
        return None if lowest is None else int(lowest)

    # Events -----------------------------------------------------------------------------------------------------

    def of_stream(self, stream: str, upto: int, types: Collection[str], most: int) -> list[Event] | None:
        """All events of one stream and of these types up to a position, in their order.

        None: the stream has at least ``most`` rows, of any type.
        """
        by_stream = self.of_streams([stream], upto, types, most)
        return None if by_stream is None else by_stream[stream]

    def of_streams(self, streams: Sequence[str], upto: int, types: Collection[str], most: int) -> dict[str, list[Event]] | None:
        """The events of several streams, as :meth:`of_stream`; None: together they have at least ``most`` rows."""
        by_stream: dict[str, list[Event]] = {stream: [] for stream in streams}
        events = self._of_streams(streams, f"{self._place} <= {int(upto)}", types, most)
        for event in events:
            # A collation may match another stream.
            by_stream.get(event.stream, []).append(event)
        return None if self._last_count == most else by_stream

    def _of_streams(self, streams: Sequence[str], bound: str, types: Collection[str], most: int) -> list[Event]:
        column = self._dialect.quote(self._section.columns.stream)
        marks = ", ".join([self._dialect.mark] * len(streams))
        # Without ORDER BY, for which a server might read the whole table along another index.
        statement = f"{self._whole()} WHERE {self._and([bound])} AND {column} IN ({marks}) LIMIT {int(most)}"
        rows = [*self._rows(statement, [*self._only_values, *map(self._bound_stream, streams)])]
        self._last_count = len(rows)
        if self._last_count == most:
            return []
        own = [row for row in rows if text_of(row[2]).rstrip(" ") in types or text_of(row[2]) in types]
        return sorted(self._events(own), key=lambda event: event.position)

    def places_of(self, field: str, values: Sequence[str], upto: int, types: Collection[str], most: int) -> list[tuple[str, int]]:
        """Value and position of each event of these types that has one of these values in a field of its payload.

        It reads the store once.

        :raises sqlalchemy.exc.DBAPIError: the database cannot read a payload as JSON
        """
        name = self._section.columns.payload
        text = self._dialect.plain_field(self._dialect.quote(name), self._kinds[name].kind, field)
        conditions, bound = self._of_types(types)
        marks = ", ".join([self._dialect.mark] * len(values))
        statement = (
            f"SELECT {text}, {self._place} FROM {self._table} "
            f"WHERE {self._and([f'{self._place} <= {int(upto)}', *conditions])} AND {text} IN ({marks}) LIMIT {int(most)}"
        )
        rows = self._rows(statement, [*self._only_values, *bound, *values])
        return [(text_of(value), int(position)) for value, position in rows]

    def at(self, positions: Sequence[int], at_once: int = AT_ONCE) -> Iterator[Event]:
        """The events at these positions, ``at_once`` of them per statement."""
        for start in range(0, len(positions), at_once):
            batch = ", ".join(str(int(position)) for position in positions[start : start + at_once])
            where = self._and([f"{self._place} IN ({batch})"])
            yield from self._events(self._rows(f"{self._whole()} WHERE {where} ORDER BY {self._place}", self._only_values))

    def everything(self, upto: int, types: Collection[str]) -> Iterator[Event]:
        """All events of these types up to a position, in their order."""
        conditions, values = self._of_types(types)
        where = self._and([f"{self._place} <= {int(upto)}", *conditions])
        yield from self._events(
            self._rows(f"{self._whole()} WHERE {where} ORDER BY {self._place}", [*self._only_values, *values])
        )

    def field_of(self, payload: Any, field: str) -> str | None:
        """The text or number in a field of a stored payload, as text; None: the field holds neither."""
        try:
            value = self._json(payload).get(field)
            # No database stores a lone surrogate as text.
            return str(value).encode().decode() if isinstance(value, (str, int)) and not isinstance(value, bool) else None
        except ValueError:
            return None

    # Statements -------------------------------------------------------------------------------------------------

    def _and(self, conditions: Iterable[str]) -> str:
        return " AND ".join([*self._only, *conditions]) or "1 = 1"

    def _of_types(self, types: Collection[str]) -> tuple[list[str], list[str]]:
        """A condition that selects all events of these types, and maybe others, with its bound values."""
        name = self._section.columns.type
        if self._kinds.get(name, _UNKNOWN).kind is not ColumnKind.TEXT:
            return [], []
        wanted = sorted(types)
        return [f"{self._dialect.quote(name)} IN ({', '.join([self._dialect.mark] * len(wanted))})"], wanted

    def _rows(self, statement: str, values: Sequence[Any]) -> Iterator[Sequence[Any]]:
        result = self._dialect.execute(self._connection, statement, tuple(values))
        while rows := result.fetchmany(AT_ONCE):
            yield from rows

    def _whole(self) -> str:
        columns = self._section.columns
        parts = [self._place, *(self._stored(name) for name in (columns.stream, columns.type, columns.payload))]
        for name in (columns.recorded_at, columns.version, columns.type_version, columns.metadata):
            parts.append("NULL" if name is None else self._stored(name))
        return f"SELECT {', '.join(parts)} FROM {self._table}"

    def _stored(self, name: str) -> str:
        kind = self._kinds.get(name, _UNKNOWN).kind
        if name == self._section.columns.recorded_at and self._section.recorded_at_unit is not None:
            return self._dialect.quote(name)
        return self._dialect.as_stored(self._dialect.quote(name), kind)

    def _bound_stream(self, stream: str) -> Any:
        form = self._section.stream_format
        kind = self._kinds.get(self._section.columns.stream, _UNKNOWN).kind
        if form is None:
            return int(stream) if kind is ColumnKind.WHOLE else stream
        return (
            UUID(stream).bytes
            if form is StreamFormat.UUID
            else bytes.fromhex(stream)
            if form is StreamFormat.HEX
            else stream.encode()
        )

    # Decoding ---------------------------------------------------------------------------------------------------

    def _events(self, rows: Iterable[Sequence[Any]]) -> Iterator[Event]:
        for row in rows:
            self.kept += _size(row[3])
            yield self._make(row)

    def _decoder(self) -> Callable[[Sequence[Any]], Event]:
        section = self._section
        if section.preset is Preset.PYEVENTSOURCING:
            mapped = pyeventsourcing.decoder(section.mapper)
            return lambda row: mapped([(int(row[0]), self._stream(row[1]), self._text(row[2], section.columns.type), *row[3:])])[
                0
            ]
        if section.decoder is not None:
            module, _, name = section.decoder.partition(":")
            decode = getattr(importlib.import_module(module), name)
            return lambda row: self._event(row, lambda stored: {} if stored is None else _object(decode(stored)))
        return lambda row: self._event(row, self._json)

    def _event(self, row: Sequence[Any], payload_of: Callable[[Any], Mapping[str, Any]]) -> Event:
        position, stored_stream, stored_type, stored, recorded_at, version, type_version, metadata = row
        stream, event_type = None, ""
        try:
            event_type = self._text(stored_type, self._section.columns.type)
            stream = self._stream(stored_stream)
            payload, meta = payload_of(stored), self._json(metadata)
            moment = self._moment(recorded_at)
        except Exception as error:
            if is_of_the_machine(error):
                raise
            return Undecodable(
                position=int(position), stream=stream, type=event_type, cause=f"it cannot be read ({word_for(error)})"
            )
        return Event(int(position), stream, event_type, payload, moment, version, meta, _version(type_version))

    def _json(self, stored: Any) -> Mapping[str, Any]:
        if stored is None:
            return {}
        text = bytes(stored).decode() if isinstance(stored, (bytes, bytearray, memoryview)) else stored
        numbers: dict[str, Any] = {"parse_float": Decimal} if self._section.decimals else {}
        return _object(json.loads(text, parse_constant=_no_json, **numbers))

    def _stream(self, stored: Any) -> str | None:
        form = self._section.stream_format
        if stored is None or form is None:
            return None if stored is None else self._text(stored, self._section.columns.stream)
        if form is StreamFormat.UUID:
            return str(UUID(bytes=bytes(stored)))
        return bytes(stored).hex() if form is StreamFormat.HEX else bytes(stored).decode()

    def _text(self, stored: Any, column: str) -> str:
        text = bytes(stored).decode() if isinstance(stored, (bytes, bytearray, memoryview)) else str(stored)
        return text.rstrip(" ") if self._kinds.get(column, _UNKNOWN).kind is ColumnKind.PADDED else text

    def _moment(self, stored: Any) -> str:
        unit = self._section.recorded_at_unit
        if stored is None or unit is None:
            return "" if stored is None else text_of(stored)
        seconds, rest = divmod(int(Decimal(str(stored)).scaleb(9 - _UNITS[unit]).to_integral_value()), 10**9)
        text = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")
        digits = f"{rest:09}".rstrip("0")
        return f"{text}{f'.{digits:0<6}' if digits else ''}+00:00"


def _size(payload: Any) -> int:
    return len(payload) if isinstance(payload, (str, bytes, bytearray, memoryview)) else 0


def _object(decoded: Any) -> Mapping[str, Any]:
    """A decoded payload as a mapping; an empty list and null are empty payloads."""
    if isinstance(decoded, Mapping):
        return decoded
    return {} if decoded is None or decoded == [] else _no_json(decoded)


def _no_json(decoded: Any) -> NoReturn:
    raise ValueError("no object of JSON")


def _version(stored: Any) -> int | str:
    text = "1" if stored is None else text_of(stored)
    return int(text) if text.isdecimal() else text
