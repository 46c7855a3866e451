"""The shop with the Python library `eventsourcing`: aggregates, an application, and projectors with upcasters."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import Transcoder, Transcoding

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.upcasting import Upcasters
from tests.engine.harness import shop


class DateAsText(Transcoding):
    """A transcoding that an application adds to those of the library."""

    type = date
    name = "day"

    def encode(self, obj: date) -> str:
        return obj.isoformat()

    def decode(self, data: str) -> date:
        return date.fromisoformat(data)


class Order(Aggregate):
    @event("Placed")
    def __init__(self, name: str, customer: int, on: date) -> None:
        self.name, self.customer, self.on = name, customer, on

    @staticmethod
    def create_id(name: str) -> UUID:
        return uuid5(NAMESPACE_URL, name)

    @event("LineAdded")
    def add(self, customer: int, line: int, product: str, price: Decimal, options: dict[str, Any], gift: bool) -> None:
        """Adds a line; the event holds all data."""

    @event("Ended")
    def end(self, cancelled: bool, at: str) -> None:
        """Ships or cancels the order."""


class Shop(Application):
    """The application; the library names its table ``shop_events``."""

    def register_transcodings(self, transcoder: Transcoder) -> None:
        super().register_transcodings(transcoder)
        transcoder.register(DateAsText())


def compressed(env: dict[str, str] | None = None) -> Shop:
    """The application, configured to compress its payloads."""
    return Shop(env={"COMPRESSOR_TOPIC": "zlib"} | (env or {}))


TOPIC = f"{__name__}:Order."
upcasters = Upcasters()


@upcasters.upcasts(f"{TOPIC}Placed", into=["OrderPlaced"])
def placed(event: Event) -> Event:
    return event.evolved("OrderPlaced", {"customer": event["customer"], "on": event["on"].isoformat()})


@upcasters.upcasts(f"{TOPIC}LineAdded", into=["LineAdded"])
def line_added(event: Event) -> Event:
    assert isinstance(event["price"], Decimal)
    return event.evolved("LineAdded")


@upcasters.upcasts(f"{TOPIC}Ended", into=["OrderShipped", "OrderCancelled"])
def ended(event: Event) -> Event:
    return event.evolved("OrderCancelled" if event["cancelled"] else "OrderShipped")


class OrderProjector(shop.OrderProjector):
    upcasters = upcasters


class OrderLineProjector(shop.OrderLineProjector):
    depends_on = (OrderProjector,)
    upcasters = upcasters


class CustomerTotalProjector(shop.CustomerTotalProjector):
    upcasters = upcasters


def append(application: Shop, stored: dict[str, Any]) -> None:
    """Appends one of the shop's events through the application."""
    said = stored["event_properties"]
    match stored["event_class"]:
        case "OrderPlaced":
            order = Order(name=stored["aggregate_uuid"], customer=said["customer"], on=date.fromisoformat(said["on"]))
        case "LineAdded":
            order = application.repository.get(Order.create_id(stored["aggregate_uuid"]))
            order.add(**said | {"price": Decimal(said["price"])})
        case kind:
            order = application.repository.get(Order.create_id(stored["aggregate_uuid"]))
            order.end(cancelled=kind == "OrderCancelled", at=said["at"])
    application.save(order)


def place(application: Shop, name: str) -> None:
    """Places a new order."""
    application.save(Order(name=name, customer=1, on=date(2026, 1, 1)))
