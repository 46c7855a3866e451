"""Tables of other projectors that handlers look at: which table that is, what time it shows, and that nobody changes it.

Green where its owner is in the run, blue otherwise. Never older than the event that is being handled: a replay goes no further than the
owner's has come, and from verification on the owner always goes first. It may be newer: see ``docs/how-to/read-other-tables.md``.
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
    """What a replay asks of a projector."""

    def project(self, event: Event, rows: Rows) -> None:
        """Applies an event to the rows."""


class RowOwner(Protocol):
    """Whoever has rows in memory that others look at."""

    @property
    def rows(self) -> RowBuffer:
        """The rows as they are now; another buffer once they were given up."""


class ForeignReads:
    """The rows of others that one projector's handlers look at.

    :param source: where it is
    """

    def __init__(self, projector: type[Projector], source: RowSource) -> None:
        self._classes = projector.reads
        self._source = source
        self._owners: Mapping[type, RowOwner] = {}
        self.renew()

    def attach(self, owners: Mapping[type, RowOwner]) -> None:
        """From here on these classes are looked at as their owners have them in memory, which may not be written yet."""
        self._owners = {each: owners[each] for each in self._classes if each in owners}
        self.renew()

    def renew(self) -> None:
        """Forgets what was seen: the tables may have gone on."""
        seen = RowBuffer(self._source)
        self.buffers: dict[type, RowBuffer] = {
            each: self._owners[each].rows if each in self._owners else seen for each in self._classes
        }
        self.recordings = {each: RecordingRows(buffer) for each, buffer in self.buffers.items()}

    def load_wanted(self) -> bool:
        """Loads what handlers have asked for in a recording run; False if there was nothing."""
        return any([recording.load_wanted() for recording in self.recordings.values()])

    def of(self, projector: Projects) -> Projects:
        """A projector whose handlers may look at these tables."""
        return _WithForeignReads(projector, self) if self._classes else projector


class _WithForeignReads:
    def __init__(self, projector: Projects, reads: ForeignReads) -> None:
        self._projector = projector
        self._reads = reads

    def project(self, event: Event, rows: Rows) -> None:
        recording = isinstance(rows, RecordingRows)
        for foreign in self._reads.recordings.values() if recording else ():
            foreign.next_event()
        given = _OwnAndForeignRows(rows, self._reads.recordings if recording else self._reads.buffers)
        self._projector.project(event, given)
        given.refuse_changes()
        # Others' rows have been given as copies, and are what they were.
        for buffer in () if recording else self._reads.buffers.values():
            buffer.end_event()


class _OwnAndForeignRows:
    """Rows in the hands of a handler: its own, and those of others, which it gets as copies."""

    def __init__(self, rows: Rows, others: Mapping[type, Rows]) -> None:
        self._rows = rows
        self._others = others
        self._given: list[tuple[Any, Values]] = []

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
        found = others.find(row_class, *key)
        return None if found is None else self._copy(found)

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
        return [self._copy(each) for each in others.where(row_class, **column)]

    def refuse_changes(self) -> None:
        for row, before in self._given:
            if row_type(type(row)).values(row) != before:
                self._refuse(type(row))

    def _copy(self, row: R) -> R:
        kind = row_type(type(row))
        made = kind.copy_of(row)
        self._given.append((made, kind.values(row)))
        return made

    def _own(self, row_class: type) -> None:
        if row_class in self._others:
            self._refuse(row_class)

    def _refuse(self, row_class: type) -> None:
        raise RowError(f"a handler changes a row of {row_type(row_class).table}, which its projector only `reads`")


def foreign_reads_of(step: Step, plan: Plan, projector: type[Projector]) -> ForeignReads:
    """What a projector looks at in a run."""
    in_run = set(plan.tables)
    tables = GreenTables(
        step.dialect,
        step.connection,
        step.schema,
        lambda table: step.context.table_set(table).green if table in in_run else table,
    )
    return ForeignReads(projector, tables)


def readable_to(step: Step, plan: Plan, projector: type[Projector]) -> Place:
    """How far the owners of what a projector reads have come in this run.

    :raises StepOrderError: one of them is not replayed
    """
    checkpoints = step.ledger.checkpoints.of_projectors()
    reached = []
    for name in _owners(step.context, plan, projector):
        found = checkpoints.get(name)
        if found is None or found.is_behind or (found.head is None and step.context.store.newest() is not None):
            raise NotReplayed(f"{projector.name()} reads tables of {name}, which is not replayed to the end; replay that first")
        reached.append(found.position)
    return earliest(reached)


def reads_of_run(context: Context, plan: Plan, projector: type[Projector]) -> bool:
    """Whether a projector reads tables that this run rebuilds."""
    return bool(_owners(context, plan, projector))


def _owners(context: Context, plan: Plan, projector: type[Projector]) -> list[str]:
    tables = {row_type(each).table for each in projector.reads}
    return [name for name in plan.projectors if tables & set(context.projector(name).tables())]
