"""What a replay is going to cost: the events of each projector, and the time by the rates of the last runs. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from projection_rebuild.model.plan import ReplayEstimate
from projection_rebuild.model.positions import BEGINNING, Place
from projection_rebuild.run.context import Context
from projection_rebuild.run.record import history

RUNS = 20
"""Runs back in which a projector's rate is looked for."""


def estimate(context: Context, projectors: Iterable[str], head: Place, shards: Mapping[str, int]) -> list[ReplayEstimate]:
    """What to expect of each projector's replay, in the given order. Counts the store once.

    :param head: the position up to which events are counted
    :param shards: into how many shards a projector is divided; those that are not have no entry
    """
    counts, rates = context.store.counts(BEGINNING, head), _rates(context)
    return [
        ReplayEstimate(
            projector=name,
            events=sum(counts.get(each, 0) for each in context.projector(name).event_types()),
            events_per_second=rates.get(name),
            shards=shards.get(name, 1),
        )
        for name in projectors
    ]


def _rates(context: Context) -> dict[str, float]:
    """Events per second of one worker by projector, each from the last whole run that has replayed it."""
    found: dict[str, float] = {}
    for report in history(context, RUNS):
        # A rollback replays next to nothing, and a part is as fast as its rows are far apart.
        if report.plan.rolls_back or report.plan.part:
            continue
        for each in report.replays:
            if each.events and each.seconds:
                # The time of shards is that of the slowest: the events are those of all.
                found.setdefault(each.projector, each.rate / report.plan.shards.get(each.projector, 1))
    return found
