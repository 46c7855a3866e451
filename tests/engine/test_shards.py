"""Replays in shards: the same tables as without, each shard by itself, and what becomes of projectors that cannot be divided."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import FencedOut, HandlerError, Interrupted, ProjectorError, ShardError, StepOrderError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.row_tables import WriteError
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.projectors import load_projector
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to, run_to_end
from tests.engine.harness.shop import actual, event_of, events, expected
from tests.engine.harness.specs import PROJECTORS, rebuild

SHARDED = {"replay": {"batch_events": 60, "shards": 3}}
LATE = {"aggregate_uuid": "late", "event_class": "OrderPlaced", "event_properties": {"customer": 1, "on": "2026-03-01"}}


@row("orders", key="id")
class Loose:
    """An order that does not say whose it is by its key."""

    id: str
    customer: int
    status: str = "placed"
    placed_on: str = "2026-01-01"


class ByCustomer(Projector):
    """Orders divided by their customers; ``Met`` tells of an order of somebody else's."""

    owns = (Loose,)
    partition_by = "customer"

    @handles("Made")
    def made(self, event: Event, rows: Rows) -> None:
        rows.add(Loose(event.stream, event["customer"]))

    @handles("Found")
    def found(self, event: Event, rows: Rows) -> None:
        rows.find(Loose, event["order"])

    @handles("Got")
    def got(self, event: Event, rows: Rows) -> None:
        rows.get(Loose, event["order"]).status = "got"

    @handles("MadeForAnother")
    def made_for_another(self, event: Event, rows: Rows) -> None:
        rows.add(Loose(event.stream, event["another"]))


class ByKey(Projector):
    """Totals whose key says whose they are."""

    owns = (shop.CustomerTotal,)
    partition_by = "customer"

    @handles("Asked")
    def asked(self, event: Event, rows: Rows) -> None:
        rows.find(shop.CustomerTotal, event["another"])


class LooksUp(Projector):
    """Lines that are looked up by something else than what divides them."""

    owns = (shop.OrderLine,)
    partition_by: ClassVar[str] = "line"

    @handles("Line")
    def line(self, event: Event, rows: Rows) -> None:
        if not rows.where(shop.OrderLine, order_id="o"):
            rows.add(shop.OrderLine("o", event["line"], "p", 1, {}))  # type: ignore[arg-type]


class NoAttribute(Projector):
    owns = (Loose,)
    partition_by = "nobody"

    @handles("Made")
    def made(self, event: Event, rows: Rows) -> None:
        """Never runs."""


class TotalOrder(Projector):
    owns = (Loose,)

    @handles("Made")
    def made(self, event: Event, rows: Rows) -> None:
        rows.add(Loose(event.stream, event["customer"]))


@pytest.fixture
def one(sqlite: sa.Engine) -> sa.Engine:
    """Where the database does not matter."""
    shop.metadata.create_all(sqlite)
    return sqlite


def store(engine: sa.Engine, made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    shop.fill(engine, made)
    return made


def green(engine: sa.Engine) -> list[str]:
    """The green orders."""
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT id FROM orders_rebuild ORDER BY id").scalars())


def here(engine: sa.Engine, projector: type[Projector], run_id: str = "run", **replay: Any) -> Rebuild:
    """A run of a projector of this module, in 8 shards, with its green table."""
    path = f"tests.engine.test_shards:{projector.__name__}"
    made = rebuild(engine, run_id, projectors=[path], replay={"shards": 8} | replay)
    run_to(made, "clone")
    return made


def test_shards_make_the_same_tables_and_join_into_one_checkpoint(engine: sa.Engine) -> None:
    stored = store(engine, events(1_000))
    made = rebuild(engine, **SHARDED)
    run_to(made, "clone")
    assert sorted(made.shards()) == sorted((name, number) for name in PROJECTORS for number in range(3))
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), [LATE])
    for name in PROJECTORS:
        done = [made.replay_shard(name, number) for number in (2, 0, 1)]
        assert all(each.events for each in done) and {each.position for each in done} == {1_000}
        result = made.replay(name)
        assert (result.resumed_from, result.position) == (1_000, 1_001)
        assert made.replay_shard(name, 1).events == 0
    made.verify()
    made.swap()
    made.reconcile()
    assert actual(engine) == expected([*stored, LATE])


