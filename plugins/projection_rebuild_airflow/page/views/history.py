"""The last runs, and charts of how long they took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from projection_rebuild.api import Report, RunState
from projection_rebuild_airflow import links
from projection_rebuild_airflow.ids import dag_run_of
from projection_rebuild_airflow.page.charts import Chart, Value, chart
from projection_rebuild_airflow.page.seen import Seen
from projection_rebuild_airflow.page.views.reports import facts_of, outcome_of, short_name, title_of
from projection_rebuild_airflow.page.views.tones import Tone
from projection_rebuild_airflow.page.views.verification import VerificationView, verification_view
from projection_rebuild_airflow.page.words import count, moment, span

_TONES = {RunState.FINISHED: Tone.OK, RunState.RECONCILED: Tone.OK, RunState.ABANDONED: Tone.IDLE}
"""The tone of each final state; runs in all other states are under way."""

_STATES = {RunState.RECONCILED: "switched", RunState.ABANDONED: "given up"}
"""States for which the page has another name."""


@dataclass(frozen=True)
class PastRunView:
    """A run of the history.

    :param key: its name in the ledger
    :param duration: from the plan to the switch
    :param pause: for how long the swap held writers
    :param report: the link to download its report, relative to our own page
    """

    key: str
    title: str
    started: str
    state: str
    tone: Tone
    reason: str
    by: str
    projectors: str
    duration: str
    pause: str
    rate: str
    href: str
    report: str
    facts: Sequence[str]
    verification: VerificationView | None


def past_run_view(seen: Seen, report: Report) -> PastRunView:
    """A run of the history, from its report."""
    dag_run = dag_run_of(report.run_id)
    duration, pause, rate = _duration(report), _pause(report), _rate(report)
    return PastRunView(
        key=report.run_id,
        title=title_of(report),
        started=moment(report.started_at, seen.spec.zone),
        state=state_in_words(seen, report),
        tone=_TONES.get(RunState(report.state), Tone.BUSY),
        reason=report.reason,
        by=report.by,
        projectors=_how_many_projectors(seen, report),
        duration=_seconds(duration) if duration is not None else "",
        pause=_seconds(pause) if pause is not None else "",
        rate=f"{count(rate)}/s" if rate is not None else "",
        href=links.run(*dag_run) if dag_run else "",
        report=links.report(*dag_run) if dag_run else "",
        facts=[*facts_of(seen, report), *outcome_of(report)],
        verification=verification_view(report.verification),
    )


def _how_many_projectors(seen: Seen, report: Report) -> str:
    """The number of projectors that a run has replayed, against those of the spec, which may have fewer by now."""
    replayed, known = len(report.plan.projectors), len(seen.spec.projectors)
    return f"{replayed} of {known}" if replayed <= known else f"{replayed}"


def state_in_words(seen: Seen, report: Report) -> str:
    """The state of a run, and the rollback that has taken it back, if any."""
    state = _STATES.get(RunState(report.state), report.state)
    rollbacks = (later for later in seen.past if later.plan.rolls_back == report.run_id and RunState.SWITCHED in later.moved)
    rollback = next(rollbacks, None)
    return f"{state}, taken back by {short_name(rollback.run_id)}" if rollback else state


def charts_of(reports: Sequence[Report]) -> list[Chart]:
    """Charts of the last runs: the time until the swap, the pause of writers, and the replay rate.

    :param reports: the newest first
    """
    return [
        _chart("until the switch", reports, _duration, _seconds),
        _chart("pause of writers", reports, _pause, _seconds),
        _chart("events per second", reports, _rate, count),
    ]


def _chart(
    label: str, reports: Sequence[Report], measure: Callable[[Report], float | None], in_words: Callable[[float], str]
) -> Chart:
    values = [_value(report, measure(report), in_words) for report in reversed(reports)]
    latest = next((value.value for value in reversed(values) if value.value is not None), None)
    return chart(label, values, in_words(latest) if latest is not None else "nothing yet")


def _value(report: Report, value: float | None, in_words: Callable[[float], str]) -> Value:
    text = f"{in_words(value)}: {short_name(report.run_id)}" if value is not None else ""
    return Value(value, text, kind="back" if report.plan.rolls_back else "")


def _duration(report: Report) -> float | None:
    """Seconds from the plan to the swap; None: it did not swap yet."""
    switched = report.moved.get(RunState.SWITCHED)
    return (switched - report.started_at).total_seconds() if switched else None


def _pause(report: Report) -> float | None:
    """Seconds for which the swap held writers; None: it did not swap yet."""
    return report.swap.pause_seconds if report.swap and RunState.SWITCHED in report.moved else None


def _rate(report: Report) -> float | None:
    """Events per second of all replays together, as if they ran one after the other.

    None: nothing is replayed yet, or the run is a rollback. A rollback's count includes the events that the retired
    tables already hold.
    """
    if report.plan.rolls_back:
        return None
    seconds = sum(replay.seconds for replay in report.replays)
    events = sum(replay.events for replay in report.replays)
    return events / seconds if events and seconds else None


def _seconds(seconds: float) -> str:
    return span(timedelta(seconds=seconds))
