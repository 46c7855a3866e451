"""Projects a sample of a store's events in every way, and compares all rows.

The ways are: live, folded in one batch, forgetting after every event, in shards, and by SQL. So the check finds code
that depends on batches, memory, shards or ranges before a rebuild does. It writes scratch tables alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.external import ExternalProjector
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.checking.ways import BY_SQL, LIVE, WAYS, Outcome, Sample, Way, Ways
from projection_rebuild.dialects import Dialect, dialect_class, dialect_for
from projection_rebuild.dialects.base import Scratch
from projection_rebuild.errors import PlanError, SettleTimeout, SpecError, boundary
from projection_rebuild.model import limits
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.positions import BEGINNING, Place, just_below, said
from projection_rebuild.planning import schema_change
from projection_rebuild.rebuild import of_our_own, same_database
from projection_rebuild.replay.set_based import statements_of
from projection_rebuild.rows.types import row_type
from projection_rebuild.spec.dependencies import sort
from projection_rebuild.spec.projectors import needs
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.registry import ProjectorRegistry

EVENTS = 10_000
"""How many events a check projects by default."""

SHOWN = 5
"""How many differing rows of a table a finding names."""


@dataclass(frozen=True)
class Part:
    """How one way's result differs from that of the reference way.

    :param way: the way's name, in words
    :param reference: the name of the reference way; empty: ``way`` is the reference itself, and it has failed
    :param what: the differences, one line each
    :param event: the first event after which the results differ, or at which the reference fails; None: not known
    """

    projector: str
    way: str
    reference: str
    what: tuple[str, ...]
    event: Event | None

    def describe(self) -> str:
        """Several lines; they contain keys of rows, and never a value."""
        event = f"the event {self.event.type} at position {self.event.position:,}" if self.event else ""
        if self.reference:
            head, at = (
                f"{self.projector}, {self.way}: the result differs from the one projected {self.reference}",
                f", first after {event}" if event else "",
            )
        else:
            head, at = (
                f"{self.projector}, {self.way}: it cannot be projected to the end",
                f"; it ends at {event}" if event else "",
            )
        return "\n".join([head + at, *(f"  {line}" for line in self.what)])


@dataclass
class Checked:
    """The result of a check.

    :param events: how many events the check has covered, of any type
    :param upto: the position of the last one
    :param agreed: by projector, the ways that have produced the same rows
    :param differing: the ways whose results differ
    :param left_out: the projectors and ways that the check has left out, each with its reason
    :param remarks: notes that are no differences
    """

    events: int
    upto: Place
    agreed: dict[str, list[str]] = field(default_factory=dict)
    differing: list[Part] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether all ways have produced the same rows; False if no projector had two ways to compare."""
        return not self.differing and any(len(ways) > 1 for ways in self.agreed.values())

    def describe(self) -> str:
        """The result as lines for a person."""
        lines = [f"{self.events:,} events, up to {said(self.upto)}"]
        lines += [f"{name}: the same rows {', '.join(ways)}" for name, ways in self.agreed.items() if len(ways) > 1]
        lines += [f"left out: {reason}" for reason in self.left_out]
        lines += [f"note: {remark}" for remark in self.remarks]
        lines += [part.describe() for part in self.differing]
        return "\n".join(lines)


def check(
    spec: RebuildSpec,
    *,
    event_store: sa.Engine,
    read_models: sa.Engine,
    scratch: sa.Engine | None = None,
    projectors: Sequence[str] | None = None,
    events: int = EVENTS,
) -> Checked:
    """Projects the first events of a store in every way, and compares the rows.

    :param event_store: the check only reads it
    :param read_models: the check only reads it if ``scratch`` is given; otherwise it creates the scratch tables in this
        database, in a schema of their own (on MySQL and MariaDB a database, on SQLite a file)
    :param scratch: the database for the scratch tables; None: that of the read models
    :param projectors: names; None: all projectors of the spec
    :param events: how many events
    :raises RebuildError: the check is not possible; it has dropped everything that it had created
    """
    return _Check(spec, event_store, read_models, scratch).run(projectors, events)


