"""Events that cannot be projected: set aside with nothing half-done, counted, limited, and driven again after a fix."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import FencedOut, HandlerError, TooManyDeadLetters, VerificationFailed
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.handler_replay import HandlerReplay
from projection_rebuild.replay.row_tables import WriteError
from projection_rebuild.rows.types import Rows
from tests.engine.harness import shop
from tests.engine.harness.databases import marked
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import CustomerTotal, Order
from tests.engine.harness.specs import spec

fixed = False
"""Whether the handlers have been corrected."""


class PickyProjector(Projector):
    """Keeps two tables; fails after it has changed one of them."""

    owns = (Order, CustomerTotal)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.add(Order(event.stream, event["customer"], "placed", date(2026, 1, 1)))
        rows.get_or_add(CustomerTotal, event["customer"]).orders += 1
        if event["customer"] == 13 and not fixed:
            raise ValueError(f"the secret {event.payload}")

    @handles("OrderShipped")
    def shipped(self, event: Event, rows: Rows) -> None:
        rows.get(Order, event.stream).status = "shipped"

    @handles("OrderNamed")
    def named(self, event: Event, rows: Rows) -> None:
        rows.get(Order, event.stream).status = event["status"] if not fixed else event["status"][:20]


@pytest.fixture(autouse=True)
def broken() -> Iterable[None]:
    global fixed
    fixed = False
    yield
    fixed = False


@pytest.fixture(params=marked("postgres", "mysql", "sqlite"))
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(engine: sa.Engine) -> sa.Engine:
    shop.create(engine, "stored_events", "orders", "customer_totals")
    return engine


def store(engine: sa.Engine, *events: tuple[str, str, dict[str, Any]]) -> None:
    with engine.begin() as connection:
        rows = [{"aggregate_uuid": stream, "event_class": kind, "event_properties": said} for stream, kind, said in events]
        connection.execute(shop.stored_events.insert(), rows)


def placed(number: int, customer: int) -> tuple[str, str, dict[str, Any]]:
    return f"o-{number}", "OrderPlaced", {"customer": customer}


def rebuild(engine: sa.Engine, log: list[str] | None = None, *, batch: int = 4, limit: int = 100, allowed: int = 0) -> Rebuild:
    made = spec(
        projectors=[f"{__name__}:PickyProjector"],
        replay={"batch_events": batch, "on_error": "dead_letter", "max_dead_letters": limit},
        verify={"max_count_drift_percent": 100, "max_dead_letters": allowed},
    )
    keep = log.append if log is not None else lambda _: None
    return Rebuild(made, run_id="run", event_store=engine, read_models=engine, log=keep)


def letters(engine: sa.Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        query = "SELECT position, projector, event_type, error FROM projection_rebuild_dead_letters ORDER BY position"
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def orders(engine: sa.Engine, suffix: str = "") -> dict[str, str]:
    with engine.connect() as connection:
        return {key: value for key, value in connection.exec_driver_sql(f"SELECT id, status FROM orders{suffix}")}


def totals(engine: sa.Engine, suffix: str = "") -> dict[int, int]:
    with engine.connect() as connection:
        return {key: value for key, value in connection.exec_driver_sql(f"SELECT customer, orders FROM customer_totals{suffix}")}


STORED = [
    placed(1, 1),
    placed(2, 13),
    placed(3, 1),
    ("o-1", "OrderShipped", {}),
    ("o-2", "OrderShipped", {}),
    placed(4, 13),
    placed(5, 2),
    ("o-5", "OrderNamed", {"status": "x" * 25}),
    placed(6, 2),
]


def test_poison_is_set_aside_fixed_and_driven_again(engine: sa.Engine) -> None:
    store(engine, *STORED)
    log: list[str] = []
    made = rebuild(engine, log)
    run_to(made, "clone")
    made.replay("PickyProjector")
    # Half of what their handlers had done was done when they failed: nothing of it is there.
    strict = engine.dialect.name != "sqlite"
    assert totals(engine, "_rebuild") == {1: 2, 2: 2}
    assert orders(engine, "_rebuild").keys() == {"o-1", "o-3", "o-5", "o-6"}
    found = {each[0]: each for each in letters(engine)}
    assert found.keys() == ({2, 5, 6, 8} if strict else {2, 5, 6})
    assert found[2] == (2, "PickyProjector", "OrderPlaced", "ValueError")
    (seen,) = made.look().runs
    assert [(each.position, each.projector, each.event_type, each.error) for each in seen.dead_letters] == [*found.values()]
    assert found[5][:3] == (5, "PickyProjector", "OrderShipped")
    assert found[5][3].startswith("RowError, orders has no row with the key that the handler gives")
    if strict:
        assert found[8][2] == "OrderNamed" and "status of orders cannot hold the str" in found[8][3] and "xx" not in found[8][3]
    assert "secret" not in "\n".join(log) and "{'customer'" not in "\n".join(log) + str(found)
    assert sum("set aside the event" in line for line in log) == len(found)
    with pytest.raises(VerificationFailed, match=f"set aside: PickyProjector {len(found)}; verify.max_dead_letters allows 0"):
        made.verify()
    # Nothing changes as long as nothing is corrected.
    made.replay("PickyProjector")
    assert {each[0]: each for each in letters(engine)} == found
    global fixed
    fixed = True
    made.replay("PickyProjector")
    assert letters(engine) == []
    made.verify()
    made.swap()
    made.reconcile()
    assert totals(engine) == {1: 2, 2: 2, 13: 2}
    assert orders(engine)["o-2"] == "shipped"
    assert orders(engine)["o-5"] == "x" * (20 if strict else 25)


def test_of_two_workers_one_drives_an_event_again(engine: sa.Engine) -> None:
    store(engine, placed(1, 13), placed(2, 1))
    made = rebuild(engine)
    run_to(made, "clone")
    made.replay("PickyProjector")
    global fixed
    fixed = True
    context = made._context
    with context.dialect.connect() as one, context.dialect.connect() as two:
        read = context.ledger.over(one, "run").checkpoints.of_projectors()["PickyProjector"]
        first, late = (HandlerReplay(context, PickyProjector, read, each) for each in (one, two))
        first.begin()
        # As if it had come here before the first one was done.
        (letter,) = late.pipeline.errors.recorded
        (event,) = context.store.find([letter.position], metadata=False)
        with pytest.raises(FencedOut):
            late.pipeline.retry(letter, event)
        # Nor does one go on that has rows in memory without that event.
        with pytest.raises(FencedOut), context.dialect.transaction(two):
            late.pipeline.advance(1, read.position + 1, read.position + 1, 0.0)
    assert letters(engine) == [] and totals(engine, "_rebuild") == {1: 1, 13: 1}


def test_an_event_whose_stream_has_gone_on_is_not_driven_late(engine: sa.Engine) -> None:
    store(engine, placed(1, 1), ("o-1", "OrderNamed", {}), ("o-1", "OrderShipped", {}))
    log: list[str] = []
    made = rebuild(engine, log)
    run_to(made, "clone")
    made.replay("PickyProjector")
    assert [each[0] for each in letters(engine)] == [2]
    made.replay("PickyProjector")
    assert [each[0] for each in letters(engine)] == [2]
    assert orders(engine, "_rebuild") == {"o-1": "shipped"}
    assert any("clear clone_tables" in line for line in log)
    # As it says: from the beginning, there is nothing to be late for.
    made.clone_tables()
    assert letters(engine) == []


def test_a_limit_ends_the_replay_with_what_came_before_committed(engine: sa.Engine) -> None:
    store(engine, *STORED)
    made = rebuild(engine, limit=2)
    run_to(made, "clone")
    with pytest.raises(TooManyDeadLetters, match="more than 2 events, the last one OrderPlaced at position 6"):
        made.replay("PickyProjector")
    assert [each[0] for each in letters(engine)] == [2, 5]
    assert made.report().replays[0].events == 3
    global fixed
    fixed = True
    made.replay("PickyProjector")
    assert letters(engine) == [] and totals(engine, "_rebuild") == {1: 2, 2: 2, 13: 2}


def test_verification_and_the_switch_count_what_is_allowed(engine: sa.Engine) -> None:
    store(engine, *STORED)
    made = rebuild(engine, allowed=4)
    run_to(made, "verify")
    report = made.report()
    assert report.verification and report.verification.dead_letters == {"PickyProjector": len(letters(engine))}
    assert "has set" in report.as_markdown()
    # One more appears before the switch, and is drained, or rather not.
    store(engine, placed(7, 13), placed(8, 8), placed(9, 13))
    with pytest.raises(VerificationFailed, match="PickyProjector"):
        made.swap()
    assert orders(engine) == {}
    more = rebuild(engine, allowed=6)
    more.swap()
    assert totals(engine) == {1: 2, 2: 2, 8: 1}
    assert more.reconcile().findings == []


def test_by_default_a_poison_event_ends_the_replay(engine: sa.Engine) -> None:
    store(engine, *STORED)
    plain = spec(projectors=[f"{__name__}:PickyProjector"], replay={"batch_events": 4})
    made = Rebuild(plain, run_id="run", event_store=engine, read_models=engine, log=lambda _: None)
    run_to(made, "clone")
    with pytest.raises(HandlerError, match="OrderPlaced at position 2"):
        made.replay("PickyProjector")
    assert letters(engine) == [] and totals(engine, "_rebuild") == {1: 1}


def test_rows_that_the_database_refuses_end_the_replay_by_default(engine: sa.Engine) -> None:
    store(engine, placed(1, -1))
    plain = spec(projectors=[f"{__name__}:PickyProjector"])
    made = Rebuild(plain, run_id="run", event_store=engine, read_models=engine, log=lambda _: None)
    run_to(made, "clone")
    with pytest.raises(WriteError, match="cannot insert into orders_rebuild"):
        made.replay("PickyProjector")


def test_a_ledger_of_an_earlier_version_gets_the_table(engine: sa.Engine) -> None:
    store(engine, placed(1, 1))
    made = rebuild(engine)
    run_to(made, "clone")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE projection_rebuild_dead_letters")
    assert made.look().runs[0].dead_letters == []
    made.replay("PickyProjector")
    made.verify()
    assert letters(engine) == []


@pytest.mark.postgres
def test_a_constraint_that_is_checked_at_the_commit_is_an_error_of_rows_like_any_other(postgres_url: sa.URL) -> None:
    engine = sa.create_engine(postgres_url)
    shop.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE orders ADD UNIQUE (customer, placed_on) DEFERRABLE INITIALLY DEFERRED")
    store(engine, placed(1, 1), placed(2, 1), placed(3, 2))
    made = rebuild(engine, [])
    run_to(made, "clone")
    made.replay("PickyProjector")
    assert [each[0] for each in letters(engine)] == [2] and letters(engine)[0][3] == "SQLSTATE 23505"
    engine.dispose()


def test_events_without_a_stream_stay_set_aside_and_it_is_said_why(sqlite_url: sa.URL) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.metadata.create_all(engine)
    store(engine, ("o-1", "OrderPlaced", {"customer": 1}))
    with engine.begin() as connection:
        nobodys = {"aggregate_uuid": None, "event_class": "OrderPlaced", "event_properties": {"customer": 13}}
        connection.execute(shop.stored_events.insert(), [nobodys, nobodys])
    log: list[str] = []
    made = rebuild(engine, log)
    run_to(made, "clone")
    made.replay("PickyProjector")
    assert [each[0] for each in letters(engine)] == [2, 3]
    log.clear()
    made.replay("PickyProjector")
    assert [each[0] for each in letters(engine)] == [2, 3]
    assert sum("since it has no stream" in line for line in log) == 2
