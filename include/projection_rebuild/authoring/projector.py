"""What authors subclass: a projector owns tables and has one handler for each event type that concerns it.

The same class runs in a replay (on green, in bulk) and live in the application (on blue, one event at a time, inside
the application's own transaction: :mod:`projection_rebuild.replay.inline`). It never learns which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, ClassVar, TypeVar

from projection_rebuild.authoring.declared.per_event import Handle, handler
from projection_rebuild.authoring.declared.tables import Declared, declared_types
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.partition import Partition
from projection_rebuild.authoring.parts import ByAggregate, ByPeriod
from projection_rebuild.authoring.upcasting import Upcasters
from projection_rebuild.errors import ProjectorError
from projection_rebuild.rows.types import Rows, RowType, row_type

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

    reads: ClassVar[tuple[type, ...]] = ()
    """Row classes of other projectors' tables that handlers look at and never change. In a rebuild their owners go first."""

    composed_of: ClassVar[tuple[type[Projector], ...]] = ()
    """Projectors that go in one pass: event by event, each in turn, so that each sees the rows of the others as they are at that
    very event. Stands in a spec in place of them; owns what they own, and has no handlers of its own."""

    part: ClassVar[ByAggregate | ByPeriod | None] = None
    """By what its rows can be told apart, so that some of them can be rebuilt and the others copied; None: only all at once."""

    partition_by: ClassVar[str] = ""
    """The field of the payload (text or a whole number) that says whose rows an event touches: no event touches rows of two of
    them, and each row class has an attribute of this name that holds it. Then replays can be divided into shards. Empty: by stream, where
    each row class names the attribute that holds it (``@row(..., stream="id")``); otherwise events need their total order."""

    needs_metadata: ClassVar[bool] = False
    """Whether handlers read ``event.metadata``; reading it costs, so it is left out unless asked for."""

    version: ClassVar[str] = ""
    """What the author calls this state of the code; kept in the record of each run, beside a hash of the source."""

    reads_events: ClassVar[tuple[str, ...]] = ()
    """The event types that :meth:`statements` read, where there are no handlers that tell."""

    upcasters: ClassVar[Upcasters] = Upcasters()
    """What brings old events to the versions that the handlers know, in a replay and live; usually one object for all of an
    application's projectors."""

    declares: ClassVar[tuple[Declared, ...]] = ()
    """Tables whose rows are declared, see :mod:`projection_rebuild.authoring.declared`. Each is owned without being named in
    :attr:`owns`. At an event they come before the handler, in their order."""

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
        if "declares" in vars(cls):
            cls._declare()
        if "composed_of" in vars(cls):
            cls._compose()

    @classmethod
    def _declare(cls) -> None:
        """Gives it the handlers of its declared tables.

        :raises ProjectorError: a declaration cannot be right, or there are two of one table
        """
        classes = [each.row_class for each in cls.declares]
        if twice := {each.__name__ for each in classes if classes.count(each) > 1}:
            raise ProjectorError(
                f"{cls.__name__} declares {', '.join(sorted(twice))} twice; say in one declaration what its rows are"
            )
        for table in cls.declares:
            table.finish()
        cls.owns = (*(each for each in classes if each not in cls.owns), *cls.owns)
        for event_type in declared_types(cls.declares):
            declared = handler(cls.declares, event_type)
            if declared is not None:
                cls._handlers[event_type] = _before(declared, cls._handlers.get(event_type))

    @classmethod
    def _compose(cls) -> None:
        """Becomes what its members are together.

        :raises ProjectorError: it has something of its own, or its members cannot go together
        """
        members, own = cls.composed_of, [each for each in vars(cls).values() if hasattr(each, "__handles__")]
        if own or "owns" in vars(cls):
            raise ProjectorError(
                f"{cls.__name__} is composed_of others, and has only what they have; take its own handlers and `owns` away"
            )
        if silent := [each.__name__ for each in members if not each.has_handlers()]:
            raise ProjectorError(
                f"{cls.__name__}: {', '.join(silent)} has no handlers, only SQL; nothing of it goes event by event"
            )
        if len({id(each.upcasters) for each in members if each.upcasters is not Projector.upcasters}) > 1:
            raise ProjectorError(f"{cls.__name__}: its members have different upcasters; give them one object")
        cls.owns = tuple(row_class for each in members for row_class in each.owns)
        cls.reads = tuple(dict.fromkeys(row for each in members for row in each.reads if row not in cls.owns))
        needed = (other for each in members for other in each.depends_on if other not in members)
        cls.depends_on = tuple(dict.fromkeys(needed))
        cls.needs_metadata = any(each.needs_metadata for each in members)
        cls.upcasters = next(
            (each.upcasters for each in members if each.upcasters is not Projector.upcasters), Projector.upcasters
        )
        instances = tuple(each() for each in members)
        types = dict.fromkeys(event_type for each in members for event_type in each._handlers)
        cls._handlers = {
            event_type: _in_turn([each for each in instances if event_type in each._handlers], event_type) for event_type in types
        }

    @classmethod
    def name(cls) -> str:
        """The projector's name in forms, tasks and the ledger: its class name."""
        return cls.__name__

    @classmethod
    def kinds(cls) -> tuple[RowType, ...]:
        """The row types of the owned tables."""
        return tuple(row_type(each) for each in cls.owns)

    @classmethod
    def partition(cls) -> Partition | None:
        """How events and rows can be divided; None: not at all.

        :raises ProjectorError: a row class lacks the attribute
        """
        field = cls.partition_by
        if not field:
            streams = {kind.row_class: kind.stream for kind in cls.kinds() if kind.stream is not None}
            return Partition(None, streams) if len(streams) == len(cls.owns) else None
        missing = [kind.row_class.__name__ for kind in cls.kinds() if field not in kind.attributes]
        if missing:
            raise ProjectorError(f"{cls.__name__}.partition_by: {', '.join(missing)} has no attribute {field}")
        return Partition(field, dict.fromkeys(cls.owns, field))

    @classmethod
    def tables(cls) -> tuple[str, ...]:
        """The live names of the owned tables."""
        return tuple(kind.table for kind in cls.kinds())

    @classmethod
    def event_types(cls) -> tuple[str, ...]:
        """The event types that concern it, sorted: those that have a handler, or without handlers those that it reads."""
        return tuple(sorted({*cls._handlers, *cls.reads_events}))

    @classmethod
    def stored_types(cls) -> tuple[str, ...]:
        """The event types that have to be read from the store, sorted: those handled, and those that upcasters make into them."""
        return tuple(sorted(cls.upcasters.sources(cls.event_types())))

    @classmethod
    def has_handlers(cls) -> bool:
        """Whether there are handlers; without, its rows come by :meth:`statements` alone."""
        return bool(cls._handlers)

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        """SQL that does for a range of events what the handlers do, for authors who know how; none by default.

        In it, ``{events}`` stands for the events that are to be projected, each exactly once: a relation with the columns
        ``position``, ``stream``, ``type``, ``payload``, ``recorded_at``, ``version``, ``type_version`` and ``metadata``, in no order. The live name of an owned
        table in braces stands for the table to write. The statements are executed one after the other, in one transaction
        with the checkpoint, for one range after the other: what is there already has to be added to.

        :param database: ``postgresql``, ``mysql``, ``mariadb`` or ``sqlite``
        :returns: none where the handlers are to be used
        """
        return ()

    def project(self, event: Event, rows: Rows) -> None:
        """Runs the handler of one event; an event of a type without a handler changes nothing."""
        handler = self._handlers.get(event.type)
        if handler is not None:
            handler(self, event, rows)


def _before(declared: Handle, by_hand: Handler | None) -> Handler:
    """A handler that does what is declared, and then what was written by hand."""

    def handle(self: Projector, event: Event, rows: Rows) -> None:
        declared(event, rows)
        if by_hand is not None:
            by_hand(self, event, rows)

    return handle


def _in_turn(projectors: Sequence[Projector], event_type: str) -> Handler:
    """What these do one after the other with an event of a type that each of them handles."""
    # Bound beforehand, past a `project` that does nothing else: this is run for each event.
    handlers = tuple(
        MethodType(each._handlers[event_type], each) if type(each).project is Projector.project else each.project
        for each in projectors
    )

    def handle(self: Projector, event: Event, rows: Rows) -> None:
        for each in handlers:
            each(event, rows)

    return handle
