"""Replays all projectors of a run together, to one position at a time.

Foreign keys hold between green tables from verification on. So a child must not get ahead of its parent, nor a
parent's deletes ahead of its children's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping

from projection_rebuild.errors import NotReplayed
from projection_rebuild.ledger import Checkpoint
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import Place, earliest, is_before
from projection_rebuild.model.refusals import miscount
from projection_rebuild.replay import partial
from projection_rebuild.replay.external.replay import ExternalReplay
from projection_rebuild.replay.foreign_reads import RowOwner
from projection_rebuild.replay.handler_replay import HandlerReplay
from projection_rebuild.replay.pace import FullSpeed
from projection_rebuild.replay.unit import ReplayUnit, unit_of
from projection_rebuild.run.jobs import heads_of
from projection_rebuild.run.step import Step

MOST_EVENTS = 10_000
"""The most events of the store per transaction: all rows that they change are in memory at once."""


class CatchUp:
    """All projectors of a run, in the order of their dependencies.

    :param step: rows are loaded and written over its connection
    :raises StepOrderError: a projector has no checkpoint
    """

    def __init__(self, step: Step, plan: Plan) -> None:
        self._step = step
        checkpoints = step.ledger.checkpoints.of_projectors()
        missing = [name for name in plan.projectors if name not in checkpoints]
        if missing:
            raise NotReplayed(f"{', '.join(missing)} has no checkpoint; run clone_tables and the replay again")
        # Units whose rows one transaction writes, and programs, which commit by themselves.
        together: list[HandlerReplay] = []
        self.programs: list[ExternalReplay] = []
        for name in plan.projectors:
            selection = partial.open_selection(step, plan, checkpoints[name])
            unit = unit_of(step, plan, checkpoints[name], selection)
            if isinstance(unit, ExternalReplay):
                self.programs.append(unit)
            else:
                together.append(unit)
        owners: dict[type, RowOwner] = {row_class: unit for unit in together for row_class in unit.projector.owns}
        for unit in together:
            unit.attach(owners)
        # A projector that reads another's rows is folded after it; rows are written parents first.
        self._to_be_folded = together
        self._together = sorted(together, key=lambda unit: min(plan.tables.index(table) for table in unit.projector.tables()))
        self._units: list[ReplayUnit] = [*self._together, *self.programs]

    @property
    def position(self) -> Place:
        """The position that every projector has reached."""
        return earliest(unit.checkpoint.position for unit in self._units)

    def catch_up(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Finds the high-water mark and replays all projectors up to it, again and again until the backlog is small.

        :param stopped: whether the worker has to stop; checked while a program is at work
        """
        for head in heads_of(self._step.context, lambda: self.position):
            self._replay_to(head)
            for program in self.programs:
                program.replay_to(head, FullSpeed(stopped), lambda _: None)

    def programs_behind(self, position: Place) -> list[ExternalReplay]:
        """The programs that still have events to handle up to a position."""
        return [program for program in self.programs if program.outstanding(position)]

    def miscounted(self, stored: Mapping[str, int]) -> list[str]:
        """A message for each projector that has not handled as many events as the store holds.

        This finds events that no high-water mark can exclude. Their ids were assigned long before their INSERT:
        sequence caches, hi/lo, the application's own ids. So they appear below a position that the replay has read.

        :param stored: how many events of each type the store holds up to :attr:`position`
        """
        miscounts = []
        for unit in self._units:
            existing = sum(stored.get(event_type, 0) for event_type in unit.projector.stored_types())
            checkpoint, letters = unit.checkpoint, unit.dead_letters
            if existing != checkpoint.events + letters:
                miscounts.append(miscount(unit.projector.name(), checkpoint.events, letters, existing, checkpoint.position))
        return miscounts

    def dead_letters(self) -> dict[str, int]:
        """How many events each projector has set aside; those that have none are left out."""
        return {unit.projector.name(): unit.dead_letters for unit in self._units if unit.dead_letters}

    def too_many_dead_letters(self) -> list[str]:
        """Why the dead letters forbid a cutover; empty if they are few enough."""
        letters, allowed = self.dead_letters(), self._step.spec.verify.max_dead_letters
        if sum(letters.values()) <= allowed:
            return []
        counts = ", ".join(f"{name} {count:,}" for name, count in letters.items())
        return [
            f"events have been set aside: {counts}; verify.max_dead_letters allows {allowed:,}. They are listed in "
            "projection_rebuild_dead_letters. Correct the handlers and clear the replay tasks, which retry these events"
        ]

    def _replay_to(self, head: Place) -> None:
        # The projectors may have stopped at different positions; those that are behind go first.
        for bound in self._bounds(head):
            folded = self._fold(bound)
            with self._step.dialect.transaction(self._step.connection):
                moved = self._write(folded, bound, head)
            self._committed(moved)

    def _bounds(self, head: Place) -> Iterator[Place]:
        size = min(self._step.spec.replay.batch_events, MOST_EVENTS)
        at = earliest(unit.checkpoint.position for unit in self._together) if self._together else head
        while True:
            at = self._step.context.store.place_of(size, at, head) if is_before(at, head) else head
            yield at
            if not is_before(at, head):
                return

    def drain(self, position: Place, among: Collection[int] | None = None) -> list[int]:
        """Applies all events up to a place, in the caller's transaction.

        :param among: only the events at these positions
        :returns: the positions of the applied events, in order
        """
        folded = self._fold(position, among)
        self._committed(self._write(folded, position, position, among))
        for program in self.programs:
            # The caller has made sure that the program has no events left.
            program.pass_over(position, position)
        return sorted({position for positions in folded.values() for position in positions})

    def assert_checkpoints_unmoved(self) -> None:
        """Makes sure, in the caller's transaction, that no other worker has moved a checkpoint since this one did.

        :raises FencedOut: another worker of this run has moved one
        """
        for unit in self._units:
            last = unit.checkpoint
            self._step.ledger.checkpoints.advance(last, position=last.position, head=last.head, events=0, seconds=0.0)

    def _fold(self, bound: Place, among: Collection[int] | None = None) -> dict[HandlerReplay, list[int]]:
        """Folds each projector's events up to ``bound``.

        :returns: their positions; units that have already reached ``bound`` are left out
        """
        folded = {unit: unit.fold_to(bound, among) for unit in self._to_be_folded}
        return {unit: positions for unit in self._together if (positions := folded[unit]) is not None}

    def _write(
        self, folded: dict[HandlerReplay, list[int]], bound: Place, head: Place, among: Collection[int] | None = None
    ) -> dict[HandlerReplay, Checkpoint]:
        began = time.monotonic()
        moved = {
            unit: unit.pipeline.advance(len(positions), bound, head, time.monotonic() - began)
            for unit, positions in folded.items()
        }
        for unit in reversed(folded):
            unit.delete_rows()
        for unit in folded:
            unit.put_rows(bound, among)
        if folded:
            # Once for all units, which share the connection: rows of one may refer to rows of another.
            next(iter(folded)).pipeline.writer.check()
        return moved

    def _committed(self, moved: dict[HandlerReplay, Checkpoint]) -> None:
        for unit, checkpoint in moved.items():
            unit.pipeline.committed(checkpoint)
