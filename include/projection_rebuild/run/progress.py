"""Logs how far a replay has come: a line from time to time, and one at the end."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

from projection_rebuild.ledger import SHARD, Checkpoint
from projection_rebuild.model.positions import Place, said, share_done
from projection_rebuild.run.context import Context

LOG_EVERY = 5.0
"""The least seconds between two lines of progress."""


class ProgressLog:
    """Logs the progress of a replay, at most once every :data:`LOG_EVERY` seconds.

    It estimates the total from the share of positions that are done, because counting a large store takes long.

    :param first: the checkpoint at which this attempt began
    :param name: the name in the lines
    """

    def __init__(self, context: Context, first: Checkpoint, name: str) -> None:
        self._name = name
        self._context = context
        self._first = first
        self._lowest = context.store.first()
        self._started = self._logged = time.monotonic()

    def __call__(self, now: Checkpoint) -> None:
        """Logs and reports a checkpoint, if a line is due or the replay has ended."""
        moment = time.monotonic()
        if moment - self._logged >= LOG_EVERY or not now.is_behind:
            self._logged = moment
            seconds = moment - self._started
            self._context.log(progress_line(self._name, now, self._first, seconds, self._lowest))
            # The names of metrics cannot have the separator of a shard.
            shown = replace(now, projector=now.projector.replace(SHARD, "-"))
            self._context.progress(shown, (now.events - self._first.events) / seconds if seconds else 0.0)


def progress_line(name: str, now: Checkpoint, first: Checkpoint, seconds: float, lowest: Place) -> str:
    """One line of progress.

    For example: ``P: 42.0%, 21,000 of about 50,000 events, 9,000/s, 0:00:03 left, at position 42,000 of 100,000``.

    :param now: the checkpoint that the replay has reached
    :param first: the checkpoint at which this attempt began
    :param seconds: the time since then
    :param lowest: the lowest position of the store
    """
    share = share_done(lowest, now.position, now.head)
    gained = share - share_done(lowest, first.position, now.head)
    done = now.events - first.events
    rate = done / seconds if seconds else 0.0
    left = timedelta(seconds=round(seconds * (1 - share) / gained)) if gained else None
    # In a partial rebuild, the count begins with the events that the copied rows hold.
    total = f"{now.events:,}" if share >= 1 else f"about {round(now.events + done * (1 - share) / gained):,}" if gained else "?"
    head = "" if now.head is None else f" of {now.head:,}"
    return (
        f"{name}: {share:.1%}, {now.events:,} of {total} events, {rate:,.0f}/s, {left if left is not None else '?'} left, "
        f"at {said(now.position)}{head}"
    )