class _Check:
    """One check of a spec's projectors over their databases."""

    @boundary.step("check", boundary.UNTOUCHED)
    def __init__(self, spec: RebuildSpec, event_store: sa.Engine, read_models: sa.Engine, scratch: sa.Engine | None) -> None:
        limits.check(spec.model_dump(), "the spec")
        self._spec = spec
        models = of_our_own(read_models)
        store = models if event_store is read_models else of_our_own(event_store)
        scratch_engine = models if scratch is None else of_our_own(scratch)
        self._engines = {models, store, scratch_engine}
        if models.dialect.driver != scratch_engine.dialect.driver:
            # The drivers alone tell, without a query.
            raise _unlike(dialect_class(models), dialect_class(scratch_engine))
        self._models, self._apart = (
            dialect_for(models, spec.read_models.conn_id),
            dialect_for(scratch_engine, "the scratch database"),
        )
        if self._models.database != self._apart.database:
            raise _unlike(type(self._models), type(self._apart))
        self._store = Sample(dialect_for(store, spec.event_store.conn_id), spec.event_store)
        self._one_database = same_database(store, models) and same_database(models, scratch_engine)
        self._projectors = ProjectorRegistry.load(spec)

    @boundary.step("check", boundary.UNTOUCHED)
    def run(self, projectors: Sequence[str] | None, events: int) -> Checked:
        try:
            return self._run([*self._projectors] if projectors is None else [*projectors], events)
        finally:
            for engine in self._engines:
                engine.dispose()

    def _run(self, chosen: Sequence[str], events: int) -> Checked:
        if unknown := [name for name in chosen if name not in self._projectors]:
            raise SpecError(f"this spec has no projector {limits.shown(unknown[0])}; it has {', '.join(self._projectors)}")
        upto = self._store.place_of(events, BEGINNING, self._store.whole())
        counted = self._store.count(BEGINNING, upto)
        if not counted:
            raise PlanError(f"the event store {self._store.table} holds no event, so that there is nothing to compare")
        with self._models.connect() as connection:
            schema = self._spec.read_models.db_schema or self._models.default_schema(connection)
        with self._apart.scratch(place_name(self._models.engine.url, schema, self._spec.rebuild)) as scratch:
            comparing = Comparing(Ways(self._spec, scratch, self._store, self._one_database, self._projectors))
            self._make_tables(scratch, schema, comparing.projected(chosen))
            self._bring_events(scratch, chosen, upto)
            result = comparing.all(chosen, upto)
        if self._store.count(BEGINNING, upto) != counted:
            raise SettleTimeout(
                f"events have appeared up to {said(upto)} during the check; repeat it, or check fewer events (--events)"
            )
        return result

    def _make_tables(self, scratch: Scratch, schema: str | None, names: Sequence[str]) -> None:
        tables = [table for name in names for table in self._projectors[name].tables()]
        changed: list[str] = []
        if (section := self._spec.structure) is not None:
            sets = [TableSet.of(table, schema=schema, limit=self._apart.max_identifier) for table in tables]
            statements = schema_change.statements(section, tables, self._apart.engine.dialect)
            with self._apart.connect() as connection, self._apart.try_schema(connection, sets, statements, {}) as trial:
                changed = [*trial.definitions]
                make_alike(self._apart, trial.connection, trial.schema, scratch, changed)
        with self._models.connect() as live:
            make_alike(self._models, live, schema, scratch, [table for table in tables if table not in changed])

    def _bring_events(self, scratch: Scratch, chosen: Sequence[str], upto: Place) -> None:
        """Makes the events available to the SQL of projectors, as in a run."""
        by_sql = any(statements_of(self._projectors[name], self._models.database) for name in chosen)
        if by_sql and self._one_database and upto is not None:
            self._models.bring(scratch, self._spec.event_store.table, self._spec.event_store.columns.position, upto)


def _unlike(models: type[Dialect], scratch: type[Dialect]) -> SpecError:
    return SpecError(
        f"the scratch database is {scratch.database}, and the read models are in {models.database}: the check cannot create the same tables there"
    )


def make_alike(dialect: Dialect, live: sa.Connection, schema: str | None, scratch: Scratch, tables: Sequence[str]) -> None:
    """Creates empty scratch tables with the definitions of live ones.

    :raises PlanError: a live table does not exist
    """
    with scratch.dialect.connect() as connection:
        for table in tables:
            if not dialect.inspector.table_exists(live, schema, table):
                raise PlanError(f"there is no table {table}: create it, or correct its name in the projector's row class")
            for statement in dialect.trials.apart(live, TableSet.of(table, schema=schema, limit=dialect.max_identifier), scratch):
                scratch.dialect.run(connection, statement)


