"""A sample of aggregates, refolded from raw rows by the handlers alone and compared with green, value by value, by the database.

Which rows can be judged, a projector declares: those that no event of another aggregate, partition or period touches (`part`,
`partition_by`, ``@row(..., stream=...)``). What cannot be sampled is told with its reason.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.external import ExternalProjector
from projection_rebuild.authoring.parts import ByAggregate, ByPeriod
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import PoisonEvent
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.trouble import MAY_PASS, Kind
from projection_rebuild.ledger import Checkpoint
from projection_rebuild.model.column_kinds import ColumnKind
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.results import Sampled
from projection_rebuild.rows.types import Key, RowType, row_type
from projection_rebuild.rows.values import plain_type
from projection_rebuild.run.context import Context
from projection_rebuild.verification.raw_events import AT_ONCE, RawEvents
from projection_rebuild.verification.refold import NUMBER, Aggregate, GreenLook, Refold, Temporary, Undeclared, promised

LONGEST = 1_000
"""Events of one aggregate; one that has more is left out, since they are projected one after the other."""

EVENTS = 4
"""Events for each aggregate of the sample, over all of them: so many times ``verify.sample`` are refolded for one projector, or ..."""

SHARE = 250_000
"""... of all its events one in so many for each aggregate of the sample, if that is more: one in 250 for 1,000."""

MOST_PLACES = 100_000
"""Positions that are kept while aggregates are looked for by a field of the payload."""

TOO_LONG, TOO_MANY = "they have too many events each", "they have too many events together"
"""Why aggregates are left out: by :data:`LONGEST`, by :data:`EVENTS` or :data:`BYTES`."""

BYTES = 32 * 2**20
"""Of payloads as they are stored that are kept for one sample of all projectors: decoded they take several times as much memory."""

SCANNED = 5_000_000
"""Events of a store that is read once for a sample where no index finds the aggregates."""

SCANNED_HERE = 100_000
"""The same where each event has to be decoded, since only the author's code tells whose it is."""

TOGETHER, ROWS = 25, 5_000
"""Streams that are read by one statement, and its rows at most; where there are more, each stream is read by itself."""

LISTED = 1_000
"""Values in one list of a statement."""

SAME_FLOATS = 1e-9
"""So near are two sums of the same floating-point numbers, added in another order."""

SHOWN = 5
"""Rows that are told of one projector."""


@dataclass(frozen=True)
class _Unit:
    """By what the events and rows of a projector belong together.

    :param whose: by owned row class, the attribute that says whose row it is
    :param by_field: the field of the payload that says whose event it is
    :param of: code of the author that does; with neither it is the event's stream
    """

    whose: Mapping[type, str]
    by_field: str | None = None
    of: Callable[[Event], object] | None = None

    @property
    def by_stream(self) -> bool:
        return self.by_field is None and self.of is None


def unit_of(projector: type[Projector]) -> _Unit | str:
    """What of a projector can be refolded by itself; or why nothing can."""
    if issubclass(projector, ExternalProjector):
        return "it is a program, which has no handlers here"
    if not projector.has_handlers():
        return "it has only SQL, and nothing to hold it against"
    part, partition = projector.part, projector.partition()
    if isinstance(part, ByAggregate) and part.of is None:
        return _Unit(part.rows)
    if partition is not None:
        return _Unit(partition.attributes, by_field=partition.field)
    if isinstance(part, ByAggregate | ByPeriod):
        return _Unit(part.rows, of=part.of)
    return "its rows may be fed by many streams; declare `partition_by`, `part`, or the `stream` of its rows"


