"""A rebuild or a rollback in a process of its own, as a scheduler would run it: steps in order, gone on with after a kill."""

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
"""How often a step is tried again; a DAG does it oftener, and with more patience in between."""


class Work(StrEnum):
    """What a run does."""

    REBUILD = "rebuild"
    ROLLBACK = "rollback"
    """It takes the last switch back, be it a rebuild's or a rollback's."""


@dataclass(frozen=True)
class Task:
    """One run.

    :param keep_old: the tables that it retires stay, so that it can be taken back
    :param part: only what the newest events concern is rebuilt, all other rows are copied
    """

    run_id: str
    work: Work
    keep_old: bool = False
    part: bool = False


@dataclass
class Outcome:
    """How a run ended.

    :param pause: for how many seconds its switch held the writers
    :param retries: steps that were tried again
    :param failure: why it gave up; empty: it did not
    """

    pause: float = 0.0
    retries: int = 0
    failure: str = ""


def run(url: str, setting: Setting, task: Task, results: Pipe) -> None:
    """One whole rebuild or rollback; goes on where an earlier process of this run was killed."""
    engine = sa.create_engine(url)
    made = Rebuild(setting.spec(), run_id=task.run_id, event_store=engine, read_models=engine)
    outcome = Outcome()
    try:
        for step in _remaining(made, task, engine):
            outcome.retries += _insist(step)
        swapped = made.report().swap
        outcome.pause = swapped.pause_seconds if swapped else 0.0
    except Exception as error:
        outcome.failure = f"{type(error).__name__}: {str(error)[:600]}"
    results.send(outcome)


def _remaining(made: Rebuild, task: Task, engine: sa.Engine) -> list[Callable[[], object]]:
    """The steps that are left, from the run's state in the ledger."""
    try:
        state = str(made.report().state)
    except (StepOrderError, DatabaseTrouble):
        state = "new"
    options = RunOptions(keep_old=task.keep_old, since=_not_long_ago(engine) if task.part else None)
    steps: dict[str, list[Callable[[], object]]] = {}
    # No other run is at work: a claim that stands is one of a run that gave up.
    if task.work is Work.REBUILD:
        steps["new"] = [lambda: made.plan(options, is_over=lambda other: True)]
        steps["planned"] = [made.clone_tables]
        steps["cloned"] = [lambda: [made.replay(name) for name in made.chosen()], made.verify]
    else:
        steps["new"] = [lambda: made.plan_rollback(options, is_over=lambda other: True)]
        steps["planned"] = []
        steps["cloned"] = [made.bring_back]
    states = list(steps)
    left = [step for each in states[states.index(state) :] for step in steps[each]] if state in steps else []
    return [*left, made.swap, made.reconcile, *([] if task.keep_old else [made.drop_old])]


def _not_long_ago(engine: sa.Engine) -> datetime:
    """A time since which a few events have been recorded; the clients' events are of an invented time."""
    newest = sa.select(stored_events.c.created_at).order_by(stored_events.c.id.desc()).limit(30)
    with engine.connect() as connection:
        oldest: datetime = min(connection.execute(newest).scalars())
    return oldest.replace(tzinfo=UTC)


def _insist(step: Callable[[], object]) -> int:
    """Runs a step as a task is run; returns how often it was tried again.

    :raises Exception: what no retry can repair, or what the last of them met
    """
    for tried in range(RETRIES + 1):
        try:
            step()
            return tried
        except Exception as error:
            if tried == RETRIES or (isinstance(error, RebuildError) and not error.retryable):
                raise
            time.sleep(1)
    raise AssertionError("the last try returns or raises")
