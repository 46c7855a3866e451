"""Each measure that makes the ways agree, taken out in turn: the check must then find it, and name what it has found.

A new measure is one more :class:`Mutation` in ``MUTATIONS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from include.universal.projectors import CategorySummaryProjector
from include.universal.schema import metadata as universal
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.checking.check import Checked
from projection_rebuild.dialects import Dialect, dialect_for
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.replay import row_tables as tables
from projection_rebuild.rows.fitting import Fits
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.testing import Told, tables_apart
from tests.conftest import DATABASES, SERVERS
from tests.engine.harness import shop
from tests.engine.harness.nodes import GROWN, NodeProjector
from tests.engine.harness.tally import CustomerProjector

Patch = pytest.MonkeyPatch

# Projectors with a fault, each beside one without -------------------------------------------------------------------


class NoLaw(CategorySummaryProjector):
    """Its SQL removes a row when one of its sums is zero."""

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        found = super().statements(database)
        return [
            each.replace(" AND total_cents = 0", "").replace("(d.expenses <> 0 OR d.total_cents <> 0)", "d.expenses <> 0")
            for each in found
        ]


class NoLawEither(NoLaw):
    """Its handlers do as well: then what counts is where the ranges are cut."""

    def _add(self, rows: Rows, event: Event, category: str, sign: int) -> None:
        super()._add(rows, event, category, sign)
        found = rows.find(self.owns[0], event["user_id"], category)
        if found is not None and found.expenses == 0:  # type: ignore[attr-defined]
            rows.remove(self.owns[0], event["user_id"], category)


class Remembering(Projector):
    """Keeps in an object of its own what it should ask for."""

    owns = (shop.CustomerTotal,)

    def __init__(self) -> None:
        self.known: dict[int, int] = {}

    @handles("Bought")
    def bought(self, event: Event, rows: Rows) -> None:
        self.known[event["customer"]] = self.known.get(event["customer"], 0) + 1
        rows.get_or_add(shop.CustomerTotal, event["customer"]).orders = self.known[event["customer"]]


class Counting(Remembering):
    @handles("Bought")
    def bought(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(shop.CustomerTotal, event["customer"]).orders += 1


class Dividing(Counting):
    """An event changes a row of another customer's."""

    partition_by = "customer"

    @handles("Gave")
    def gave(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(shop.CustomerTotal, event["to"]).orders += 1


class LastOfRange(Counting):
    """Its SQL counts one event for each customer of a range."""

    how: ClassVar[str] = "1"

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return [
            f"INSERT INTO {{customer_totals}} AS t (customer, orders, spent) SELECT json_extract(e.payload, '$.customer'), {cls.how}, 0 "
            "FROM {events} e WHERE true GROUP BY 1 ON CONFLICT (customer) DO UPDATE SET orders = t.orders + excluded.orders"
        ]


class CountedByRange(LastOfRange):
    how = "count(*)"


@row("customer_totals", key="customer")
class Written:
    customer: int
    orders: int = 0


class TextForNumbers(Projector):
    """Its SQL writes a text where its handlers write a number; SQLite takes both."""

    owns = (Written,)
    how: ClassVar[str] = "'one'"

    @handles("Bought")
    def bought(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Written, event["customer"]).orders = 1

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return [
            f"INSERT INTO {{customer_totals}} (customer, orders) SELECT DISTINCT json_extract(payload, '$.customer'), {cls.how} FROM {{events}} e "
            "WHERE true ON CONFLICT (customer) DO NOTHING"
        ]


class NumbersForNumbers(TextForNumbers):
    how = "1"


@row("held", key="id")
class Held:
    id: int
    amount: Decimal = Decimal(0)
    at: datetime = datetime(2026, 1, 1)  # noqa: DTZ001 - as its column has it
    said: str = ""


class HeldProjector(Projector):
    """Gives values that the columns hold otherwise, and reads them again."""

    owns = (Held,)

    @handles("Paid")
    def paid(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Held, event["id"]).amount += Decimal("0.005")

    @handles("Timed")
    def timed(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Held, event["id"]).at = datetime.fromisoformat(event["at"])

    @handles("Said")
    def told(self, event: Event, rows: Rows) -> None:
        found = rows.get(Held, event["id"])
        found.said = found.at.isoformat()


@row("moments", key="at")
class Moment:
    at: datetime
    times: int = 0


class MomentProjector(Projector):
    """Has a key that is narrower than its values."""

    owns = (Moment,)

    @handles("Timed")
    def timed(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Moment, datetime.fromisoformat(event["at"])).times += 1


@row("seats", key="guest")
class Seat:
    guest: str
    number: int


class SeatProjector(Projector):
    """Two guests exchange what is unique."""

    owns = (Seat,)

    @handles("Seated")
    def seated(self, event: Event, rows: Rows) -> None:
        rows.add(Seat(event.stream, event["number"]))

    @handles("Exchanged")
    def exchanged(self, event: Event, rows: Rows) -> None:
        one, other = rows.get(Seat, event["one"]), rows.get(Seat, event["other"])
        one.number, other.number = other.number, one.number


# What is taken out --------------------------------------------------------------------------------------------------


def nothing(patch: Patch, dialect: type[Dialect]) -> None:
    """The fault is the projector's own."""


def lookups_by_null(patch: Patch, dialect: type[Dialect]) -> None:
    whole = dialect.select_where

    def without(
        self: Dialect,
        connection: sa.Connection,
        schema: Any,
        table: str,
        kind: Any,
        column: str,
        values: Iterable[Any],
        **how: Any,
    ) -> Any:
        return whole(self, connection, schema, table, kind, column, [each for each in values if each is not None], **how)

    patch.setattr(dialect, "select_where", without)


def what_columns_hold(patch: Patch, dialect: type[Dialect]) -> None:
    patch.setattr(Fits, "value", lambda self, attribute, value: value)
    # Those that are known already convert.
    patch.setattr(tables, "fits_of", Fits)


def the_order_of_exchanges(patch: Patch, dialect: type[Dialect]) -> None:
    patch.setattr(tables, "split", lambda change, unique: tables.Order(change.updated, [], []))


def the_last_of_two_fields(patch: Patch, dialect: type[Dialect]) -> None:
    def first(self: Dialect, payload: sa.ColumnElement[Any], kind: Any, name: str) -> sa.ColumnElement[Any]:
        return sa.func.json_unquote(sa.func.json_extract(payload, f"$.{name}"), type_=sa.Text)

    def first_of_sqlite(self: Dialect, payload: sa.ColumnElement[Any], kind: Any, name: str) -> sa.ColumnElement[Any]:
        return sa.func.json_extract(payload, f"$.{name}", type_=sa.Text)

    patch.setattr(dialect, "json_field", first_of_sqlite if "sqlite" in dialect.__module__ else first)


def updates(patch: Patch, dialect: type[Dialect]) -> None:
    patch.setattr(dialect, "update_many", lambda *_: None)


def live_updates(patch: Patch, dialect: type[Dialect]) -> None:
    patch.setattr(dialect, "update_rows", lambda *_: None)


def the_end_of_a_range(patch: Patch, dialect: type[Dialect]) -> None:
    whole = EventStore.relation
    patch.setattr(EventStore, "relation", lambda self, after, upto, *rest, **how: whole(self, after, upto - 1, *rest, **how))


def who_has_an_event(patch: Patch, dialect: type[Dialect]) -> None:
    patch.setattr(dialect, "is_in_shard", lambda self, text, number, count: sa.true())


# The list -----------------------------------------------------------------------------------------------------------

EXPENSE = {"user_id": 1, "category": "food", "spent_on": "2026-01-02"}
BOUGHT: list[Told] = [("Bought", f"order-{at}", {"customer": at % 3}) for at in range(7)]
CORRECTED: list[Told] = [
    ("ExpenseRecorded", "a", EXPENSE | {"expense_id": "a", "amount_cents": 100}),
    ("ExpenseDeleted", "a", EXPENSE | {"expense_id": "a", "amount_cents": 50}),
    ("ExpenseRecorded", "b", EXPENSE | {"expense_id": "b", "amount_cents": 100}),
]
TWICE: list[Told] = [("made", name, f'{{"customer": "a", "customer": "{name}"}}') for name in "bcdefg"]
HELD = (
    "CREATE TABLE held (id bigint PRIMARY KEY, amount numeric(14, 2) NOT NULL, at {moment} NOT NULL, said varchar(40) NOT NULL)"
)
NODES = "CREATE TABLE nodes (id varchar(9) PRIMARY KEY, parent varchar(9), children integer NOT NULL)"
CUSTOMERS = "CREATE TABLE customers (customer varchar(60) PRIMARY KEY, events integer NOT NULL)"


@dataclass(frozen=True)
class Mutation:
    """Something that the check must find.

    :param name: what is wrong
    :param take_out: takes a measure of the engine out
    :param faulty: the projector with which it shows
    :param sound: with which nothing is wrong, if that is another one
    :param ways: those that differ, of all of them, as they are named
    :param says: what stands in the report
    :param at: the position of the event at which the ways part
    :param kinds: the databases that have the measure
    """

    name: str
    faulty: type[Projector]
    events: Sequence[Told]
    ways: frozenset[str]
    says: str
    at: int
    take_out: Callable[[Patch, type[Dialect]], None] = nothing
    sound: type[Projector] | None = None
    tables: Any = field(default=None)
    kinds: Sequence[str] = ("sqlite",)


def ways(*names: str) -> frozenset[str]:
    return frozenset(names)


MUTATIONS = [
    Mutation(
        "lookups by NULL find nothing in a table",
        NodeProjector,
        [("Grown", name, {"parent": parent}) for name, parent in GROWN],
        ways("folded in one batch"),
        "nodes ('a'): the column children differs",
        at=3,
        take_out=lookups_by_null,
        tables=[NODES],
        kinds=DATABASES,
    ),
    Mutation(
        "a decimal keeps digits that its column has not",
        HeldProjector,
        [("Paid", "a", {"id": 1})] * 4,
        ways("folded in one batch"),
        "held (1): the column amount differs",
        at=2,
        take_out=what_columns_hold,
        tables=[HELD.format(moment="timestamp(6)")],
        kinds=("postgres", "mariadb"),
    ),
    Mutation(
        "a number stays the text that a handler has given for it",
        HeldProjector,
        [("Paid", "a", {"id": "1"})] * 3,
        ways("live"),
        "HeldProjector, live: it cannot be projected to the end",
        at=1,
        take_out=what_columns_hold,
        tables=[HELD.format(moment="datetime")],
    ),
    Mutation(
        "a time keeps an offset that its column has not",
        HeldProjector,
        [("Timed", "a", {"id": 1, "at": "2026-01-01T10:00:00+02:00"}), ("Said", "a", {"id": 1})],
        ways("folded in one batch"),
        "held (1): the column said differs",
        at=2,
        take_out=what_columns_hold,
        tables=[HELD.format(moment="timestamp(6)")],
        kinds=("postgres",),
    ),
    Mutation(
        "a key keeps digits that its column has not",
        MomentProjector,
        [("Timed", "a", {"at": "2026-01-01T10:00:00.400000"})] * 3,
        ways("live"),
        "MomentProjector, live: it cannot be projected to the end",
        at=1,
        take_out=what_columns_hold,
        tables=["CREATE TABLE moments (at timestamp(0) PRIMARY KEY, times integer NOT NULL)"],
        kinds=("postgres",),
    ),
    Mutation(
        "what is unique goes round in a circle, and nobody gives way",
        SeatProjector,
        [("Seated", "a", {"number": 1}), ("Seated", "b", {"number": 2}), ("Exchanged", "c", {"one": "a", "other": "b"})],
        ways("live"),
        "that event gives no trouble folded in one batch",
        at=3,
        take_out=the_order_of_exchanges,
        tables=["CREATE TABLE seats (guest varchar(9) PRIMARY KEY, number integer NOT NULL UNIQUE)"],
    ),
    Mutation(
        "SQL removes a row of which one sum is zero",
        NoLaw,
        CORRECTED,
        ways("by its SQL, one event a range"),
        "category_summaries (1, 'food'): the column total_cents differs",
        at=2,
        sound=CategorySummaryProjector,
        tables=universal,
        kinds=DATABASES,
    ),
    Mutation(
        "SQL and handlers do",
        NoLawEither,
        CORRECTED,
        ways("by its SQL in one range", "by its SQL, three events a range"),
        "category_summaries (1, 'food'): the column total_cents differs",
        at=3,
        sound=CategorySummaryProjector,
        tables=universal,
    ),
    Mutation(
        "the database takes the first of two fields of one name",
        CustomerProjector,
        TWICE,
        ways("in 3 shards"),
        "belongs to another partition",
        at=1,
        take_out=the_last_of_two_fields,
        tables=[CUSTOMERS],
        kinds=("sqlite", "mariadb"),
    ),
    Mutation(
        "updates of loaded rows are lost",
        Counting,
        BOUGHT,
        ways("forgetting after every event", "forgetting after every three events"),
        "customer_totals (0): the column orders differs",
        at=4,
        take_out=updates,
        tables=shop.metadata,
        kinds=("sqlite", "postgres"),
    ),
    Mutation(
        "the application's updates are lost",
        Counting,
        BOUGHT,
        ways("folded in one batch"),
        "customer_totals (0): the column orders differs",
        at=1,
        take_out=live_updates,
        tables=shop.metadata,
        kinds=("sqlite",),
    ),
    Mutation(
        "a range does not hold its last event",
        CountedByRange,
        BOUGHT,
        ways("by its SQL in one range", "by its SQL, three events a range", "by its SQL, one event a range"),
        "customer_totals (0): ",
        at=1,
        take_out=the_end_of_a_range,
        tables=shop.metadata,
    ),
    Mutation(
        "an event is in two shards",
        Dividing,
        BOUGHT,
        ways("in 3 shards"),
        "Or two shards make the same row",
        at=1,
        take_out=who_has_an_event,
        tables=shop.metadata,
    ),
    Mutation(
        "an event changes what another partition has",
        Dividing,
        [*BOUGHT, ("Gave", "order-7", {"customer": 1, "to": 2})],
        ways("in 3 shards"),
        "belongs to another partition",
        at=8,
        sound=Counting,
        tables=shop.metadata,
    ),
    Mutation(
        "a handler remembers what it has done",
        Remembering,
        BOUGHT,
        ways("folded in one batch"),
        "customer_totals (0): the column orders differs",
        at=4,
        sound=Counting,
        tables=shop.metadata,
    ),
    Mutation(
        "SQL goes by the range and not by the event",
        LastOfRange,
        BOUGHT,
        ways("by its SQL in one range"),
        "customer_totals (0): the column orders differs",
        at=4,
        sound=CountedByRange,
        tables=shop.metadata,
    ),
    Mutation(
        "a value is equal to nothing but a text",
        TextForNumbers,
        BOUGHT,
        ways("by its SQL in one range", "by its SQL, three events a range", "by its SQL, one event a range"),
        "the column orders differs, int live and str by its SQL",
        at=1,
        sound=NumbersForNumbers,
        tables=["CREATE TABLE customer_totals (customer integer PRIMARY KEY, orders integer NOT NULL)"],
    ),
]


def cases() -> Iterator[Any]:
    for mutation in MUTATIONS:
        for kind in mutation.kinds:
            marks = [getattr(pytest.mark, kind)] if kind in SERVERS else []
            yield pytest.param(mutation, kind, marks=marks, id=f"{mutation.name}-{kind}")


def looked_at(projector: type[Projector], mutation: Mutation, url: sa.URL) -> Checked:
    with tables_apart([projector], tables=mutation.tables, url=url) as look:
        return look(mutation.events)


@pytest.mark.parametrize(("mutation", "kind"), [*cases()])
def test_it_is_found(mutation: Mutation, kind: str, new_database: Callable[[str], sa.URL], monkeypatch: Patch) -> None:
    url = new_database(kind)
    sound = looked_at(mutation.sound or mutation.faulty, mutation, url)
    assert sound.agrees, sound.describe()
    mutation.take_out(monkeypatch, type(dialect_for(sa.create_engine(url))))
    found = looked_at(mutation.faulty, mutation, url)
    assert mutation.ways <= {each.way for each in found.differing}, found.describe()
    said = found.describe()
    assert mutation.says in said and mutation.faulty.name() in said
    assert {each.event.position for each in found.differing if each.way in mutation.ways and each.event} == {mutation.at}, said
