"""Which aggregates a sample chooses, and what it says of those that it cannot judge."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.model.results import Sampled
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.rows.types import Rows
from projection_rebuild.verification import sample
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import events
from tests.engine.harness.specs import SPEC, rebuild
from tests.engine.harness.tally import Store, StreamProjector, TallyProjector


def sampled(made: Rebuild) -> dict[str, Sampled]:
    """What a verification says of each projector."""
    run_to(made, "replay")
    found = made.verify()
    made.close()
    assert all(each.describe() in found.describe() for each in found.sample)
    return {each.projector: each for each in found.sample}


class Everywhere(Projector):
    """Says nothing about whose rows its events touch."""

    owns = (shop.CustomerTotal,)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(shop.CustomerTotal, 0).orders += 1


def test_what_is_not_declared_is_not_judged_and_that_is_told(sqlite: sa.Engine) -> None:
    shop.fill(sqlite, events(150))
    found = sampled(rebuild(sqlite, projectors=["tests.engine.test_sample_choice:Everywhere"]))["Everywhere"]
    assert found.describe() == (
        "not sampled: Everywhere, its rows may be fed by many streams; declare `partition_by`, `part`, or the `stream` of its rows"
    )


class WrongUnit(Everywhere):
    """Declares what is not so."""

    partition_by = "customer"


def test_a_declaration_that_is_untrue_is_told_and_refuses_nothing(sqlite: sa.Engine) -> None:
    shop.fill(sqlite, events(150))
    found = sampled(rebuild(sqlite, projectors=["tests.engine.test_sample_choice:WrongUnit"]))["WrongUnit"]
    assert "its events reach rows of other aggregates than it declares" in found.not_sampled


def test_sql_alone_is_not_judged(sqlite: sa.Engine) -> None:
    shop.fill(sqlite, events(150))
    found = sampled(rebuild(sqlite, projectors=["tests.engine.harness.shop_sets:TotalsBySqlAlone"]))["TotalsBySqlAlone"]
    assert "only SQL" in found.not_sampled


def test_half_of_a_sample_was_touched_last(sqlite: sa.Engine) -> None:
    shop.fill(sqlite, events(400))
    made = rebuild(sqlite, verify={"sample": 6})
    run_to(made, "replay")
    context = made._context
    with context.dialect.connect() as connection:
        plan = context.plan_of(context.ledger.over(connection, context.run_id).runs.get())
    found = {each.projector: each for each in sample.take(context, plan, 6)}
    assert 0 < found["OrderLineProjector"].aggregates <= 6 and not found["OrderLineProjector"].findings
    made.close()


def test_an_aggregate_with_too_many_events_is_left_out_and_that_is_told(
    sqlite: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.fill(sqlite, events(150))
    monkeypatch.setattr(sample, "LONGEST", 3)
    found = sampled(rebuild(sqlite))
    assert "more were left out: they have too many events each" in found["OrderLineProjector"].describe()
    assert "more were left out: they have too many events each" in found["CustomerTotalProjector"].describe()


def test_a_store_that_is_too_large_to_be_read_once_more_is_not_judged(sqlite: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.fill(sqlite, events(150))
    monkeypatch.setattr(sample, "SCANNED", 10)
    found = sampled(rebuild(sqlite))
    # No index begins with the stream either.
    assert all(
        "the event store holds about" in each.not_sampled or "it holds about" in each.not_sampled for each in found.values()
    )


def test_an_index_on_the_stream_finds_the_same(sqlite: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.fill(sqlite, events(150))
    monkeypatch.setattr(sample, "SCANNED", 10)
    monkeypatch.setattr(sample, "ROWS", 3)
    with sqlite.begin() as connection:
        connection.exec_driver_sql("CREATE INDEX by_stream ON stored_events (aggregate_uuid)")
    found = sampled(rebuild(sqlite))["OrderLineProjector"]
    assert found.aggregates and found.rows and not found.not_sampled


def test_events_that_were_set_aside_are_left_out(sqlite: sa.Engine) -> None:
    shop.fill(sqlite, events(150))
    broken = {"aggregate_uuid": "order-0", "event_class": "LineAdded", "event_properties": {"customer": 3}}
    with sqlite.begin() as connection:
        connection.execute(shop.stored_events.insert(), [broken])
    made = rebuild(sqlite, projectors=SPEC["projectors"][:2], replay={"on_error": "dead_letter"}, verify={"max_dead_letters": 5})
    assert not sampled(made)["OrderLineProjector"].findings


def test_streams_that_a_collation_takes_for_one_stay_apart(engine: sa.Engine) -> None:
    store = Store(engine)
    store.add([{"id": number, "stream": stream} for number, stream in enumerate(["a", "A", "a ", "a", "ä", "A"], start=1)])
    found = sampled(store.rebuild(StreamProjector))["StreamProjector"]
    assert (found.aggregates, found.events, found.rows) == (4, 6, 4)


def test_rows_that_are_told_by_another_name_than_declared_are_not_judged(sqlite: sa.Engine) -> None:
    store = Store(sqlite)
    store.add([{"id": 1, "stream": "a"}])
    assert "correct `part`" in sampled(store.rebuild(TallyProjector))["TallyProjector"].not_sampled


def test_an_event_without_a_type_is_told(sqlite: sa.Engine) -> None:
    store = Store(sqlite, columns={"type": "varchar(60)"})
    store.add([{"id": 1, "stream": "a"}, {"id": 2, "stream": "a", "type": None}])
    made = store.rebuild(StreamProjector)
    run_to(made, "replay")
    assert any("1 events without a type" in note for note in made.verify().notes)
    made.close()
