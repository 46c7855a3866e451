"""Estimates a replay: the events of each projector, and its rate in the last runs. It only reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from projection_rebuild.model.plan import ReplayEstimate
from projection_rebuild.model.positions import BEGINNING, Place
from projection_rebuild.run.context import Context
from projection_rebuild.run.record import history

RUNS = 20
"""How many of the last runs are searched for a projector's rate."""


def estimate(context: Context, projectors: Iterable[str], head: Place, shards: Mapping[str, int]) -> list[ReplayEstimate]:
    """Estimates the replay of each projector, in the given order. It counts the store once.

    :param head: the position up to which the store is counted
    :param shards: the number of shards by projector; a projector without shards has no entry
    """
    counts, rates = context.store.counts(BEGINNING, head), _rates(context)
    return [
        ReplayEstimate(
            projector=name,
            events=sum(counts.get(event_type, 0) for event_type in context.projector(name).event_types()),
            events_per_second=rates.get(name),
            shards=shards.get(name, 1),
        )
        for name in projectors
    ]


def _rates(context: Context) -> dict[str, float]:
    """The events per second of one worker, by projector, from the last whole rebuild that replayed it."""
    rates: dict[str, float] = {}
    for report in history(context, RUNS):
        # A rollback replays too few events, and the rate of a part depends on how far apart its rows are.
        if report.plan.rolls_back or report.plan.part:
            continue
        for replay in report.replays:
            if replay.events and replay.seconds:
                # With shards, the seconds are those of the slowest shard, and the events are those of all shards.
                rates.setdefault(replay.projector, replay.rate / report.plan.shards.get(replay.projector, 1))
    return rates
