"""How far a replay has come, for logs: a line now and then, and one at the end."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

from projection_rebuild.ledger import SHARD, Checkpoint
from projection_rebuild.model.positions import Place, said, share_done
from projection_rebuild.run.context import Context

LOG_EVERY = 5.0
"""Seconds between two lines of progress."""


class ProgressLog:
    """Lines of progress, at most one every few seconds.

    The total is an estimate from the share of positions done, so that nobody has to count a large store.
    """

    def __init__(self, context: Context, first: Checkpoint, name: str) -> None:
        self._name = name
        self._context = context
        self._first = first
        self._lowest = context.store.first()
        self._started = self._spoken = time.monotonic()

    def __call__(self, now: Checkpoint) -> None:
        """Says how far the replay is."""
        moment = time.monotonic()
        if moment - self._spoken >= LOG_EVERY or not now.is_behind:
            self._spoken = moment
            seconds = moment - self._started
            self._context.log(progress_line(self._name, now, self._first, seconds, self._lowest))
            # By a name that metrics take.
            shown = replace(now, projector=now.projector.replace(SHARD, "-"))
            self._context.progress(shown, (now.events - self._first.events) / seconds if seconds else 0.0)


def progress_line(name: str, now: Checkpoint, first: Checkpoint, seconds: float, lowest: Place) -> str:
    """``Projector: 42.0 %, 21,000 of about 50,000 events, 9,000/s, 0:00:03 left, at position 42,000 of 100,000``.

    :param first: where this attempt began
    :param lowest: the lowest position of the store
    """
    share = share_done(lowest, now.position, now.head)
    gained = share - share_done(lowest, first.position, now.head)
    done = now.events - first.events
    rate = done / seconds if seconds else 0.0
    left = timedelta(seconds=round(seconds * (1 - share) / gained)) if gained else None
    # In a part, the events that the copied rows hold are counted from the start.
    total = f"{now.events:,}" if share >= 1 else f"about {round(now.events + done * (1 - share) / gained):,}" if gained else "?"
    head = "" if now.head is None else f" of {now.head:,}"
    return (
        f"{name}: {share:.1%}, {now.events:,} of {total} events, {rate:,.0f}/s, {left if left is not None else '?'} left, "
        f"at {said(now.position)}{head}"
    )
