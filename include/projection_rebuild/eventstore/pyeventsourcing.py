"""Events as the Python library `eventsourcing` stores them: bytes that its own mapper decodes.

The library is imported only where a spec has this preset; the application's event classes must be importable beside it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from projection_rebuild.authoring.events import Event, Undecodable
from projection_rebuild.errors import SpecError
from projection_rebuild.errors.boundary import is_of_the_machine, trouble_at_event, word_for

Row = tuple[Any, ...]


def event_of(mapper: Any, notification: Any) -> Event:
    """What a projector gets of an event, for the live application: the same as in a replay.

    The payload is what the domain event holds: its attributes as the library's transcodings restore them, after the upcasts of
    its class, without the originator's id and version.

    :param mapper: the application's, ``application.mapper``
    :param notification: from its ``notification_log`` or ``recorder``
    :raises Exception: whatever the mapper raises
    """
    return _event(mapper, notification.id, notification)


def _event(mapper: Any, position: int, stored: Any) -> Event:
    made = mapper.to_domain_event(stored)
    payload = {name: value for name, value in vars(made).items() if name not in ("originator_id", "originator_version")}
    moment = payload.get("timestamp")
    return Event(
        position=position,
        stream=str(made.originator_id),
        type=stored.topic,
        payload=payload,
        recorded_at=moment.isoformat() if isinstance(moment, datetime) else "",
        version=stored.originator_version,
    )


def decoder(mapper_path: str | None) -> Callable[[Sequence[Row]], list[Event]]:
    """What turns rows of the store (see :class:`~projection_rebuild.eventstore.store.EventStore`) into events.

    :param mapper_path: ``package.module:name`` of something to call, that gives a mapper or an application; None: the library's
        own transcodings without compression and encryption
    :raises SpecError: the library, or the mapper, cannot be had
    """
    mapper = _mapper(mapper_path)
    stored_event = importlib.import_module("eventsourcing.persistence").StoredEvent

    def decoded(row: Row) -> Event:
        position, stream, topic, state, _, version, *_ = row
        try:
            return _event(mapper, position, stored_event(stream, version, topic, bytes(state)))
        except Exception as error:
            if trouble := trouble_at_event(error, "the mapper", topic, position):
                raise trouble from None
            return Undecodable(position=position, stream=stream, type=topic, cause=word_for(error))

    return lambda rows: [decoded(row) for row in rows]


def _mapper(path: str | None) -> Any:
    try:
        persistence = importlib.import_module("eventsourcing.persistence")
    except ImportError:
        raise SpecError(
            "event_store.preset pyeventsourcing needs the library: add eventsourcing, in your application's version, to requirements.txt"
        ) from None
    if path is None:
        transcoder = persistence.JSONTranscoder()
        for each in (persistence.UUIDAsHex, persistence.DecimalAsStr, persistence.DatetimeAsISO):
            transcoder.register(each())
        return persistence.Mapper(transcoder=transcoder)
    module_name, _, name = path.partition(":")
    try:
        made = _called(getattr(importlib.import_module(module_name), name))
    except Exception as error:
        if is_of_the_machine(error) and not isinstance(error, ImportError):
            raise
        # Without its text: it may speak of the cipher's key.
        raise SpecError(
            f"event_store.mapper {path!r} cannot be called: {type(error).__name__}; write package.module:name"
        ) from None
    # An application has its mapper; what is no application is one.
    mapper = getattr(made, "mapper", made)
    if mapper is not made:
        # Its connections and threads would outlive us.
        made.close()
    if not hasattr(mapper, "to_domain_event"):
        raise SpecError(f"event_store.mapper {path!r} gives neither a mapper nor an application of the library eventsourcing")
    return mapper


def _called(given: Any) -> Any:
    application = importlib.import_module("eventsourcing.application").Application
    if isinstance(given, type) and issubclass(given, application):
        # For its mapper alone, so it keeps nothing: whatever its environment says, it opens no database and makes no table.
        return given(env={"PERSISTENCE_MODULE": "eventsourcing.popo"})
    return given()
