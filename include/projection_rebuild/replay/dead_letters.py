"""Retries the dead letters of an earlier attempt, where the order of their streams still allows it."""

from __future__ import annotations

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.model.positions import is_before
from projection_rebuild.replay.pipeline.pipeline import Pipeline
from projection_rebuild.run.step import Step


def retry_dead_letters(step: Step, projector: type[Projector], pipeline: Pipeline) -> None:
    """Projects the events that an earlier attempt has set aside, if no later event of their stream has been projected.

    Events of one stream are projected in their order, so the others stay dead letters; the log says why.
    """
    letters = step.ledger.dead_letters.of_run(projector.name())
    if not letters:
        return
    remaining = {letter.position for letter in letters}
    stored = step.context.store.find(sorted(remaining), metadata=projector.needs_metadata)
    events = {event.position: event for event in stored}
    streams = sorted({event.stream for event in events.values() if event.stream is not None})
    reached = pipeline.writer.checkpoint.position
    later = step.context.store.last_positions(streams, reached, projector.stored_types(), without=remaining)
    # Streams with an event that stays set aside: their later events stay as well.
    stuck: set[str] = set()
    for letter in letters:
        event = events.get(letter.position)
        if event is None or event.stream in stuck:
            continue
        if event.stream is None:
            step.log(
                f"{letter.projector}: the event at position {letter.position} stays set aside, since it has no stream: the engine does not know "
                "which later events depend on it. To project it, clear clone_tables and what follows"
            )
            continue
        if is_before(event.position, later.get(event.stream)):
            step.log(
                f"{letter.projector}: the event at position {letter.position} stays set aside, since later events of its stream have been "
                "projected without it. To project it, clear clone_tables and what follows"
            )
        elif pipeline.retry(letter, event):
            step.log(f"{letter.projector}: the event at position {letter.position}, set aside before, has been projected")
            remaining.discard(letter.position)
            continue
        stuck.add(event.stream)
