"""The replays of a run: the progress of each, its rate, and why it waits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from projection_rebuild.api import SHARD, Place, Progress, RunSeen, is_before, share_done
from projection_rebuild_airflow import links, task_ids
from projection_rebuild_airflow.page.seen import Seen
from projection_rebuild_airflow.page.views.tones import Tone
from projection_rebuild_airflow.page.words import count, span


@dataclass(frozen=True)
class ReplayView:
    """The replay of one projector, or of one of its shards.

    :param share: the share of the work that is done, from 0 to 1
    :param events: the number of events that it has handled
    :param left: the estimated time that it still takes
    :param lag: its distance from the head of the event store
    :param rests: for how long it has been waiting, and why; empty: it does not wait
    """

    projector: str
    share: float
    tone: Tone
    events: str
    rate: str
    left: str
    lag: str
    rests: str
    href: str


def replay_view(seen: Seen, run: RunSeen, progress: Progress) -> ReplayView:
    """One replay of a run."""
    has_begun = progress.position is not None
    is_done = has_begun and not is_before(progress.position, progress.head)
    share = share_done(seen.look.first, progress.position, progress.head) if has_begun else 0.0
    return ReplayView(
        projector=f"{progress.projector}, shard {progress.shard}" if progress.shard else progress.projector,
        share=round(share, 4),
        tone=Tone.OK if is_done else Tone.BUSY if has_begun else Tone.IDLE,
        events=_events(progress, share, is_done) if has_begun else "not begun",
        rate=_rate(run, progress),
        left="replayed" if is_done else _time_left(progress, share),
        lag=_lag(progress.position, seen.look.traffic.head),
        rests=_rests(seen, run, progress),
        href=_href(seen, run, progress),
    )


def _events(progress: Progress, share: float, is_done: bool) -> str:
    total = f" of about {count(progress.events / share)}" if share and not is_done else ""
    return f"{count(progress.events)}{total} events"


def _rate(run: RunSeen, progress: Progress) -> str:
    """Empty for a rollback: its count includes the events that the retired tables already hold."""
    if run.report.plan.rolls_back or not progress.events or not progress.seconds:
        return ""
    return f"{count(progress.events / progress.seconds)} events/s"


def _time_left(progress: Progress, share: float) -> str:
    left = timedelta(seconds=progress.seconds * (1 - share) / share) if share else None
    return f"{span(left)} left" if left else ""


def _lag(position: Place, head: Place) -> str:
    if head is None:
        return ""
    return "at the beginning" if position is None else f"{count(max(0, head - position))} positions behind the head"


def _rests(seen: Seen, run: RunSeen, progress: Progress) -> str:
    worker = f"{progress.projector}{SHARD}{progress.shard - 1}" if progress.shard else progress.projector
    wait = next((wait for wait in run.waits if wait.worker == worker), None)
    return f"rests for {span(seen.at - wait.since)}: {wait.why}" if wait else ""


def _href(seen: Seen, run: RunSeen, progress: Progress) -> str:
    """The link to the task of a replay.

    One mapped task replays all shards; a rollback has no task for a single replay.
    """
    dag_run = seen.dag_run(run)
    if dag_run is None or run.report.plan.rolls_back:
        return ""
    if progress.shard:
        return f"{links.task(*dag_run.id, task_ids.REPLAY_SHARDS)}/mapped"
    return links.task(*dag_run.id, task_ids.replay_of(progress.projector))
