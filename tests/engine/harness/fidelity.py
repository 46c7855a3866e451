"""Read models with names of every kind, their projectors, and an application that reads and writes all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal

import sqlalchemy as sa

from include.universal.live import unit_of_work
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.inline import project_live
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import events
from tests.engine.harness.specs import rebuild

CUSTOMERS, ORDERS, LINES, TOTALS = "Customers %s", "order", 'Bücher.Lines "x"', "T`" + "t" * 62


@row(CUSTOMERS, key="id", columns={"id": "Customer Id", "orders": "Orders `placed`"})
class Customer:
    id: int
    orders: int = 0


@row(ORDERS, key="id", lookups=["customer"])
class Order:
    id: str
    customer: int
    status: str
    placed_on: date
    first: str | None


@row(LINES, key=("order", "line"), lookups=["order"], columns={"order": "Order.Id", "price": "100 %"})
class Line:
    order: str
    line: int
    product: str
    price: Decimal


@row(TOTALS, key="customer")
class Total:
    customer: int
    spent: Decimal = Decimal(0)


class CustomerProjector(Projector):
    owns = (Customer,)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Customer, event["customer"]).orders += 1


class OrderProjector(Projector):
    owns = (Order,)
    depends_on = (CustomerProjector,)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        firsts = [each.id for each in rows.where(Order, customer=event["customer"]) if each.first is None]
        first = firsts[0] if firsts else None
        rows.add(Order(event.stream, event["customer"], "placed", date.fromisoformat(event["on"]), first))

    @handles("OrderShipped", "OrderCancelled")
    def moved(self, event: Event, rows: Rows) -> None:
        rows.get(Order, event.stream).status = event.type.removeprefix("Order").lower()


class LineProjector(Projector):
    owns = (Line,)
    depends_on = (OrderProjector,)

    @handles("LineAdded")
    def added(self, event: Event, rows: Rows) -> None:
        rows.add(Line(event.stream, event["line"], event["product"], Decimal(event["price"])))

    @handles("OrderCancelled")
    def cancelled(self, event: Event, rows: Rows) -> None:
        for line in rows.where(Line, order=event.stream):
            rows.remove(Line, line.order, line.line)


class TotalProjector(Projector):
    owns = (Total,)

    @handles("LineAdded")
    def added(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Total, event["customer"]).spent += Decimal(event["price"])


PROJECTORS: list[type[Projector]] = [CustomerProjector, OrderProjector, LineProjector, TotalProjector]
FILLED = 200
"""The number of events that the application has stored and projected before a test begins."""


class Application:
    """A writer that appends and projects one event in each transaction, and a reader. It records the errors of both.

    :param beside: further statements that the writer executes in each of its transactions
    :param queries: the queries that the reader repeats
    """

    def __init__(self, engine: sa.Engine, beside: Sequence[str], queries: Sequence[str]) -> None:
        self.engine = engine
        self.events = events(50_000)
        self.appended = 0
        self.reads = 0
        self.failures: list[str] = []
        self._beside = beside
        self._queries = queries
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write), threading.Thread(target=self._read)]

    def __enter__(self) -> Application:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def append(self, connection: sa.Connection) -> None:
        """Appends and projects the next event."""
        stored = self.events[self.appended]
        made = connection.execute(shop.stored_events.insert().values(**stored))
        event = Event(
            position=made.inserted_primary_key[0],  # type: ignore[index]
            stream=stored["aggregate_uuid"],
            type=stored["event_class"],
            payload=stored["event_properties"],
        )
        for projector in PROJECTORS:
            project_live(connection, projector, event)

    def fill(self) -> None:
        """Appends and projects the first :data:`FILLED` events."""
        with unit_of_work(self.engine) as connection:
            for _ in range(FILLED):
                self.append(connection)
                self.appended += 1

    def lines_added(self) -> int:
        """The number of order lines that the application has inserted."""
        return sum(each["event_class"] == "LineAdded" for each in self.events[: self.appended])

    def _write(self) -> None:
        while not self._stop.is_set():
            self._guarded("write", self._write_once)
            time.sleep(0.005)

    def _write_once(self) -> None:
        with unit_of_work(self.engine) as connection:
            self.append(connection)
            for statement in self._beside:
                connection.exec_driver_sql(statement, ())
        self.appended += 1

    def _read(self) -> None:
        while not self._stop.is_set():
            for query in self._queries:
                self._guarded("read", lambda query=query: self._read_once(query))  # type: ignore[misc]
            time.sleep(0.005)

    def _read_once(self, query: str) -> None:
        with self.engine.connect() as connection:
            connection.exec_driver_sql(query, ()).all()
        self.reads += 1

    def _guarded(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self.failures.append(f"{what}: {type(error).__name__}: {getattr(error, 'orig', error)}")


def run_of(engine: sa.Engine, run_id: str) -> Rebuild:
    """A rebuild of these tables, in small batches and with few rows in memory."""
    names = [f"tests.engine.harness.fidelity:{each.__name__}" for each in PROJECTORS]
    patient = {"attempts": 200}
    return rebuild(engine, run_id, projectors=names, swap=patient, replay={"batch_events": 60, "max_rows_in_memory": 30})


def rebuild_once(engine: sa.Engine, run_id: str, projectors: Sequence[type[Projector]] = PROJECTORS) -> None:
    """Does a whole rebuild; the row counts may differ, because clients write at the same time."""
    options = RunOptions(projectors=[each.__name__ for each in projectors], max_count_drift_percent=50)
    run_to(run_of(engine, run_id), "drop", options)


def assert_right(engine: sa.Engine) -> None:
    """Asserts that the live tables follow from the events; no client may write meanwhile."""
    run = run_of(engine, "check")
    run_to(run, "verify")
    for table in run.verify().tables:
        assert (table.differing, table.only_blue, table.only_green) == (0, 0, 0), table.describe()
    run.abandon()
