"""A run that is under way, or that needs an operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from projection_rebuild.api import PAUSE, DeadLetter, Report, RunSeen
from projection_rebuild_airflow import links
from projection_rebuild_airflow.page.seen import DagRunSeen, Seen
from projection_rebuild_airflow.page.views.actions import Action, actions_for, answer_href
from projection_rebuild_airflow.page.views.replays import ReplayView, replay_view
from projection_rebuild_airflow.page.views.reports import facts_of, title_of
from projection_rebuild_airflow.page.views.steps import Step, most_urgent_step, steps_of
from projection_rebuild_airflow.page.views.task_states import FAILED
from projection_rebuild_airflow.page.views.tones import Tone
from projection_rebuild_airflow.page.views.verification import VerificationView, verification_view
from projection_rebuild_airflow.page.words import away, count, moment

MOST_DEAD_LETTERS = 20
"""The page shows at most this many dead letters of a run."""


@dataclass(frozen=True)
class RunView:
    """One run.

    :param key: its name in the ledger
    :param dag_id: its DAG; empty: Airflow knows no DAG run behind it
    :param headline: its current activity, or its problem
    :param since: when it began
    :param dead_letters: its first dead letters
    :param more_dead_letters: the number of its other dead letters
    :param answer_href: the page of Airflow on which a person answers an open approval
    :param actions: the buttons that the user may press
    """

    key: str
    dag_id: str
    dag_run_id: str
    title: str
    headline: str
    tone: Tone
    since: str
    facts: Sequence[str]
    href: str
    steps: Sequence[Step]
    replays: Sequence[ReplayView]
    dead_letters: Sequence[str]
    more_dead_letters: int
    verification: VerificationView | None
    answer_href: str
    actions: Sequence[Action]


def run_view(seen: Seen, run: RunSeen, may_act: Callable[[str], bool]) -> RunView:
    """The view of one run. A run that Airflow does not know has no steps, links and buttons.

    :param may_act: takes the id of a DAG; whether the user may change its runs
    """
    report, dag_run = run.report, seen.dag_run(run)
    steps = steps_of(dag_run) if dag_run else []
    headline, tone = _headline(report, dag_run, steps)
    return RunView(
        key=report.run_id,
        dag_id=dag_run.id.dag_id if dag_run else "",
        dag_run_id=dag_run.id.run_id if dag_run else "",
        title=title_of(report),
        headline=headline,
        tone=tone,
        since=f"since {moment(report.started_at, seen.spec.zone)} ({away(report.started_at, seen.at)})",
        facts=facts_of(seen, report),
        href=links.run(*dag_run.id) if dag_run else "",
        steps=steps,
        replays=[replay_view(seen, run, progress) for progress in run.progress],
        dead_letters=[_dead_letter(letter) for letter in run.dead_letters[:MOST_DEAD_LETTERS]],
        more_dead_letters=max(0, len(run.dead_letters) - MOST_DEAD_LETTERS),
        verification=verification_view(report.verification),
        answer_href=answer_href(dag_run) if dag_run else "",
        actions=actions_for(report, dag_run) if dag_run and may_act(dag_run.id.dag_id) else [],
    )


def _headline(report: Report, dag_run: DagRunSeen | None, steps: list[Step]) -> tuple[str, Tone]:
    pause = next((signal for signal in report.notes if signal.name == PAUSE), None)
    if pause is not None:
        return f"paused by {pause.by}", Tone.WAIT
    if (urgent := most_urgent_step(steps)) is not None:
        return urgent
    if dag_run is not None and dag_run.state == FAILED:
        return "failed", Tone.BAD
    return f"{report.state}", Tone.BUSY


def _dead_letter(letter: DeadLetter) -> str:
    return f"{letter.event_type} at position {count(letter.position)}, {letter.projector}: {letter.error}"
