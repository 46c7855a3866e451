"""Decodes events that the Python library `eventsourcing` has stored: the library's own mapper decodes the bytes.

The engine imports the library only if a spec has this preset. The worker must be able to import the application's event
classes too.
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
    """The event that a live application passes to a projector: the same event as in a replay.

    The payload is the attributes of the domain event, as the library's transcodings restore them and the upcasts of its
    class change them, without the originator's id and version.

    :param mapper: the application's mapper, ``application.mapper``
    :param notification: from the application's ``notification_log`` or ``recorder``
    :raises Exception: any error of the mapper
    """
    return _event(mapper, notification.id, notification)


def _event(mapper: Any, position: int, stored: Any) -> Event:
    domain_event = mapper.to_domain_event(stored)
    payload = {name: value for name, value in vars(domain_event).items() if name not in ("originator_id", "originator_version")}
    moment = payload.get("timestamp")
    return Event(
        position=position,
        stream=str(domain_event.originator_id),
        type=stored.topic,
        payload=payload,
        recorded_at=moment.isoformat() if isinstance(moment, datetime) else "",
        version=stored.originator_version,
    )


def decoder(mapper_path: str | None) -> Callable[[Sequence[Row]], list[Event]]:
    """The function that decodes rows of an :class:`~projection_rebuild.eventstore.store.EventStore` into events.

    :param mapper_path: ``package.module:name`` of a callable that returns a mapper or an application; None: the
        library's own transcodings without compression and encryption
    :raises SpecError: the library or the mapper cannot be imported or called
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
        for transcoding in (persistence.UUIDAsHex, persistence.DecimalAsStr, persistence.DatetimeAsISO):
            transcoder.register(transcoding())
        return persistence.Mapper(transcoder=transcoder)
    module_name, _, name = path.partition(":")
    try:
        provided = _called(getattr(importlib.import_module(module_name), name))
    except Exception as error:
        if is_of_the_machine(error) and not isinstance(error, ImportError):
            raise
        # Without the error's text, which may contain the cipher's key.
        raise SpecError(
            f"event_store.mapper {path!r} cannot be called: {type(error).__name__}; write package.module:name"
        ) from None
    # An application has a mapper; any other object is the mapper itself.
    mapper = getattr(provided, "mapper", provided)
    if mapper is not provided:
        # The application's connections and threads would stay open.
        provided.close()
    if not hasattr(mapper, "to_domain_event"):
        raise SpecError(f"event_store.mapper {path!r} returns neither a mapper nor an application of the library eventsourcing")
    return mapper


def _called(factory: Any) -> Any:
    application = importlib.import_module("eventsourcing.application").Application
    if isinstance(factory, type) and issubclass(factory, application):
        # The engine needs the mapper alone. So the application keeps its events in memory, whatever its environment
        # says: it opens no database and creates no table.
        return factory(env={"PERSISTENCE_MODULE": "eventsourcing.popo"})
    return factory()
