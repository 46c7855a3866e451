"""The buttons of a run, for a user who may change it."""

from __future__ import annotations

from dataclasses import dataclass

from projection_rebuild.api import PAUSE, SWAP_NOW, Report, RunState
from projection_rebuild_airflow import links, task_ids
from projection_rebuild_airflow.page.seen import DagRunSeen
from projection_rebuild_airflow.page.views.task_states import AWAITING_INPUT, DEFERRED, FAILED


@dataclass(frozen=True)
class Action:
    """A button of a run.

    :param name: the last segment of the route that it posts to
    :param warning: the question that the page asks first
    """

    name: str
    label: str
    warning: str


PAUSE_REPLAYS = Action("pause", "Pause", "Let all replays of this run commit what they have, and wait?")
RESUME_REPLAYS = Action("resume", "Resume", "Let the replays of this run go on?")
SWITCH_NOW = Action(
    "swap-now", "Swap now", "Switch as soon as verification (and approval) has passed, without waiting for low traffic?"
)
APPROVE = Action(
    "approve",
    "Approve",
    f"Let green replace blue, as this verification found it? Clear the task {task_ids.APPROVE_SWAP} afterwards.",
)
REJECT = Action(
    "reject",
    "Reject",
    f"Leave blue live, and end this run without a switch? Clear the task {task_ids.APPROVE_SWAP} afterwards.",
)


def actions_for(report: Report, dag_run: DagRunSeen) -> list[Action]:
    """The buttons that make sense for a run as it is now."""
    state = RunState(report.state)
    if state.has_begun_switch or state.is_over:
        return []
    signals = {signal.name for signal in report.notes}
    actions = [] if SWAP_NOW in signals else [SWITCH_NOW]
    if PAUSE in signals:
        actions.append(RESUME_REPLAYS)
    elif not state.is_verified:
        actions.append(PAUSE_REPLAYS)
    # Airflow asks about the first verification only. The page takes the answer about a later one.
    if state.is_verified and dag_run.tasks.get(task_ids.APPROVE_SWAP) == FAILED:
        actions += [APPROVE, REJECT]
    return actions


def answer_href(dag_run: DagRunSeen) -> str:
    """The page of Airflow on which a person answers an open approval; empty: none is open."""
    if dag_run.tasks.get(task_ids.APPROVE_SWAP) not in (AWAITING_INPUT, DEFERRED):
        return ""
    return f"{links.task(*dag_run.id, task_ids.APPROVE_SWAP)}/required_actions"
