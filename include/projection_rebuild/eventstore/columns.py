"""The SQL expressions that select and compare an event store's columns, whatever their types.

Comparisons are byte by byte.
Imports the dialects and the spec. :mod:`projection_rebuild.eventstore.decoding` turns the rows into events.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name

from projection_rebuild.dialects.base import EventExpressions
from projection_rebuild.eventstore.decoding import bytes_of_stream, epoch_count, stream_of_bytes
from projection_rebuild.model.column_kinds import ColumnKind, ColumnType
from projection_rebuild.model.positions import HIGHEST, LOWEST, Place
from projection_rebuild.spec.presets import Preset
from projection_rebuild.spec.stores import EventStoreSection, StreamFormat

UNKNOWN = ColumnType("unknown", ColumnKind.TEXT, compares_bytes=False)
"""The type of a column that the table does not have; the plan reports the missing column."""


class EventColumns:
    """The columns of one store.

    :param schema: the schema of the store's table
    :param types: the types of the table's columns, by column name
    """

    def __init__(
        self, dialect: EventExpressions, section: EventStoreSection, schema: str | None, types: Mapping[str, ColumnType]
    ) -> None:
        self._dialect = dialect
        self._section = section
        self._types = types
        self._python = section.preset is Preset.PYEVENTSOURCING
        names = section.columns
        self.table = sa.table(quoted_name(section.table, quote=True), schema=schema)
        self.position: sa.ColumnClause[int] = column(names.position, sa.BigInteger())
        self.type = self._text(names.type)
        self.only = [condition for name, value in section.only.items() for condition in self._equal(name, value)]
        self._payload = column(names.payload)
        self._stream: sa.ColumnClause[Any] = column(names.stream)
        self._recorded_at = column(names.recorded_at) if names.recorded_at else None

    def _type_of(self, name: str) -> ColumnType:
        return self._types.get(name, UNKNOWN)

    # Selecting --------------------------------------------------------------------------------------------------

    def selected(self, *, metadata: bool) -> list[sa.ColumnElement[Any]]:
        """The columns of a row, in the order of :data:`~projection_rebuild.eventstore.decoding.Row`."""
        names = self._section.columns
        return [
            self.position,
            self._stream if self._holds_bytes else self._text(names.stream),
            self.type,
            self._stored_payload(),
            self._moment(),
            column(names.version) if names.version else sa.null(),
            column(names.type_version) if names.type_version else sa.literal_column("1"),
            *([sa.cast(column(names.metadata), sa.Text) if names.metadata else sa.null()] if metadata else []),
        ]

    def _stored_payload(self) -> sa.ColumnElement[Any]:
        kind = self._type_of(self._section.columns.payload).kind
        # The library's mapper and a decoder take the stored value. JSON is an exception: letting the driver build
        # objects costs several times as much as decoding the text.
        untouched = self._python or (self._section.decoder is not None and kind is not ColumnKind.JSON)
        return self._payload if untouched else self._dialect.payload(self._payload, kind)

    def _moment(self) -> sa.ColumnElement[Any]:
        if self._recorded_at is None:
            return sa.null()
        return self._recorded_at if self._section.recorded_at_unit else sa.cast(self._recorded_at, sa.Text)

    def _text(self, name: str) -> sa.ColumnElement[Any]:
        """A column as text; bytes are decoded as UTF-8."""
        kind = self._type_of(name).kind
        if kind is ColumnKind.BYTES:
            return self._dialect.utf8(column(name))
        return column(name, sa.String()) if kind is ColumnKind.TEXT else sa.cast(column(name), sa.Text)

    @property
    def _holds_bytes(self) -> bool:
        """Whether streams are bytes."""
        return self._section.stream_format is not None or self._type_of(self._section.columns.stream).kind is ColumnKind.BYTES

    # Comparing --------------------------------------------------------------------------------------------------

    def between(self, after: Place, upto: Place) -> list[sa.ColumnElement[bool]]:
        """Conditions: the position lies above one place and up to another."""
        if upto is None:
            return [sa.false()]
        return [*([] if after is None else [self.position > after]), self.position <= upto]

    def of_types(self, types: Collection[str]) -> list[sa.ColumnElement[bool]]:
        """Conditions: the event has one of these types."""
        return self._among(self._section.columns.type, list(types))

    def of_streams(self, streams: Collection[str]) -> list[sa.ColumnElement[bool]]:
        """Conditions: the event belongs to one of these streams."""
        name, wanted = self._section.columns.stream, list(streams)
        form = self._section.stream_format
        if form is not None:
            stored = [value for value in (bytes_of_stream(stream, form) for stream in wanted) if value is not None]
            return [self._stream.in_(_values(stored, sa.LargeBinary()))]
        if self._type_of(name).kind is ColumnKind.WHOLE:
            # A database may read the text 12x as the number 12.
            numbers = [number for number in map(_whole, wanted) if number is not None]
            return [self._stream.in_(_values(numbers, sa.BigInteger()))]
        return self._among(name, wanted)

    def _among(self, name: str, values: Sequence[str]) -> list[sa.ColumnElement[bool]]:
        column_type = self._type_of(name)
        # The first condition can use an index. The second is exact in any collation. A text that the first one leaves
        # out is never equal.
        conditions: list[sa.ColumnElement[bool]] = []
        if column_type.kind is ColumnKind.TEXT and (column_type.takes_any_text or all(map(str.isascii, values))):
            conditions.append(column(name).in_(_values(values, sa.String())))
        elif column_type.kind is ColumnKind.UUID:
            # Without a type, so that the database gives the values the column's own type.
            conditions.append(column(name).in_(_values([value for value in values if _is_uuid(value)], sa.types.NullType())))
        if not (column_type.compares_bytes and conditions):
            conditions.append(self._dialect.exact(self._text(name)).in_(_values(values, sa.String())))
        return conditions

    def _equal(self, name: str, value: str | int | bool | None) -> Iterator[sa.ColumnElement[bool]]:
        if isinstance(value, str):
            yield from self._among(name, [value])
        else:
            yield column(name).is_(None) if value is None else column(name) == value

    def recorded(self, since: datetime | None, until: datetime | None) -> Iterator[sa.ColumnElement[bool]]:
        """Conditions: the event was recorded at or after one moment, and before another."""
        if self._recorded_at is None:
            return
        # One event too many only rebuilds one more aggregate; one too few loses a change.
        grain = timedelta(0) if self._section.recorded_at_unit else self._dialect.time_grain
        if since is not None:
            yield ~self._before(self._recorded_at, since - _beyond(since, grain))
        if until is not None:
            yield self._before(self._recorded_at, until + 2 * _beyond(until, grain))

    def _before(self, recorded_at: sa.ColumnElement[Any], moment: datetime) -> sa.ColumnElement[bool]:
        unit = self._section.recorded_at_unit
        return self._dialect.before(recorded_at, moment) if unit is None else recorded_at < epoch_count(moment, unit)

    # Grouping -----------------------------------------------------------------------------------------------------

    @property
    def exact_type(self) -> sa.ColumnElement[Any]:
        """The type, to group rows by; :func:`as_text` reads its values."""
        return self.type if self._type_of(self._section.columns.type).compares_bytes else self._dialect.exact(self.type)

    @property
    def exact_stream(self) -> sa.ColumnElement[Any]:
        """The stream, to group rows by; :meth:`stream_of` reads its values."""
        if self._holds_bytes:
            return self._stream
        name = self._section.columns.stream
        return self._text(name) if self._type_of(name).compares_bytes else self._dialect.exact(self._text(name))

    def stream_of(self, stored: Any) -> str | None:
        """The stream that a value of :attr:`exact_stream` stands for.

        :raises ValueError: the value does not have the form that the spec declares
        """
        form = self._section.stream_format
        if form is not None and isinstance(stored, bytes):
            return stream_of_bytes(stored, form)
        return None if stored is None else as_text(stored)

    # Reading inside the database ----------------------------------------------------------------------------------

    def stream_text(self) -> sa.ColumnElement[Any]:
        """The stream as the text that handlers see, computed by the database."""
        form = self._section.stream_format
        if form is None:
            return self._text(self._section.columns.stream)
        if form is StreamFormat.TEXT:
            return self._dialect.utf8(self._stream)
        digits = self._dialect.hexadecimal(self._stream)
        if form is StreamFormat.HEX:
            return digits
        joined: sa.ColumnElement[Any] = _part(digits, 1, 8)
        for start, length in ((9, 4), (13, 4), (17, 4), (21, 12)):
            joined = joined + sa.literal_column("'-'", sa.Text) + _part(digits, start, length)
        return joined

    @property
    def reads_payloads(self) -> bool:
        """Whether the database can tell, for any payload, whether it is JSON."""
        return self._dialect.reads_json(self._type_of(self._section.columns.payload).kind)

    def payload_field(self, field: str) -> sa.ColumnElement[str]:
        """A field of the payload, as text; null if the payload has no such field."""
        return self._dialect.json_field(self._payload, self._type_of(self._section.columns.payload).kind, field)

    @property
    def no_stream(self) -> sa.ColumnElement[bool]:
        """Condition: the event has no stream."""
        return self._stream.is_(None)

    def payload_text(self) -> sa.ColumnElement[Any]:
        """The payload as JSON, for the database."""
        is_bytes = self._type_of(self._section.columns.payload).kind is ColumnKind.BYTES
        return self._dialect.utf8(self._payload) if is_bytes else self._payload

    def _as_it_is(self, name: str) -> sa.ColumnElement[Any]:
        """A column for an author's SQL, in its own type. The SQL may group by it, so texts compare exactly."""
        column_type = self._type_of(name)
        loose = column_type.kind in (ColumnKind.TEXT, ColumnKind.PADDED) and not column_type.compares_bytes
        return self._dialect.exact_text(column(name)) if loose else column(name)

    def for_statements(self) -> list[sa.ColumnElement[Any]]:
        """The columns that a projector's SQL sees, named like the keys of the spec."""
        own = {
            "stream": self.stream_text() if self._holds_bytes else self._as_it_is(self._section.columns.stream),
            "type": self._as_it_is(self._section.columns.type),
            "payload": self.payload_text(),
        }
        names = self._section.columns.model_dump()
        return [(own.get(key, column(name)) if name else sa.null()).label(key) for key, name in names.items()]


