"""The base class of projectors: a projector owns tables and has one handler for each event type that it projects.

The same class runs in a replay (on green, in bulk) and live in the application (on blue, one event at a time, in the
application's own transaction: :mod:`projection_rebuild.replay.inline`). It cannot tell which.
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

    A handler is a pure function of its event and the rows that it reads: no clock, no random numbers, no side effects.
    The engine may run it more than once for an event.
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
    """The row classes of the tables that this projector writes; no other projector writes them."""

    depends_on: ClassVar[tuple[type[Projector], ...]] = ()
    """Projectors that the engine replays before this one, for example because foreign keys refer to their tables."""

    reads: ClassVar[tuple[type, ...]] = ()
    """Row classes of other projectors that handlers read and never change. The engine replays their owners first."""

    composed_of: ClassVar[tuple[type[Projector], ...]] = ()
    """Projectors that the engine replays in one pass: each of them handles an event before the next event.

    So each sees the rows of the others as of the same event. The spec names this projector in place of its members. It
    owns their tables, and has no handlers of its own.
    """

    part: ClassVar[ByAggregate | ByPeriod | None] = None
    """How rows divide into aggregates or periods, for partial rebuilds; None: the engine only rebuilds all rows."""

    partition_by: ClassVar[str] = ""
    """The field of the payload (text or a whole number) by which the engine may divide a replay into shards.

    An event only touches rows with its own value of this field, and each row class has an attribute of this name that
    holds the value. Empty: the stream takes its place, if each row class names the attribute that holds it
    (``@row(..., stream="id")``). Otherwise the engine replays the events in their total order, without shards.
    """

    needs_metadata: ClassVar[bool] = False
    """Whether handlers read ``event.metadata``. Reading it costs time, so the engine only reads it if this is true."""

    version: ClassVar[str] = ""
    """The author's name for this version of the code; each run records it beside a hash of the source."""

    reads_events: ClassVar[tuple[str, ...]] = ()
    """The event types that :meth:`statements` read, for a projector without handlers."""

    upcasters: ClassVar[Upcasters] = Upcasters()
    """The upcasters that bring old events to the versions that the handlers know, in a replay and live.

    Usually all projectors of an application share one object.
    """

    declares: ClassVar[tuple[Declared, ...]] = ()
    """Declared tables, see :mod:`projection_rebuild.authoring.declared`; :attr:`owns` need not name their row classes.

    At an event they change their rows before the handler does, in the order given here.
    """

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
        """Adds the handlers of the declared tables.

        :raises ProjectorError: a declaration is wrong, or a table has two declarations
        """
        classes = [table.row_class for table in cls.declares]
        if twice := {row_class.__name__ for row_class in classes if classes.count(row_class) > 1}:
            raise ProjectorError(
                f"{cls.__name__} declares {', '.join(sorted(twice))} twice; say in one declaration what its rows are"
            )
        for table in cls.declares:
            table.finish()
        cls.owns = (*(row_class for row_class in classes if row_class not in cls.owns), *cls.owns)
        for event_type in declared_types(cls.declares):
            declared = handler(cls.declares, event_type)
            if declared is not None:
                cls._handlers[event_type] = _before(declared, cls._handlers.get(event_type))

    @classmethod
    def _compose(cls) -> None:
        """Takes over tables, dependencies and handlers of its members.

        :raises ProjectorError: the class has handlers or tables of its own, or its members do not fit together
        """
        members, own = cls.composed_of, [value for value in vars(cls).values() if hasattr(value, "__handles__")]
        if own or "owns" in vars(cls):
            raise ProjectorError(
                f"{cls.__name__} is composed_of others, and has only what they have; take its own handlers and `owns` away"
            )
        if without_handlers := [member.__name__ for member in members if not member.has_handlers()]:
            raise ProjectorError(
                f"{cls.__name__}: {', '.join(without_handlers)} has no handlers, only SQL; nothing of it goes event by event"
            )
        if len({id(member.upcasters) for member in members if member.upcasters is not Projector.upcasters}) > 1:
            raise ProjectorError(f"{cls.__name__}: its members have different upcasters; give them one object")
        cls.owns = tuple(row_class for member in members for row_class in member.owns)
        cls.reads = tuple(
            dict.fromkeys(row_class for member in members for row_class in member.reads if row_class not in cls.owns)
        )
        depends_on = (needed for member in members for needed in member.depends_on if needed not in members)
        cls.depends_on = tuple(dict.fromkeys(depends_on))
        cls.needs_metadata = any(member.needs_metadata for member in members)
        cls.upcasters = next(
            (member.upcasters for member in members if member.upcasters is not Projector.upcasters), Projector.upcasters
        )
        instances = tuple(member() for member in members)
        types = dict.fromkeys(event_type for member in members for event_type in member._handlers)
        cls._handlers = {
            event_type: _in_turn([member for member in instances if event_type in member._handlers], event_type)
            for event_type in types
        }

    @classmethod
    def name(cls) -> str:
        """The projector's name in forms, tasks and the ledger: its class name."""
        return cls.__name__

    @classmethod
    def kinds(cls) -> tuple[RowType, ...]:
        """The row types of the owned tables."""
        return tuple(row_type(row_class) for row_class in cls.owns)

    @classmethod
    def partition(cls) -> Partition | None:
        """How events and rows divide into shards; None: they do not.

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
        """The event types that it projects, sorted: those with a handler, and :attr:`reads_events`."""
        return tuple(sorted({*cls._handlers, *cls.reads_events}))

    @classmethod
    def stored_types(cls) -> tuple[str, ...]:
        """The event types to read from the store, sorted: those that it projects, and their sources by upcasters."""
        return tuple(sorted(cls.upcasters.sources(cls.event_types())))

    @classmethod
    def has_handlers(cls) -> bool:
        """Whether it has handlers; without them, :meth:`statements` alone write its rows."""
        return bool(cls._handlers)

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        """SQL that does for a range of events the work of the handlers; by default there is none.

        In the SQL, ``{events}`` stands for a relation that holds each event to project exactly once, in no order. Its
        columns are ``position``, ``stream``, ``type``, ``payload``, ``recorded_at``, ``version``, ``type_version`` and
        ``metadata``. The live name of an owned table in braces stands for the table to write. The engine executes the
        statements in their order, in one transaction with the checkpoint, and repeats this for each range of events. So
        a statement has to add to the rows of earlier ranges.

        :param database: ``postgresql``, ``mysql``, ``mariadb`` or ``sqlite``
        :returns: the statements; none: the engine uses the handlers
        """
        return ()

    def project(self, event: Event, rows: Rows) -> None:
        """Runs the handler of one event; without a handler for its type, does nothing."""
        handler = self._handlers.get(event.type)
        if handler is not None:
            handler(self, event, rows)


def _before(declared: Handle, by_hand: Handler | None) -> Handler:
    """A handler that runs the declared one, and then the one that the author has written."""

    def handle(self: Projector, event: Event, rows: Rows) -> None:
        declared(event, rows)
        if by_hand is not None:
            by_hand(self, event, rows)

    return handle


def _in_turn(projectors: Sequence[Projector], event_type: str) -> Handler:
    """A handler that calls the handlers of several projectors for one event type, one after the other."""
    # Bind the handlers once and skip the default `project`, since this code runs for each event.
    handlers = tuple(
        MethodType(projector._handlers[event_type], projector)
        if type(projector).project is Projector.project
        else projector.project
        for projector in projectors
    )

    def handle(self: Projector, event: Event, rows: Rows) -> None:
        for handle_event in handlers:
            handle_event(event, rows)

    return handle