def test_shards_at_work_beside_each_other(engine: sa.Engine) -> None:
    stored = store(engine, events(1_000))
    made = rebuild(engine, replay={"batch_events": 60, "shards": 2})
    run_to(made, "clone")
    errors: list[BaseException] = []

    def work(name: str, number: int) -> None:
        worker = rebuild(engine, replay={"batch_events": 60, "shards": 2})
        try:
            worker.replay_shard(name, number)
        except BaseException as error:
            errors.append(error)
        finally:
            worker.close()

    workers = [threading.Thread(target=work, args=(name, number)) for name in PROJECTORS for number in range(2)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert errors == []
    run_to_end(made, PROJECTORS)
    assert actual(engine) == expected(stored)


def test_a_replay_does_the_shards_that_nobody_has_done(one: sa.Engine) -> None:
    stored = store(one, events(1_000))
    made = rebuild(one, **SHARDED)
    run_to(made, "clone")
    made.replay_shard("OrderLineProjector", 1)
    run_to_end(made, PROJECTORS)
    assert actual(one) == expected(stored)


@pytest.mark.parametrize("memory", [None, 5])
def test_a_shard_that_was_stopped_goes_on_from_its_checkpoint(one: sa.Engine, memory: int | None) -> None:
    stored = store(one, events(1_000))
    made = rebuild(one, replay={"batch_events": 60, "shards": 3, "max_rows_in_memory": memory})
    run_to(made, "clone")
    for name in PROJECTORS:
        looks = iter([False, False, True])
        with pytest.raises(Interrupted):
            made.replay_shard(name, 1, stopped=lambda looks=looks: next(looks))  # type: ignore[misc]
        assert 0 < made.replay_shard(name, 1).resumed_from < 1_000
    run_to_end(made, PROJECTORS)
    assert actual(one) == expected(stored)


def test_a_second_worker_on_a_shard_and_one_of_an_earlier_clone_are_fenced_out(one: sa.Engine) -> None:
    stored = store(one, events(1_000))
    made = rebuild(one, **SHARDED)
    run_to(made, "clone")

    context = made._context
    with context.dialect.connect() as connection:
        for beaten_by in (lambda: made.replay_shard("OrderProjector", 0), made.clone_tables):
            read = context.ledger.over(connection, "run").shards.checkpoints("OrderProjector")[0]
            beaten_by()
            with pytest.raises(FencedOut):
                context.ledger.over(connection, "run").checkpoints.advance(read, position=1, head=1, events=1, seconds=0)
    assert made.replay_shard("OrderProjector", 0).resumed_from is None
    run_to_end(made, PROJECTORS)
    assert actual(one) == expected(stored)


def test_a_row_that_the_database_refuses_is_set_aside_in_its_shard(one: sa.Engine) -> None:
    customers = [*range(10), -1, *range(10, 20)]
    store(one, [event_of(each, kind, f"o{each}", order=f"o{each}") for each in customers for kind in ("Found", "Made")])
    made = here(one, ByCustomer, shards=2, on_error="dead_letter")
    made.replay("ByCustomer")
    assert green(one) == sorted(f"o{each}" for each in customers if each >= 0)
    (letter,) = made._context.ledger.over(one.connect(), "run").dead_letters.of_run()
    assert (letter.projector, letter.event_type) == ("ByCustomer", "Made")


def test_a_row_of_another_partition_is_an_error_and_nothing_is_written(one: sa.Engine) -> None:
    store(one, [event_of(1, "Made", "a"), event_of(1, "MadeForAnother", "b", another=2)])
    with pytest.raises(ShardError, match=r"ByCustomer \d/8.*orders"):
        here(one, ByCustomer).replay("ByCustomer")
    assert green(one) == []


def test_a_row_that_two_shards_make_is_an_error(one: sa.Engine) -> None:
    shard_of = rebuild(one)._context.store.shard_of
    first, second, *_ = {shard_of(str(each), 8): each for each in range(20)}.values()
    store(one, [event_of(first, "Made", "a"), event_of(second, "Made", "a")])
    with pytest.raises(
        WriteError,
        match=r"ByCustomer \d/8: the event Made at position \d: cannot insert into orders.* Or two shards make the same row",
    ):
        here(one, ByCustomer).replay("ByCustomer")


def test_a_row_of_another_shard_cannot_be_changed(one: sa.Engine) -> None:
    store(one, [event_of(1, "Made", "a"), *[event_of(each, "Got", order="a") for each in range(2, 12)]])
    with pytest.raises(HandlerError, match=r"Got.*orders has no row with the key.*may be another shard's.*`partition_by`"):
        here(one, ByCustomer).replay("ByCustomer")


def test_a_row_that_was_missed_by_one_shard_and_made_by_another_is_an_error(one: sa.Engine) -> None:
    store(one, [event_of(1, "Made", "a"), *[event_of(each, "Found", order="a") for each in range(2, 12)]])
    with pytest.raises(ShardError, match="reached from two shards"):
        here(one, ByCustomer).replay("ByCustomer")


def test_a_row_that_was_missed_and_made_later_by_the_same_shard_is_none(one: sa.Engine) -> None:
    store(one, [event_of(1, "Found", order="a"), event_of(1, "Made", "a"), event_of(1, "Found", order="nowhere")])
    for number, batch in enumerate((1_000, 1)):
        made = here(one, ByCustomer, f"run-{number}", batch_events=batch)
        made.replay("ByCustomer")
        made.verify()
        assert green(one) == ["a"]
        made.abandon()


def test_a_key_tells_at_once_that_a_row_is_somebody_elses(one: sa.Engine) -> None:
    store(one, [event_of(1, "Asked", another=1), event_of(1, "Asked", another=2)])
    with pytest.raises(ShardError, match="customer_totals"):
        here(one, ByKey).replay("ByKey")


def test_rows_that_are_looked_up_across_shards_are_an_error(one: sa.Engine) -> None:
    store(one, [event_of(1, "Line", line=each) for each in range(12)])
    with pytest.raises(ShardError, match="reached from two shards"):
        here(one, LooksUp).replay("LooksUp")


def test_only_what_can_be_divided_is(one: sa.Engine) -> None:
    store(one, [event_of(1, "Made", "a"), event_of(2, "Made", "b")])
    made = rebuild(one, projectors=["tests.engine.test_shards:TotalOrder"], replay={"shards": 8})
    plan = made.plan(RunOptions())
    assert plan.shards == {} and any("total order" in str(each) for each in plan.findings)
    made.clone_tables()
    with pytest.raises(StepOrderError, match="no shard 1"):
        made.replay_shard("TotalOrder", 0)
    made.replay("TotalOrder")
    assert green(one) == ["a", "b"]


def test_what_sql_replays_is_not_divided(one: sa.Engine) -> None:
    store(one, events(20))
    path = "tests.engine.harness.shop_sets:CustomerTotalProjector"
    for set_based, shards in ((True, {}), (False, {"CustomerTotalProjector": 4})):
        made = rebuild(one, projectors=[path], replay={"shards": 4, "set_based": set_based})
        assert made.plan(RunOptions(dry_run=True)).shards == shards


def test_the_number_is_the_specs_by_projector_or_the_runs(one: sa.Engine) -> None:
    store(one, events(20))
    made = rebuild(one, replay={"shards": {"OrderProjector": 5}})
    assert made.plan(RunOptions(dry_run=True)).shards == {"OrderProjector": 5}
    assert made.plan(RunOptions(dry_run=True, shards=2)).shards == dict.fromkeys(PROJECTORS, 2)
    assert made.plan(RunOptions(dry_run=True, shards=1)).shards == {}


def test_a_partition_that_rows_do_not_hold_is_refused() -> None:
    with pytest.raises(ProjectorError, match="Loose has no attribute nobody"):
        load_projector("tests.engine.test_shards:NoAttribute")


def test_only_a_projector_of_the_first_stage_is_divided(one: sa.Engine) -> None:
    store(one, events(20))
    names = list(PROJECTORS)
    stages = [{"name": "a", "projectors": names[:1]}, {"name": "b", "projectors": names[1:]}]
    plan = rebuild(one, replay={"shards": 2}, stages=stages).plan(RunOptions(dry_run=True))
    assert plan.shards == {names[0]: 2} and any("in a later stage" in str(each) for each in plan.findings)
