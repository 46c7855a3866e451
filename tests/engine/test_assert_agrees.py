"""The one line for authors: the example of docs/how-to/check-a-projector.md as it stands, and what the line promises."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import PlanError
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.testing import Told, assert_agrees
from tests.engine.harness import shop
from tests.engine.harness.shop import events, tables
from tests.engine.harness.shop_sets import CustomerTotalProjector, ForOneDatabase

GUIDE = (Path(__file__).parents[2] / "docs" / "how-to" / "check-a-projector.md").read_text(encoding="utf-8")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], None]]:
    """The test of the example, with some of its text changed."""

    def written(*changes: tuple[str, str]) -> Callable[[], None]:
        (block,) = re.findall(r"^```python\n(# test_order_counts\.py\n.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
        for before, after in changes:
            assert before in block
            block = block.replace(before, after)
        module: Any = ModuleType("test_order_counts")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(block, "check-a-projector.md", "exec"), module.__dict__)  # noqa: S102
        test: Callable[[], None] = module.test_every_way_gives_the_same_rows
        return test

    return written


def test_the_example_of_the_guide_passes(example: Callable[..., Callable[[], None]]) -> None:
    example()()


def test_without_the_law_it_fails_as_the_guide_says(example: Callable[..., Callable[[], None]]) -> None:
    handlers, sql = (
        ("count.orders == count.cents == 0", "count.orders == 0"),
        ("WHERE orders = 0 AND cents = 0", "WHERE orders = 0"),
    )
    (told,) = re.findall(r"^```\n(OrderCountProjector, .*?)\n```$", GUIDE, re.MULTILINE | re.DOTALL)
    with pytest.raises(AssertionError) as failed:
        example(handlers, sql)()
    assert told in str(failed.value)


TOLD: list[Told] = [(each["event_class"], each["aggregate_uuid"], each["event_properties"]) for each in events(25)]


def test_nothing_of_a_database_that_is_named_is_touched(engine: sa.Engine) -> None:
    shop.fill(engine, events(3))
    url = engine.url.render_as_string(hide_password=False)
    before = tables(engine)
    # Like the tables that are there, and as somebody else makes them.
    assert_agrees([shop.OrderProjector, CustomerTotalProjector], TOLD, databases=url)
    assert_agrees(shop.OrderLineProjector, TOLD, databases=["sqlite://", url], tables=shop.metadata)
    assert tables(engine) == before
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM stored_events").scalar_one() == 3
        assert connection.exec_driver_sql("SELECT count(*) FROM orders").scalar_one() == 0


@row("things", key="id")
class Thing:
    id: UUID
    name: str
    weight: float
    amount: Decimal
    when: datetime
    raw: bytes
    tags: list[str]
    maybe: int | None = None
    sold: bool = False


class ThingProjector(Projector):
    """Of all types that a row class may have; its tables come from that class."""

    owns = (Thing,)
    needs_metadata = True

    @handles("Found")
    def found(self, event: Event, rows: Rows) -> None:
        at = event.recorded_time.replace(tzinfo=None)
        rows.add(Thing(UUID(event.stream), event["name"], 0.1, Decimal("0.10"), at, b"\x00\xff", [event.metadata["by"]]))

    @handles("Sold")
    def sold(self, event: Event, rows: Rows) -> None:
        thing = rows.get(Thing, UUID(event.stream))
        thing.sold, thing.maybe, thing.amount = True, event.version, thing.amount + 1
        thing.tags.append("sold")


def test_tables_come_from_row_classes_where_there_is_no_database() -> None:
    one, other = f"{uuid4()}", f"{uuid4()}"
    told = [
        Event(at, stream, kind, {"name": "x"}, f"2026-01-0{at} 10:00:00.5", at, {"by": "me"})
        for at, (stream, kind) in enumerate([(one, "Found"), (other, "Found"), (one, "Sold")], start=1)
    ]
    assert_agrees(ThingProjector, told)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"projectors": ForOneDatabase, "events": TOLD}, "its SQL cannot be used: none for this database"),
        ({"projectors": [shop.OrderProjector, ForOneDatabase], "events": TOLD}, "its SQL cannot be used"),
    ],
    ids=["alone", "beside another one"],
)
def test_what_compares_nothing_is_no_success(given: dict[str, Any], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        assert_agrees(**given, tables=shop.metadata)


def test_no_events_are_no_success() -> None:
    with pytest.raises(AssertionError, match="no event"):
        assert_agrees(shop.OrderProjector, [])


def test_a_table_that_a_database_does_not_have_is_named(sqlite_url: sa.URL) -> None:
    with pytest.raises(PlanError, match="there is no table orders"):
        assert_agrees(shop.OrderProjector, TOLD, databases=f"{sqlite_url}")


def test_what_matters_of_a_spec_is_taken_from_it() -> None:
    class Failing(shop.OrderProjector):
        @handles("OrderShipped")
        def shipped(self, event: Event, rows: Rows) -> None:
            raise ValueError

    with pytest.raises(AssertionError, match="Failing, live: it cannot be projected to the end"):
        assert_agrees(Failing, TOLD)
    assert_agrees(Failing, TOLD, spec={"replay": {"on_error": "dead_letter"}})
