"""Awkward names: quotes, capitals, percent signs, other alphabets, and names as long as the database allows."""

from __future__ import annotations

from decimal import Decimal

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import PlanError
from projection_rebuild.model.names import TableSet, derived
from projection_rebuild.replay.inline import project_live
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import events, expected
from tests.engine.harness.specs import rebuild

AWKWARD, LONG = 'Weird "T%s ü`x', "l" * 63
INDEX = {AWKWARD: 'Ix %s "q', LONG: "i" * 63}


@row(AWKWARD, key="id")
class Awkward:
    id: str
    customer: int


@row(LONG, key="id")
class Long:
    id: str
    customer: int


class AwkwardProjector(Projector):
    owns = (Awkward, Long)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.add(Awkward(event.stream, event["customer"]))
        rows.add(Long(event.stream, event["customer"]))


COLUMNS = {"order": "Order.Id", "customer": "select", "total_amount": 'Total "Amount" in %s', "status": "Bücher`status"}


@row("Order Totals", key="order", lookups=["customer"], columns=COLUMNS)
class OrderTotal:
    order: str
    customer: int
    total_amount: Decimal = Decimal(0)
    status: str = "placed"


class OrderTotalProjector(Projector):
    owns = (OrderTotal,)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(OrderTotal, event.stream, customer=event["customer"])

    @handles("LineAdded")
    def added(self, event: Event, rows: Rows) -> None:
        rows.get(OrderTotal, event.stream).total_amount += Decimal(event["price"])

    @handles("OrderShipped")
    def shipped(self, event: Event, rows: Rows) -> None:
        # By its lookup column: every order of the customer that has this key.
        customer = rows.get(OrderTotal, event.stream).customer
        for each in rows.where(OrderTotal, customer=customer):
            if each.order == event.stream:
                each.status = "shipped"

    @handles("OrderCancelled")
    def cancelled(self, event: Event, rows: Rows) -> None:
        rows.remove(OrderTotal, event.stream)


order_totals = sa.Table(
    "Order Totals",
    sa.MetaData(),
    sa.Column(COLUMNS["order"], sa.String(36), primary_key=True),
    sa.Column(COLUMNS["customer"], sa.Integer, nullable=False, index=True),
    sa.Column(COLUMNS["total_amount"], sa.Numeric(14, 2), nullable=False),
    sa.Column(COLUMNS["status"], sa.String(20), nullable=False),
    mysql_engine="InnoDB",
)


@pytest.mark.parametrize("memory", [200_000, 5], ids=["in memory", "bounded"])
def test_columns_may_be_named_otherwise_than_attributes(engine: sa.Engine, memory: int) -> None:
    order_totals.create(engine)
    stored = events(300)
    shop.fill(engine, stored)
    with engine.begin() as connection:
        for number, each in enumerate(stored, start=1):
            stream, kind, said = each["aggregate_uuid"], each["event_class"], each["event_properties"]
            event = Event(position=number, stream=stream, type=kind, payload=said)
            project_live(connection, OrderTotalProjector, event)

    def found() -> list[tuple[str, int, Decimal, str]]:
        with engine.connect() as connection:
            rows = connection.execute(sa.select(order_totals))
            return sorted((row[0], row[1], Decimal(str(row[2])).quantize(Decimal("0.01")), row[3]) for row in rows)

    live = found()
    assert {each[3] for each in live} == {"placed", "shipped"}
    settings = {"replay": {"batch_events": 40, "max_rows_in_memory": memory}}
    made = rebuild(engine, projectors=["tests.engine.test_names:OrderTotalProjector"], **settings)
    run_to(made, "verify")
    (compared,) = made.verify().tables
    assert (compared.identical, compared.differing, compared.only_blue, compared.only_green) == (len(live), 0, 0, 0)
    made.swap()
    assert found() == live


def test_a_column_that_the_table_lacks_is_refused_by_its_name_there(engine: sa.Engine) -> None:
    shop.metadata.create_all(engine)
    order_totals.create(engine)
    with engine.begin() as connection:
        quote = engine.dialect.identifier_preparer.quote_identifier
        connection.exec_driver_sql(
            f"ALTER TABLE {quote('Order Totals')} RENAME COLUMN {quote(COLUMNS['status'])} TO {quote('other')}", ()
        )
    with pytest.raises(PlanError, match="Order Totals: it has no column Bücher`status; correct the row class OrderTotal"):
        rebuild(engine, projectors=["tests.engine.test_names:OrderTotalProjector"]).plan(RunOptions())


def test_awkward_names_are_the_same_after_rebuilds(engine: sa.Engine) -> None:
    metadata = sa.MetaData()
    made = [
        sa.Table(
            name,
            metadata,
            sa.Column("id", sa.String(36), primary_key=True),
            sa.Column("customer", sa.Integer),
            sa.Index(INDEX[name], "customer"),
        )
        for name in (AWKWARD, LONG)
    ]
    metadata.create_all(engine)
    stored = events(200)
    shop.fill(engine, stored)
    for number in range(3):
        run_to(rebuild(engine, f"run-{number}", projectors=["tests.engine.test_names:AwkwardProjector"]), "drop")
    with engine.connect() as connection:
        for table in made:
            found = {each.id: each.customer for each in connection.execute(sa.select(table))}
            assert found == {key: each[0] for key, each in expected(stored)["orders"].items()}
    for name in (AWKWARD, LONG):
        assert [each["name"] for each in sa.inspect(engine).get_indexes(name)] == [INDEX[name]]


def test_long_names_are_shortened_and_stay_apart() -> None:
    one, other = "t" * 62 + "a", "t" * 62 + "b"
    names = {derived(name, suffix, 63) for name in (one, other) for suffix in ("_rebuild", "_old")}
    assert len(names) == 4
    assert all(len(name.encode()) <= 63 and not name.startswith(one) for name in names)


def test_names_are_cut_between_letters_not_within_one() -> None:
    short = derived("ü" * 40, "_rebuild", 63)
    assert len(short.encode()) <= 63
    assert short.startswith("ü") and short.endswith("_rebuild")


def test_a_short_name_just_gets_its_suffix() -> None:
    assert TableSet.of("orders", schema=None, limit=63) == TableSet(None, "orders", "orders_rebuild", "orders_old")
