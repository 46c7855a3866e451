"""The replays of a run: how far each is, how fast, and why it stands still."""

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

    :param share: how much of it is done, from 0 to 1
    :param events: how many events it has handled
    :param left: how long it still takes
    :param lag: how far it is behind the head of the event store
    :param rests: for how long it has stood still, and why; empty: it goes on
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
    rate = progress.events / progress.seconds if progress.seconds else 0.0
    return ReplayView(
        projector=f"{progress.projector}, shard {progress.shard}" if progress.shard else progress.projector,
        share=round(share, 4),
        tone=Tone.OK if is_done else Tone.BUSY if has_begun else Tone.IDLE,
        events=_events(progress, share, is_done) if has_begun else "not begun",
        rate=f"{count(rate)} events/s" if rate else "",
        left="replayed" if is_done else _time_left(progress, share),
        lag=_lag(progress.position, seen.look.traffic.head),
        rests=_rests(seen, run, progress),
        href=_href(seen, run, progress),
    )


def _events(progress: Progress, share: float, is_done: bool) -> str:
    total = f" of about {count(progress.events / share)}" if share and not is_done else ""
    return f"{count(progress.events)}{total} events"


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
    """The task of a replay. One mapped task replays all shards; a rollback has no task for a single replay."""
    dag_run = seen.dag_run(run)
    if dag_run is None or run.report.plan.rolls_back:
        return ""
    if progress.shard:
        return f"{links.task(*dag_run.id, task_ids.REPLAY_SHARDS)}/mapped"
    return links.task(*dag_run.id, task_ids.replay_of(progress.projector))
