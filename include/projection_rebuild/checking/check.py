"""The same events, every way: projects a sample of a store live, folded in one batch, forgetting after every event, in shards and by SQL,
and compares all rows. So it finds what depends on batches, memory, shards or ranges before a rebuild does; nothing but tables apart is written."""

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

EVENTS = 10_000
"""How many events are looked at, unless somebody says otherwise."""

SHOWN = 5
"""Rows of a table that are named where a way differs."""


@dataclass(frozen=True)
class Part:
    """Where a way differs from the others.

    :param way: in words
    :param reference: the way that it is compared with; empty: this is that one, and it did not come to its end
    :param what: what differs, a line each
    :param event: the first event after which the ways part; None: it could not be told
    """

    projector: str
    way: str
    reference: str
    what: tuple[str, ...]
    event: Event | None

    def describe(self) -> str:
        """Several lines; keys of rows are in it, and never a value."""
        event = f"the event {self.event.type} at position {self.event.position:,}" if self.event else ""
        if self.reference:
            head, at = (
                f"{self.projector}, {self.way}: it is not as it is {self.reference}",
                f"; they part at {event}" if event else "",
            )
        else:
            head, at = (
                f"{self.projector}, {self.way}: it cannot be projected to the end",
                f"; it ends at {event}" if event else "",
            )
        return "\n".join([head + at, *(f"  {each}" for each in self.what)])


@dataclass
class Checked:
    """What a check has found.

    :param events: how many events were looked at, of whatever type
    :param upto: the position of the last one
    :param agreed: by projector, the ways that have given the same rows
    :param differing: where that is not so
    :param left_out: what was not looked at, each with its reason
    :param remarks: what is no difference and worth a word
    """

    events: int
    upto: Place
    agreed: dict[str, list[str]] = field(default_factory=dict)
    differing: list[Part] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether all ways have given the same rows; not where there was nothing to compare."""
        return not self.differing and any(len(ways) > 1 for ways in self.agreed.values())

    def describe(self) -> str:
        """For a person."""
        lines = [f"{self.events:,} events, up to {said(self.upto)}"]
        lines += [f"{name}: the same rows {', '.join(ways)}" for name, ways in self.agreed.items() if len(ways) > 1]
        lines += [f"left out: {each}" for each in self.left_out]
        lines += [f"note: {each}" for each in self.remarks]
        lines += [each.describe() for each in self.differing]
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
    """Projects the first events of a store in every way, and compares.

    :param event_store: only read
    :param read_models: only read, if there is a ``scratch``; otherwise the tables apart are made in that database, in a schema of their own
        (on MySQL and MariaDB a database, on SQLite a file)
    :param scratch: where they are made instead
    :param projectors: names; None: all of the spec
    :param events: how many
    :raises RebuildError: it cannot be done; nothing is left of what was made for it
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
        apart = models if scratch is None else of_our_own(scratch)
        self._engines = {models, store, apart}
        if models.dialect.driver != apart.dialect.driver:
            # No server has to be asked for that.
            raise _unlike(dialect_class(models), dialect_class(apart))
        self._models, self._apart = dialect_for(models, spec.read_models.conn_id), dialect_for(apart, "the scratch database")
        if self._models.database != self._apart.database:
            raise _unlike(type(self._models), type(self._apart))
        self._store = Sample(dialect_for(store, spec.event_store.conn_id), spec.event_store)
        self._one_database = same_database(store, models) and same_database(models, apart)
        self._projectors = spec.load_projectors()

    @boundary.step("check", boundary.UNTOUCHED)
    def run(self, projectors: Sequence[str] | None, events: int) -> Checked:
        try:
            return self._run([*self._projectors] if projectors is None else [*projectors], events)
        finally:
            for each in self._engines:
                each.dispose()

    def _run(self, chosen: Sequence[str], events: int) -> Checked:
        if unknown := [each for each in chosen if each not in self._projectors]:
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
            found = comparing.all(chosen, upto)
        if self._store.count(BEGINNING, upto) != counted:
            raise SettleTimeout(
                f"events have appeared up to {said(upto)} while these were looked at; do it again, or look at fewer (--events)"
            )
        return found

    def _make_tables(self, scratch: Scratch, schema: str | None, names: Sequence[str]) -> None:
        tables = [table for name in names for table in self._projectors[name].tables()]
        made: list[str] = []
        if (section := self._spec.structure) is not None:
            sets = [TableSet.of(each, schema=schema, limit=self._apart.max_identifier) for each in tables]
            statements = schema_change.statements(section, tables, self._apart.engine.dialect)
            with self._apart.connect() as connection, self._apart.try_structure(connection, sets, statements, {}) as trial:
                made = [*trial.forms]
                make_alike(self._apart, trial.connection, trial.schema, scratch, made)
        with self._models.connect() as live:
            make_alike(self._models, live, schema, scratch, [each for each in tables if each not in made])

    def _bring_events(self, scratch: Scratch, chosen: Sequence[str], upto: Place) -> None:
        """SQL of projectors finds the events, as in a run."""
        by_sql = any(statements_of(self._projectors[name], self._models.database) for name in chosen)
        if by_sql and self._one_database and upto is not None:
            self._models.bring(scratch, self._spec.event_store.table, self._spec.event_store.columns.position, upto)


