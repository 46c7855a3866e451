"""What takes long at a cutover and is done before anybody is held: the long count, and the last look for rows
without parents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from projection_rebuild.errors import VerificationFailed
from projection_rebuild.model.positions import BEGINNING, Place
from projection_rebuild.replay.catch_up import CatchUp
from projection_rebuild.run.step import Step

RECOUNTED = 10_000
"""So many of the newest events are counted once more while the writers are held."""

LOOKS = 3
"""How often orphans have to be seen."""


@dataclass(frozen=True)
class Counted:
    """How many events of each type there were up to a place, counted while nobody was held."""

    position: Place
    by_type: dict[str, int]


def count_ahead(step: Step, stopped: Callable[[], bool]) -> Counted:
    """The long count, taken before anybody waits; within the swap only the newest events are left to be counted."""
    projectors = CatchUp(step, step.context.plan_of(step.ledger.runs.get()))
    projectors.catch_up(stopped)
    position = step.context.store.place_before(RECOUNTED, projectors.position)
    return Counted(position, step.context.store.counts(BEGINNING, position))


def refuse_orphans(step: Step, stopped: Callable[[], bool]) -> None:
    """Looks once more at the foreign keys to tables beside the run: nothing has held these to green since it was
    verified.

    :raises VerificationFailed: rows of green have lost their parents
    """
    plan = step.context.plan_of(step.ledger.runs.get())
    tables = step.context.table_sets(plan)
    for look in range(LOOKS):
        if look:
            # What was deleted together with a parent may just not have come to green yet.
            CatchUp(step, plan).catch_up(stopped)
        found = [
            f"{table.blue}, {key}" for table in tables for key in step.dialect.shadow.orphans(step.connection, table, tables)
        ]
        if not found:
            return
    raise VerificationFailed(
        "rows of green have lost their parents since verification, blue is live and untouched; the foreign keys:\n"
        + "\n".join(found)
        + "\nIf an event tells of it, correct its projector and begin again; otherwise bring the parents back, then retry"
    )
