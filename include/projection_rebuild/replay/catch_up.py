"""The projectors of a run advancing together, to one position at a time.

Foreign keys hold between green tables from verification on, so a child never gets ahead of its parent, nor a parent's
deletes ahead of its children's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing

import sqlalchemy as sa

from projection_rebuild.authoring.external import ExternalProjector
from projection_rebuild.errors import StepOrderError
from projection_rebuild.ledger import Checkpoint
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import Place, earliest, is_before
from projection_rebuild.model.refusals import miscount
from projection_rebuild.replay import partial
from projection_rebuild.replay.external.replay import ExternalReplay
from projection_rebuild.replay.foreign_reads import reading_of
from projection_rebuild.replay.projector_replay import ProjectorReplay
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.run.context import Context
from projection_rebuild.run.jobs import heads_of

MOST_EVENTS = 10_000
"""Events of the store that the projectors go on by in one transaction: their rows are in memory all at once."""


class Lockstep:
    """All projectors of a run, in the order of their dependencies.

    :param connection: where rows are loaded and written
    :raises StepOrderError: one has no checkpoint
    """

    def __init__(self, context: Context, connection: sa.Connection, plan: Plan) -> None:
        self._context = context
        self._connection = connection
        checkpoints = context.ledger.checkpoints.of_projectors(connection, context.run_id)
        missing = [name for name in plan.projectors if name not in checkpoints]
        if missing:
            raise StepOrderError(f"{', '.join(missing)} has no checkpoint; run clone_tables and the replay again")
        works: list[ProjectorReplay] = []
        self.programs: list[ExternalReplay] = []
        for name in plan.projectors:
            projector = context.projector(name)
            if issubclass(projector, ExternalProjector):
                self.programs.append(ExternalReplay(context, projector, checkpoints[name], connection))
            else:
                part = partial.open_part(context, connection, plan, checkpoints[name])
                reading = reading_of(context, connection, plan, projector)
                works.append(ProjectorReplay(context, projector, checkpoints[name], connection, plan.already, part, reading))
        owners: dict[type, Callable[[], RowBuffer]] = {
            each: lambda work=work: work.rows  # type: ignore[misc]
            for work in works
            for each in work.projector.owns
        }
        for work in works:
            work.reading.lean_on(owners)
        # Whoever reads another one's rows is folded after it; rows are written parents first.
        self._to_be_folded = works
        self._works = sorted(works, key=lambda work: min(plan.tables.index(table) for table in work.projector.tables()))

    @property
    def _everyone(self) -> list[ProjectorReplay | ExternalReplay]:
        return [*self._works, *self.programs]

    @property
    def position(self) -> Place:
        """Up to here every projector has come."""
        return earliest(work.checkpoint.position for work in self._everyone)

    def catch_up(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Rounds of settle and replay, each projector to the same head, until the backlog is small.

        :param stopped: asked while a program is at work
        """
        for head in heads_of(self._context, lambda: self.position):
            self._replay_to(head)
            for program in self.programs:
                program.replay_to(head, stopped, lambda now: None, lambda: None)

    def programs_behind(self, position: Place) -> list[ExternalReplay]:
        """The programs that have events left up to a position."""
        return [program for program in self.programs if program.outstanding(position)]

    def miscounted(self, stored: Mapping[str, int]) -> list[str]:
        """Projectors that have not handled as many events as there are.

        It catches what no settled head can: ids that were handed out long before their INSERT (sequence caches, hi/lo, ids of
        the application's own) and appear below a position that had been read.

        :param stored: how many events of each type the store holds up to :attr:`position`
        """
        found = []
        for work in self._everyone:
            there = sum(stored.get(each, 0) for each in work.projector.stored_types())
            checkpoint, aside = work.checkpoint, work.dead_letters
            if there != checkpoint.events + aside:
                found.append(miscount(work.projector.name(), checkpoint.events, aside, there, checkpoint.position))
        return found

    def dead_letters(self) -> dict[str, int]:
        """How many events each projector has set aside; those that have none are left out."""
        return {work.projector.name(): work.dead_letters for work in self._works if work.dead_letters}

    def too_many_dead_letters(self) -> list[str]:
        """Why what has been set aside stands in the way of a switch."""
        letters, allowed = self.dead_letters(), self._context.spec.verify.max_dead_letters
        if sum(letters.values()) <= allowed:
            return []
        said = ", ".join(f"{name} {count:,}" for name, count in letters.items())
        return [
            f"events have been set aside: {said}; verify.max_dead_letters allows {allowed:,}. They are listed in projection_rebuild_dead_letters. "
            "Correct the handlers and clear the replay tasks, which drive them again"
        ]

    def _replay_to(self, head: Place) -> None:
        # The projectors may have stopped at different positions; whoever is behind comes up first.
        for bound in self._bounds(head):
            folded = self._fold(bound)
            with self._context.dialect.transaction(self._connection):
                moved = self._write(folded, bound, head)
            self._committed(moved)

    def _bounds(self, head: Place) -> Iterator[Place]:
        size = min(self._context.spec.replay.batch_events, MOST_EVENTS)
        at = earliest(work.checkpoint.position for work in self._works) if self._works else head
        while True:
            at = self._context.store.place_of(size, at, head) if is_before(at, head) else head
            yield at
            if not is_before(at, head):
                return

    def drain(self, position: Place, among: Collection[int] | None = None) -> list[int]:
        """Applies everything up to a place in the caller's transaction.

        :param among: only the events at these positions
        :returns: the positions of the events that were applied, in order
        """
        folded = self._fold(position, among)
        self._committed(self._write(folded, position, position, among))
        for program in self.programs:
            # Whatever it has left has been seen to before.
            program.pass_over(position, position)
        return sorted({each for positions in folded.values() for each in positions})

    def stand(self) -> None:
        """Makes sure, in the caller's transaction, that nobody has moved a checkpoint since this worker did.

        :raises FencedOut: another worker of this run has
        """
        for work in self._everyone:
            at = work.checkpoint
            self._context.ledger.checkpoints.advance(
                self._connection, self._context.run_id, at, position=at.position, head=at.head, events=0, seconds=0.0
            )

    def _fold(self, bound: Place, among: Collection[int] | None = None) -> dict[ProjectorReplay, list[int]]:
        """Folds each projector's events up to ``bound`` and tells their positions; those that are there already have none."""
        folded: dict[ProjectorReplay, list[int]] = {}
        for work in self._to_be_folded:
            with closing(work.pages_to(bound)) as pages:
                for events, _ in pages:
                    wanted = [event for event in events if among is None or event.position in among]
                    work.fold(wanted)
                    folded.setdefault(work, []).extend(event.position for event in wanted)
        return {work: folded[work] for work in self._works if work in folded}

    def _write(
        self, folded: dict[ProjectorReplay, list[int]], bound: Place, head: Place, among: Collection[int] | None = None
    ) -> dict[ProjectorReplay, Checkpoint]:
        began = time.monotonic()
        moved = {work: work.advance(len(events), bound, head, time.monotonic() - began) for work, events in folded.items()}
        for work in reversed(folded):
            work.tables.delete(work.changes())
        for work in folded:
            work.tables.put(work.changes())
            if not work.projector.has_handlers():
                work.run_sets(bound, among)
        if folded:
            # Once for all of them, whose connection is one: one's rows may refer to another's.
            next(iter(folded)).tables.check()
        return moved

    def _committed(self, moved: dict[ProjectorReplay, Checkpoint]) -> None:
        for work, checkpoint in moved.items():
            work.committed(checkpoint)
