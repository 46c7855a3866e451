"""The table of faults in docs/concepts/verification.md: each fault that is caught always is planted, and the check that catches it says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.eventstore.columns import EventColumns
from projection_rebuild.eventstore.decoding import RowDecoder
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.pipeline.fold import Fold
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.types import Rows
from tests.engine.harness import shop, shop_sets
from tests.engine.harness.driver import failures_of, run_to
from tests.engine.harness.shop import events
from tests.engine.harness.specs import SPEC, rebuild

TWO = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


def filled(engine: sa.Engine) -> None:
    """150 events over empty read models, and a place below the last of them where one more could be."""
    shop.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(
            shop.stored_events.insert(),
            [each | {"id": number if number < 100 else number + 1} for number, each in enumerate(events(150), 1)],
        )


@pytest.fixture
def replayed(engine: sa.Engine) -> Iterator[Rebuild]:
    """A run that has only to be verified."""
    filled(engine)
    made = rebuild(engine)
    run_to(made, "replay")
    yield made
    made.close()


@contextmanager
def changed(
    engine: sa.Engine, table: str, where: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> Iterator[None]:
    """Within it one row of a table is another one, or (None) is gone."""
    live = shop.metadata.tables[table.removesuffix("_rebuild")]
    columns = [sa.column(each.name, each.type) for each in live.columns]
    there: Any = sa.table(table, *columns)
    condition = sa.text(where)
    with engine.begin() as connection:
        before = dict(connection.execute(sa.select(*columns).select_from(there).where(condition)).mappings().one())
        after = change(dict(before))
        key = next(iter(live.primary_key.columns)).name
        this = sa.column(key) == before[key]
        other = [] if after is None else [name for name in after if after[name] != before[name]]
        connection.execute(
            there.delete().where(this)
            if after is None
            else there.update().where(this).values({name: after[name] for name in other})
        )
    yield
    with engine.begin() as connection:
        connection.execute(
            there.insert().values(**before)
            if after is None
            else there.update().where(this).values({name: before[name] for name in other})
        )


@contextmanager
def added(engine: sa.Engine, table: str, **values: Any) -> Iterator[None]:
    """Within it a table has one row more."""
    live = shop.metadata.tables[table.removesuffix("_rebuild")]
    there: Any = sa.table(table, *(sa.column(each.name, each.type) for each in live.columns))
    with engine.begin() as connection:
        connection.execute(there.insert().values(**values))
    yield
    with engine.begin() as connection:
        connection.execute(
            there.delete().where(*(sa.column(name) == value for name, value in values.items() if not isinstance(value, dict)))
        )


def test_what_is_done_to_green_or_to_the_store_after_the_replay_is_found(engine: sa.Engine, replayed: Rebuild) -> None:
    with engine.connect() as connection:
        order, line = connection.exec_driver_sql("SELECT order_id, line FROM order_lines_rebuild ORDER BY order_id LIMIT 1").one()
        event = connection.exec_driver_sql("SELECT max(id) FROM stored_events WHERE event_class = 'LineAdded'").scalar_one()
    a_line = f"order_id = '{order}' AND line = {line}"
    new = {"customer": 3, "on": "2026-03-01"}
    more = {"order_id": order, "product": "x", "price": Decimal(1), "options": {}, "gift": False}
    faults: list[tuple[Any, str]] = [
        (changed(engine, "orders_rebuild", f"id = '{order}'", lambda row: row | {"customer": 99}), rf"orders: the row {order} .* in customer"),
        # To most collations that is the same value.
        (changed(engine, "orders_rebuild", f"id = '{order}'", lambda row: row | {"status": row["status"].upper()}), "in status"),
        (changed(engine, "order_lines_rebuild", a_line, lambda row: row | {"price": row["price"] + Decimal("0.01")}), "in price"),
        (changed(engine, "order_lines_rebuild", a_line, lambda row: row | {"options": {"ü": [1, 2]}}), "in options"),
        (changed(engine, "order_lines_rebuild", a_line, lambda row: None), rf"green has no row {order} / {line}, which its events make"),
        (added(engine, "order_lines_rebuild", line=77, **more), rf"green has a row {order} / 77, which no event makes"),
        (changed(engine, "customer_totals_rebuild", "customer = 3", lambda row: row | {"orders": row["orders"] + 1}), "row 3 .* in orders"),
        (
            changed(engine, "stored_events", f"id = {event}", lambda row: row | {"event_properties": row["event_properties"] | {"price": "7"}}),
            "order_lines: the row .* in price(.|\n)*customer_totals: the row .* in spent|customer_totals: (.|\n)*order_lines: ",
        ),
        (changed(engine, "stored_events", f"id = {event}", lambda row: None), r"OrderLineProjector has handled \d+ events, the store holds"),
        (
            added(engine, "stored_events", id=100, aggregate_uuid="late", event_class="OrderPlaced", event_properties=new),
            r"OrderProjector has handled \d+ events, the store holds \d+ of its types up to position 151",
        ),
    ]  # fmt: skip
    for fault, words in faults:
        with fault:
            found = failures_of(replayed)
        assert re.search(words, found), (words, found)
    assert replayed.verify().passed


# Faults of the replay itself. What is patched, the second opinion does not use.


def above_the_first(original: Any) -> Any:
    """A bound that leaves out the first event."""
    return lambda self, after, upto: [*original(self, after, upto), self.position > 1]


def without_a_type(original: Any) -> Any:
    return lambda self, types: original(self, sorted(types)[:-1])


def dearer(original: Any) -> Any:
    """A decoder that makes something else of a price."""

    def decode(self: RowDecoder, rows: Sequence[Any]) -> list[Event]:
        return [
            each.evolved(payload={**each.payload, "price": "8.00"}) if each.position == 140 else each
            for each in original(self, rows)
        ]

    return decode


def backwards(original: Any) -> Any:
    def pages(self: EventStore, *given: Any, **more: Any) -> Iterator[Any]:
        for some, reached in original(self, *given, **more):
            yield some[::-1], reached

    return pages


def each_twice(original: Any) -> Any:
    def pages(self: EventStore, *given: Any, **more: Any) -> Iterator[Any]:
        for some, reached in original(self, *given, **more):
            yield [each for each in some for _ in range(2)], reached

    return pages


def folded_twice(original: Any) -> Any:
    """Twice in the rows, once in the count."""
    return lambda self, some: (original(self, some), original(self, some))[0]


def one_row_less(original: Any) -> Any:
    def changes(self: RowBuffer) -> Any:
        found = original(self)
        for each in found:
            del each.inserted[-1:]
        return found

    return changes


class Latest(Projector):
    """What a customer was charged last, which hangs on the order of events."""

    owns = (shop.CustomerTotal,)
    partition_by = "customer"

    @handles("LineAdded")
    def added(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(shop.CustomerTotal, event["customer"]).spent = Decimal(event["price"])


TOTALS = "tests.engine.harness.shop:CustomerTotalProjector"
LATEST = "tests.engine.test_planted_faults:Latest"
MISCOUNTED = "has handled"
PLANTED: dict[str, tuple[Any, str, Callable[[Any], Any], str, str]] = {
    "missed at a bound": (EventColumns, "between", above_the_first, TOTALS, MISCOUNTED),
    "missed by its type": (EventColumns, "of_types", without_a_type, TOTALS, MISCOUNTED),
    "decoded wrong": (RowDecoder, "decode", dearer, TOTALS, "in spent"),
    "in another order": (EventStore, "pages", backwards, LATEST, "in spent"),
    "doubled": (EventStore, "pages", each_twice, TOTALS, MISCOUNTED),
    "doubled in the rows": (Fold, "apply", folded_twice, TOTALS, "in orders, spent"),
    "not written": (RowBuffer, "changes", one_row_less, TOTALS, "green has no row"),
}


@pytest.mark.parametrize("database_kind", TWO, indirect=True)
@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_of_the_replay_is_found_by_what_shares_no_code_with_it(
    engine: sa.Engine, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(engine)
    where, name, planted, projector, words = PLANTED[fault]
    monkeypatch.setattr(where, name, planted(getattr(where, name)))
    # In one batch: in the next one an UPDATE would find that a row is missing.
    made = rebuild(engine, projectors=[projector], replay={"batch_events": 10_000})
    run_to(made, "replay")
    assert words in failures_of(made)
    made.close()


class OneTooMany(shop_sets.CustomerTotalProjector):
    """Its SQL counts otherwise than its handlers."""

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return [each.replace("THEN 1 ELSE", "THEN 2 ELSE") for each in super().statements(database)]


class Rounded(shop_sets.CustomerTotalProjector):
    """Its SQL makes whole numbers of prices."""

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return [
            each.replace("THEN CAST(", "THEN round(CAST(").replace("decimal(14, 2))", "decimal(14, 2)))")
            for each in super().statements(database)
        ]


@pytest.mark.parametrize(("projector", "column"), [(OneTooMany, "orders"), (Rounded, "spent")])
def test_sql_that_does_not_do_what_the_handlers_do_is_found(engine: sa.Engine, projector: type[Projector], column: str) -> None:
    filled(engine)
    made = rebuild(engine, projectors=[f"{projector.__module__}:{projector.__name__}"])
    run_to(made, "replay")
    assert f"in {column}" in failures_of(made)
    made.close()


@pytest.mark.parametrize("database_kind", TWO, indirect=True)
def test_the_sql_of_the_shop_does_what_its_handlers_do(engine: sa.Engine) -> None:
    filled(engine)
    made = rebuild(engine, projectors=[*SPEC["projectors"][:2], "tests.engine.harness.shop_sets:CustomerTotalProjector"])
    run_to(made, "replay")
    assert all(each.aggregates and not each.findings for each in made.verify().sample)
    made.close()
