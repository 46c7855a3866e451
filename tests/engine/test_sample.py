"""What verification's sample judges, and what it says of what it cannot."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.authoring.upcasting import Upcasters
from projection_rebuild.model.results import Sampled
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.verification import sample
from tests.engine.harness import shop
from tests.engine.harness.driver import failures_of, run_to
from tests.engine.harness.shop import events
from tests.engine.harness.specs import rebuild


@pytest.fixture
def stored(engine: sa.Engine) -> list[dict[str, Any]]:
    made = events(400)
    shop.fill(engine, made)
    return made


def test_every_row_of_the_shop_is_refolded_and_found_the_same(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "replay")
    found = made.verify()
    print(found.describe())
    rows = {each.table: each.green_rows for each in found.tables}
    sampled = {each.projector: each for each in found.sample}
    assert sampled["OrderProjector"].rows == rows["orders"]
    assert sampled["OrderLineProjector"].rows == rows["order_lines"]
    assert sampled["CustomerTotalProjector"].rows == rows["customer_totals"]


@row("subscription_items", key="stream", stream="stream")
class Item:
    stream: str
    number: int = 0


@row("subscription_invoices", key="stream", stream="stream")
class Invoice:
    stream: str
    amount: Decimal = Decimal(0)


class LongNames(Projector):
    """Its tables have names that begin alike."""

    owns = (Item, Invoice)

    @handles("Used")
    def used(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Item, event.stream).number += 1
        rows.get_or_add(Invoice, event.stream).amount += Decimal("0.10")


@row("hours", key=("stream", "at"), lookups=("stream",), stream="stream")
class Hour:
    stream: str
    at: datetime
    events: int = 0


class FinerKeys(Projector):
    """It looks for rows by times that are finer than their column."""

    owns = (Hour,)

    @handles("Used")
    def used(self, event: Event, rows: Rows) -> None:
        at = datetime.fromisoformat(event["at"])
        rows.get_or_add(Hour, event.stream, at).events += 1
        rows.get(Hour, event.stream, at).events += len([each for each in rows.where(Hour, stream=event.stream) if each.at == at])


@row("places", key="number", lookups=("stream",), stream="stream")
class Place:
    number: int
    stream: str
    at: int = 0


class InOrder(Projector):
    """What it makes of rows hangs on the order in which it gets them."""

    owns = (Place,)

    @handles("Used")
    def used(self, event: Event, rows: Rows) -> None:
        rows.add(Place(1000 - event.position, event.stream))  # type: ignore[arg-type]
        for at, place in enumerate(rows.where(Place, stream=event.stream)):
            place.at = place.at * 3 % 1000 + at


@row("sums", key="stream", stream="stream")
class Sum:
    stream: str
    amount: Decimal = Decimal(0)


splitting = Upcasters()


@splitting.upcasts("Used", into=["Begun", "Ended"])
def apart(event: Event) -> list[Event]:
    return [event.evolved("Begun"), event.evolved("Ended")]


class Split(Projector):
    """Of one stored event it makes two, and a column rounds what each of them gives."""

    owns = (Sum,)
    upcasters = splitting

    @handles("Begun", "Ended")
    def added(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Sum, event.stream).amount += Decimal("0.005")


@row("spelled", key="id", stream="stream")
class Spelled:
    id: UUID
    stream: str
    plain: datetime
    zoned: datetime
    plain_text: str
    zoned_text: str
    day: date
    day_text: str
    number: int
    amount: Decimal
    share: float
    late_id: UUID | None = None


class AsText(Projector):
    """It passes on what the event says, as text, to attributes of other types."""

    owns = (Spelled,)

    @handles("Used")
    def used(self, event: Event, rows: Rows) -> None:
        given: Any = event.payload
        moment = given["moment"]
        rows.add(
            Spelled(
                given["id"],
                given["stream"],
                moment,
                moment,
                moment,
                moment,
                given["day"],
                moment,
                given["number"],
                given["amount"],
                given["share"],
            )
        )

    @handles("Seen")
    def seen(self, event: Event, rows: Rows) -> None:
        rows.get(Spelled, event["id"]).late_id = event["id"]


# A time without and with a zone, and a UUID.
SPELLED = {
    "postgresql": ("timestamp(6)", "timestamptz(6)", "varchar(40)"),
    "mysql": ("datetime(6)", "timestamp(6)", "varchar(40)"),
    "sqlite": ("text", "text", "text"),
}


@pytest.mark.parametrize(
    "moment", ["2026-03-04T05:06:07.250000+02:00", "2026-03-04T05:06:07Z", "2026-03-04T05:06:07", "2026-03-04"]
)
def test_what_handlers_give_as_text_is_in_the_sample_what_it_is_in_a_replay(engine: sa.Engine, moment: str) -> None:
    shop.metadata.create_all(engine, tables=[shop.stored_events])
    plain, zoned, identity = SPELLED[engine.dialect.name]
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE spelled (id {identity} PRIMARY KEY, stream varchar(40) NOT NULL, plain {plain} NOT NULL, zoned {zoned} NOT NULL, "
            f"plain_text {plain} NOT NULL, zoned_text {zoned} NOT NULL, day date NOT NULL, day_text date NOT NULL, number int NOT NULL, amount numeric(10,2) NOT NULL, "
            f"share double precision NOT NULL, late_id {identity})"
        )
        spelled = {
            "id": "0B5F3C1E-8D52-4D3A-9C47-0A2F5B6C7D8E",
            "stream": "s",
            "moment": moment,
            "day": "2026-03-04",
            "number": "7",
            "amount": "0.125",
            "share": "0.25",
        }
        used = [{"aggregate_uuid": "s", "event_class": kind, "event_properties": spelled} for kind in ("Used", "Seen")]
        connection.execute(shop.stored_events.insert(), used)
    made = rebuild(engine, projectors=[f"{__name__}:AsText"])
    run_to(made, "replay")
    found = made.verify()
    assert [(each.aggregates, each.rows, each.not_sampled) for each in found.sample] == [(1, 1, "")], found.describe()
    made.close()


SECONDS = {"postgresql": "timestamp(0)", "mysql": "datetime", "sqlite": "datetime"}


def test_handlers_find_in_the_sample_what_they_find_in_a_replay(engine: sa.Engine) -> None:
    shop.metadata.create_all(engine, tables=[shop.stored_events])
    with engine.begin() as connection:
        for table in (
            "subscription_items (stream varchar(40) PRIMARY KEY, number int NOT NULL)",
            "subscription_invoices (stream varchar(40) PRIMARY KEY, amount numeric(10,2) NOT NULL)",
            f"hours (stream varchar(40), at {SECONDS[engine.dialect.name]}, events int NOT NULL, PRIMARY KEY (stream, at))",
            "places (number int PRIMARY KEY, stream varchar(40) NOT NULL, at int NOT NULL)",
            "sums (stream varchar(40) PRIMARY KEY, amount numeric(10,2) NOT NULL)",
        ):
            connection.exec_driver_sql(f"CREATE TABLE {table}")
        used = [
            {
                "aggregate_uuid": f"s{number % 3}",
                "event_class": "Used",
                "event_properties": {"at": f"2026-03-04T05:06:07.{number % 5}"},
            }
            for number in range(30)
        ]
        connection.execute(shop.stored_events.insert(), used)
    made = rebuild(engine, projectors=[f"{__name__}:{each.__name__}" for each in (LongNames, FinerKeys, InOrder, Split)])
    run_to(made, "replay")
    found = made.verify()
    assert [(each.aggregates, each.events, each.not_sampled) for each in found.sample] == [(3, 30, "")] * 4, found.describe()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE hours_rebuild SET events = events + 1 WHERE stream = 's1'")
    assert "hours: the row s1 / 2026-03-04 05:06:07" in failures_of(made)
    made.close()


def test_in_a_small_store_older_aggregates_have_their_turn(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "replay")
    context = made._context
    with context.dialect.connect() as connection:
        plan = context.plan_of(context.ledger.over(connection, context.run_id).runs.get())
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE orders_rebuild SET customer = customer + 1")
    # Ten events for each are read at most, which is the whole store.
    looked = [
        {*each.differing}
        for turn in (0, 1, None)
        for each in sample.take(context, plan, 40, turn=turn)
        if each.projector == "OrderProjector"
    ]
    orders = [each["aggregate_uuid"] for each in stored if each["event_class"] == "OrderPlaced"]
    assert len(orders) > 80 and {len(each) for each in looked} == {40}
    # Those touched last are always looked at, and the others are not the same each time.
    assert len(looked[0] & looked[1] & looked[2]) >= 20
    assert len(looked[0] - looked[2]) >= 10 and looked[0] != looked[1]
    made.close()


def test_aggregates_that_are_too_large_are_left_out_and_told(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.metadata.create_all(engine)
    said = {"customer": 1, "on": "2026-01-01", "line": 1, "product": "p", "price": "1.00", "options": {}, "gift": False}
    # The first one has 15 events that somebody handles, among twice as many others; and the last one has large ones.
    of = [(stream, kind) for stream in ("hot", "cold") for kind in ("OrderPlaced", "OrderShipped")]
    of += [("hot", "Looked")] * 30 + [("hot", "OrderShipped")] * 15
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE INDEX by_stream ON stored_events (aggregate_uuid)"))
        stored = [
            {"aggregate_uuid": stream, "event_class": kind, "event_properties": said | {"at": f"2026-02-01 10:00:{at % 60:02}"}}
            for at, (stream, kind) in enumerate(of)
        ]
        connection.execute(shop.stored_events.insert(), stored)
    made = rebuild(engine)
    run_to(made, "replay")

    def orders() -> Sampled:
        (found,) = [each for each in made.verify().sample if each.projector == "OrderProjector"]
        return found

    assert (orders().aggregates, orders().remarks) == (2, [])
    monkeypatch.setattr(sample, "LONGEST", 20)
    monkeypatch.setattr(sample, "ROWS", 20)
    assert (orders().aggregates, orders().remarks) == (1, [f"1 more were left out: {sample.TOO_LONG}"])
    monkeypatch.setattr(sample, "LONGEST", 1000)
    monkeypatch.setattr(sample, "TOGETHER", 1)
    monkeypatch.setattr(sample, "BYTES", 100)
    assert (orders().aggregates, orders().remarks) == (1, [f"1 more were left out: {sample.TOO_MANY}"])
    made.close()
