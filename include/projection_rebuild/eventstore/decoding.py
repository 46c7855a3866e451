"""From the rows of an event store to events: payloads, streams and times, as the spec says they are stored.

Imports what an event is, and the spec; knows no database. What cannot be read becomes an :class:`Undecodable`, never a guess.
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
"""Position, stream, type, payload, recorded_at, version, type_version and, where it is asked for, metadata."""

Decode = Callable[[Sequence[Row]], list[Event]]

PER_SECOND = {TimeUnit.SECONDS: 1, TimeUnit.MILLISECONDS: 10**3, TimeUnit.MICROSECONDS: 10**6, TimeUnit.NANOSECONDS: 10**9}
"""How many of a unit there are in a second."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

KINDS = {str: "a string", list: "a list", bool: "a boolean", int: "a number", float: "a number", Decimal: "a number"}

NO_JSON = (ValueError, TypeError, RecursionError)
"""What the decoder of JSON raises; a RecursionError is the text's own fault there, which is nested too deeply."""


def decoder_of(section: EventStoreSection) -> Decode:
    """What turns rows of a store into events.

    :raises SpecError: the decoder or the mapper that the spec names cannot be had
    """
    if section.preset is Preset.PYEVENTSOURCING:
        return pyeventsourcing.decoder(section.mapper)
    return RowDecoder(section).decode


def epoch_count(moment: datetime, unit: TimeUnit) -> int:
    """The first whole number of units since 1970 that is not before an aware moment."""
    microseconds = (moment.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)
    # A moment that no column of 64 bits can hold lies beyond all of its values all the same.
    return max(LOWEST, min(HIGHEST, -(-microseconds * PER_SECOND[unit] // 10**6)))


def stream_of_bytes(stored: bytes, form: StreamFormat) -> str:
    """The stream that bytes stand for.

    :raises ValueError: they are none of this form
    """
    match form:
        case StreamFormat.UUID:
            return str(UUID(bytes=bytes(stored)))
        case StreamFormat.HEX:
            return bytes(stored).hex()
        case StreamFormat.TEXT:
            return bytes(stored).decode()


def bytes_of_stream(stream: str, form: StreamFormat) -> bytes | None:
    """The bytes that stand for a stream; None: no bytes do."""
    try:
        match form:
            case StreamFormat.UUID:
                found = UUID(stream).bytes
            case StreamFormat.HEX:
                found = bytes.fromhex(stream)
            case StreamFormat.TEXT:
                found = stream.encode()
    except ValueError:
        return None
    # A UUID in braces or in capitals is none that the store's events would have.
    return found if stream_of_bytes(found, form) == stream else None


class RowDecoder:
    """Rows with payloads of JSON, or of what the spec's own decoder takes.

    :raises SpecError: the decoder cannot be imported
    """

    def __init__(self, section: EventStoreSection) -> None:
        self._stream_format = section.stream_format
        self._unit = section.recorded_at_unit
        self._loads: Callable[[Any], Any] = msgspec.json.Decoder(float_hook=_exact if section.decimals else None).decode
        self._payload = self._by_json if section.decoder is None else _Checked(_imported(section.decoder))
        self._is_plain = section.decoder is None and section.stream_format is None and section.recorded_at_unit is None

    def decode(self, rows: Sequence[Row]) -> list[Event]:
        """Events of rows, in their order."""
        if self._is_plain:
            try:
                return self._quickly(rows)
            except NO_JSON:
                # There is metadata, or a row that has to be looked at by itself.
                pass
        return [self._event(row) for row in rows]

    def _quickly(self, rows: Sequence[Row]) -> list[Event]:
        # In one go: this is run for each event of each projector.
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
            found = self._loads(stored)
        except NO_JSON as error:
            raise _Unreadable(f"it is not JSON ({type(error).__name__})") from None
        return _mapping(found)

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
    """A number of units since 1970 as ISO 8601 text in UTC, to the last digit of whole nanoseconds.

    :raises ValueError: it is no such number
    :raises ArithmeticError: it lies outside the years 1 to 9999
    """
    nanoseconds = Decimal(str(stored)) * (10**9 // PER_SECOND[unit])
    seconds, fraction = divmod(int(nanoseconds.to_integral_value()), 10**9)
    text = (EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}{'.' + digits.ljust(6, '0') if digits else ''}+00:00"


def _exact(digits: str) -> Decimal:
    return Decimal(digits)


class _Unreadable(ValueError):
    """Why an event cannot be read, in words that quote nothing of it."""


class _Checked:
    """A decoder of the author's, whose result is looked at."""

    def __init__(self, decode: Callable[[Any], Any]) -> None:
        self._decode = decode

    def __call__(self, stored: Any) -> Mapping[str, Any]:
        if stored is None:
            return {}
        try:
            found = self._decode(stored)
        except Exception as error:
            if is_of_the_machine(error):
                raise
            # Without its text, which may quote the payload.
            raise _Unreadable(f"the decoder failed with {word_for(error)}") from None
        return _mapping(found)


def _mapping(found: Any) -> Mapping[str, Any]:
    """A payload. PHP writes an empty one as ``[]``, others as ``null``.

    :raises _Unreadable: it is no object
    """
    if isinstance(found, Mapping):
        return found
    if found is None or found == []:
        return {}
    raise _Unreadable(f"the payload is {KINDS.get(type(found), f'a {type(found).__name__}')}, not an object")


def _imported(path: str) -> Callable[[Any], Any]:
    module_name, separator, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), name) if separator else None
    except Exception as error:
        # Without its text: a decoder's module may speak of keys.
        raise SpecError(
            f"event_store.decoder {path!r} cannot be imported: {type(error).__name__}; write package.module:function"
        ) from None
    if not callable(found):
        raise SpecError(f"event_store.decoder {path!r} is no function; write package.module:function")
    decode: Callable[[Any], Any] = found
    return decode


def _version(stored: Any) -> int | str:
    """A type's version as stores keep it: a number, its text, a name, or nothing for the first one."""
    text = "1" if stored is None else str(stored)
    return int(text) if text.isdecimal() else text
