"""The real purchases as an application of 1997 would have stored them, with some that nobody can read: brought up to date, set aside,
and held against the text file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import groupby

import pytest
import sqlalchemy as sa

from include.universal import cdnow, projectors
from include.universal.events import NewEvent, append_all
from include.universal.independent import cdnow_totals
from include.universal.schema import create_schema
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.upcasting import Upcasters
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness.databases import marked
from tests.universal.harness.runs import totals

upcasters = Upcasters()


@upcasters.upcasts("BasketBought", into=["PurchaseMade"])
def apart(event: Event) -> list[Event]:
    return [
        event.evolved("PurchaseMade", {"customer": event["customer"], "day": event["day"], **each}) for each in event["discs"]
    ]


@upcasters.upcasts("PurchaseMade", into=["ExpenseRecorded"])
def in_cents(event: Event) -> Event:
    said = {"expense_id": event["id"], "user_id": event["customer"], "category": cdnow.CATEGORY, "quantity": event["count"]}
    return event.evolved(
        "ExpenseRecorded", said | {"amount_cents": int(Decimal(event["dollars"]) * 100), "spent_on": event["day"]}
    )


upcasters.drops("ShopVisited")


class ExpenseProjector(projectors.ExpenseProjector):
    upcasters = upcasters


class MonthlySummaryProjector(projectors.MonthlySummaryProjector):
    upcasters = upcasters


UNREADABLE = 500
"""Every so many baskets, one more whose amount is no number."""


def as_of_1997() -> Iterator[NewEvent]:
    """A basket per customer and day; a purchase alone is stored by itself, or as today."""
    for number, (_, some) in enumerate(groupby(cdnow.purchases(), key=lambda event: (event.payload["spent_on"], event.stream))):
        baskets = list(some)
        first = baskets[0].payload
        discs = [
            {"id": said["expense_id"], "count": said["quantity"], "dollars": f"{Decimal(said['amount_cents']) / 100}"}
            for said in (event.payload for event in baskets)
        ]
        head = {"customer": first["user_id"], "day": first["spent_on"]}
        if len(baskets) > 1 or number % 3 == 0:
            yield baskets[0]._replace(type="BasketBought", payload=head | {"discs": discs})
        elif number % 3 == 1:
            yield baskets[0]._replace(type="PurchaseMade", payload=head | discs[0])
        else:
            yield baskets[0]
        if number % UNREADABLE == 0:
            broken = discs[0] | {"id": f"broken-{number}", "dollars": "n/a"}
            yield baskets[0]._replace(type="BasketBought", version=10_000 + number, payload=head | {"discs": [discs[0], broken]})
            yield baskets[0]._replace(type="ShopVisited", version=20_000 + number, payload=head)


@pytest.mark.parametrize("kind", marked("postgres", "mariadb"))
def test_old_purchases_are_those_of_the_text_file(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database(kind))
    create_schema(engine)
    stored = list(as_of_1997())
    unreadable = sum(event.version is not None and 10_000 <= event.version < 20_000 for event in stored)
    assert unreadable > 5 and len({event.type for event in stored}) == 4
    append_all(engine, stored)
    names = ["ExpenseProjector", "MonthlySummaryProjector"]
    spec = RebuildSpec.model_validate(
        {
            "rebuild": "old",
            "event_store": {"conn_id": "db"},
            "read_models": {"conn_id": "db"},
            "projectors": [f"{__name__}:{name}" for name in names],
            "live_writer": "transactional",
            "replay": {"on_error": "dead_letter"},
            "verify": {"max_dead_letters": 2 * unreadable},
        }
    )
    made = Rebuild(spec, run_id="run", event_store=engine, read_models=engine, log=lambda _: None)
    made.plan(RunOptions())
    made.clone_tables()
    for name in names:
        made.replay(name)
    assert made.verify().dead_letters == dict.fromkeys(names, unreadable)
    made.swap()
    found = totals(engine)
    engine.dispose()
    # Of a basket that cannot be read, nothing has been kept, not even what could be.
    assert found == cdnow_totals(cdnow.DATA)
