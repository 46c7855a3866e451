"""Refolds a sample of aggregates from raw rows with the handlers alone, and lets the database compare them with green.

A projector declares which rows the sample can judge: rows that no event of another aggregate, partition or period
touches (`part`, `partition_by`, ``@row(..., stream=...)``). The result names each projector that cannot be sampled,
with the reason.
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
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.verification.raw_events import AT_ONCE, RawEvents
from projection_rebuild.verification.refold import NUMBER, Aggregate, GreenLook, Refold, Temporary, Undeclared, promised

LONGEST = 1_000
"""The most events of one aggregate; the sample leaves out larger ones, since it projects events one after the other."""

EVENTS = 4
"""A projector's sample has at most this many times ``verify.sample`` events; :data:`SHARE` may allow more."""

SHARE = 250_000
"""A divisor: for each aggregate of ``verify.sample``, a sample may have one in this many of its projector's events.

For 1,000 aggregates that is one event in 250.
"""

MOST_PLACES = 100_000
"""The most positions in memory while the engine searches aggregates by a field of the payload."""

TOO_LONG, TOO_MANY = "they have too many events each", "they have too many events together"
"""Why a sample leaves aggregates out: by :data:`LONGEST`; by :data:`EVENTS` or :data:`BYTES`."""

BYTES = 32 * 2**20
"""The most bytes of stored payloads in one sample; decoded, they take several times as much memory."""

SCANNED = 5_000_000
"""The most events of a store that a sample reads as a whole, if no index finds the aggregates."""

SCANNED_HERE = 100_000
"""The same limit if the sample has to decode each event, since only the author's code tells its aggregate."""

TOGETHER, ROWS = 25, 5_000
"""The most streams and rows of one statement; if it has more rows, the sample reads each stream by itself."""

LISTED = 1_000
"""The most values in one list of a statement."""

SAME_FLOATS = 1e-9
"""The tolerance for two sums of the same floating-point numbers that were added in different orders."""

SHOWN = 5
"""How many findings the sample reports for one projector."""


@dataclass(frozen=True)
class _Unit:
    """What divides the events and rows of a projector into aggregates.

    :param whose: by owned row class, the attribute that names a row's aggregate
    :param by_field: the field of the payload that names an event's aggregate
    :param of: the author's code that returns an event's aggregate; with neither, the event's stream is the aggregate
    """

    whose: Mapping[type, str]
    by_field: str | None = None
    of: Callable[[Event], object] | None = None

    @property
    def by_stream(self) -> bool:
        return self.by_field is None and self.of is None


def unit_of(projector: type[Projector]) -> _Unit | str:
    """What the sample can refold of a projector by itself; or why it can refold nothing."""
    if issubclass(projector, ExternalProjector):
        return "it is a program, which has no handlers here"
    if not projector.has_handlers():
        return "it has only SQL, and no handlers to compare it with"
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
    """Takes a sample of each projector of a run, up to the position of the projector's checkpoint.

    It writes temporary tables alone.

    :param most: how many aggregates of each projector; half of them are those with the newest events
    :param turn: seeds the random choice of the other half; None: only aggregates with the newest events
    :param again: by projector, the aggregates to refold once more; the sample takes no others
    """
    why = "verify.sample is 0" if not most else "a rollback brings the old tables back as they were" if plan.rolls_back else None
    if why is not None:
        return [Sampled(projector=name, not_sampled=why) for name in plan.projectors]
    with context.store.dialect.connect() as store, open_step(context) as step:
        raw = RawEvents(context.store.dialect, store, context.spec.event_store)
        return _Sample(context, plan, step.connection, raw, most, turn, again).taken()