def column(name: str, kind: sa.types.TypeEngine[Any] | None = None) -> sa.ColumnClause[Any]:
    """A column by its exact name."""
    return sa.column(quoted_name(name, quote=True), kind)


def as_text(stored: str | bytes) -> str:
    """A text by which a query grouped its rows; some databases return it as bytes."""
    return stored.decode() if isinstance(stored, bytes) else str(stored)


def _beyond(moment: datetime, grain: timedelta) -> timedelta:
    """The grain if a moment is finer than it, else zero."""
    return grain if grain and timedelta(microseconds=moment.microsecond) % grain else timedelta(0)


def _whole(text: str) -> int | None:
    """The whole number that a column writes as this text; None: the text is no such number."""
    if not re.fullmatch("-?[0-9]{1,19}", text) or str(int(text)) != text:
        return None
    return int(text) if LOWEST <= int(text) <= HIGHEST else None


def _is_uuid(text: str) -> bool:
    """Whether a UUID column can write a value as this text; a database refuses a text that is no UUID."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _part(digits: sa.ColumnElement[str], start: int, length: int) -> sa.ColumnElement[str]:
    return sa.func.substr(digits, sa.literal_column(str(start)), sa.literal_column(str(length)), type_=sa.Text)


def _values(values: Sequence[Any], kind: sa.types.TypeEngine[Any]) -> sa.BindParameter[Any]:
    return sa.bindparam(None, list(values), type_=kind, expanding=True)
