"""A partial rebuild against a full one, over histories, damage and parts that nobody thought of."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByAggregate, ByPeriod
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import PlanError
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.specs import rebuild

FIRST = date(2026, 1, 1)


@row("carts", key="id")
class Cart:
    id: str
    items: int = 0


@row("cart_items", key=("cart", "item"), lookups=["cart"])
class Item:
    cart: str
    item: int


@row("monthly", key="month")
class Month:
    month: str
    items: int = 0


class CartProjector(Projector):
    """Two tables in one projector, with rows that come, go and come again."""

    owns = (Cart, Item)
    part = ByAggregate({Cart: "id", Item: "cart"})

    @handles("Added")
    def added(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Cart, event.stream).items += 1
        rows.get_or_add(Item, event.stream, event["item"])

    @handles("Emptied")
    def emptied(self, event: Event, rows: Rows) -> None:
        for item in rows.where(Item, cart=event.stream):
            rows.remove(Item, item.cart, item.item)
        rows.remove(Cart, event.stream)


class MonthProjector(Projector):
    owns = (Month,)
    part = ByPeriod({Month: "month"}, of=lambda event: event["day"][:7], at=lambda moment: f"{moment:%Y-%m}")

    @handles("Added")
    def added(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Month, event["day"][:7]).items += 1


TABLES = ("carts", "cart_items", "monthly")
HERE = "tests.engine.test_partial_properties"

carts = st.sampled_from(["a", "b", "c", "d", "e"])
days = st.integers(0, 120)
event = st.one_of(
    # An event is recorded on one day, and may be about another.
    st.tuples(st.just("Added"), carts, days, days, st.integers(1, 3)),
    st.tuples(st.just("Emptied"), carts, days, days, st.just(0)),
)
histories = st.lists(event, min_size=1, max_size=25)
# Which rows of each table are deleted, and which are changed, by the order of their keys.
damages = st.lists(st.tuples(st.sampled_from(TABLES), st.sampled_from(["delete", "change"]), st.integers(0, 9)), max_size=6)
spans = st.tuples(st.none() | days, st.none() | days).filter(
    lambda span: span != (None, None) and (None in span or span[0] < span[1])  # type: ignore[operator]
)


def stored(history: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [
        {
            "aggregate_uuid": cart,
            "event_class": kind,
            "event_properties": {"item": item, "day": f"{FIRST + timedelta(days=about)}"},
            "created_at": datetime(2026, 1, 1, 12) + timedelta(days=recorded),  # noqa: DTZ001
        }
        for kind, cart, recorded, about, item in history
    ]


def right(history: list[tuple[Any, ...]]) -> dict[str, dict[Any, Any]]:
    """All three tables, by code of its own."""
    items: dict[str, list[int]] = defaultdict(list)
    months: dict[str, int] = defaultdict(int)
    for kind, cart, _, about, item in history:
        if kind == "Emptied":
            items.pop(cart, None)
        else:
            items[cart].append(item)
            months[f"{FIRST + timedelta(days=about)}"[:7]] += 1
    return {
        "carts": {(cart,): (len(found),) for cart, found in items.items()},
        "cart_items": {(cart, item): () for cart, found in items.items() for item in found},
        "monthly": {(month,): (count,) for month, count in months.items()},
    }


def found_in(engine: sa.Engine) -> dict[str, dict[Any, Any]]:
    keys = {"carts": 1, "cart_items": 2, "monthly": 1}
    with engine.connect() as connection:
        return {
            table: {tuple(each)[:key]: tuple(each)[key:] for each in connection.exec_driver_sql(f"SELECT * FROM {table}")}
            for table, key in keys.items()
        }


def do_damage(engine: sa.Engine, damage: list[tuple[str, str, int]]) -> None:
    with engine.begin() as connection:
        for table, how, at in damage:
            one = f"rowid = (SELECT rowid FROM {table} ORDER BY 1 LIMIT 1 OFFSET {at})"
            if how == "delete" or table == "cart_items":
                connection.exec_driver_sql(f"DELETE FROM {table} WHERE {one}")
            else:
                connection.exec_driver_sql(f"UPDATE {table} SET items = items + 100 WHERE {one}")


def made(folder: str, history: list[tuple[Any, ...]]) -> sa.Engine:
    """A database with a history, over empty tables."""
    engine = sa.create_engine(f"sqlite:///{Path(folder) / 'carts.db'}")
    with engine.begin() as connection:
        shop.stored_events.create(connection)
        connection.exec_driver_sql("CREATE TABLE carts (id text PRIMARY KEY, items int NOT NULL)")
        connection.exec_driver_sql("CREATE TABLE cart_items (cart text, item int, PRIMARY KEY (cart, item))")
        connection.exec_driver_sql("CREATE TABLE monthly (month text PRIMARY KEY, items int NOT NULL)")
        connection.execute(shop.stored_events.insert(), stored(history))
    return engine


def check(
    history: list[tuple[Any, ...]],
    damage: list[tuple[str, str, int]],
    options: dict[str, Any],
    part: dict[str, Any],
    nothing_recorded: bool = False,
) -> None:
    """Rows of the part are those of a full rebuild; all others are those that were there.

    :param nothing_recorded: in the time that is chosen; then a part is refused if there is no row about it
    """
    names = [f"{HERE}:{name}" for name in options["projectors"]]
    tolerant = {"max_count_drift_percent": 100, "keep_old": False}
    with tempfile.TemporaryDirectory() as folder:
        engine = made(folder, history)
        small = {"projectors": names, "replay": {"batch_events": 4, "max_rows_in_memory": 3}}
        run_to(rebuild(engine, "full", **small), "drop", RunOptions.parse(tolerant))
        full = right(history)
        of_run = [table for table in TABLES if (table == "monthly") is ("MonthProjector" in options["projectors"])]
        assert {table: found_in(engine)[table] for table in of_run} == {table: full[table] for table in of_run}
        do_damage(engine, damage)
        before = found_in(engine)
        wanted = RunOptions.parse(tolerant | options)
        if nothing_recorded and not any(part[table](key[0]) for table in of_run for key in before[table]):
            with pytest.raises(PlanError, match="no event of these projectors was recorded"):
                rebuild(engine, "part", **small).plan(wanted)
            engine.dispose()
            return
        green_may_be_empty(engine, rebuild(engine, "part", **small), wanted)
        after = found_in(engine)
        for table in of_run:
            inside = {key: each for key, each in full[table].items() if part[table](key[0])}
            outside = {key: each for key, each in before[table].items() if not part[table](key[0])}
            assert after[table] == inside | outside, table
        engine.dispose()


def green_may_be_empty(engine: sa.Engine, run: Any, options: RunOptions) -> None:
    """All steps; verification is told not to mind a table that has no rows left, which damage can bring about."""
    run_to(run, "replay", options)
    with engine.begin() as connection:
        for table in run.report().plan.tables:
            if not connection.exec_driver_sql(f"SELECT count(*) FROM {table}_rebuild").scalar_one():
                connection.exec_driver_sql(f"DELETE FROM {table}")
    run.verify()
    run.swap()
    run.reconcile()
    run.drop_old()


common = settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@common
@given(histories, damages, spans, st.none() | st.sets(carts, min_size=1))
def test_rows_by_aggregate(
    history: list[tuple[Any, ...]], damage: list[tuple[str, str, int]], span: tuple[Any, Any], named: set[str] | None
) -> None:
    since, until = span
    affected = {
        cart
        for _, cart, recorded, _, _ in history
        if (since is None or recorded >= since) and (until is None or recorded < until) and (named is None or cart in named)
    }
    known = None if named is None else sorted(named & affected)
    if not affected or known == []:
        return
    options = {"projectors": ["CartProjector"], **moments(since, until), "aggregates": known}
    check(history, damage, {key: each for key, each in options.items() if each}, dict.fromkeys(TABLES, affected.__contains__))


@common
@given(histories, damages, spans)
def test_rows_by_period(history: list[tuple[Any, ...]], damage: list[tuple[str, str, int]], span: tuple[Any, Any]) -> None:
    since, until = span
    first = None if since is None else f"{FIRST + timedelta(days=since)}"[:7]
    last = None if until is None else f"{FIRST + timedelta(days=until - 1)}"[:7]

    def inside(month: str) -> bool:
        return (first is None or month >= first) and (last is None or month <= last)

    options = {"projectors": ["MonthProjector"], **moments(since, until)}
    recorded = any(
        kind == "Added" and (since is None or at >= since) and (until is None or at < until) for kind, _, at, _, _ in history
    )
    check(history, damage, options, dict.fromkeys(TABLES, inside), nothing_recorded=not recorded)


def moments(since: int | None, until: int | None) -> dict[str, str]:
    """Midnights, as a form gives them."""
    given_days = {"since": since, "until": until}
    return {
        name: (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)).isoformat()
        for name, day in given_days.items()
        if day is not None
    }