@dataclass
class _Work:
    """The sample of one projector while the engine takes it.

    :param upto: the position of the projector's checkpoint
    :param without: positions of dead letters
    :param ahead: positions above ``upto`` that green holds too, since a cutover that was undone has drained them
    :param only: the aggregates to choose from; None: all
    :param most: the most events to refold
    :param left_out: how many aggregates were left out, by reason
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
        checkpoints = self._context.ledger.over(self._connection, self._context.run_id).checkpoints.of_projectors()
        names = [name for name in self._plan.projectors if self._again is None or name in self._again]
        begun = {name: self._begin(name, checkpoints[name]) for name in names}
        works = [entry for entry in begun.values() if isinstance(entry, _Work)]
        refused = self._gather(works)
        return [
            entry
            if isinstance(entry, Sampled)
            else Sampled(projector=name, position=entry.upto, not_sampled=refused[name])
            if name in refused
            else self._judged(entry)
            for name, entry in begun.items()
        ]

    def _gather(self, works: Sequence[_Work]) -> dict[str, str]:
        """Reads the events of all projectors; returns why it has not read those of some, by projector."""
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
        for name, group in by_field.items():
            why = self._gather_fields(name, group) if name else self._gather_streams(group)
            refused |= {work.name: why for work in group}
        return {name: why for name, why in refused.items() if why}

    def _begin(self, name: str, checkpoint: Checkpoint) -> _Work | Sampled:
        projector = self._context.projector(name)
        unit = unit_of(projector)
        if self._plan.part is not None and not (isinstance(unit, _Unit) and self._is_of_part(projector, unit)):
            unit = "the run has rebuilt a part of it, and the sample cannot find the aggregates of that part"
        if isinstance(unit, str):
            return Sampled(projector=name, not_sampled=unit)
        if checkpoint.position is None:
            return Sampled(projector=name)
        aside = self._context.ledger.over(self._connection, self._context.run_id).dead_letters.of_run(name)
        return _Work(
            name,
            projector,
            unit,
            checkpoint.position,
            frozenset(letter.position for letter in aside),
            frozenset(projector.stored_types()),
            frozenset(self._plan.already or ()),
            self._listed(name),
            max(EVENTS * self._most, checkpoint.events * self._most // SHARE),
        )

    def _listed(self, name: str) -> frozenset[str] | None:
        """The aggregates to refold once more, or those of a part; None: any."""
        if self._again is not None:
            return frozenset(self._again[name])
        if self._plan.part is None:
            return None
        part = self._context.ledger.over(self._connection, self._context.run_id).partial_rebuilds.find(name)
        return frozenset(
            ()
            if part is None
            else self._context.ledger.over(self._connection, self._context.run_id).partial_rebuilds.keys(part.part_id)
        )

    @staticmethod
    def _is_of_part(projector: type[Projector], unit: _Unit) -> bool:
        return isinstance(projector.part, ByAggregate) and {**projector.part.rows} == {**unit.whose}

    # Choosing aggregates, and reading their events ------------------------------------------------------------------

    def _gather_streams(self, works: Sequence[_Work]) -> str:
        """Reads the events of the chosen streams, once for all projectors.

        :returns: why it has read none; empty: it has
        """
        upto = max(work.last for work in works)
        chosen = self._chosen_streams(works, upto)
        types = frozenset[str]().union(*(work.types for work in works))
        indexed = self._raw.finds(self._columns.stream)
        if not indexed and (size := self._raw.size()) > SCANNED:
            return f"no index of the event store begins with {self._columns.stream}, and it holds about {size:,} events"
        rows = self._rows_at_once(types)
        for batch in _slices(chosen, TOGETHER if indexed else LISTED):
            if self._raw.kept > BYTES:
                self._leave_out(works, batch, TOO_MANY)
                continue
            events_by_stream = self._raw.of_streams(
                batch, upto, types, min(rows, ROWS) if indexed else min(4 * rows, MOST_PLACES)
            )
            while events_by_stream is None and not indexed:
                # Each statement reads the whole store, so that there must be few. If not all streams fit, the sample
                # keeps those with the newest events.
                if len(batch) == 1:
                    return TOO_MANY
                few = max(1, len(batch) // 10)
                self._leave_out(works, batch[few:], TOO_MANY)
                batch = batch[:few]
                events_by_stream = self._raw.of_streams(batch, upto, types, min(4 * rows, MOST_PLACES))
            for stream in batch:
                events = (
                    self._raw.of_stream(stream, upto, types, min(rows, LONGEST + 1))
                    if events_by_stream is None
                    else events_by_stream[stream]
                )
                if events is None:
                    self._leave_out(works, [stream], TOO_LONG)
                else:
                    self._divide(works, stream, events)
        return ""

    def _rows_at_once(self, types: Collection[str]) -> int:
        """How many events of the store fit into memory beside those that the sample keeps."""
        return max(50, BYTES // 4 // self._raw.typical_size(types))

    @staticmethod
    def _leave_out(works: Sequence[_Work], keys: Sequence[str], why: str) -> None:
        for work in works:
            work.left_out[why] += sum(work.only is None or key in work.only for key in keys)

    def _divide(self, works: Sequence[_Work], key: str, events: Sequence[Event]) -> None:
        for work in (work for work in works if work.only is None or key in work.only):
            self._add(work, key, events)

    def _add(self, work: _Work, key: str, events: Iterable[Event]) -> None:
        own_events = [event for event in events if work.holds(event)]
        if len(own_events) > LONGEST:
            work.left_out[TOO_LONG] += 1
        elif own_events and work.gathered + len(own_events) > work.most:
            work.left_out[TOO_MANY] += 1
        elif own_events:
            work.events[key] = own_events

    def _chosen_streams(self, works: Sequence[_Work], upto: int) -> list[str]:
        listed = [key for work in works for key in sorted(work.only or ())[: self._most]]
        if listed or any(work.only is not None for work in works):
            return list(dict.fromkeys(listed))
        types = frozenset[str]().union(*(work.types for work in works))
        # The checkpoint does not bound them: streams that have only later events make no rows, and do no harm.
        newest = [*self._raw.newest_streams(10 * self._most, types)]
        whole = len(newest) < 10 * self._most
        return self._half_and_half(newest, self._rest(newest) if whole else [stream for stream, _ in self._somewhere(upto)])

    def _half_and_half(self, newest: Iterable[str], older: Iterable[str]) -> list[str]:
        """Half of them with the newest events, and half of the others, each once."""
        last, others = list(dict.fromkeys(newest)), list(dict.fromkeys(older))
        first = last[: max(self._most - len(others), self._most - self._most // 2)]
        return list(dict.fromkeys([*first, *others, *last]))[: self._most]

    def _rest(self, newest: Iterable[str]) -> list[str]:
        """If these are all aggregates: a random choice of those without the newest events; each turn chooses others."""
        rest = list(dict.fromkeys(newest))[self._most - self._most // 2 :] if self._of_any_age else []
        self._pick.shuffle(rest)
        return rest[: self._most // 2]

    def _somewhere(self, upto: int) -> list[tuple[str, Any]]:
        """Streams and payloads of events at random positions of the store."""
        first = self._raw.first() if self._of_any_age else None
        if first is None or first > upto or not self._raw.finds(self._columns.position):
            return []
        if self._picked is None:
            places = [self._pick.randint(first, upto) for _ in range(self._most // 2)]
            self._picked = [event for place in places for event in self._raw.next_to(place, upto)]
        return self._picked

    def _gather_fields(self, name: str, works: Sequence[_Work]) -> str:
        """Reads the events whose payload names the aggregate in a field, once for all projectors.

        :returns: why it has read none; empty: it has
        """
        if (size := self._raw.size()) > SCANNED:
            return f"a field of the payload names its aggregates, and the event store holds about {size:,} events"
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
                # The loop below leaves out the aggregates whose events are not all read.
                break
            events.get(str(event.payload.get(name)), []).append(event)
        for work in works:
            for value in (value for value in chosen if work.only is None or value in work.only):
                if not self._count_out(work, len(places[value]), len(events[value])):
                    self._add(work, value, events[value])
        return ""

    def _places(self, name: str, chosen: Sequence[str], upto: int, types: frozenset[str]) -> dict[str, list[int]] | str:
        """The positions of each value's events; or why the engine does not search them."""
        places: dict[str, list[int]] = {value: [] for value in chosen}
        try:
            for batch in _slices(chosen):
                pairs = self._raw.places_of(name, batch, upto, types, MOST_PLACES)
                if len(pairs) == MOST_PLACES:
                    return TOO_MANY
                for value, position in pairs:
                    places.get(value, []).append(position)
        except sa.exc.DBAPIError as error:
            trouble = trouble_of(error)
            if trouble is None or trouble.kind in MAY_PASS:
                raise
            return "a field of the payload names its aggregates, and the database cannot read some payloads as JSON"
        return places

    @staticmethod
    def _count_out(work: _Work, existing: int, read: int) -> bool:
        """Whether the sample has not read all events of an aggregate; if so, counts the aggregate as left out."""
        if existing > LONGEST:
            work.left_out[TOO_LONG] += 1
        elif existing > read:
            work.left_out[TOO_MANY] += 1
        return existing > read

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
        """Reads and decodes every event, since only the author's code tells an event's aggregate.

        :returns: why it has read none; empty: it has
        """
        if (size := self._raw.size()) > SCANNED_HERE:
            return f"only code tells which aggregates its events belong to, and the event store holds about {size:,} events"
        if size * self._raw.typical_size(work.types) > 4 * BYTES:
            return "only code tells which aggregates its events belong to, and the events do not fit into memory"
        by_key: dict[str, list[Event]] = {}
        for event in self._raw.everything(work.last, work.types):
            if work.holds(event):
                for key in self._keys(work, of, event):
                    by_key.setdefault(key, []).append(event)
        if work.only is not None:
            by_key = {key: events for key, events in by_key.items() if key in work.only}
        by_age = sorted(by_key, key=lambda key: by_key[key][-1].position, reverse=True)
        older = by_age[self._most // 2 :]
        self._pick.shuffle(older)
        chosen = [*by_age[: self._most // 2], *older][: self._most]
        for key in chosen:
            self._add(work, key, by_key[key])
        return ""

    @staticmethod
    def _keys(work: _Work, of: Callable[[Event], object], event: Event) -> set[str]:
        """The aggregates that an event belongs to, after upcasting."""
        try:
            current = work.projector.upcasters.current(event)
        except PoisonEvent:
            # No aggregate's: the replay has failed at the event, or has set it aside.
            return set()
        return {str(key) for current_event in current if (key := of(current_event)) is not None}

    # Refolding and comparing ----------------------------------------------------------------------------------------

    def _judged(self, work: _Work) -> Sampled:
        """Refolds the gathered events, and compares the rows with green."""
        result = Sampled(projector=work.name, position=work.upto, remarks=self._remarks(work))
        if not work.events:
            return result
        try:
            with ExitStack() as stack:
                owned = {row_class: self._temporary(row_class, stack) for row_class in work.projector.owns}
                aggregates = Refold(work.projector, owned, self._looks(work.projector), work.unit.whose).made(work.events)
                compared = _Compared(Step(self._context, self._connection), work, owned, aggregates)
                compared.run()
        except Undeclared:
            why = "its events reach rows of other aggregates than it declares; correct `part`, `partition_by` or the `stream` of its rows"
            return Sampled(projector=work.name, position=work.upto, not_sampled=why)
        except sa.exc.DBAPIError as error:
            trouble = trouble_of(error)
            if trouble is None or trouble.kind not in (Kind.VALUE, Kind.DENIED):
                raise
            if trouble.kind is Kind.DENIED:
                why = "the engine's account may not create temporary tables; grant it that (MySQL, MariaDB: CREATE TEMPORARY TABLES)"
                return Sampled(projector=work.name, position=work.upto, not_sampled=why)
            compared_findings = [f"{work.name}: {trouble.describe()}, when its handlers project one event at a time"]
            return result.model_copy(update={"findings": compared_findings, "differing": sorted(work.events)})
        numbers = {
            "aggregates": len(aggregates),
            "events": work.gathered,
            "rows": compared.rows,
            "differing": sorted(compared.differing),
        }
        if work.projector.reads and compared.findings:
            remark = f"{len(compared.differing):,} differ, perhaps since the rows that its handlers only read are newer than at the replay"
            return result.model_copy(update={**numbers, "differing": [], "remarks": [*result.remarks, remark]})
        return result.model_copy(update={**numbers, "findings": compared.findings})

    def _remarks(self, work: _Work) -> list[str]:
        lines = [f"{count:,} more were left out: {why}" for why, count in work.left_out.items() if count]
        remark = "its handlers have read the rows of other projectors as they are now"
        return [*lines, *([remark] if work.projector.reads else [])]

    def _temporary(self, row_class: type, stack: ExitStack) -> Temporary:
        kind, context = row_type(row_class), self._context
        temporary = Temporary(context.dialect, self._connection, context.schema, context.table_set(kind.table).green, kind)
        stack.callback(temporary.drop)
        return temporary

    def _looks(self, projector: type[Projector]) -> dict[type, GreenLook]:
        in_run, context = set(self._plan.tables), self._context
        looks = {}
        for row_class in projector.reads:
            kind = row_type(row_class)
            table = context.table_set(kind.table).green if kind.table in in_run else kind.table
            looks[row_class] = GreenLook(context.dialect, self._connection, context.schema, table, kind)
        return looks


class _Compared:
    """The rows of refolded aggregates beside those of green."""

    def __init__(
        self,
        step: Step,
        work: _Work,
        owned: Mapping[type, Temporary],
        aggregates: Sequence[Aggregate],
    ) -> None:
        self._dialect = step.dialect
        self._schema = step.schema
        self._connection = step.connection
        self._work = work
        self._owned = owned
        self._aggregates = aggregates
        self.rows = 0
        self.findings: list[str] = []
        self.differing: set[str] = set()

    def run(self) -> None:
        for aggregate in self._aggregates:
            if aggregate.failed:
                self._found(aggregate.key, f"{self._work.name}: {aggregate.failed}, which the replay has projected")
        for row_class, temporary in self._owned.items():
            projected = [
                (aggregate.key, key, row.known)
                for aggregate in self._aggregates
                if not aggregate.failed
                for key, row in aggregate.rows.rows[row_class].items()
            ]
            temporary.clear()
            numbers = temporary.put([known for _, _, known in projected if known is not None])
            rows = {number: (whose, key) for number, (whose, key, _) in zip(numbers, projected, strict=True)}
            self.rows += len(rows)
            self._missing_and_changed(temporary, rows)
            self._unexpected(temporary, [aggregate.key for aggregate in self._aggregates if not aggregate.failed])

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
        for number, is_gone, *flagged in self._dialect.execute(self._connection, statement).all():
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
        """Whether two values that differ to the database have the same meaning.

        JSON texts may differ in spelling. Sums of floating-point numbers depend on the order of addition, which SQL
        does not keep.
        """
        annotation, quoted = temporary.kind.types[name], self._dialect.quote(name)
        is_json = temporary.columns[name].kind is ColumnKind.JSON or plain_type(annotation) in (dict, list)
        by_sql = bool(self._work.projector.statements(self._dialect.database))
        if not is_json and not by_sql:
            return False
        sides = [f"{side}.{quoted}" for side in ("s", "g")]
        if is_json:
            sides = [self._dialect.as_stored(side, ColumnKind.JSON) for side in sides]
        statement = f"SELECT {', '.join(sides)} FROM {temporary.qualified} s JOIN {self._green(temporary)} g ON {match} WHERE s.{NUMBER} = {number}"
        values = self._dialect.execute(self._connection, statement).first()
        if values is None or is_json:
            return values is not None and bool(promised(annotation, values[0]) == promised(annotation, values[1]))
        one, other = values
        if not all(isinstance(value, (float, int)) for value in values) or not any(isinstance(value, float) for value in values):
            return False
        return math.isclose(one, other, rel_tol=SAME_FLOATS, abs_tol=SAME_FLOATS)

    def _unexpected(self, temporary: Temporary, aggregates: Sequence[str]) -> None:
        """Finds rows of these aggregates in green that none of their events makes."""
        kind, quote, wanted = temporary.kind, self._dialect.quote, set(aggregates)
        column = kind.column(self._work.unit.whose[kind.row_class])
        match = " AND ".join(f"s.{quote(name)} = g.{quote(name)}" for name in kind.key)
        columns = ", ".join(f"g.{quote(name)}" for name in (column, *kind.key))
        for batch in _slices(aggregates):
            bound = [self._dialect.given(_of_text(kind, column, aggregate)) for aggregate in batch]
            statement = (
                f"SELECT {columns} FROM {self._green(temporary)} g WHERE g.{quote(column)} IN ({', '.join([self._dialect.mark] * len(batch))}) "
                f"AND NOT EXISTS (SELECT 1 FROM {temporary.qualified} s WHERE {match})"
            )
            for whose, *key in self._dialect.execute(self._connection, statement, tuple(bound)).all():
                aggregate = str(promised(kind.types[column], whose))
                # A collation may match another aggregate.
                if aggregate in wanted or aggregate.rstrip(" ") in wanted:
                    self._found(aggregate, f"{kind.table}: green has a row {_said(key)}, which no event makes")

    def _green(self, temporary: Temporary) -> str:
        return self._dialect.qualified(self._schema, temporary.table)


def _field_of(name: str, event: Event) -> object:
    return event.payload.get(name)


def _of_text(kind: RowType, column: str, text: str) -> Any:
    """An aggregate's key as the type of the column that holds it."""
    try:
        return promised(kind.types[column], text)
    except ValueError:
        return text


def _said(key: Iterable[Any]) -> str:
    return " / ".join(map(str, key))


def _slices(values: Sequence[str], most: int = LISTED) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), most):
        yield values[start : start + most]