class Comparing:
    """Compares the results of projectors' ways with each other."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways

    def projected(self, chosen: Sequence[str]) -> list[str]:
        """The chosen projectors and those whose rows they read, in the order of their dependencies."""
        projectors, names = self._ways.projectors, [*chosen]
        owners = {table: name for name, projector in projectors.items() for table in projector.tables()}
        for name in names:
            read = (owners.get(row_type(row_class).table) for row_class in projectors[name].reads)
            names += [owner for owner in dict.fromkeys(read) if owner is not None and owner not in names]
        return [name for name in _in_order(projectors) if name in names and self._why_not(name) is None]

    def _why_not(self, name: str) -> str | None:
        """Why the check leaves a projector out; None: it does not."""
        projector, owners = self._ways.projectors[name], set[str]()
        if issubclass(projector, ExternalProjector):
            return "it is a program, and only the application knows how to run it live"
        for other in self._ways.projectors.values():
            owners |= set() if issubclass(other, ExternalProjector) else {*other.tables()}
        for row_class in projector.reads:
            if row_type(row_class).table not in owners:
                return f"it reads {row_type(row_class).table}, which no other projector of this spec fills"
        if not projector.has_handlers() and (why := self._ways.why_not(BY_SQL, name)) is not None:
            return f"it has no handlers, and its SQL cannot be used: {why or 'none for this database'}"
        return None

    def all(self, chosen: Sequence[str], upto: Place) -> Checked:
        """Projects the events up to a place in all ways, and compares.

        :param chosen: the names of the projectors to compare
        """
        result = Checked(self._ways.store.count(BEGINNING, upto), upto)
        result.left_out += [f"{name}: {why}" for name in chosen if (why := self._why_not(name))]
        for name in self.projected(chosen):
            reference, place = self._begin(name, upto, result)
            if name not in chosen or not reference:
                continue
            if self._ways.events(name, place):
                self._compare(name, reference, place, result)
            elif place == upto:
                result.left_out.append(f"{name}: none of these events is of a type that it handles")
        return result

    def _begin(self, name: str, upto: Place, result: Checked) -> tuple[_Reference | None, Place]:
        """Projects the reference rows, which all other ways must match.

        :returns: the reference, and up to where it holds events; an event that cannot be projected ends it. None: no
            reference
        """
        reference = self._refer(name, upto)
        trouble, at = reference.outcome.trouble, reference.outcome.at
        if trouble is None:
            return reference, upto
        if reference.by_sql or at is None:
            result.differing.append(Part(name, reference.name, "", (trouble,), None))
            return None, upto
        # An event that fails in every way and an event that fails in some ways alone are different faults to the
        # author.
        others = [
            way.name for way in WAYS if self._ways.why_not(way, name) is None and not self._ways.replay(way, name, at).trouble
        ]
        lines = (trouble, f"that event gives no trouble {', '.join(others)}") if others else (trouble,)
        result.differing.append(Part(name, reference.name, "", lines, self._event(name, at, upto)))
        return reference, just_below(at)

    def _refer(self, name: str, upto: Place) -> _Reference:
        if self._ways.projectors[name].has_handlers():
            return _Reference(LIVE, False, self._ways.live(name, upto))
        outcome = self._ways.replay(BY_SQL, name, upto)
        self._ways.adopt(name)
        return _Reference(BY_SQL.name, True, outcome)

    def _compare(self, name: str, reference: _Reference, upto: Place, result: Checked) -> None:
        agreed = result.agreed.setdefault(name, [reference.name])
        for way in WAYS:
            why = self._ways.why_not(way, name)
            if why is None and way.name != reference.name:
                outcome, what = self._try(way, name, reference, upto)
                result.remarks += [remark for remark in outcome.remarks if remark not in result.remarks]
                if what:
                    first, at_first = self._first(way, name, upto)
                    # A way that fails later on: report what the first event does. Otherwise report the rows that differ
                    # at the end.
                    result.differing.append(Part(name, way.name, reference.name, at_first if outcome.trouble else what, first))
                else:
                    agreed.append(way.name)
            elif why and (line := f"{name}, {'by its SQL' if way.by_sql else way.name}: {why}") not in result.left_out:
                result.left_out.append(line)

    def _try(self, way: Way, name: str, reference: _Reference, upto: Place) -> tuple[Outcome, tuple[str, ...]]:
        outcome = self._ways.replay(way, name, upto)
        return outcome, tuple(self._differences(name, way, reference, outcome))

    def _differences(self, name: str, way: Way, reference: _Reference, outcome: Outcome) -> Iterator[str]:
        """How a way's outcome and rows differ from the reference."""
        if outcome.trouble:
            yield outcome.trouble
            return
        if aside := outcome.aside ^ reference.outcome.aside:
            where = way.name if min(aside) in outcome.aside else reference.name
            yield f"only one of the two ways sets {len(aside):,} events aside, the first at position {min(aside):,}: {where}"
        for difference in islice(self._ways.differences(name), SHOWN):
            yield difference.describe((reference.name, way.name))

    def _first(self, way: Way, name: str, upto: Place) -> tuple[Event | None, tuple[str, ...]]:
        """The first event after which a way differs from the reference, and how; a binary search over the events."""
        events = self._ways.events(name, upto)
        how = tuple[str, ...]()
        same, different = 0, len(events)
        while different - same > 1:
            middle = (same + different) // 2
            place = events[middle - 1].position
            if what := self._try(way, name, self._refer(name, place), place)[1]:
                different, how = middle, what
            else:
                same = middle
        # Projectors that read these rows need all of them.
        reference = self._refer(name, upto)
        return (events[different - 1] if events else None), how or self._try(way, name, reference, upto)[1]

    def _event(self, name: str, position: int | None, upto: Place) -> Event | None:
        return next((event for event in self._ways.events(name, upto) if event.position == position), None)


@dataclass(frozen=True)
class _Reference:
    """The reference that other ways are compared with.

    :param name: the name of the way that has produced it
    """

    name: str
    by_sql: bool
    outcome: Outcome


def _in_order(projectors: Mapping[str, type[Projector]]) -> list[str]:
    """Projectors in the order of their reads; scratch tables have no foreign keys, so parents do not matter here."""
    return sort(needs(projectors), "the projectors read each other in a circle", "let them go in one pass (`composed_of`)")


def place_name(url: sa.URL, schema: str | None, of: str) -> str:
    """The name of a check's scratch place; checks of the same thing share a name, so that they do not run at once."""
    identity = f"{url.host}:{url.port}/{url.database}/{schema}/{of}"
    return f"projection_rebuild_check_{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
