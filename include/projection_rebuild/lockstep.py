"""The projectors of a run advancing together, to one position at a time.

Foreign keys hold between green tables from verification on, so a child never gets ahead of its parent, nor a parent's
deletes ahead of its children's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing

import sqlalchemy as sa

from include.projection_rebuild.context import Context
from include.projection_rebuild.errors import StepOrderError
from include.projection_rebuild.ledger import Checkpoint
from include.projection_rebuild.plan import Plan
from include.projection_rebuild.replay import ProjectorReplay


class Lockstep:
    """All projectors of a run, in the order of their dependencies.

    :param connection: where rows are loaded and written
    :raises StepOrderError: one has no checkpoint
    """

    def __init__(self, context: Context, connection: sa.Connection, plan: Plan) -> None:
        self._context = context
        self._connection = connection
        checkpoints = context.ledger.checkpoints(connection, context.run_id)
        missing = [name for name in plan.projectors if name not in checkpoints]
        if missing:
            raise StepOrderError(f"{', '.join(missing)} has no checkpoint; run clone_tables and the replay again")
        works = [ProjectorReplay(context, context.projector(name), checkpoints[name], connection) for name in plan.projectors]
        self._works = sorted(works, key=lambda work: min(plan.tables.index(table) for table in work.projector.tables()))

    @property
    def position(self) -> int:
        """Up to here every projector has come."""
        return min(work.checkpoint.position for work in self._works)

    def catch_up(self) -> None:
        """Rounds of settle and replay, each projector to the same head, until the backlog is small."""
        behind = None
        while behind is None or behind > self._context.spec.swap.small_backlog:
            head = self._context.store.settled_head()
            behind = head - self.position
            self._replay_to(head)

    def miscounted(self, stored: Mapping[str, int]) -> list[str]:
        """Projectors that have not handled as many events as there are.

        It catches what no settled head can: ids that were handed out long before their INSERT (sequence caches, hi/lo, ids of
        the application's own) and appear below a position that had been read.

        :param stored: how many events of each type the store holds up to :attr:`position`
        """
        found = []
        for work in self._works:
            there = sum(stored.get(each, 0) for each in work.projector.event_types())
            if there != work.checkpoint.events:
                found.append(
                    f"{work.projector.name()} has handled {work.checkpoint.events:,} events, the store holds {there:,} of its types up "
                    f"to position {work.checkpoint.position:,}; run clone_tables and what follows it again"
                )
        return found

    def _replay_to(self, head: int) -> None:
        # The projectors may have stopped at different positions; whoever is behind comes up first.
        for bound in self._bounds(head):
            counts = self._fold(bound)
            with self._context.dialect.transaction(self._connection):
                moved = self._write(counts, bound, head)
            self._committed(moved)

    def _bounds(self, head: int) -> list[int]:
        size = self._context.spec.replay.batch_events
        return [*range(self.position + size, head, size), head]

    def drain(self, position: int) -> None:
        """Applies everything up to a position in the caller's transaction."""
        self._committed(self._write(self._fold(position), position, position))

    def _fold(self, bound: int) -> dict[ProjectorReplay, int]:
        """Folds each projector's events up to ``bound``; those that are there already have none."""
        counts: dict[ProjectorReplay, int] = {}
        for work in self._works:
            with closing(work.pages_to(bound)) as pages:
                for events, _ in pages:
                    work.fold(events)
                    counts[work] = counts.get(work, 0) + len(events)
        return counts

    def _write(self, counts: dict[ProjectorReplay, int], bound: int, head: int) -> dict[ProjectorReplay, Checkpoint]:
        began = time.monotonic()
        moved = {work: work.advance(count, bound, head, time.monotonic() - began) for work, count in counts.items()}
        for work in reversed(counts):
            work.tables.delete(work.changes())
        for work in counts:
            work.tables.put(work.changes())
        return moved

    def _committed(self, moved: dict[ProjectorReplay, Checkpoint]) -> None:
        for work, checkpoint in moved.items():
            work.committed(checkpoint)