def take(
    context: Context, plan: Plan, most: int, *, turn: int | None = 0, again: Mapping[str, Sequence[str]] | None = None
) -> list[Sampled]:
    """Takes a sample of each projector of a run, each up to the position of its checkpoint. Writes nothing but temporary tables.

    :param most: how many aggregates of each; those touched last are half of them
    :param turn: another number for another choice of the other half; None: those touched last only
    :param again: by projector, the aggregates that are looked at once more; no others are
    """
    why = "verify.sample is 0" if not most else "a rollback brings back what was live, as it was" if plan.rolls_back else None
    if why is not None:
        return [Sampled(projector=name, not_sampled=why) for name in plan.projectors]
    with context.store.dialect.connect() as store, context.dialect.connect() as connection:
        raw = RawEvents(context.store.dialect, store, context.spec.event_store)
        return _Sample(context, plan, connection, raw, most, turn, again).taken()


@dataclass
class _Work:
    """One projector at work.

    :param ahead: positions above ``upto`` that green holds all the same: an undone switch has drained them
    :param only: the aggregates among which is chosen; None: all
    :param most: events that are refolded at most
    """

    name: str
    projector: type[Projector]
    unit: _Unit
    upto: int
    without: frozenset[int]
    types: frozenset[str]
    ahead: frozenset[int]
    only: frozenset[str] | None
    most: int
    events: dict[str, list[Event]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The last position that green may hold."""
        return max([self.upto, *self.ahead])

    def holds(self, event: Event) -> bool:
        """Whether green holds an event."""
        if event.type not in self.types or event.position in self.without:
            return False
        return event.position <= self.upto or event.position in self.ahead

    @property
    def gathered(self) -> int:
        return sum(map(len, self.events.values()))


class _Sample:
    def __init__(
        self,
        context: Context,
        plan: Plan,
        connection: sa.Connection,
        raw: RawEvents,
        most: int,
        turn: int | None,
        again: Mapping[str, Sequence[str]] | None,
    ) -> None:
        self._context = context
        self._plan = plan
        self._connection = connection
        self._raw = raw
        self._most = most
        self._again = again
        self._of_any_age = turn is not None
        self._pick = random.Random(f"{context.run_id} {turn}")  # noqa: S311 - a choice of samples
        self._picked: list[tuple[str, Any]] | None = None
        self._columns = context.spec.event_store.columns

    def taken(self) -> list[Sampled]:
        checkpoints = self._context.ledger.checkpoints.of_projectors(self._connection, self._context.run_id)
        names = [name for name in self._plan.projectors if self._again is None or name in self._again]
        begun = {name: self._begin(name, checkpoints[name]) for name in names}
        works = [each for each in begun.values() if isinstance(each, _Work)]
        refused = self._gather(works)
        return [
            each
            if isinstance(each, Sampled)
            else Sampled(projector=name, position=each.upto, not_sampled=refused[name])
            if name in refused
            else self._judged(each)
            for name, each in begun.items()
        ]

    def _gather(self, works: Sequence[_Work]) -> dict[str, str]:
        """Reads the events of all projectors; why that of some was not done, by their names."""
        refused: dict[str, str] = {}
        by_field: dict[str, list[_Work]] = {}
        for work in works:
            of, name = work.unit.of, work.unit.by_field
            if of is not None:
                refused[work.name] = self._gather_by_code(work, of)
            elif name is None:
                by_field.setdefault("", []).append(work)
            elif self._raw.has_json and not work.projector.upcasters.concern(work.types):
                by_field.setdefault(name, []).append(work)
            else:
                refused[work.name] = self._gather_by_code(work, partial(_field_of, name))
        for name, some in by_field.items():
            why = self._gather_fields(name, some) if name else self._gather_streams(some)
            refused |= {work.name: why for work in some}
        return {name: why for name, why in refused.items() if why}

    def _begin(self, name: str, checkpoint: Checkpoint) -> _Work | Sampled:
        projector = self._context.projector(name)
        unit = unit_of(projector)
        if self._plan.part is not None and not (isinstance(unit, _Unit) and self._is_of_part(projector, unit)):
            unit = "a part of it was rebuilt, whose rows are not told apart by aggregates that can be looked for"
        if isinstance(unit, str):
            return Sampled(projector=name, not_sampled=unit)
        if checkpoint.position is None:
            return Sampled(projector=name)
        aside = self._context.ledger.dead_letters.of_run(self._connection, self._context.run_id, name)
        return _Work(
            name,
            projector,
            unit,
            checkpoint.position,
            frozenset(each.position for each in aside),
            frozenset(projector.stored_types()),
            frozenset(self._plan.already or ()),
            self._listed(name),
            max(EVENTS * self._most, checkpoint.events * self._most // SHARE),
        )

    def _listed(self, name: str) -> frozenset[str] | None:
        """The aggregates that are looked at once more, or those of a part."""
        if self._again is not None:
            return frozenset(self._again[name])
        if self._plan.part is None:
            return None
        part = self._context.ledger.partial_rebuilds.find(self._connection, self._context.run_id, name)
        return frozenset(() if part is None else self._context.ledger.partial_rebuilds.keys(self._connection, part.part_id))

    @staticmethod
    def _is_of_part(projector: type[Projector], unit: _Unit) -> bool:
        return isinstance(projector.part, ByAggregate) and {**projector.part.rows} == {**unit.whose}

    # Which aggregates, and their events -----------------------------------------------------------------------------

    def _gather_streams(self, works: Sequence[_Work]) -> str:
        """Reads the events of the chosen streams, once for all projectors; or says why it is not done."""
        upto = max(work.last for work in works)
        chosen = self._chosen_streams(works, upto)
        types = frozenset[str]().union(*(work.types for work in works))
        indexed = self._raw.finds(self._columns.stream)
        if not indexed and (size := self._raw.size()) > SCANNED:
            return f"no index of the event store begins with {self._columns.stream}, and it holds about {size:,} events"
        rows = self._rows_at_once(types)
        for some in _slices(chosen, TOGETHER if indexed else LISTED):
            if self._raw.kept > BYTES:
                self._leave_out(works, some, TOO_MANY)
                continue
            found = self._raw.of_streams(some, upto, types, min(rows, ROWS) if indexed else min(4 * rows, MOST_PLACES))
            while found is None and not indexed:
                # Each reading reads the whole store, so that there are few: those touched last are looked at, if not that many can be.
                if len(some) == 1:
                    return TOO_MANY
                few = max(1, len(some) // 10)
                self._leave_out(works, some[few:], TOO_MANY)
                some = some[:few]
                found = self._raw.of_streams(some, upto, types, min(4 * rows, MOST_PLACES))
            for stream in some:
                events = self._raw.of_stream(stream, upto, types, min(rows, LONGEST + 1)) if found is None else found[stream]
                if events is None:
                    self._leave_out(works, [stream], TOO_LONG)
                else:
                    self._divide(works, stream, events)
        return ""

    def _rows_at_once(self, types: Collection[str]) -> int:
        """How many events of a store fit into memory beside those that are kept."""
        return max(50, BYTES // 4 // self._raw.typical_size(types))

    @staticmethod
    def _leave_out(works: Sequence[_Work], keys: Sequence[str], why: str) -> None:
        for work in works:
            work.left_out[why] += sum(work.only is None or key in work.only for key in keys)

    def _divide(self, works: Sequence[_Work], key: str, events: Sequence[Event]) -> None:
        for work in (each for each in works if each.only is None or key in each.only):
            self._add(work, key, events)

    def _add(self, work: _Work, key: str, events: Iterable[Event]) -> None:
        own = [each for each in events if work.holds(each)]
        if len(own) > LONGEST:
            work.left_out[TOO_LONG] += 1
        elif own and work.gathered + len(own) > work.most:
            work.left_out[TOO_MANY] += 1
        elif own:
            work.events[key] = own

    def _chosen_streams(self, works: Sequence[_Work], upto: int) -> list[str]:
        listed = [key for work in works for key in sorted(work.only or ())[: self._most]]
        if listed or any(work.only is not None for work in works):
            return list(dict.fromkeys(listed))
        types = frozenset[str]().union(*(work.types for work in works))
        # Of any age: those that have only later events make no rows up to the checkpoint.
        newest = [*self._raw.newest_streams(10 * self._most, types)]
        whole = len(newest) < 10 * self._most
        return self._half_and_half(newest, self._rest(newest) if whole else [stream for stream, _ in self._somewhere(upto)])

    def _half_and_half(self, newest: Iterable[str], older: Iterable[str]) -> list[str]:
        """Those touched last, and some of the others, each once."""
        last, others = list(dict.fromkeys(newest)), list(dict.fromkeys(older))
        first = last[: max(self._most - len(others), self._most - self._most // 2)]
        return list(dict.fromkeys([*first, *others, *last]))[: self._most]

    def _rest(self, newest: Iterable[str]) -> list[str]:
        """Where these are all that there are: some of those that were not touched last, others in each turn."""
        rest = list(dict.fromkeys(newest))[self._most - self._most // 2 :] if self._of_any_age else []
        self._pick.shuffle(rest)
        return rest[: self._most // 2]

    def _somewhere(self, upto: int) -> list[tuple[str, Any]]:
        """Streams and payloads of events at random places of the store."""
        first = self._raw.first() if self._of_any_age else None
        if first is None or first > upto or not self._raw.finds(self._columns.position):
            return []
        if self._picked is None:
            places = [self._pick.randint(first, upto) for _ in range(self._most // 2)]
            self._picked = [each for place in places for each in self._raw.next_to(place, upto)]
        return self._picked

    def _gather_fields(self, name: str, works: Sequence[_Work]) -> str:
        """Reads the events that say whose they are in a field of the payload, once for all projectors; or says why it is not done."""
        if (size := self._raw.size()) > SCANNED:
            return f"its aggregates are told by a field of the payload, and the event store holds about {size:,} events"
        upto, types = max(work.last for work in works), frozenset[str]().union(*(work.types for work in works))
        chosen = self._chosen_values(name, works, upto, types)
        places = self._places(name, chosen, upto, types)
        if isinstance(places, str):
            return places
        most, fitting, together = max(work.most for work in works), list[int](), 0
        for value in chosen:
            if len(places[value]) <= LONGEST and together < most:
                fitting += places[value]
                together += len(places[value])
        events: dict[str, list[Event]] = {value: [] for value in chosen}
        for event in self._raw.at(sorted(fitting), min(AT_ONCE, self._rows_at_once(types))):
            if self._raw.kept > BYTES:
                # Those of which not all are read are left out.
                break
            events.get(str(event.payload.get(name)), []).append(event)
        for work in works:
            for value in (each for each in chosen if work.only is None or each in work.only):
                if not self._count_out(work, len(places[value]), len(events[value])):
                    self._add(work, value, events[value])
        return ""

    def _places(self, name: str, chosen: Sequence[str], upto: int, types: frozenset[str]) -> dict[str, list[int]] | str:
        """Where the events of each value are; or why they are not looked for."""
        places: dict[str, list[int]] = {value: [] for value in chosen}
        try:
            for some in _slices(chosen):
                found = self._raw.places_of(name, some, upto, types, MOST_PLACES)
                if len(found) == MOST_PLACES:
                    return TOO_MANY
                for value, position in found:
                    places.get(value, []).append(position)
        except sa.exc.DBAPIError as error:
            trouble = trouble_of(error)
            if trouble is None or trouble.kind in MAY_PASS:
                raise
            return "its aggregates are told by a field of the payload, and the database cannot read some of these as JSON"
        return places

    @staticmethod
    def _count_out(work: _Work, there: int, read: int) -> bool:
        """Whether an aggregate's events were not read, which is told."""
        if there > LONGEST:
            work.left_out[TOO_LONG] += 1
        elif there > read:
            work.left_out[TOO_MANY] += 1
        return there > read

    def _chosen_values(self, name: str, works: Sequence[_Work], upto: int, types: frozenset[str]) -> list[str]:
        if any(work.only is not None for work in works):
            return list(dict.fromkeys(key for work in works for key in sorted(work.only or ())[: self._most]))
        newest = [*self._raw.newest_payloads(2 * self._most, types)]
        values = [*self._values(newest, name)]
        whole = len(newest) < 2 * self._most
        older = self._rest(values) if whole else self._values([payload for _, payload in self._somewhere(upto)], name)
        return self._half_and_half(values, older)

    def _values(self, payloads: Iterable[Any], name: str) -> Iterator[str]:
        for payload in payloads:
            if (value := self._raw.field_of(payload, name)) is not None:
                yield value

    def _gather_by_code(self, work: _Work, of: Callable[[Event], object]) -> str:
        """Where only the author's code tells whose an event is, each has to be read and decoded."""
        if (size := self._raw.size()) > SCANNED_HERE:
            return f"only its code tells whose an event is, and the event store holds about {size:,} events"
        if size * self._raw.typical_size(work.types) > 4 * BYTES:
            return "only its code tells whose an event is, and the events are too large to be kept in memory"
        found: dict[str, list[Event]] = {}
        for event in self._raw.everything(work.last, work.types):
            if work.holds(event):
                for key in self._keys(work, of, event):
                    found.setdefault(key, []).append(event)
        if work.only is not None:
            found = {key: events for key, events in found.items() if key in work.only}
        by_age = sorted(found, key=lambda key: found[key][-1].position, reverse=True)
        older = by_age[self._most // 2 :]
        self._pick.shuffle(older)
        chosen = [*by_age[: self._most // 2], *older][: self._most]
        for key in chosen:
            self._add(work, key, found[key])
        return ""

    @staticmethod
    def _keys(work: _Work, of: Callable[[Event], object], event: Event) -> set[str]:
        """Whose an event is, by what it is today."""
        try:
            current = work.projector.upcasters.current(event)
        except PoisonEvent:
            # Nobody's: the replay would have told, or set it aside.
            return set()
        return {str(key) for each in current if (key := of(each)) is not None}

    # What they make of it -------------------------------------------------------------------------------------------

    def _judged(self, work: _Work) -> Sampled:
        """Refolds what was gathered, and compares it with green."""
        result = Sampled(projector=work.name, position=work.upto, remarks=self._remarks(work))
        if not work.events:
            return result
        try:
            with ExitStack() as stack:
                owned = {each: self._temporary(each, stack) for each in work.projector.owns}
                made = Refold(work.projector, owned, self._looks(work.projector), work.unit.whose).made(work.events)
                compared = _Compared(self._context, self._connection, work, owned, made)
                compared.run()
        except Undeclared:
            why = "its events reach rows of others than it declares; correct `part`, `partition_by` or the `stream` of its rows"
            return Sampled(projector=work.name, position=work.upto, not_sampled=why)
        except sa.exc.DBAPIError as error:
            trouble = trouble_of(error)
            if trouble is None or trouble.kind not in (Kind.VALUE, Kind.DENIED):
                raise
            if trouble.kind is Kind.DENIED:
                why = "our account may not make temporary tables; grant it that (MySQL, MariaDB: CREATE TEMPORARY TABLES)"
                return Sampled(projector=work.name, position=work.upto, not_sampled=why)
            compared_findings = [f"{work.name}: {trouble.describe()}, which its handlers give one event at a time"]
            return result.model_copy(update={"findings": compared_findings, "differing": sorted(work.events)})
        found = {
            "aggregates": len(made),
            "events": work.gathered,
            "rows": compared.rows,
            "differing": sorted(compared.differing),
        }
        if work.projector.reads and compared.findings:
            remark = (
                f"{len(compared.differing):,} differ, perhaps since the rows that its handlers look at are newer than they were"
            )
            return result.model_copy(update={**found, "differing": [], "remarks": [*result.remarks, remark]})
        return result.model_copy(update={**found, "findings": compared.findings})

    def _remarks(self, work: _Work) -> list[str]:
        left = [f"{count:,} more were left out: {why}" for why, count in work.left_out.items() if count]
        looked = "what its handlers look at was read as it is now"
        return [*left, *([looked] if work.projector.reads else [])]

    def _temporary(self, row_class: type, stack: ExitStack) -> Temporary:
        kind, context = row_type(row_class), self._context
        made = Temporary(context.dialect, self._connection, context.schema, context.table_set(kind.table).green, kind)
        stack.callback(made.drop)
        return made

    def _looks(self, projector: type[Projector]) -> dict[type, GreenLook]:
        in_run, context = set(self._plan.tables), self._context
        found = {}
        for each in projector.reads:
            kind = row_type(each)
            table = context.table_set(kind.table).green if kind.table in in_run else kind.table
            found[each] = GreenLook(context.dialect, self._connection, context.schema, table, kind)
        return found


class _Compared:
    """The rows of refolded aggregates beside those of green."""

    def __init__(
        self,
        context: Context,
        connection: sa.Connection,
        work: _Work,
        owned: Mapping[type, Temporary],
        made: Sequence[Aggregate],
    ) -> None:
        self._dialect = context.dialect
        self._schema = context.schema
        self._connection = connection
        self._work = work
        self._owned = owned
        self._made = made
        self.rows = 0
        self.findings: list[str] = []
        self.differing: set[str] = set()

    def run(self) -> None:
        for each in self._made:
            if each.failed:
                self._found(each.key, f"{self._work.name}: {each.failed}, which the replay has projected")
        for row_class, temporary in self._owned.items():
            made = [
                (each.key, key, row.known)
                for each in self._made
                if not each.failed
                for key, row in each.rows.rows[row_class].items()
            ]
            temporary.clear()
            numbers = temporary.put([known for _, _, known in made if known is not None])
            rows = {number: (aggregate, key) for number, (aggregate, key, _) in zip(numbers, made, strict=True)}
            self.rows += len(rows)
            self._missing_and_changed(temporary, rows)
            self._unexpected(temporary, [each.key for each in self._made if not each.failed])

    def _found(self, aggregate: str, what: str) -> None:
        if len(self.findings) < SHOWN:
            self.findings.append(what)
        self.differing.add(aggregate)

    def _missing_and_changed(self, temporary: Temporary, rows: Mapping[int, tuple[str, Key]]) -> None:
        kind, quote = temporary.kind, self._dialect.quote
        match = " AND ".join(f"g.{quote(name)} = s.{quote(name)}" for name in kind.key)
        flags = [f"CASE WHEN {self._differs(temporary, name)} THEN 1 ELSE 0 END AS d{at}" for at, name in enumerate(kind.columns)]
        gone = f"CASE WHEN g.{quote(kind.key[0])} IS NULL THEN 1 ELSE 0 END AS gone"
        names = ["gone", *(f"d{at}" for at in range(len(kind.columns)))]
        statement = (
            f"SELECT d.* FROM (SELECT s.{NUMBER} AS n, {gone}, {', '.join(flags)} FROM {temporary.qualified} s "
            f"LEFT JOIN {self._green(temporary)} g ON {match}) d WHERE {' OR '.join(f'd.{name} = 1' for name in names)} ORDER BY d.n"
        )
        for number, is_gone, *flagged in self._connection.exec_driver_sql(statement, ()).all():
            aggregate, key = rows[int(number)]
            if is_gone:
                self._found(aggregate, f"{kind.table}: green has no row {_said(key)}, which its events make")
                continue
            columns = [name for name, differs in zip(kind.columns, flagged, strict=True) if differs]
            if columns := [name for name in columns if not self._says_the_same(temporary, name, int(number), match)]:
                self._found(
                    aggregate, f"{kind.table}: the row {_said(key)} is not as its events make it, in {', '.join(columns)}"
                )

    def _differs(self, temporary: Temporary, name: str) -> str:
        kind, quoted = temporary.columns[name].kind, self._dialect.quote(name)
        sides = (f"s.{quoted}", f"g.{quoted}")
        if kind in (ColumnKind.TEXT, ColumnKind.PADDED, ColumnKind.ENUM):
            sides = (self._dialect.exact_bytes(sides[0], kind), self._dialect.exact_bytes(sides[1], kind))
        return self._dialect.differs(*sides)

    def _says_the_same(self, temporary: Temporary, name: str, number: int, match: str) -> bool:
        """Whether two values that are not the same to the database say the same all the same.

        How a text of JSON is spelt is nobody's business. What a sum of floating-point numbers is depends on their order, which SQL does not keep.
        """
        annotation, quoted = temporary.kind.types[name], self._dialect.quote(name)
        is_json = temporary.columns[name].kind is ColumnKind.JSON or plain_type(annotation) in (dict, list)
        by_sql = bool(self._work.projector.statements(self._dialect.database))
        if not is_json and not by_sql:
            return False
        sides = [f"{side}.{quoted}" for side in ("s", "g")]
        if is_json:
            sides = [self._dialect.as_stored(each, ColumnKind.JSON) for each in sides]
        statement = f"SELECT {', '.join(sides)} FROM {temporary.qualified} s JOIN {self._green(temporary)} g ON {match} WHERE s.{NUMBER} = {number}"
        found = self._connection.exec_driver_sql(statement, ()).first()
        if found is None or is_json:
            return found is not None and bool(promised(annotation, found[0]) == promised(annotation, found[1]))
        one, other = found
        if not all(isinstance(each, (float, int)) for each in found) or not any(isinstance(each, float) for each in found):
            return False
        return math.isclose(one, other, rel_tol=SAME_FLOATS, abs_tol=SAME_FLOATS)

    def _unexpected(self, temporary: Temporary, aggregates: Sequence[str]) -> None:
        """Rows of these aggregates that no event of theirs makes."""
        kind, quote, known = temporary.kind, self._dialect.quote, set(aggregates)
        column = kind.column(self._work.unit.whose[kind.row_class])
        match = " AND ".join(f"s.{quote(name)} = g.{quote(name)}" for name in kind.key)
        columns = ", ".join(f"g.{quote(name)}" for name in (column, *kind.key))
        for some in _slices(aggregates):
            given = [self._dialect.given(_of_text(kind, column, each)) for each in some]
            statement = (
                f"SELECT {columns} FROM {self._green(temporary)} g WHERE g.{quote(column)} IN ({', '.join([self._dialect.mark] * len(some))}) "
                f"AND NOT EXISTS (SELECT 1 FROM {temporary.qualified} s WHERE {match})"
            )
            for whose, *key in self._connection.exec_driver_sql(statement, tuple(given)).all():
                aggregate = str(promised(kind.types[column], whose))
                # A collation may take another aggregate for one of these.
                if aggregate in known or aggregate.rstrip(" ") in known:
                    self._found(aggregate, f"{kind.table}: green has a row {_said(key)}, which no event makes")

    def _green(self, temporary: Temporary) -> str:
        return self._dialect.qualified(self._schema, temporary.table)


def _field_of(name: str, event: Event) -> object:
    return event.payload.get(name)


def _of_text(kind: RowType, column: str, text: str) -> Any:
    """What an aggregate's key is in the column that holds it."""
    try:
        return promised(kind.types[column], text)
    except ValueError:
        return text


def _said(key: Iterable[Any]) -> str:
    return " / ".join(map(str, key))


def _slices(values: Sequence[str], most: int = LISTED) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), most):
        yield values[start : start + most]
