"""The long work of a cutover before writers have to wait: it counts the events, and checks for orphans once more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from projection_rebuild.errors import VerificationFailed
from projection_rebuild.model.positions import BEGINNING, Place
from projection_rebuild.replay.catch_up import CatchUp
from projection_rebuild.run.step import Step

RECOUNTED = 10_000
"""How many of the newest events the engine counts once more while the writers wait."""

LOOKS = 3
"""How many checks in a row must show orphans before the cutover is refused."""


@dataclass(frozen=True)
class Counted:
    """The number of events up to a place, counted before writers had to wait.

    :param by_type: the number of events, by event type
    """

    position: Place
    by_type: dict[str, int]


def count_ahead(step: Step, stopped: Callable[[], bool]) -> Counted:
    """Catches up, then counts all but the newest events. Within the pause only those are left to be counted.

    :param stopped: returns whether the worker must stop; called while a program works
    """
    projectors = CatchUp(step, step.context.plan_of(step.ledger.runs.get()))
    projectors.catch_up(stopped)
    position = step.context.store.place_before(RECOUNTED, projectors.position)
    return Counted(position, step.context.store.counts(BEGINNING, position))


def refuse_orphans(step: Step, stopped: Callable[[], bool]) -> None:
    """Checks the foreign keys of green to tables that the run does not rebuild.

    The application may have deleted parents there since the verification, because no foreign key protects green's rows.

    :param stopped: returns whether the worker must stop; called while a program works
    :raises VerificationFailed: rows of green have lost their parents
    """
    plan = step.context.plan_of(step.ledger.runs.get())
    tables = step.context.table_sets(plan)
    for look in range(LOOKS):
        if look:
            # The event that deletes the row together with its parent may not have reached green yet.
            CatchUp(step, plan).catch_up(stopped)
        orphans = [
            f"{table.blue}, {key}" for table in tables for key in step.dialect.shadow.orphans(step.connection, table, tables)
        ]
        if not orphans:
            return
    raise VerificationFailed(
        "rows of green have lost their parents since verification, blue is live and untouched; the foreign keys:\n"
        + "\n".join(orphans)
        + "\nIf an event tells of it, correct its projector and begin again; otherwise bring the parents back, then retry"
    )
