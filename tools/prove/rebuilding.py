"""Does a rebuild or a rollback in a process of its own. Like a scheduler, it continues a run that was killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from multiprocessing.connection import Connection as Pipe

import sqlalchemy as sa

from include.universal.schema import stored_events
from projection_rebuild.errors import DatabaseTrouble, RebuildError, StepOrderError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from tools.prove.setting import Setting

RETRIES = 1
"""Retries of a step; a DAG retries more often, and with longer pauses."""


class Work(StrEnum):
    """The kind of a run."""

    REBUILD = "rebuild"
    ROLLBACK = "rollback"
    """Takes back the last swap, of a rebuild or of a rollback."""


@dataclass(frozen=True)
class Task:
    """One run.

    :param keep_old: whether it keeps the tables that it retires, so that a rollback is possible
    :param part: whether it rebuilds only the rows that the newest events concern, and copies all others
    """

    run_id: str
    work: Work
    keep_old: bool = False
    part: bool = False


@dataclass
class Outcome:
    """The result of a run.

    :param pause: for how many seconds its swap held the writers
    :param retries: the number of retries of its steps
    :param failure: why it gave up; empty: it succeeded
    """

    pause: float = 0.0
    retries: int = 0
    failure: str = ""


def run(url: str, setting: Setting, task: Task, results: Pipe) -> None:
    """Does one whole rebuild or rollback, and sends its :class:`Outcome`.

    It continues a run whose earlier process was killed.
    """
    engine = sa.create_engine(url)
    rebuild = Rebuild(setting.spec(), run_id=task.run_id, event_store=engine, read_models=engine)
    outcome = Outcome()
    try:
        for step in _remaining(rebuild, task, engine):
            outcome.retries += _insist(step)
        swap = rebuild.report().swap
        outcome.pause = swap.pause_seconds if swap else 0.0
    except Exception as error:
        outcome.failure = f"{type(error).__name__}: {str(error)[:600]}"
    results.send(outcome)


def _remaining(rebuild: Rebuild, task: Task, engine: sa.Engine) -> list[Callable[[], object]]:
    """The remaining steps of a run, by its state in the ledger."""
    try:
        state = str(rebuild.report().state)
    except (StepOrderError, DatabaseTrouble):
        state = "new"
    options = RunOptions(keep_old=task.keep_old, since=_not_long_ago(engine) if task.part else None)
    steps: dict[str, list[Callable[[], object]]] = {}
    # No other run is active, so any other claim belongs to a run that gave up.
    if task.work is Work.REBUILD:
        steps["new"] = [lambda: rebuild.plan(options, is_over=lambda other: True)]
        steps["planned"] = [rebuild.clone_tables]
        steps["cloned"] = [lambda: [rebuild.replay(name) for name in rebuild.chosen()], rebuild.verify]
    else:
        steps["new"] = [lambda: rebuild.plan_rollback(options, is_over=lambda other: True)]
        steps["planned"] = []
        steps["cloned"] = [rebuild.bring_back]
    states = list(steps)
    remaining_states = states[states.index(state) :] if state in steps else []
    remaining = [step for name in remaining_states for step in steps[name]]
    return [*remaining, rebuild.swap, rebuild.reconcile, *([] if task.keep_old else [rebuild.drop_old])]


def _not_long_ago(engine: sa.Engine) -> datetime:
    """The time of the oldest of the last 30 events; the events' times are invented, so now would not do."""
    newest = sa.select(stored_events.c.created_at).order_by(stored_events.c.id.desc()).limit(30)
    with engine.connect() as connection:
        oldest: datetime = min(connection.execute(newest).scalars())
    return oldest.replace(tzinfo=UTC)


def _insist(step: Callable[[], object]) -> int:
    """Runs a step with retries, as Airflow runs a task.

    :returns: the number of retries
    :raises Exception: the error of the last retry, or one that no retry can repair
    """
    for retries in range(RETRIES + 1):
        try:
            step()
            return retries
        except Exception as error:
            if retries == RETRIES or (isinstance(error, RebuildError) and not error.retryable):
                raise
            time.sleep(1)
    raise AssertionError("the last retry returns or raises")
