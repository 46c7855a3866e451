"""A small application for engine tests: orders, their lines, and totals per customer, which many events change."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByAggregate
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.rows.types import Rows, row


@row("orders", key="id", stream="id")
class Order:
    id: str
    customer: int
    status: str
    placed_on: date
    updated_at: datetime | None = None


@row("order_lines", key=("order_id", "line"), lookups=["order_id"], stream="order_id")
class OrderLine:
    order_id: str
    line: int
    product: str
    price: Decimal
    options: dict[str, Any]
    gift: bool = False


@row("customer_totals", key="customer")
class CustomerTotal:
    customer: int
    orders: int = 0
    spent: Decimal = Decimal(0)


class OrderProjector(Projector):
    owns = (Order,)
    part = ByAggregate({Order: "id"})

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.add(Order(event.stream, event["customer"], "placed", date.fromisoformat(event["on"])))

    @handles("OrderShipped", "OrderCancelled")
    def moved(self, event: Event, rows: Rows) -> None:
        order = rows.get(Order, event.stream)
        order.status = event.type.removeprefix("Order").lower()
        order.updated_at = datetime.fromisoformat(event["at"])


class OrderLineProjector(Projector):
    owns = (OrderLine,)
    part = ByAggregate({OrderLine: "order_id"})
    depends_on = (OrderProjector,)

    @handles("LineAdded")
    def added(self, event: Event, rows: Rows) -> None:
        rows.add(
            OrderLine(
                event.stream, event["line"], event["product"], Decimal(event["price"]), event["options"], event.get("gift", False)
            )
        )

    @handles("OrderCancelled")
    def cancelled(self, event: Event, rows: Rows) -> None:
        for line in rows.where(OrderLine, order_id=event.stream):
            rows.remove(OrderLine, line.order_id, line.line)


class CustomerTotalProjector(Projector):
    owns = (CustomerTotal,)
    part = ByAggregate({CustomerTotal: "customer"}, of=lambda event: event["customer"])
    partition_by = "customer"

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(CustomerTotal, event["customer"]).orders += 1

    @handles("LineAdded")
    def added(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(CustomerTotal, event["customer"]).spent += Decimal(event["price"])


class Rival(Projector):
    """Claims a table that already has an owner."""

    owns = (Order,)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        """Never runs."""


metadata = sa.MetaData()

stored_events = sa.Table(
    "stored_events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("aggregate_uuid", sa.String(36)),
    sa.Column("aggregate_version", sa.Integer),
    sa.Column("event_version", sa.Integer, server_default="1"),
    sa.Column("event_class", sa.String(100), nullable=False, index=True),
    sa.Column("event_properties", sa.JSON, nullable=False),
    sa.Column("meta_data", sa.JSON),
    sa.Column("created_at", sa.DateTime),
    mysql_engine="InnoDB",
)
sa.Table(
    "orders",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("customer", sa.Integer, nullable=False),
    sa.Column("status", sa.String(20), nullable=False, index=True),
    sa.Column("placed_on", sa.Date, nullable=False),
    sa.Column("updated_at", sa.DateTime),
    sa.Column("note", sa.String(20), server_default="none"),
    sa.CheckConstraint("customer >= 0", name="orders_chk_1"),
    mysql_engine="InnoDB",
)
sa.Table(
    "order_lines",
    metadata,
    sa.Column("row_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("order_id", sa.String(36), sa.ForeignKey("orders.id", name="fk_lines_order"), nullable=False),
    sa.Column("line", sa.Integer, nullable=False),
    sa.Column("product", sa.String(100), nullable=False),
    sa.Column("price", sa.Numeric(10, 2), nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("gift", sa.Boolean, nullable=False),
    sa.UniqueConstraint("order_id", "line", name="uq_lines"),
    sa.Index("ix_lines_product", "product", "price"),
    mysql_engine="InnoDB",
)
sa.Table(
    "customer_totals",
    metadata,
    sa.Column("customer", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("orders", sa.Integer, nullable=False),
    sa.Column("spent", sa.Numeric(14, 2), nullable=False),
    mysql_engine="InnoDB",
)
TABLES = ["orders", "customer_totals", "order_lines"]


def events(count: int) -> list[dict[str, Any]]:
    """Generates ``count`` events of orders that are placed, filled, and shipped or cancelled."""
    pick, made, open_orders = random.Random(3), [], []
    for number in range(count):
        kind = pick.random()
        if kind < 0.25 or not open_orders:
            order = f"order-{number}"
            open_orders.append([order, number % 17, 0])
            made.append((order, "OrderPlaced", {"customer": number % 17, "on": f"2026-01-{number % 28 + 1:02}"}))
        elif kind < 0.85:
            order = pick.choice(open_orders)
            order[2] += 1
            said = {"customer": order[1], "line": order[2], "product": f"x'{number}\t\\%s", "price": f"{number % 50}.99"}
            made.append((order[0], "LineAdded", said | {"options": {"ü": [1, None]}, "gift": number % 2 == 0}))
        else:
            order = open_orders.pop(pick.randrange(len(open_orders)))
            made.append((order[0], pick.choice(["OrderShipped", "OrderCancelled"]), {"at": f"2026-02-01 10:{number % 60:02}:00"}))
    return [{"aggregate_uuid": stream, "event_class": kind, "event_properties": said} for stream, kind, said in made]


def expected(stored: list[dict[str, Any]]) -> dict[str, Any]:
    """Computes orders, lines and totals from stored events, without the projectors' code."""
    orders: dict[str, tuple[int, str]] = {}
    lines: dict[tuple[str, int], tuple[str, Decimal]] = {}
    totals: dict[int, list[Any]] = defaultdict(lambda: [0, Decimal(0)])
    for event in stored:
        stream, said = event["aggregate_uuid"], event["event_properties"]
        match event["event_class"]:
            case "OrderPlaced":
                orders[stream] = said["customer"], "placed"
                totals[said["customer"]][0] += 1
            case "LineAdded":
                lines[stream, said["line"]] = said["product"], Decimal(said["price"])
                totals[said["customer"]][1] += Decimal(said["price"])
            case "OrderShipped":
                orders[stream] = orders[stream][0], "shipped"
            case "OrderCancelled":
                orders[stream] = orders[stream][0], "cancelled"
                lines = {key: each for key, each in lines.items() if key[0] != stream}
    return {"orders": orders, "order_lines": lines, "customer_totals": {key: tuple(each) for key, each in totals.items()}}


