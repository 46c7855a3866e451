"""A small application for engine tests: orders, their lines, and totals per customer that many events touch."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from projection_rebuild.events import Event
from projection_rebuild.parts import ByAggregate
from projection_rebuild.projector import Projector, handles
from projection_rebuild.rows import Rows, row


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
    """Claims a table that has an owner."""

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
