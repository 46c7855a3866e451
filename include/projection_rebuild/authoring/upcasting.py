"""Bringing old events up to date, by type and version, before any handler sees them.

Imports nothing but events and errors. A projector names its upcasters, so a replay and the live application use the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from projection_rebuild.authoring.events import Event, Undecodable
from projection_rebuild.errors import ProjectorError, UndecodableEvent, UpcastError
from projection_rebuild.errors.boundary import trouble_at_event, word_for

Upcaster = Callable[[Event], Event | Iterable[Event]]
U = TypeVar("U", bound=Upcaster)
Version = int | str
_Node = tuple[str, Version]

_FIRST: frozenset[Version] = frozenset({1})


@dataclass(frozen=True)
class _Step:
    """One upcaster.

    :param into: the version of each type that it may give
    """

    upcaster: Upcaster
    into: dict[str, Version]


class Upcasters:
    """The upcasters of an application.

    .. code-block:: python

        upcasters = Upcasters()


        @upcasters.upcasts("OrderPlaced", 1)  # from version 1 to version 2
        def with_currency(event):
            return event.evolved(payload={**event.payload, "currency": "EUR"})


        @upcasters.upcasts("OrderPlacedAndPaid", into=["OrderPlaced", "OrderPaid"])  # split
        def apart(event):
            return [event.evolved("OrderPlaced"), event.evolved("OrderPaid")]


        upcasters.drops("DebugNoted")

    An upcaster is a function of its event alone, and changes neither the event nor its payload. Chains are followed to their
    end. A version that neither has an upcaster nor is at the end of a chain is unknown, and an error.

    :param current: the version of types that the handlers know, where it is not 1 and no upcaster leads there
    """

    def __init__(self, *, current: Mapping[str, Version] | None = None) -> None:
        self._declared = dict(current or {})
        self._steps: dict[_Node, _Step] = {}
        self._known: dict[str, frozenset[Version]] = {}
        self._settle()

    def upcasts(
        self, event_type: str, version: Version = 1, *, into: Sequence[str | tuple[str, Version]] | None = None
    ) -> Callable[[U], U]:
        """Marks a function ``(event) -> event or events`` as what brings one version of a type on.

        :param into: the types that it may give, each with its version; a type alone is the next version of this one, or
            version 1 of another. None: this type
        :raises ProjectorError: there is one already, or a circle comes about
        """
        made = dict(self._target(each, event_type, version) for each in (into if into is not None else [event_type]))

        def mark(upcaster: U) -> U:
            self._add((event_type, version), _Step(upcaster, made))
            return upcaster

        return mark

    def drops(self, event_type: str, version: Version = 1) -> None:
        """Events of this version mean nothing any more.

        :raises ProjectorError: see :meth:`upcasts`
        """
        self._add((event_type, version), _Step(lambda event: (), {}))

    def current(self, event: Event) -> Sequence[Event]:
        """What an event is today: itself, another one, several in their order, or none.

        :raises UndecodableEvent: what the store holds of it cannot be decoded
        :raises UpcastError: its version is unknown, or its upcaster fails
        """
        if isinstance(event, Undecodable):
            raise UndecodableEvent(event.type, event.position, event.cause)
        step = self._steps.get((event.type, event.type_version))
        if step is None:
            if event.type_version not in self._known.get(event.type, _FIRST):
                raise _failed(event, "its version is unknown: add an upcaster for it, or name it in Upcasters(current={...})")
            return (event,)
        return [last for made in self._made(step, event) for last in self.current(made)]

    def bring_up_to_date(self, events: Sequence[Event]) -> Sequence[Event]:
        """What events are today, in their order.

        :raises PoisonEvent: see :meth:`current`
        """
        touched = self._known
        for event in events:
            if event.type in touched or event.type_version != 1 or event.__class__ is not Event:
                return [last for each in events for last in self.current(each)]
        return events

    def sources(self, event_types: Iterable[str]) -> set[str]:
        """The types of which events may become one of these, these themselves among them."""
        found = set(event_types)
        more = True
        while more:
            more = False
            for (event_type, _), step in self._steps.items():
                if event_type not in found and found & step.into.keys():
                    found.add(event_type)
                    more = True
        return found

    def concern(self, event_types: Iterable[str]) -> bool:
        """Whether any of these types has versions."""
        return not self._known.keys().isdisjoint(event_types)

    def dropped(self) -> set[str]:
        """The types of which some version is dropped."""
        return {event_type for (event_type, _), step in self._steps.items() if not step.into}

    def _made(self, step: _Step, event: Event) -> Collection[Event]:
        try:
            given = step.upcaster(event)
            made = [given] if isinstance(given, Event) else list(given)
        except Exception as error:
            if trouble := trouble_at_event(error, "an upcaster", event.type, event.position):
                raise trouble from None
            # Without the chain: an exception's text may quote the payload.
            raise _failed(event, f"its upcaster fails with {word_for(error)}", word_for(error)) from None
        for each in made:
            if not isinstance(each, Event) or each.type not in step.into or each.position != event.position:
                raise _failed(event, f"its upcaster gives something else than {', '.join(step.into)} made by event.evolved(...)")
            if each is event:
                raise _failed(event, "its upcaster gives the event itself; give event.evolved(...)")
            each.type_version = step.into[each.type]
        return made

    @staticmethod
    def _target(given: str | tuple[str, Version], event_type: str, version: Version) -> _Node:
        if not isinstance(given, str):
            return given
        if given != event_type:
            return given, 1
        if not isinstance(version, int):
            raise ProjectorError(f"upcaster of {event_type} {version}: say which version it gives, into=[({event_type!r}, ...)]")
        return given, version + 1

    def _add(self, node: _Node, step: _Step) -> None:
        if node in self._steps:
            raise ProjectorError(f"there are two upcasters of {node[0]} version {node[1]}; keep one")
        self._steps[node] = step
        if circle := self._circle(node, [node]):
            del self._steps[node]
            said = " -> ".join(f"{event_type} {version}" for event_type, version in circle)
            raise ProjectorError(f"upcasters go round in a circle: {said}; give one of them a higher version")
        self._settle()

    def _circle(self, start: _Node, path: list[_Node]) -> list[_Node] | None:
        step = self._steps.get(path[-1])
        for node in step.into.items() if step else ():
            if node == start:
                return [*path, node]
            if found := self._circle(start, [*path, node]):
                return found
        return None

    def _settle(self) -> None:
        """Works out which versions stand at the end: those that are declared, and what upcasters give and none takes."""
        known: dict[str, set[Version]] = {event_type: set() for event_type, _ in self._steps}
        ends = [node for step in self._steps.values() for node in step.into.items() if node not in self._steps]
        for event_type, version in [*ends, *self._declared.items()]:
            known.setdefault(event_type, set()).add(version)
        self._known = {event_type: frozenset(versions) for event_type, versions in known.items()}


def _failed(event: Event, why: str, cause: str = "UpcastError") -> UpcastError:
    return UpcastError(
        f"the event {event.type} version {event.type_version} at position {event.position} cannot be brought up to date: {why}",
        event_type=event.type,
        position=event.position,
        cause=cause,
    )
