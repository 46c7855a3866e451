"""What authors subclass: a projector owns tables and has one handler for each event type that concerns it.

The same class runs in a replay (on green, in bulk) and live in the application (on blue, one event at a time, inside
the application's own transaction: :mod:`include.projection_rebuild.live`). It never learns which.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

from include.projection_rebuild.errors import ProjectorError
from include.projection_rebuild.events import Event
from include.projection_rebuild.rows import Rows, RowType, row_type

Handler = Callable[[Any, Event, Rows], None]
H = TypeVar("H", bound=Handler)


def handles(*event_types: str) -> Callable[[H], H]:
    """Marks a method ``(self, event, rows) -> None`` as the handler of one or more event types.

    A handler is a function of its event and the rows it asks for: no clock, no random, no side effect. It may be run
    more than once for an event.
    """

    def mark(method: H) -> H:
        method.__handles__ = event_types  # type: ignore[attr-defined]
        return method

    return mark


class Projector:
    """Turns events into rows of the tables it owns.

    .. code-block:: python

        class SubscriptionProjector(Projector):
            owns = (Subscription,)

            @handles("SubscriptionCreated")
            def created(self, event: Event, rows: Rows) -> None:
                rows.add(Subscription(id=event.stream, plan=event["plan"]))

            @handles("SubscriptionCancelled")
            def cancelled(self, event: Event, rows: Rows) -> None:
                rows.get(Subscription, event.stream).status = "cancelled"
    """

    owns: ClassVar[tuple[type, ...]] = ()
    """The row classes of the tables that this projector, and no other, writes."""

    depends_on: ClassVar[tuple[type[Projector], ...]] = ()
    """Projectors whose tables must be filled before this one's (foreign keys point that way)."""

    needs_metadata: ClassVar[bool] = False
    """Whether handlers read ``event.metadata``; reading it costs, so it is left out unless asked for."""

    _handlers: ClassVar[dict[str, Handler]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._handlers = dict(cls._handlers)
        for method in vars(cls).values():
            for event_type in getattr(method, "__handles__", ()):
                known = cls._handlers.get(event_type)
                if known is not None and known in vars(cls).values():
                    raise ProjectorError(f"{cls.__name__} has two handlers for {event_type}; keep one")
                cls._handlers[event_type] = method

    @classmethod
    def name(cls) -> str:
        """The projector's name in forms, tasks and the ledger: its class name."""
        return cls.__name__

    @classmethod
    def kinds(cls) -> tuple[RowType, ...]:
        """The row types of the owned tables."""
        return tuple(row_type(each) for each in cls.owns)

    @classmethod
    def tables(cls) -> tuple[str, ...]:
        """The live names of the owned tables."""
        return tuple(kind.table for kind in cls.kinds())

    @classmethod
    def event_types(cls) -> tuple[str, ...]:
        """The event types that have a handler, sorted."""
        return tuple(sorted(cls._handlers))

    def project(self, event: Event, rows: Rows) -> None:
        """Runs the handler of one event; an event of a type without a handler changes nothing."""
        handler = self._handlers.get(event.type)
        if handler is not None:
            handler(self, event, rows)


def load_projector(path: str) -> type[Projector]:
    """Imports a projector from ``package.module:Class``.

    :raises ProjectorError: no such module or class, an import that fails, or a class that is no usable projector
    """
    module_name, separator, class_name = path.partition(":")
    if not separator or not class_name:
        raise ProjectorError(f"{path!r} does not name a projector; write it as package.module:Class")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ProjectorError(f"{path}: importing {module_name} failed with {type(error).__name__}: {error}") from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Projector)):
        raise ProjectorError(f"{path}: {module_name} has no projector class {class_name}")
    _refuse_unusable(found, path)
    return found


def _refuse_unusable(projector: type[Projector], path: str) -> None:
    if not projector.owns:
        raise ProjectorError(f"{path}: it owns no table; set `owns` to its row classes")
    projector.kinds()
    if not projector.event_types():
        raise ProjectorError(f"{path}: it handles no event; mark its handlers with @handles(...)")


def refuse_shared_tables(projectors: Iterable[type[Projector]]) -> None:
    """A table has exactly one owner.

    :raises ProjectorError: two of the projectors claim the same table
    """
    owners: dict[str, str] = {}
    for projector in projectors:
        for table in projector.tables():
            if table in owners:
                raise ProjectorError(f"the table {table} is owned by {owners[table]} and {projector.name()}; give it one owner")
            owners[table] = projector.name()
