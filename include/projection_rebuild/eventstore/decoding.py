"""Decodes the rows of an event store into events: payloads, streams and times, in the format that the spec declares.

Imports the event class and the spec, but no dialect. A row that cannot be decoded becomes an :class:`Undecodable`,
never a guess.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from projection_rebuild.authoring.events import Event, Undecodable
from projection_rebuild.errors import SpecError
from projection_rebuild.errors.boundary import is_of_the_machine, trouble_at_event, word_for
from projection_rebuild.eventstore import pyeventsourcing
from projection_rebuild.model.positions import HIGHEST, LOWEST
from projection_rebuild.spec.presets import Preset
from projection_rebuild.spec.stores import EventStoreSection, StreamFormat, TimeUnit

Row = tuple[Any, ...]
"""Position, stream, type, payload, recorded_at, version, type_version and, if the query selects it, metadata."""

Decode = Callable[[Sequence[Row]], list[Event]]

PER_SECOND = {TimeUnit.SECONDS: 1, TimeUnit.MILLISECONDS: 10**3, TimeUnit.MICROSECONDS: 10**6, TimeUnit.NANOSECONDS: 10**9}
"""Units per second."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

KINDS = {str: "a string", list: "a list", bool: "a boolean", int: "a number", float: "a number", Decimal: "a number"}

NO_JSON = (ValueError, TypeError, RecursionError)
"""What the JSON decoder raises; it raises RecursionError for a text that is nested too deeply."""


def decoder_of(section: EventStoreSection) -> Decode:
    """The function that decodes rows of a store into events.

    :raises SpecError: the decoder or the mapper that the spec names cannot be imported or called
    """
    if section.preset is Preset.PYEVENTSOURCING:
        return pyeventsourcing.decoder(section.mapper)
    return RowDecoder(section).decode


