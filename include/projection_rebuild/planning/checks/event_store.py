"""The event store: its table, the engine's privileges, and whether a replay can read its events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from projection_rebuild.authoring.events import Event, Undecodable
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import PoisonEvent
from projection_rebuild.model.findings import Finding
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check
from projection_rebuild.spec.replay import OnError

SAMPLE = 500
"""The number of sampled events that one query reads."""


@check(Scope.EVENT_STORE, "{event_store}")
def requirements(planned: PreflightInput) -> list[Finding]:
    """Table, columns and rights that reading, fencing and ordering the events need."""
    return planned.context.store.preflight()


@check(Scope.EVENTS, "{event_store}")
def types(planned: PreflightInput) -> Iterator[Finding]:
    """Event types without a handler, and handlers without events: often a type has been renamed on one side only."""
    stored = set(planned.context.store.types())
    projectors_of_spec = planned.context.projectors.values()
    handled = {
        handled_type
        for projector in projectors_of_spec
        for handled_type in (*projector.stored_types(), *projector.upcasters.dropped())
    }
    if stored - handled:
        yield Finding(
            about="events",
            problem=f"no projector of this spec handles {', '.join(sorted(stored - handled))}",
            remedy="if one should, give it a handler",
        )
    for name in planned.projectors:
        unseen = set(planned.context.projector(name).stored_types()) - stored
        if unseen:
            yield Finding(
                about="events",
                problem=f"{name} handles {', '.join(sorted(unseen))}, which the store does not hold",
                remedy="if it should, correct the name of the type",
            )


@check(Scope.EVENTS, "{event_store}")
def samples(planned: PreflightInput) -> Iterator[Finding]:
    """Events that a replay cannot read; the check reads the first and the last event of each type."""
    store = planned.context.store
    positions = sorted({position for pair in store.samples().values() for position in pair})
    chosen = [planned.context.projector(name) for name in planned.projectors]
    metadata = any(projector.needs_metadata for projector in chosen)
    for start in range(0, len(positions), SAMPLE):
        for event in store.find(positions[start : start + SAMPLE], metadata=metadata):
            users = [projector for projector in chosen if event.type in projector.stored_types()]
            yield from _unreadable(planned, event, users)


def _unreadable(planned: PreflightInput, event: Event, users: Sequence[type[Projector]]) -> Iterator[Finding]:
    """A finding if an event cannot be decoded or upcast.

    :param users: the chosen projectors that handle the event
    """
    sets_aside = planned.context.spec.replay.on_error is OnError.DEAD_LETTER
    try:
        for projector in users or ([Projector] if isinstance(event, Undecodable) else []):
            projector.upcasters.current(event)
    except PoisonEvent as error:
        effect = "; the replay sets such events aside" if sets_aside else "; the replay would end there" if users else ""
        yield Finding(
            about=f"the event {event.type} at position {event.position:,}",
            problem=f"{error.cause if isinstance(event, Undecodable) else error.message}{effect}",
            remedy="correct what decodes it (event_store.decoder, an upcaster), or the event",
            refuses=bool(users) and not sets_aside,
        )