def _unlike(models: type[Dialect], apart: type[Dialect]) -> SpecError:
    return SpecError(
        f"the scratch database is {apart.database}, and the read models are in {models.database}: the tables cannot be made alike"
    )


def make_alike(dialect: Dialect, live: sa.Connection, schema: str | None, scratch: Scratch, tables: Sequence[str]) -> None:
    """Makes empty tables like live ones in a place apart.

    :raises PlanError: there is no such table
    """
    with scratch.dialect.connect() as connection:
        for table in tables:
            if not dialect.table_exists(live, schema, table):
                raise PlanError(f"there is no table {table}: make it, or correct its name in the projector's row class")
            for statement in dialect.apart(live, TableSet.of(table, schema=schema, limit=dialect.max_identifier), scratch):
                scratch.dialect.run(connection, statement)


class Comparing:
    """Holds the ways of projectors against each other."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways

    def projected(self, chosen: Sequence[str]) -> list[str]:
        """The projectors whose tables are filled, in an order that works: those chosen, and those whose rows they read."""
        projectors, found = self._ways.projectors, [*chosen]
        owners = {table: name for name, each in projectors.items() for table in each.tables()}
        for name in found:
            read = (owners.get(row_type(each).table) for each in projectors[name].reads)
            found += [each for each in dict.fromkeys(read) if each is not None and each not in found]
        return [name for name in _in_order(projectors) if name in found and self._why_not(name) is None]

    def _why_not(self, name: str) -> str | None:
        """Why a projector is left out; None: it is not."""
        projector, owners = self._ways.projectors[name], set[str]()
        if issubclass(projector, ExternalProjector):
            return "it is a program, of which only the application knows how it works live"
        for each in self._ways.projectors.values():
            owners |= set() if issubclass(each, ExternalProjector) else {*each.tables()}
        for each in projector.reads:
            if row_type(each).table not in owners:
                return f"it reads {row_type(each).table}, which no other projector of this spec fills"
        if not projector.has_handlers() and (why := self._ways.why_not(BY_SQL, name)) is not None:
            return f"it has no handlers, and its SQL cannot be used: {why or 'none for this database'}"
        return None

    def all(self, chosen: Sequence[str], upto: Place) -> Checked:
        """Projects the events up to a place in all ways.

        :param chosen: the names of the projectors that are compared
        """
        found = Checked(self._ways.store.count(BEGINNING, upto), upto)
        found.left_out += [f"{name}: {why}" for name in chosen if (why := self._why_not(name))]
        for name in self.projected(chosen):
            reference, place = self._begin(name, upto, found)
            if name not in chosen or not reference:
                continue
            if self._ways.events(name, place):
                self._compare(name, reference, place, found)
            elif place == upto:
                found.left_out.append(f"{name}: none of these events is of a type that it handles")
        return found

    def _begin(self, name: str, upto: Place, found: Checked) -> tuple[_Reference | None, Place]:
        """Makes the rows that all others are compared with.

        :returns: and up to where they hold events: an event that cannot be projected ends them
        """
        reference = self._refer(name, upto)
        trouble, at = reference.outcome.trouble, reference.outcome.at
        if trouble is None:
            return reference, upto
        if reference.by_sql or at is None:
            found.differing.append(Part(name, reference.name, "", (trouble,), None))
            return None, upto
        # Of an event that no way can take the author thinks otherwise than of one that only some can.
        others = [
            way.name for way in WAYS if self._ways.why_not(way, name) is None and not self._ways.replay(way, name, at).trouble
        ]
        told = (trouble, f"that event gives no trouble {', '.join(others)}") if others else (trouble,)
        found.differing.append(Part(name, reference.name, "", told, self._event(name, at, upto)))
        return reference, just_below(at)

    def _refer(self, name: str, upto: Place) -> _Reference:
        if self._ways.projectors[name].has_handlers():
            return _Reference(LIVE, False, self._ways.live(name, upto))
        outcome = self._ways.replay(BY_SQL, name, upto)
        self._ways.adopt(name)
        return _Reference(BY_SQL.name, True, outcome)

    def _compare(self, name: str, reference: _Reference, upto: Place, found: Checked) -> None:
        agreed = found.agreed.setdefault(name, [reference.name])
        for way in WAYS:
            why = self._ways.why_not(way, name)
            if why is None and way.name != reference.name:
                outcome, what = self._try(way, name, reference, upto)
                found.remarks += [each for each in outcome.remarks if each not in found.remarks]
                if what:
                    first, at_first = self._first(way, name, upto)
                    # Where it ends later on, this says what the first event does; rows that differ are all of them.
                    found.differing.append(Part(name, way.name, reference.name, at_first if outcome.trouble else what, first))
                else:
                    agreed.append(way.name)
            elif why and (said_so := f"{name}, {'by its SQL' if way.by_sql else way.name}: {why}") not in found.left_out:
                found.left_out.append(said_so)

    def _try(self, way: Way, name: str, reference: _Reference, upto: Place) -> tuple[Outcome, tuple[str, ...]]:
        outcome = self._ways.replay(way, name, upto)
        return outcome, tuple(self._told(name, way, reference, outcome))

    def _told(self, name: str, way: Way, reference: _Reference, outcome: Outcome) -> Iterator[str]:
        """How a way differs from the one that it is compared with."""
        if outcome.trouble:
            yield outcome.trouble
            return
        if aside := outcome.aside ^ reference.outcome.aside:
            where = way.name if min(aside) in outcome.aside else reference.name
            yield f"{len(aside):,} events are set aside by one of them only, the first one at position {min(aside):,} {where}"
        for each in islice(self._ways.differences(name), SHOWN):
            yield each.describe((reference.name, way.name))

    def _first(self, way: Way, name: str, upto: Place) -> tuple[Event | None, tuple[str, ...]]:
        """The event after which a way parts from the other, and how; by halves, over the beginnings of the history."""
        events = self._ways.events(name, upto)
        how = tuple[str, ...]()
        same, parted = 0, len(events)
        while parted - same > 1:
            middle = (same + parted) // 2
            place = events[middle - 1].position
            if told := self._try(way, name, self._refer(name, place), place)[1]:
                parted, how = middle, told
            else:
                same = middle
        # Those that read these rows look at all of them.
        reference = self._refer(name, upto)
        return (events[parted - 1] if events else None), how or self._try(way, name, reference, upto)[1]

    def _event(self, name: str, position: int | None, upto: Place) -> Event | None:
        return next((each for each in self._ways.events(name, upto) if each.position == position), None)


@dataclass(frozen=True)
class _Reference:
    """What ways are compared with.

    :param name: the way by which it was made
    """

    name: str
    by_sql: bool
    outcome: Outcome


def _in_order(projectors: Mapping[str, type[Projector]]) -> list[str]:
    """Who is read goes before who reads; a foreign key, for which a run wants its parent's projector as well, is not there."""
    return sort(needs(projectors), "the projectors read each other in a circle", "let them go in one pass (`composed_of`)")


def place_name(url: sa.URL, schema: str | None, of: str) -> str:
    """What the place of a check is called: two checks of one thing do not go at once, others do."""
    said_of = f"{url.host}:{url.port}/{url.database}/{schema}/{of}"
    return f"projection_rebuild_check_{hashlib.sha256(said_of.encode()).hexdigest()[:8]}"
