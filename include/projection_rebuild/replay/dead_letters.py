"""Retries the events that an earlier attempt has made dead letters, where that is still right."""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.model.positions import is_before
from projection_rebuild.replay.pipeline.pipeline import Pipeline
from projection_rebuild.run.context import Context


def retry_dead_letters(context: Context, connection: sa.Connection, projector: type[Projector], pipeline: Pipeline) -> None:
    """Projects the events that an earlier attempt has set aside, where that is still right.

    Events of one stream go in their order: one whose stream has gone on without it cannot come late.
    """
    letters = context.ledger.dead_letters.of_run(connection, context.run_id, projector.name())
    if not letters:
        return
    left = {letter.position for letter in letters}
    stored = context.store.find(sorted(left), metadata=projector.needs_metadata)
    events = {event.position: event for event in stored}
    streams = sorted({event.stream for event in events.values() if event.stream is not None})
    reached = pipeline.writer.checkpoint.position
    later = context.store.last_positions(streams, reached, projector.stored_types(), without=left)
    stuck: set[str] = set()
    for letter in letters:
        event = events.get(letter.position)
        if event is None or event.stream in stuck:
            continue
        if event.stream is None:
            context.log(
                f"{letter.projector}: the event at position {letter.position} stays set aside, since it has no stream, so that nobody knows which "
                "later events had to wait for it; to have it, clear clone_tables and what follows"
            )
            continue
        if is_before(event.position, later.get(event.stream)):
            context.log(
                f"{letter.projector}: the event at position {letter.position} stays set aside, since later events of its stream have been "
                "projected without it; to have it, clear clone_tables and what follows"
            )
        elif pipeline.retry(letter, event):
            context.log(f"{letter.projector}: the event at position {letter.position}, set aside before, has been projected")
            left.discard(letter.position)
            continue
        stuck.add(event.stream)
