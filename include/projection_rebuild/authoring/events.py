"""One event as a projector sees it, the same in a replay and live."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Event:
    """An event of the store.

    :param position: the event's place in the total order of the store
    :param stream: the aggregate that the event belongs to; None if the store holds NULL. The attribute has the type
        ``str``, since in nearly every store each event has a stream; only handlers for other stores have to test for
        None
    :param type: the event's type as the store spells it
    :param payload: the decoded payload
    :param recorded_at: when the application appended the event, as ISO 8601 text; :attr:`recorded_time` parses it
    :param version: the event's number within its stream, if the store has one
    :param type_version: the version of its type, if the store has one; 1 otherwise
    :param metadata: the decoded metadata; empty unless the projector sets ``needs_metadata``
    """

    __slots__ = ("metadata", "payload", "position", "recorded_at", "stream", "type", "type_version", "version")

    def __init__(
        self,
        position: int,
        stream: str | None,
        type: str,
        payload: Mapping[str, Any],
        recorded_at: str = "",
        version: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        type_version: int | str = 1,
    ) -> None:
        self.position = position
        self.stream: str = stream  # type: ignore[assignment]
        self.type = type
        self.payload = payload
        self.recorded_at = recorded_at
        self.version = version
        self.metadata: Mapping[str, Any] = NOTHING if metadata is None else metadata
        self.type_version = type_version

    def __getitem__(self, name: str) -> Any:
        """A field of the payload: ``event["amount_cents"]``."""
        return self.payload[name]

    def get(self, name: str, default: Any = None) -> Any:
        """A field of the payload, or a default if the event does not have it."""
        return self.payload.get(name, default)

    def evolved(self, type: str | None = None, payload: Mapping[str, Any] | None = None) -> Event:
        """A copy of the event with another type or payload, for an upcaster; all other attributes stay."""
        return Event(
            position=self.position,
            stream=self.stream,
            type=self.type if type is None else type,
            payload=self.payload if payload is None else payload,
            recorded_at=self.recorded_at,
            version=self.version,
            metadata=self.metadata,
            type_version=self.type_version,
        )

    @property
    def recorded_time(self) -> datetime:
        """``recorded_at`` as an aware datetime; text without an offset is UTC."""
        moment = datetime.fromisoformat(self.recorded_at)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def __repr__(self) -> str:
        # Without the payload, since this text goes into logs and tracebacks.
        return f"<Event {self.type} at {self.position}>"


class Undecodable(Event):
    """An event whose payload, metadata or version the engine cannot decode; projecting it raises ``UndecodableEvent``.

    :param cause: the class of the error, without its text, which may quote the payload
    """

    __slots__ = ("cause",)

    def __init__(self, *, position: int, stream: str | None, type: str, cause: str) -> None:
        super().__init__(position=position, stream=stream, type=type, payload={})
        self.cause = cause