def actual(engine: sa.Engine, suffix: str = "") -> dict[str, Any]:
    """Reads the tables, in the form of :func:`expected`.

    :param suffix: ``_rebuild`` or ``_old`` to read those tables; empty: the live ones
    """
    with engine.connect() as connection:

        def rows(sql: str) -> list[Any]:
            return [tuple(row) for row in connection.execute(sa.text(sql.replace("@", suffix)))]

        def money(value: Any) -> Decimal:
            return Decimal(str(value)).quantize(Decimal("0.01"))

        return {
            "orders": {row[0]: row[1:] for row in rows("SELECT id, customer, status FROM orders@")},
            "order_lines": {
                row[:2]: (row[2], money(row[3])) for row in rows("SELECT order_id, line, product, price FROM order_lines@")
            },
            "customer_totals": {
                row[0]: (row[1], money(row[2])) for row in rows("SELECT customer, orders, spent FROM customer_totals@")
            },
        }


def tables(engine: sa.Engine) -> set[str]:
    """The names of all tables except those of the ledger."""
    return {name for name in sa.inspect(engine).get_table_names() if not name.startswith("projection_rebuild")}


def event_of(customer: int, kind: str, stream: str = "x", **said: Any) -> dict[str, Any]:
    """The stored form of one event about a customer.

    :param said: further fields of its payload
    """
    return {"aggregate_uuid": stream, "event_class": kind, "event_properties": {"customer": customer} | said}


def create(engine: sa.Engine, *names: str) -> None:
    """Creates some of the shop's tables."""
    metadata.create_all(engine, tables=[metadata.tables[name] for name in names])


def fill(engine: sa.Engine, stored: list[dict[str, Any]]) -> sa.Engine:
    """Creates the shop's tables, and stores events without projecting them."""
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(stored_events.insert(), stored)
    return engine
