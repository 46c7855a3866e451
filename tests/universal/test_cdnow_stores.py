"""The real purchases in event stores of other people's making, rebuilt from there and held against the text file."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import date
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
import sqlalchemy as sa
from eventsourcing.domain import Aggregate, event

from include.universal import cdnow, projectors
from include.universal.events import append_all
from include.universal.independent import cdnow_totals
from include.universal.schema import create_schema
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.upcasting import Upcasters
from projection_rebuild.errors import Interrupted
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.conftest import EVERY_STATEMENT
from tests.engine.harness import foreign, pyshop
from tests.engine.harness.databases import marked
from tests.engine.harness.foreign import make_tables
from tests.engine.harness.programs import program
from tests.universal.harness.runs import totals


class Customer(Aggregate):
    """Somebody who buys, as a user of `eventsourcing` has it."""

    @event("Registered")
    def __init__(self, number: int) -> None:
        self.number = number

    @staticmethod
    def create_id(number: int) -> UUID:
        return uuid5(NAMESPACE_URL, f"customer:{number}")

    @event("Bought")
    def buy(self, purchase: str, customer: int, on: date, discs: int, price: Decimal) -> None:
        """Notes a purchase."""


TOPIC = f"{__name__}:Customer."
upcasters = Upcasters()
upcasters.drops(f"{TOPIC}Registered")


@upcasters.upcasts(f"{TOPIC}Bought", into=["ExpenseRecorded"])
def bought(event: Event) -> Event:
    said = {"expense_id": event["purchase"], "user_id": event["customer"], "quantity": event["discs"]}
    return event.evolved(
        "ExpenseRecorded",
        said | {"category": cdnow.CATEGORY, "amount_cents": int(event["price"] * 100), "spent_on": event["on"].isoformat()},
    )


class ExpenseProjector(projectors.ExpenseProjector):
    upcasters = upcasters


class MonthlySummaryProjector(projectors.MonthlySummaryProjector):
    upcasters = upcasters


def stored() -> list[foreign.Stored]:
    return [
        {"aggregate_uuid": each.stream, "event_class": each.type, "event_properties": each.payload} for each in cdnow.purchases()
    ]


def in_python(engine: sa.Engine) -> dict[str, Any]:
    """By the library's application, a customer at a time."""
    with closing(foreign.python_application(engine.url)) as application:
        for number, some in groupby(
            sorted(cdnow.purchases(), key=lambda each: each.stream), key=lambda each: each.payload["user_id"]
        ):
            customer = Customer(number=number)
            for said in (each.payload for each in some):
                customer.buy(
                    purchase=said["expense_id"],
                    customer=number,
                    on=date.fromisoformat(said["spent_on"]),
                    discs=said["quantity"],
                    price=Decimal(said["amount_cents"]) / 100,
                )
            application.save(customer)
    return {"preset": "pyeventsourcing", "table": "shop_events", "mapper": f"{pyshop.__name__}:compressed"}


def fill(engine: sa.Engine, preset: str) -> dict[str, Any]:
    """Appends all purchases.

    :returns: ``event_store`` of a spec
    """
    make_tables(engine, preset)
    if preset == "pyeventsourcing":
        return in_python(engine)
    if preset == "emmett":
        foreign.emmett(engine.url, stored())
        return {"preset": preset}
    with engine.begin() as connection:
        for each in stored():
            getattr(foreign, preset)(connection, each)
    return {"preset": preset}


FEW = [("mariadb", "spatie"), ("postgres", "pyeventsourcing"), ("postgres", "message_db")]
MORE = [("postgres", "spatie"), ("postgres", "marten"), ("postgres", "emmett")]


@pytest.mark.parametrize(("kind", "preset"), FEW + MORE if EVERY_STATEMENT else FEW)
def test_purchases_of_any_store_are_those_of_the_text_file(kind: str, preset: str, new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database(kind))
    store = fill(engine, preset)
    create_schema(engine, event_store=False)
    module = __name__ if preset == "pyeventsourcing" else projectors.__name__
    names = ["ExpenseProjector", "MonthlySummaryProjector"]
    spec = RebuildSpec.model_validate(
        {
            "rebuild": "purchases",
            "event_store": {"conn_id": "db"} | store,
            "read_models": {"conn_id": "db"},
            "projectors": [f"{module}:{name}" for name in names],
            "live_writer": "transactional",
        }
    )
    made = Rebuild(spec, run_id="run", event_store=engine, read_models=engine, log=lambda _: None)
    made.plan(RunOptions(keep_old=False))
    made.clone_tables()
    for name in names:
        made.replay(name)
    made.verify()
    made.swap()
    found = totals(engine)
    engine.dispose()
    assert found == cdnow_totals(cdnow.DATA)


@pytest.mark.parametrize("kind", marked("postgres", "mariadb"))
def test_purchases_by_a_program_are_those_of_the_text_file(
    kind: str, new_database: Callable[[str], sa.URL], tmp_path: Path
) -> None:
    """It is stopped in the middle, and begins anew, beside a projector in Python."""
    engine = sa.create_engine(new_database(kind))
    create_schema(engine)
    append_all(engine, cdnow.purchases())
    waits = tmp_path / "waits"
    waits.write_text("3000")
    months = program(engine, waits, "months", environment={"PROGRAM_STEP": "1000"})
    spec = RebuildSpec.model_validate(
        {
            "rebuild": "purchases",
            "event_store": {"conn_id": "db"},
            "read_models": {"conn_id": "db"},
            "projectors": [f"{projectors.__name__}:ExpenseProjector", months],
            "live_writer": "transactional",
        }
    )
    made = Rebuild(spec, run_id="run", event_store=engine, read_models=engine, log=lambda _: None)
    made.plan(RunOptions(keep_old=False))
    made.clone_tables()
    made.replay("ExpenseProjector")
    began = time.monotonic()
    with pytest.raises(Interrupted):
        made.replay(months["name"], stopped=lambda: time.monotonic() - began > 3)
    with engine.connect() as connection:
        cut = connection.exec_driver_sql("SELECT sum(expenses) FROM monthly_summaries_rebuild").scalar_one()
    assert 0 < cut < len(list(cdnow.purchases()))
    waits.unlink()
    made.replay(months["name"])
    made.verify()
    made.swap()
    found = totals(engine)
    engine.dispose()
    assert found == cdnow_totals(cdnow.DATA)
