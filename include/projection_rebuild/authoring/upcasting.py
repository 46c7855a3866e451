"""Upcasters bring old events up to date, by type and version, before any handler sees them.

A projector names its upcasters, so a replay and the live application use the same ones.
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

    :param into: the types of events that it may return, with their versions
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

    An upcaster is a function of its event alone, and changes neither the event nor its payload. The engine applies
    upcasters until an event has reached the end of its chain. A version that has no upcaster and ends no chain is an
    error.

    :param current: by type, the version that the handlers know, if it is not 1 and no upcaster returns it
    """

    def __init__(self, *, current: Mapping[str, Version] | None = None) -> None:
        self._declared = dict(current or {})
        self._steps: dict[_Node, _Step] = {}
        self._known: dict[str, frozenset[Version]] = {}
        self._find_current_versions()

    def upcasts(
        self, event_type: str, version: Version = 1, *, into: Sequence[str | tuple[str, Version]] | None = None
    ) -> Callable[[U], U]:
        """Marks a function ``(event) -> event or events`` as the upcaster of one version of a type.

        :param into: the types of events that it may return, each with its version; a type alone means the next version
            of this type, or version 1 of another type. None: the next version of this type
        :raises ProjectorError: this version has an upcaster already, or the upcasters form a circle
        """
        targets = dict(self._target(target, event_type, version) for target in (into if into is not None else [event_type]))

        def mark(upcaster: U) -> U:
            self._add((event_type, version), _Step(upcaster, targets))
            return upcaster

        return mark

    def drops(self, event_type: str, version: Version = 1) -> None:
        """Declares that no handler needs events of this version any more.

        :raises ProjectorError: see :meth:`upcasts`
        """
        self._add((event_type, version), _Step(lambda event: (), {}))

    def current(self, event: Event) -> Sequence[Event]:
        """The current form of an event: itself, another event, several in their order, or none.

        :raises UndecodableEvent: the engine cannot decode the stored event
        :raises UpcastError: its version is unknown, or its upcaster fails
        """
        if isinstance(event, Undecodable):
            raise UndecodableEvent(event.type, event.position, event.cause)
        step = self._steps.get((event.type, event.type_version))
        if step is None:
            if event.type_version not in self._known.get(event.type, _FIRST):
                raise _failed(event, "its version is unknown: add an upcaster for it, or name it in Upcasters(current={...})")
            return (event,)
        return [current for result in self._apply(step, event) for current in self.current(result)]

    def bring_up_to_date(self, events: Sequence[Event]) -> Sequence[Event]:
        """The current forms of events, in their order.

        :raises PoisonEvent: see :meth:`current`
        """
        touched = self._known
        for event in events:
            if event.type in touched or event.type_version != 1 or event.__class__ is not Event:
                return [current for stored in events for current in self.current(stored)]
        return events

    def sources(self, event_types: Iterable[str]) -> set[str]:
        """The given types, and all types whose events upcasters may turn into them."""
        types = set(event_types)
        growing = True
        while growing:
            growing = False
            for (event_type, _), step in self._steps.items():
                if event_type not in types and types & step.into.keys():
                    types.add(event_type)
                    growing = True
        return types

    def concern(self, event_types: Iterable[str]) -> bool:
        """Whether any of these types has versions."""
        return not self._known.keys().isdisjoint(event_types)

    def dropped(self) -> set[str]:
        """The types with a version that :meth:`drops` names."""
        return {event_type for (event_type, _), step in self._steps.items() if not step.into}

    def _apply(self, step: _Step, event: Event) -> Collection[Event]:
        try:
            returned = step.upcaster(event)
            results = [returned] if isinstance(returned, Event) else list(returned)
        except Exception as error:
            if trouble := trouble_at_event(error, "an upcaster", event.type, event.position):
                raise trouble from None
            # Without the original exception, since its text may quote the payload.
            raise _failed(event, f"its upcaster fails with {word_for(error)}", word_for(error)) from None
        for result in results:
            if not isinstance(result, Event) or result.type not in step.into or result.position != event.position:
                raise _failed(event, f"its upcaster gives something else than {', '.join(step.into)} made by event.evolved(...)")
            if result is event:
                raise _failed(event, "its upcaster gives the event itself; give event.evolved(...)")
            result.type_version = step.into[result.type]
        return results

    @staticmethod
    def _target(target: str | tuple[str, Version], event_type: str, version: Version) -> _Node:
        if not isinstance(target, str):
            return target
        if target != event_type:
            return target, 1
        if not isinstance(version, int):
            raise ProjectorError(f"upcaster of {event_type} {version}: say which version it gives, into=[({event_type!r}, ...)]")
        return target, version + 1

    def _add(self, node: _Node, step: _Step) -> None:
        if node in self._steps:
            raise ProjectorError(f"there are two upcasters of {node[0]} version {node[1]}; keep one")
        self._steps[node] = step
        if circle := self._circle(node, [node]):
            del self._steps[node]
            path = " -> ".join(f"{event_type} {version}" for event_type, version in circle)
            raise ProjectorError(f"upcasters go round in a circle: {path}; give one of them a higher version")
        self._find_current_versions()

    def _circle(self, start: _Node, path: list[_Node]) -> list[_Node] | None:
        step = self._steps.get(path[-1])
        for node in step.into.items() if step else ():
            if node == start:
                return [*path, node]
            if circle := self._circle(start, [*path, node]):
                return circle
        return None

    def _find_current_versions(self) -> None:
        """Finds the current versions: the declared ones, and those that an upcaster returns and none takes."""
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
