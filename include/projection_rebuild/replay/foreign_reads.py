"""Lets handlers read tables of other projectors, without changing them.

A handler reads green if the owner of the table is in the run, and blue otherwise. The rows are never older than the
event that it handles. A replay goes no further than the owner has come, and from verification on the owner always goes
first. The rows may be newer: see ``docs/how-to/read-other-tables.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import NotReplayed, RowError
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import Place, earliest
from projection_rebuild.replay.row_tables import GreenTables
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.recording import RecordingRows
from projection_rebuild.rows.types import Rows, RowSource, Values, row_type
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step

R = TypeVar("R")


class Projects(Protocol):
    """The part of a projector that a replay uses."""

    def project(self, event: Event, rows: Rows) -> None:
        """Applies an event to the rows."""


class RowOwner(Protocol):
    """A replay whose rows in memory other projectors read."""

    @property
    def rows(self) -> RowBuffer:
        """The current rows; another buffer after the owner has discarded this one."""


class ForeignReads:
    """The rows of other projectors that one projector's handlers read.

    :param source: loads them
    """

    def __init__(self, projector: type[Projector], source: RowSource) -> None:
        self._classes = projector.reads
        self._source = source
        self._owners: Mapping[type, RowOwner] = {}
        self.renew()

    def attach(self, owners: Mapping[type, RowOwner]) -> None:
        """From here on, handlers read rows of these classes from their owners' memory: they may not be written yet."""
        self._owners = {row_class: owners[row_class] for row_class in self._classes if row_class in owners}
        self.renew()

    def renew(self) -> None:
        """Forgets the rows that were loaded: the tables may have changed since."""
        loaded = RowBuffer(self._source)
        self.buffers: dict[type, RowBuffer] = {
            row_class: self._owners[row_class].rows if row_class in self._owners else loaded for row_class in self._classes
        }
        self.recordings = {row_class: RecordingRows(buffer) for row_class, buffer in self.buffers.items()}

    def load_wanted(self) -> bool:
        """Loads the rows that handlers wanted in a recording run.

        :returns: False: they wanted none that is not in memory
        """
        return any([recording.load_wanted() for recording in self.recordings.values()])

    def of(self, projector: Projects) -> Projects:
        """Wraps a projector, so that its handlers may read these tables."""
        return _WithForeignReads(projector, self) if self._classes else projector


class _WithForeignReads:
    def __init__(self, projector: Projects, reads: ForeignReads) -> None:
        self._projector = projector
        self._reads = reads

    def project(self, event: Event, rows: Rows) -> None:
        recording = isinstance(rows, RecordingRows)
        for foreign in self._reads.recordings.values() if recording else ():
            foreign.next_event()
        both = _OwnAndForeignRows(rows, self._reads.recordings if recording else self._reads.buffers)
        self._projector.project(event, both)
        both.refuse_changes()
        # The handler got copies of other projectors' rows, so the rows in the buffers are unchanged.
        for buffer in () if recording else self._reads.buffers.values():
            buffer.end_event()


class _OwnAndForeignRows:
    """The rows that a handler works on: its projector's own, and copies of rows of other projectors."""

    def __init__(self, rows: Rows, others: Mapping[type, Rows]) -> None:
        self._rows = rows
        self._others = others
        # Each copy with the values that it had.
        self._copies: list[tuple[Any, Values]] = []

    def add(self, row: object) -> None:
        self._own(type(row))
        self._rows.add(row)

    def get(self, row_class: type[R], *key: Any) -> R:
        others = self._others.get(row_class)
        return self._rows.get(row_class, *key) if others is None else self._copy(others.get(row_class, *key))

    def find(self, row_class: type[R], *key: Any) -> R | None:
        others = self._others.get(row_class)
        if others is None:
            return self._rows.find(row_class, *key)
        row = others.find(row_class, *key)
        return None if row is None else self._copy(row)

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        self._own(row_class)
        return self._rows.get_or_add(row_class, *key, **defaults)

    def remove(self, row_class: type, *key: Any) -> None:
        self._own(row_class)
        self._rows.remove(row_class, *key)

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        others = self._others.get(row_class)
        if others is None:
            return self._rows.where(row_class, **column)
        return [self._copy(row) for row in others.where(row_class, **column)]

    def refuse_changes(self) -> None:
        """Checks the copies.

        :raises RowError: the handler has changed one
        """
        for row, before in self._copies:
            if row_type(type(row)).values(row) != before:
                self._refuse(type(row))

    def _copy(self, row: R) -> R:
        kind = row_type(type(row))
        copy = kind.copy_of(row)
        self._copies.append((copy, kind.values(row)))
        return copy

    def _own(self, row_class: type) -> None:
        if row_class in self._others:
            self._refuse(row_class)

    def _refuse(self, row_class: type) -> None:
        raise RowError(f"a handler changes a row of {row_type(row_class).table}, which its projector only `reads`")


def foreign_reads_of(step: Step, plan: Plan, projector: type[Projector]) -> ForeignReads:
    """The tables of other projectors that a projector reads in a run."""
    in_run = set(plan.tables)
    tables = GreenTables(
        step.dialect,
        step.connection,
        step.schema,
        lambda table: step.context.table_set(table).green if table in in_run else table,
    )
    return ForeignReads(projector, tables)


def readable_to(step: Step, plan: Plan, projector: type[Projector]) -> Place:
    """The position that all owners of the tables that a projector reads have reached in this run.

    :raises StepOrderError: an owner is not replayed to the end
    """
    checkpoints = step.ledger.checkpoints.of_projectors()
    reached = []
    for name in _owners(step.context, plan, projector):
        owner = checkpoints.get(name)
        if owner is None or owner.is_behind or (owner.head is None and step.context.store.newest() is not None):
            raise NotReplayed(f"{projector.name()} reads tables of {name}, which is not replayed to the end; replay that first")
        reached.append(owner.position)
    return earliest(reached)


def reads_of_run(context: Context, plan: Plan, projector: type[Projector]) -> bool:
    """Whether a projector reads tables that this run rebuilds."""
    return bool(_owners(context, plan, projector))


def _owners(context: Context, plan: Plan, projector: type[Projector]) -> list[str]:
    """The projectors of the run that own tables which a projector reads."""
    tables = {row_type(row_class).table for row_class in projector.reads}
    return [name for name in plan.projectors if tables & set(context.projector(name).tables())]
