"""The steps of a run: the tasks of its DAG run, with all replays as one step."""

from __future__ import annotations

from dataclasses import dataclass

from projection_rebuild_airflow import links, task_ids
from projection_rebuild_airflow.page.seen import DagRunSeen
from projection_rebuild_airflow.page.views.task_states import AWAITING_INPUT, DEFERRED, UP_FOR_RETRY, most_urgent, tone_of
from projection_rebuild_airflow.page.views.tones import Tone

_NAMES = {
    task_ids.PLAN: "plan",
    task_ids.CLONE_TABLES: "clone",
    task_ids.REPLAY: "replay",
    task_ids.BRING_OLD_TABLES_UP_TO_DATE: "bring up to date",
    task_ids.VERIFY_COUNTS: "verify",
    task_ids.APPROVE_SWAP: "approve",
    task_ids.WAIT_FOR_LOW_TRAFFIC: "wait for low traffic",
    task_ids.ATOMIC_SWAP: "switch",
    task_ids.RECONCILE: "reconcile",
    task_ids.WAIT_FOR_RETENTION: "keep old tables",
    task_ids.DROP_OLD_TABLES: "drop old tables",
}
"""The names of tasks and task groups on the page, in the order in which our DAGs run them."""

_WAITS = {task_ids.APPROVE_SWAP: "waits for approval", task_ids.WAIT_FOR_LOW_TRAFFIC: "waits for low traffic"}
"""The headline while one of these tasks waits without a worker."""


@dataclass(frozen=True)
class Step:
    """One task of a run, or the group of its replays.

    :param task_id: the id of the task or of the group
    :param airflow_state: its state as Airflow names it; of a group, the most urgent one
    :param state: the same state in words
    :param href: the link to its log; of a group, to the run
    """

    task_id: str
    name: str
    airflow_state: str
    state: str
    tone: Tone
    href: str


def steps_of(dag_run: DagRunSeen) -> list[Step]:
    """The steps of a DAG run in their order, without tasks that the page does not know."""
    states: dict[str, list[str]] = {}
    for task_id, state in dag_run.tasks.items():
        states.setdefault(task_ids.outermost(task_id), []).append(state)
    return [_step(dag_run, task_id, most_urgent(states[task_id])) for task_id in _NAMES if task_id in states]


def _step(dag_run: DagRunSeen, task_id: str, state: str) -> Step:
    is_group = task_id == task_ids.REPLAY
    return Step(
        task_id=task_id,
        name=_NAMES[task_id],
        airflow_state=state,
        state=state.replace("_", " ") or "not yet",
        tone=tone_of(state),
        href=links.run(*dag_run.id) if is_group else links.task(*dag_run.id, task_id),
    )


def most_urgent_step(steps: list[Step]) -> tuple[str, Tone] | None:
    """The headline and tone of the step that stands for the run; None: no step has failed, works or waits.

    It is the first step that failed; else the first one at work; else the first one that waits.
    """
    for tone in (Tone.BAD, Tone.BUSY, Tone.WAIT):
        for step in steps:
            if step.tone is tone:
                return _headline(step), tone
    return None


def _headline(step: Step) -> str:
    if step.tone is Tone.BAD:
        return f"failed at {step.name}"
    if step.tone is Tone.BUSY:
        return f"at work on {step.name}"
    if step.airflow_state in (DEFERRED, AWAITING_INPUT):
        return _WAITS.get(step.task_id, f"waits: {step.name}")
    if step.airflow_state == UP_FOR_RETRY:
        return f"{step.name} failed and is tried again soon"
    return f"{step.name} is about to begin"
