"""Every projector of the repository, over events of its own, in every way: the same rows."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa

import benchmarks
import include.universal
import tools.prove
from benchmarks.composed import SpendingProjector
from include.universal import schema
from include.universal.cdnow import purchases
from include.universal.declared import DECLARED
from include.universal.events import NewEvent, generate
from include.universal.projectors import (
    ALL,
    CategorySummaryProjector,
    ExpenseProjector,
    MonthlySummaryProjector,
    SubscriptionItemProjector,
)
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.testing import Told, assert_agrees
from tests.conftest import DATABASES, EVERY_STATEMENT, SERVERS
from tests.engine.harness import shop, shop_sets, tally, values_shop
from tests.engine.harness.shop import events
from tests.universal.harness.running_totals import MonthsAndTotals, RunningTotalProjector
from tools.prove import witness

HISTORY = 400 if EVERY_STATEMENT else 24


@dataclass(frozen=True)
class Group:
    """Projectors over one history.

    :param make: makes their tables in a database
    :param everywhere: tried on every database; otherwise on SQLite
    """

    name: str
    projectors: Sequence[type[Projector]]
    events: Callable[[], Sequence[Told | Event]]
    make: Callable[[sa.Engine], object]
    everywhere: bool = False


def of_universal(made: Iterable[NewEvent]) -> list[Event]:
    return [
        Event(position, each.stream, each.type, each.payload, each.recorded_at, each.version)
        for position, each in enumerate(islice(made, HISTORY), start=1)
    ]


def generated() -> list[Event]:
    return of_universal(generate(HISTORY, users=3, at_once=4))


def bought() -> list[Event]:
    return of_universal(sorted(purchases(), key=lambda each: (-each.version, each.recorded_at)))


def of_shop() -> list[Told]:
    return told(events(HISTORY))


def told(stored: Iterable[dict[str, Any]]) -> list[Told]:
    return [(each["event_class"], each["aggregate_uuid"], each["event_properties"]) for each in stored]


def tallied() -> list[Event]:
    said = [{"customer": at % 4, "wei": 123456789012345678901234, "amount": "1234567890123456.78"} for at in range(HISTORY)]
    return [Event(at, f"s{at % 5}", "made", each, f"2026-01-{1 + at % 3:02} 10:00:00") for at, each in enumerate(said)]


def with_running_totals(engine: sa.Engine) -> None:
    schema.create_schema(engine)
    options = " ENGINE=InnoDB" if engine.dialect.name == "mysql" else ""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE running_totals (id varchar(36) PRIMARY KEY, month_cents bigint NOT NULL){options}"
        )


SUMMARIES = (ExpenseProjector, CategorySummaryProjector, MonthlySummaryProjector)
GROUPS = [
    Group("universal", ALL, generated, schema.create_schema),
    Group("declared", DECLARED, generated, schema.create_schema, everywhere=True),
    Group("two of them", [SubscriptionItemProjector, CategorySummaryProjector], generated, schema.create_schema, everywhere=True),
    Group("purchases", SUMMARIES, bought, schema.create_schema),
    Group("in one pass", [SpendingProjector], generated, schema.create_schema),
    Group("reading", [MonthlySummaryProjector, RunningTotalProjector], bought, with_running_totals),
    Group("reading in one pass", [MonthsAndTotals], bought, with_running_totals),
    Group("each event", [witness.AppliedEventProjector], generated, witness.metadata.create_all),
    Group("shop", [shop.OrderProjector, shop.OrderLineProjector, shop_sets.CustomerTotalProjector], of_shop, shop.metadata.create_all),
    Group("only SQL", [shop_sets.TotalsBySqlAlone], of_shop, shop.metadata.create_all, everywhere=True),
    Group("tallies", [tally.SetProjector, tally.CustomerProjector, tally.PayloadProjector, tally.DayProjector], tallied, tally.Store),
    Group("values", [values_shop.KeptProjector], lambda: told(values_shop.kept_events(HISTORY // 3)), values_shop.create, everywhere=True),
]  # fmt: skip


def cases() -> Iterator[Any]:
    for group in GROUPS:
        for kind in DATABASES if group.everywhere or EVERY_STATEMENT else ["sqlite"]:
            marks = [getattr(pytest.mark, kind)] if kind in SERVERS else []
            yield pytest.param(group, kind, marks=marks, id=f"{group.name}-{kind}")


@pytest.mark.parametrize(("group", "kind"), [*cases()])
def test_every_way_gives_the_same_rows(group: Group, kind: str, new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database(kind))
    group.make(engine)
    engine.dispose()
    assert_agrees(group.projectors, group.events(), databases=engine.url.render_as_string(hide_password=False))


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not each.name.endswith("__main__"):
            yield importlib.import_module(each.name)


def test_no_projector_that_is_delivered_is_left_out() -> None:
    looked_at = {projector for group in GROUPS for projector in group.projectors}
    there = {
        found
        for package in (include.universal, tools.prove, benchmarks)
        for module in modules(package)
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Projector) and found.__module__ == module.__name__
        # What the measurement of pauses makes by the hundred handles nothing.
        if "<locals>" not in found.__qualname__
    }
    assert len(there) >= 8 and not there - looked_at
