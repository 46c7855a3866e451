"""The ways in which the engine's own code projects events: live, folded, forgetting, in shards, by SQL.

All ways write into scratch tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.checking.comparison import Unlike, unlike
from projection_rebuild.dialects.base import Scratch
from projection_rebuild.errors import HandlerError, PoisonEvent, RebuildError, RowError, boundary
from projection_rebuild.errors.boundary import trouble_at_event, word_for
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.trouble import Kind
from projection_rebuild.eventstore.store import PATIENCE, EventStore
from projection_rebuild.ledger import Ledger
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import BEGINNING, Place
from projection_rebuild.replay import set_based, shards
from projection_rebuild.replay.inline import project_inline
from projection_rebuild.replay.pipeline.feed import PAGE_EVENTS
from projection_rebuild.replay.row_tables import WriteError
from projection_rebuild.rows.types import RowType
from projection_rebuild.run import start
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import open_step
from projection_rebuild.shadow import clone
from projection_rebuild.spec.live_writer import LiveWriter, LiveWriterSection
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.registry import ProjectorRegistry
from projection_rebuild.spec.replay import OnError, ThrottleSection

ALL = 1_000_000_000
"""More events than any check has: a batch of this size holds all of them."""


class Sample(EventStore):
    """The first events of a store: readers see no event after :attr:`upto`."""

    upto: Place = BEGINNING

    def settled_head(self, patience: timedelta = PATIENCE) -> Place:
        return self.upto

    def newest(self) -> Place:
        return self.upto

    def whole(self) -> Place:
        """The highest position of the whole store now."""
        return super().newest()


class _Ledger(Ledger):
    """The ledger of a check. No other process uses it, so it creates its tables only once."""

    _is_made = False

    def create(self, connection: sa.Connection) -> None:
        if not self._is_made:
            super().create(connection)
            self._is_made = True


@dataclass(frozen=True)
class Way:
    """A way to replay.

    :param name: in words, to follow "projected" in a sentence
    :param replay: keys of the spec's ``replay``
    :param by_sql: whether the projector's SQL does the work
    """

    name: str
    replay: Mapping[str, Any]
    by_sql: bool = False

    @property
    def shards(self) -> int:
        """How many shards divide the events; 1: none do."""
        return int(self.replay.get("shards", 1))


LIVE = "live"
FOLDED = Way("folded in one batch", {"batch_events": ALL})
FORGETTING = Way("forgetting after every event", {"batch_events": 1, "max_rows_in_memory": 0})
FEW = Way("forgetting after every three events", {"batch_events": 3, "max_rows_in_memory": 0})
SHARDED = Way("in 3 shards", {"batch_events": ALL, "shards": 3})
BY_SQL = Way("by its SQL in one range", {"batch_events": ALL}, by_sql=True)
WAYS = (
    FOLDED,
    FORGETTING,
    FEW,
    SHARDED,
    BY_SQL,
    Way("by its SQL, three events a range", {"batch_events": 3}, by_sql=True),
    Way("by its SQL, one event a range", {"batch_events": 1}, by_sql=True),
)


@dataclass(frozen=True)
class Outcome:
    """How a way ended.

    :param trouble: why it has failed, in words; None: it has reached the end
    :param at: the position of the event that the failure names; None: it names none
    :param aside: positions of the events that it has set aside
    :param remarks: other notes
    """

    trouble: str | None = None
    at: int | None = None
    aside: frozenset[int] = frozenset()
    remarks: tuple[str, ...] = ()


@dataclass
class Ways:
    """Projects events into scratch tables.

    The tables under their live names hold the reference rows, which all other ways must match. The green tables beside
    them hold the rows of the last other way.

    :param spec: the spec of the projectors and their events
    :param scratch: the place of the tables, which exist already and are empty
    :param store: the events, up to the end of the sample
    :param one_database: as for :class:`Context`
    """

    spec: RebuildSpec
    scratch: Scratch
    store: Sample
    one_database: bool
    projectors: ProjectorRegistry
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self._ledger = _Ledger(self.scratch.dialect, self.scratch.schema)

    def why_not(self, way: Way, name: str) -> str | None:
        """Why a way cannot replay a projector; empty: the way does not concern the projector; None: it can."""
        projector = self.projectors[name]
        if way.by_sql:
            # By the spec itself: a way must not use the SQL that the spec turns off.
            return set_based.ineligible_because(self._context(self.spec), projector)
        if not projector.has_handlers():
            return ""
        if way.shards > 1:
            return shards.why_whole(self._context(self._spec(way)), projector) if projector.partition() else ""
        return None

    def events(self, name: str, upto: Place) -> list[Event]:
        """The events of a projector up to a place, before upcasting."""
        projector = self.projectors[name]
        pages = self.store.pages(BEGINNING, upto, projector.stored_types(), size=PAGE_EVENTS, metadata=projector.needs_metadata)
        return [event for events, _ in pages for event in events]

    # The reference ------------------------------------------------------------------------------------------------

    def live(self, name: str, upto: Place) -> Outcome:
        """Projects as the application does: one event after the other, each in a transaction, into empty tables."""
        self.clear(name)
        projector, dialect, aside = self.projectors[name], self.scratch.dialect, set[int]()
        events = self.events(name, upto)
        with dialect.connect() as connection:
            for event in events:
                try:
                    with dialect.transaction(connection):
                        project_inline(connection, projector, event, schema=self.scratch.schema)
                except Exception as error:
                    named_error = _as_rebuild_error(error, projector, event)
                    if self.spec.replay.on_error is not OnError.DEAD_LETTER:
                        return Outcome(_what(named_error), event.position, frozenset(aside))
                    aside.add(event.position)
        return Outcome(aside=frozenset(aside))

    def adopt(self, name: str) -> None:
        """Makes the rows of the last way the reference for all other ways."""
        self.clear(name)
        with self.scratch.dialect.connect() as connection:
            for kind in self.projectors[name].kinds():
                projected = sa.select(*_columns(kind)).select_from(self._table(self._green(kind.table)))
                connection.execute(sa.insert(self._table(kind.table, _columns(kind))).from_select([*kind.columns], projected))

    def clear(self, name: str) -> None:
        """Empties the tables under their live names."""
        with self.scratch.dialect.connect() as connection:
            for kind in reversed(self.projectors[name].kinds()):
                connection.execute(sa.delete(self._table(kind.table)))

    def _table(self, name: str, columns: Sequence[sa.ColumnClause[Any]] = ()) -> sa.TableClause:
        return sa.table(quoted_name(name, quote=True), *columns, schema=self.scratch.schema)

    def _green(self, table: str) -> str:
        return self._context(self.spec).table_set(table).green

    # The other ways -----------------------------------------------------------------------------------------------

    def replay(self, way: Way, name: str, upto: Place) -> Outcome:
        """Replays one projector as a run of its own does.

        :raises RebuildError: the machine or a database has failed, and a repetition may succeed
        """
        self.store.upto = upto
        lines: list[str] = []
        context = self._context(self._spec(way), lines.append)
        trouble, at = None, None
        try:
            _run(context, name, way.shards)
        except Exception as error:
            named_error = boundary.named(error, way.name, boundary.UNTOUCHED)
            if not isinstance(named_error, RebuildError) or named_error.retryable:
                raise named_error from None
            trouble, at = _what(named_error), getattr(named_error, "position", None)
        with open_step(context) as step:
            letters = step.ledger.dead_letters.of_run(name)
        remarks = tuple(line for line in lines if "its handlers do the work" in line)
        return Outcome(trouble, at, frozenset(letter.position for letter in letters), remarks)

    def differences(self, name: str) -> Iterator[Unlike]:
        """The differences between the last way's rows and the reference."""
        for kind in self.projectors[name].kinds():
            yield from unlike(self.scratch.dialect, self.scratch.schema, kind, kind.table, self._green(kind.table))

    def _context(self, spec: RebuildSpec, log: Callable[[str], None] = lambda line: None) -> Context:
        scratch = self.scratch
        return Context(
            spec=spec,
            run_id=f"check {next(self._numbers)}",
            dialect=scratch.dialect,
            store=self.store,
            ledger=self._ledger,
            schema=scratch.schema,
            one_database=self.one_database,
            projectors=self.projectors,
            log=log,
            progress=lambda checkpoint, rate: None,
        )

    def _spec(self, way: Way) -> RebuildSpec:
        """The spec without the sections that make a replay wait, and with the scratch tables' schema."""
        replay = self.spec.replay.model_copy(
            update={"set_based": way.by_sql, "commit_every": timedelta(days=1), "shards": 1, "max_rows_in_memory": None}
            | dict(way.replay)
        )
        return self.spec.model_copy(
            update={
                "read_models": self.spec.read_models.model_copy(update={"db_schema": self.scratch.schema}),
                "live_writer": LiveWriterSection(contract=LiveWriter.TRANSACTIONAL),
                "throttle": ThrottleSection(),
                "stages": (),
                "structure": None,
                "replay": replay,
            }
        )