def epoch_count(moment: datetime, unit: TimeUnit) -> int:
    """The first whole number of units since 1970 that is not before an aware moment."""
    microseconds = (moment.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)
    # A moment that no 64-bit column can hold lies beyond all values of the column, as the clamped number does.
    return max(LOWEST, min(HIGHEST, -(-microseconds * PER_SECOND[unit] // 10**6)))


def stream_of_bytes(stored: bytes, form: StreamFormat) -> str:
    """The stream that bytes stand for.

    :raises ValueError: the bytes do not have this form
    """
    match form:
        case StreamFormat.UUID:
            return str(UUID(bytes=bytes(stored)))
        case StreamFormat.HEX:
            return bytes(stored).hex()
        case StreamFormat.TEXT:
            return bytes(stored).decode()


def bytes_of_stream(stream: str, form: StreamFormat) -> bytes | None:
    """The bytes that stand for a stream; None: no bytes stand for it."""
    try:
        match form:
            case StreamFormat.UUID:
                stored = UUID(stream).bytes
            case StreamFormat.HEX:
                stored = bytes.fromhex(stream)
            case StreamFormat.TEXT:
                stored = stream.encode()
    except ValueError:
        return None
    # Events of the store never name their stream as a UUID in braces or in capitals.
    return stored if stream_of_bytes(stored, form) == stream else None


class RowDecoder:
    """Decodes rows whose payloads are JSON, or are in the format of the spec's own decoder.

    :raises SpecError: the decoder cannot be imported
    """

    def __init__(self, section: EventStoreSection) -> None:
        self._stream_format = section.stream_format
        self._unit = section.recorded_at_unit
        self._loads: Callable[[Any], Any] = msgspec.json.Decoder(float_hook=_exact if section.decimals else None).decode
        self._payload = self._by_json if section.decoder is None else _Checked(_imported(section.decoder))
        self._is_plain = section.decoder is None and section.stream_format is None and section.recorded_at_unit is None

    def decode(self, rows: Sequence[Row]) -> list[Event]:
        """Decodes rows into events, in the same order."""
        if self._is_plain:
            try:
                return self._quickly(rows)
            except NO_JSON:
                # The rows have metadata, or one row needs the slow path.
                pass
        return [self._event(row) for row in rows]

    def _quickly(self, rows: Sequence[Row]) -> list[Event]:
        # One comprehension, for speed: it runs for each event of each projector.
        loads = self._loads
        return [
            Event(
                position,
                stream,
                event_type,
                {} if payload is None else found if (found := loads(payload)).__class__ is dict else _mapping(found),
                recorded_at or "",
                version,
                None,
                number if number.__class__ is int else _version(number),
            )
            for position, stream, event_type, payload, recorded_at, version, number in rows
        ]

    def _event(self, row: Row) -> Event:
        position, stored_stream, event_type, stored, recorded_at, version, type_version, *metadata = row
        stream: str | None = None
        try:
            stream = self._stream(stored_stream)
            payload = self._payload(stored)
            meta = self._metadata(metadata[0]) if metadata and metadata[0] else None
            moment = self._moment(recorded_at)
        except _Unreadable as error:
            return Undecodable(position=position, stream=stream, type=event_type, cause=str(error))
        except Exception as error:
            if (trouble := trouble_at_event(error, "the decoder", event_type, position)) is not None:
                raise trouble from None
            raise
        return Event(position, stream, event_type, payload, moment, version, meta, _version(type_version))

    def _by_json(self, stored: Any) -> Mapping[str, Any]:
        if stored is None:
            return {}
        try:
            decoded = self._loads(stored)
        except NO_JSON as error:
            raise _Unreadable(f"it is not JSON ({type(error).__name__})") from None
        return _mapping(decoded)

    def _metadata(self, stored: Any) -> Mapping[str, Any]:
        try:
            return _mapping(self._loads(stored))
        except NO_JSON as error:
            raise _Unreadable(f"its metadata is not JSON ({type(error).__name__})") from None

    def _stream(self, stored: Any) -> str | None:
        if stored is None or isinstance(stored, str):
            return stored
        if self._stream_format is None:
            raise _Unreadable("its stream is bytes, and event_store.stream_format does not say what they stand for")
        try:
            return stream_of_bytes(stored, self._stream_format)
        except ValueError:
            raise _Unreadable(f"its stream is {len(stored)} bytes that are no {self._stream_format}") from None

    def _moment(self, stored: Any) -> str:
        if self._unit is None or stored is None:
            return stored or ""
        try:
            return epoch_text(stored, self._unit)
        except (ArithmeticError, ValueError, TypeError):
            raise _Unreadable(f"its time is no number of {self._unit} since 1970") from None


def epoch_text(stored: Any, unit: TimeUnit) -> str:
    """A number of units since 1970 as ISO 8601 text in UTC, exact to the nanosecond.

    :raises ValueError: the value is no number
    :raises ArithmeticError: the value is no number, or its time lies outside the years 1 to 9999
    """
    nanoseconds = Decimal(str(stored)) * (10**9 // PER_SECOND[unit])
    seconds, fraction = divmod(int(nanoseconds.to_integral_value()), 10**9)
    text = (EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}{'.' + digits.ljust(6, '0') if digits else ''}+00:00"


def _exact(digits: str) -> Decimal:
    return Decimal(digits)


class _Unreadable(ValueError):
    """Why an event cannot be decoded; the message quotes nothing of the event."""


class _Checked:
    """Calls the author's decoder and checks its result."""

    def __init__(self, decode: Callable[[Any], Any]) -> None:
        self._decode = decode

    def __call__(self, stored: Any) -> Mapping[str, Any]:
        if stored is None:
            return {}
        try:
            decoded = self._decode(stored)
        except Exception as error:
            if is_of_the_machine(error):
                raise
            # Without the error's text, which may quote the payload.
            raise _Unreadable(f"the decoder failed with {word_for(error)}") from None
        return _mapping(decoded)


def _mapping(decoded: Any) -> Mapping[str, Any]:
    """A decoded payload as a mapping. PHP writes an empty object as ``[]``, others write it as ``null``.

    :raises _Unreadable: the payload is no object
    """
    if isinstance(decoded, Mapping):
        return decoded
    if decoded is None or decoded == []:
        return {}
    raise _Unreadable(f"the payload is {KINDS.get(type(decoded), f'a {type(decoded).__name__}')}, not an object")


def _imported(path: str) -> Callable[[Any], Any]:
    module_name, separator, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name) if separator else None
    except Exception as error:
        # Without the error's text: a decoder's module may put keys into it.
        raise SpecError(
            f"event_store.decoder {path!r} cannot be imported: {type(error).__name__}; write package.module:function"
        ) from None
    if not callable(function):
        raise SpecError(f"event_store.decoder {path!r} is no function; write package.module:function")
    decode: Callable[[Any], Any] = function
    return decode


def _version(stored: Any) -> int | str:
    """The version of an event type. Stores keep a number, its text, a name, or nothing for the first version."""
    text = "1" if stored is None else str(stored)
    return int(text) if text.isdecimal() else text