def _columns(kind: RowType) -> list[sa.ColumnClause[Any]]:
    return [sa.column(quoted_name(name, quote=True)) for name in kind.columns]


def _run(context: Context, name: str, count: int) -> None:
    plan = Plan(
        rebuild=context.spec.rebuild,
        run_id=context.run_id,
        projectors=[name],
        tables=list(context.projector(name).tables()),
        schema_name=context.schema,
        events=0,
        head=context.store.newest(),
        shards={name: count} if count > 1 else {},
    )
    with open_step(context) as step:
        # All earlier runs of the check are over.
        start.begin(step, plan, RunOptions(), lambda run_id: True, "check")
    clone.clone_tables(context)
    shards.replay_all(context, name, lambda: False)


def _what(error: RebuildError) -> str:
    """What has happened, without the advice on a task's retry, since a check has no task."""
    return error.what if isinstance(error, HandlerError) else error.message


def _as_rebuild_error(error: Exception, projector: type[Projector], event: Event) -> RebuildError:
    """Converts an error of live code into the error that a replay would raise.

    :raises RebuildError: the machine or the database has failed, not the event
    """
    if isinstance(error, PoisonEvent):
        return error
    if trouble := trouble_at_event(error, projector.name(), event.type, event.position):
        raise trouble from None
    database_error = trouble_of(error)
    if database_error is not None and database_error.kind is Kind.VALUE:
        return WriteError(
            f"cannot write the rows of {projector.name()}: {database_error.describe()}", database_error.code or ""
        ).of(event.type, event.position)
    if isinstance(error, RebuildError) and not isinstance(error, RowError):
        return error
    return HandlerError(projector.name(), event.type, event.position, word_for(error))
