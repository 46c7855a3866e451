"""Partial rebuilds: the part is right, every other row is what it was, and nothing is lost or doubled while blue is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from include.universal.live import unit_of_work
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByAggregate, ByPeriod
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.dialects.base import Dialect
from projection_rebuild.errors import (
    FencedOut,
    HandlerError,
    PartError,
    PlanError,
    ProjectorError,
    SettleTimeout,
    SpecError,
    VerificationFailed,
)
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.replay import partial, partial_copy
from projection_rebuild.rows.types import Rows
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.projectors import load_projector
from tests.engine.harness import shop
from tests.engine.harness.clients import LiveShop, project
from tests.engine.harness.databases import marked, on
from tests.engine.harness.driver import run_to, run_to_end
from tests.engine.harness.seams import at_each_moment_of_a_copy, without_what_changed_during_the_copy
from tests.engine.harness.shop import actual, events, expected, tables
from tests.engine.harness.specs import PROJECTORS, rebuild
from tests.engine.harness.sweep import killed

BEGINNING = datetime(2026, 1, 1)  # noqa: DTZ001 - the store keeps UTC without an offset
ON_SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
"""What follows from the ledger alone."""
ON_SERVERS = marked("postgres", "mariadb", "mysql")


def timed(stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events an hour apart, from the beginning of 2026 on."""
    return [event | {"created_at": BEGINNING + timedelta(hours=at)} for at, event in enumerate(stored)]


@pytest.fixture
def filled(engine: sa.Engine) -> list[dict[str, Any]]:
    """A store with 600 events, an hour apart, and read models that are right."""
    made = timed(events(600))
    shop.fill(engine, made)
    run_to(rebuild(engine, "fill"), "drop")
    assert actual(engine) == expected(made)
    return made


def damage(engine: sa.Engine) -> None:
    """Every row is wrong, and ids and columns that no projector writes have something to lose."""
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE orders SET status = 'lost', note = 'mine'")
        connection.exec_driver_sql("UPDATE order_lines SET product = 'lost', row_id = row_id + 100000")
        connection.exec_driver_sql("UPDATE customer_totals SET spent = 0")


def everything(engine: sa.Engine) -> dict[str, dict[Any, Any]]:
    """All columns of all rows, by key."""
    keys = {"orders": "id", "order_lines": "order_id, line", "customer_totals": "customer"}
    with engine.connect() as connection:
        return {
            table: {
                tuple(row)[: len(key.split(","))]: tuple(row)
                for row in connection.execute(sa.text(f"SELECT {key}, t.* FROM {table} t"))
            }
            for table, key in keys.items()
        }


def check_part(
    engine: sa.Engine, before: dict[str, Any], stored: list[dict[str, Any]], chosen: Callable[[dict[str, Any]], bool]
) -> None:
    """Rows of the part are right; all others are what they were, in every column.

    :param chosen: whether an event makes its aggregate part of the part, for those who handle it
    """
    now, after, right = everything(engine), actual(engine), expected(stored)
    for table, types in TYPES.items():
        events_of = [event for event in stored if event["event_class"] in types and chosen(event)]
        if table == "customer_totals":
            part: set[Any] = {event["event_properties"]["customer"] for event in events_of}
        else:
            part = {event["aggregate_uuid"] for event in events_of}
        others = {key: row for key, row in before[table].items() if key[0] not in part}
        assert {key: row for key, row in now[table].items() if key[0] not in part} == others
        assert of_part(after[table], part) == of_part(right[table], part)
        assert others and of_part(right[table], part)


TYPES = {
    "orders": ("OrderPlaced", "OrderShipped", "OrderCancelled"),
    "order_lines": ("LineAdded", "OrderCancelled"),
    "customer_totals": ("OrderPlaced", "LineAdded"),
}


def of_part(rows: dict[Any, Any], part: set[Any]) -> dict[Any, Any]:
    """The rows whose key begins with one of these."""
    return {key: row for key, row in rows.items() if (key[0] if isinstance(key, tuple) else key) in part}


def test_aggregates_that_have_events_in_the_time_are_replayed_and_all_others_copied(
    engine: sa.Engine, filled: list[dict[str, Any]]
) -> None:
    damage(engine)
    before = everything(engine)
    made = rebuild(engine, "part")
    run_to(made, "drop", RunOptions.parse({"since": "2026-01-25T00:00:00+00:00", "until": "2026-01-25T12:00:00"}))
    since, until = datetime(2026, 1, 25), datetime(2026, 1, 25, 12)  # noqa: DTZ001
    check_part(engine, before, filled, lambda event: since <= event["created_at"] < until)
    assert "Only a part: since 2026-01-25 00:00 +0000" in made.report().as_markdown()
    assert tables(engine) == {"stored_events", "orders", "order_lines", "customer_totals"}


def test_named_aggregates_are_replayed_and_all_others_copied(engine: sa.Engine, filled: list[dict[str, Any]]) -> None:
    check_named(engine, filled)


@ON_SQLITE
def test_many_aggregates_are_found_among_all_events(
    engine: sa.Engine, filled: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial, "FEW_STREAMS", 2)
    check_named(engine, filled)


def check_named(engine: sa.Engine, filled: list[dict[str, Any]]) -> None:
    damage(engine)
    before = everything(engine)
    named = {event["aggregate_uuid"] for event in filled[::97]}
    run_to(rebuild(engine, "part"), "drop", RunOptions(aggregates=tuple(named)))
    check_part(engine, before, filled, lambda event: event["aggregate_uuid"] in named)
    with engine.begin() as connection:
        # Ids that are handed out from here on are still free.
        order = next(iter(expected(filled)["orders"]))
        line = {"order_id": order, "line": 999, "product": "p", "price": 1, "options": {}, "gift": False}
        connection.execute(shop.metadata.tables["order_lines"].insert().values(**line))


MADE_BY_THE_DATABASE = {
    "postgres": "row_no bigint GENERATED ALWAYS AS IDENTITY UNIQUE, twice int GENERATED ALWAYS AS (items * 2) STORED, seen date",
    "mariadb": "row_no bigint AUTO_INCREMENT UNIQUE, twice int AS (items * 2) STORED, seen date NOT NULL DEFAULT '0000-00-00'",
    "mysql": "row_no bigint AUTO_INCREMENT UNIQUE, twice int AS (items * 2) VIRTUAL, seen date NOT NULL DEFAULT '0000-00-00'",
    "sqlite": "row_no bigint DEFAULT 7, twice int GENERATED ALWAYS AS (items * 2) STORED, seen date",
}


def test_ids_computed_columns_and_impossible_days_are_copied_as_they_are(engine: sa.Engine, database_kind: str) -> None:
    shop.stored_events.create(engine)
    said = [("a", f"2026-0{month}-01") for month in (1, 1, 2, 3, 3, 4)]
    made = [
        {"aggregate_uuid": cart, "event_class": "Added", "event_properties": {"item": 1, "day": day}, "created_at": BEGINNING}
        for cart, day in said
    ]
    with engine.begin() as connection:
        if database_kind in ("mariadb", "mysql"):
            connection.exec_driver_sql("SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")
        columns = "month varchar(10) PRIMARY KEY, items int NOT NULL"
        connection.exec_driver_sql(f"CREATE TABLE monthly ({columns}, {MADE_BY_THE_DATABASE[database_kind]})")
        connection.execute(shop.stored_events.insert(), made)
        overriding = " OVERRIDING SYSTEM VALUE" if database_kind == "postgres" else ""
        connection.exec_driver_sql(
            f"INSERT INTO monthly (month, items, row_no){overriding} VALUES ('2026-01', 2, 0), ('2026-02', 99, 1), ('2026-04', 5, 3)"
        )
        if database_kind == "postgres":
            connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence('monthly', 'row_no'), 3)")
    run = rebuild(engine, "part", projectors=["tests.engine.test_partial_properties:MonthProjector"])
    run_to(run, "drop", RunOptions.parse({"since": "2026-03-10", "max_count_drift_percent": 100}))
    with engine.connect() as connection:
        found = {row[0]: tuple(row)[1:] for row in connection.exec_driver_sql("SELECT month, items, row_no, twice FROM monthly")}
    assert (found["2026-01"], found["2026-02"]) == ((2, 0, 4), (99, 1, 198))
    assert {month: (each[0], each[2]) for month, each in found.items() if month > "2026-02"} == {
        "2026-03": (2, 4),
        "2026-04": (1, 2),
    }
    if database_kind != "sqlite":
        assert len({each[1] for each in found.values()}) == 4


# While blue is written ------------------------------------------------------------------------------------------------

NAMED = RunOptions(aggregates=("order-0", "order-56"))


class Client:
    """Appends and projects: what it does concerns aggregates inside and outside the part, old ones and new ones."""

    def __init__(self, shop_: LiveShop) -> None:
        self.shop = shop_
        self.lines = 1_000

    def visit(self) -> None:
        """A new order, and a line of each kind of order."""
        self.shop.visit()
        for order in ("order-0", "order-61", f"visit-{self.shop.visits // 3}"):
            if order in expected(self.shop.stored)["orders"]:
                self.append(self.line(order))

    def line(self, order: str) -> dict[str, Any]:
        """The next line of an order."""
        self.lines += 1
        customer = expected(self.shop.stored)["orders"][order][0]
        said = {"customer": customer, "line": self.lines, "product": "p", "price": "1.25", "options": {}}
        return {"aggregate_uuid": order, "event_class": "LineAdded", "event_properties": said}

    def append(self, made: dict[str, Any], meanwhile: Callable[[], object] = lambda: None) -> None:
        """One transaction; something happens before its commit."""
        with unit_of_work(self.shop.engine) as connection:
            position = connection.execute(shop.stored_events.insert().values(**made)).inserted_primary_key[0]  # type: ignore[index]
            project(connection, position, made)
            meanwhile()
        self.shop.stored.append(made)


def test_events_that_are_appended_at_any_moment_of_the_copy_count_once(
    database_url: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, seen = LiveShop(database_url), []
    client = Client(live)
    made = live.open_run("part")
    run_to(made, "clone", NAMED)

    def visit(moment: str) -> None:
        seen.append(moment)
        client.visit()

    with monkeypatch.context() as patched:
        at_each_moment_of_a_copy(patched, visit)
        for name in PROJECTORS:
            made.replay(name)
    assert {"held", "copied", "settled"} <= set(seen) and len(seen) >= 9
    client.visit()
    made.verify()
    client.visit()
    made.swap()
    made.reconcile()
    client.visit()
    assert actual(live.engine) == expected(live.stored)
    made.close()


@pytest.mark.parametrize("kind", ON_SERVERS[:2])
def test_an_append_that_is_open_during_the_copy_counts_once(
    kind: str, new_database: Callable[[str], sa.URL], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its position and its rows before the copy, and shows them after it."""
    live = LiveShop(new_database(kind))
    client = Client(live)
    made = live.open_run("part")
    run_to(made, "clone", NAMED)
    threads: list[threading.Thread] = []

    def visit(moment: str) -> None:
        if moment == "held":
            open_now = threading.Event()

            def hold() -> None:
                client.append(client.line("order-61"), lambda: (open_now.set(), time.sleep(0.5)))

            threads.append(threading.Thread(target=hold))
            threads[-1].start()
            assert open_now.wait(10)

    with monkeypatch.context() as patched:
        at_each_moment_of_a_copy(patched, visit)
        for name in PROJECTORS:
            made.replay(name)
    for thread in threads:
        thread.join()
    assert len(threads) == 3
    run_to_end(made, [])
    assert actual(live.engine) == expected(live.stored)
    made.close()


@pytest.mark.parametrize("kind", ["sqlite", ON_SERVERS[0]])
def test_without_looking_for_what_changed_during_the_copy_events_are_lost(
    kind: str, new_database: Callable[[str], sa.URL], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveShop(new_database(kind))
    client = Client(live)
    made = live.open_run("part")
    run_to(made, "clone", NAMED)
    without_what_changed_during_the_copy(monkeypatch)
    with monkeypatch.context() as patched:
        at_each_moment_of_a_copy(patched, lambda moment: client.visit() if moment in ("held", "copied") else None)
        for name in PROJECTORS:
            made.replay(name)
    with live.workers.connect():
        green = actual(live.workers, "_rebuild")
    assert green["customer_totals"] != expected(live.stored)["customer_totals"]
    made.close()


# Kills and rivals -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", on("postgres", among=["postgres", "mysql"]))
def test_a_kill_after_every_write_of_a_partial_replay(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    live = LiveShop(new_database(kind))
    attempt = killed(live)
    kills = 0
    made = live.open_run("part")
    made.plan(NAMED)
    for deadly in range(1, 100):
        made.clone_tables()
        made.close()
        if not attempt("part", "OrderLineProjector", deadly):
            break
        kills += 1
        live.check()
        made.replay("OrderLineProjector")
        assert actual(live.engine, "_rebuild")["order_lines"] == expected(live.stored)["order_lines"]
    assert kills >= 12
    run_to_end(made, ["OrderProjector", "CustomerTotalProjector"])
    live.check()
    made.close()


@ON_SQLITE
def test_a_second_worker_takes_the_copy_over_and_the_first_writes_nothing_more(
    engine: sa.Engine, filled: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, second = rebuild(engine, "part"), rebuild(engine, "part")
    run_to(made, "clone", NAMED)
    settled, at_work = EventStore.settled_head, iter(range(10))

    def settled_head(self: EventStore, *given: Any) -> int:
        # The first one's copy is committed, and not yet settled.
        if next(at_work) == 1:
            second.replay("OrderProjector")
        return settled(self, *given)

    monkeypatch.setattr(EventStore, "settled_head", settled_head)
    with pytest.raises(FencedOut):
        made.replay("OrderProjector")
    monkeypatch.undo()
    assert second.replay("OrderProjector").events == 0
    run_to_end(second, PROJECTORS)
    assert actual(engine) == expected(filled)


@ON_SQLITE
def test_a_zombie_does_not_begin_a_part_anew_that_is_being_replayed(engine: sa.Engine, filled: list[dict[str, Any]]) -> None:
    made = rebuild(engine, "part")
    run_to(made, "clone", NAMED)
    context = made._context
    with context.dialect.connect() as connection:
        read = context.ledger.over(connection, "part").checkpoints.of_projectors()["OrderProjector"]
        made.replay("OrderProjector")
        with pytest.raises(FencedOut), context.dialect.transaction(connection):
            context.ledger.over(connection, "part").partial_rebuilds.begin(read)
    run_to_end(made, PROJECTORS)
    assert actual(engine) == expected(filled)


@ON_SQLITE
def test_an_event_below_the_copied_position_that_appears_late_is_noticed(
    engine: sa.Engine, filled: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids that are handed out before the INSERT, of an aggregate whose rows are copied."""
    at = next(at for at, each in enumerate(filled, start=1) if at > 400 and each["event_class"] == "LineAdded")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM stored_events WHERE id = {at}")
    made = rebuild(engine, "part")
    run_to(made, "clone", NAMED)
    copy = Dialect.copy_others

    def copy_others(self: Dialect, *given: Any) -> None:
        copy(self, *given)
        monkeypatch.undo()

    monkeypatch.setattr(Dialect, "copy_others", copy_others)
    for name in PROJECTORS:
        made.replay(name)
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), [{"id": at} | filled[at - 1]])
    with pytest.raises(VerificationFailed, match="OrderLineProjector has handled"):
        made.verify()


@ON_SQLITE
def test_a_copy_that_did_not_happen_is_not_verified(engine: sa.Engine, filled: list[dict[str, Any]]) -> None:
    made = rebuild(engine, "part")
    run_to(made, "clone", NAMED)
    with pytest.raises(VerificationFailed, match="OrderProjector is not replayed"):
        made.verify()


@ON_SQLITE
def test_a_part_is_rolled_back_and_forward_again(engine: sa.Engine, filled: list[dict[str, Any]]) -> None:
    damage(engine)
    damaged = actual(engine)
    run_to(rebuild(engine, "part"), "reconcile", NAMED)
    repaired = actual(engine)
    for run_id, now in (("back", damaged), ("forth", repaired)):
        made = rebuild(engine, run_id)
        made.plan_rollback(RunOptions())
        made.bring_back()
        made.swap()
        made.reconcile()
        assert actual(engine) == now
    assert repaired != damaged


@ON_SQLITE
def test_nothing_of_a_part_is_left_in_the_ledger(engine: sa.Engine, filled: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine, "given up"), "replay", NAMED)
    made = rebuild(engine, "part")
    made.plan(NAMED, is_over=lambda run: True)
    made.clone_tables()
    run_to_end(made, PROJECTORS)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM projection_rebuild_parts").scalar_one() == 0
        assert connection.exec_driver_sql("SELECT count(*) FROM projection_rebuild_part_keys").scalar_one() == 0


# What is refused --------------------------------------------------------------------------------------------------------


def test_a_period_of_which_there_are_rows_is_chosen_whenever_its_events_were_recorded(sqlite_url: sa.URL) -> None:
    engine = stored_in(sqlite_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO orders (id, customer, status, placed_on) VALUES ('2062-01', 2, '', '2026-01-01')")
    planned = rebuild(engine, projectors=[f"{HERE}:PerMonth"]).plan(RunOptions.parse({"since": "2062-01-01"}))
    assert planned.part is not None


class Whole(Projector):
    owns = (shop.CustomerTotal,)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(shop.CustomerTotal, event["customer"]).orders += 1


class Monthly(Whole):
    part = ByPeriod({shop.CustomerTotal: "customer"}, of=lambda event: event["on"][:7], at=lambda moment: f"{moment:%Y-%m}")


class Meddler(Whole):
    """Its rows are not those of its event's aggregate."""

    part = ByAggregate({shop.CustomerTotal: "customer"}, of=lambda event: event["customer"] + 1)


class Forgetful(Whole):
    part = ByAggregate({})


class Misspelt(Whole):
    part = ByAggregate({shop.CustomerTotal: "costumer"})


class ByMoney(Whole):
    part = ByAggregate({shop.CustomerTotal: "spent"})


class OnlySql(Projector):
    owns = (shop.CustomerTotal,)
    part = ByAggregate({shop.CustomerTotal: "customer"})
    reads_events = ("OrderPlaced",)

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return ["INSERT INTO {customer_totals} (customer, orders, spent) SELECT e.position, 1, 0 FROM {events} e"]


HERE = "tests.engine.test_partial"


@pytest.mark.parametrize(
    ("projector", "given", "words"),
    [
        ("Whole", {"since": "2026-01-02"}, "Whole does not declare .*rebuild it as a whole"),
        ("Monthly", {"aggregates": ["order-0"]}, "aggregates: Monthly keeps its rows by period"),
        (
            "Meddler",
            {"aggregates": ["order-0", "nobody", "nothing"]},
            "no event of these projectors for 2 of them: nobody, nothing",
        ),
        ("Meddler", {"since": "2027-01-02"}, "since, until: no event of these projectors was recorded"),
        ("Monthly", {"since": "2062-01-01"}, "since, until: no event of these projectors was recorded"),
        ("OnlySql", {"since": "2026-01-02"}, "OnlySql has only SQL, and whose an event is, handlers tell"),
    ],
)
def test_a_plan_refuses_a_part_that_cannot_be_rebuilt(
    sqlite_url: sa.URL, projector: str, given: dict[str, Any], words: str
) -> None:
    engine = stored_in(sqlite_url)
    made = rebuild(engine, projectors=[f"{HERE}:{projector}"])
    with pytest.raises(PlanError, match=words):
        made.plan(RunOptions.parse(given))
    assert not sa.inspect(engine).has_table("projection_rebuild_runs")


def stored_in(url: sa.URL) -> sa.Engine:
    """A store with events, over empty read models."""
    engine = sa.create_engine(url)
    shop.fill(engine, timed(events(100)))
    return engine


def test_a_store_that_knows_no_times_has_no_part_since_a_time(sqlite_url: sa.URL) -> None:
    store = {"conn_id": "db", "columns": {"recorded_at": None}}
    made = rebuild(stored_in(sqlite_url), event_store=store)
    with pytest.raises(PlanError, match="does not tell when events were recorded"):
        made.plan(RunOptions(since="2026-01-02"))
    made.plan(NAMED)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"since": "yesterday"}, "since: write a date or a time as ISO 8601"),
        ({"until": 7}, "until: write a date or a time as ISO 8601"),
        ({"aggregates": []}, "aggregates: none is given"),
        ({"aggregates": ["", "a"]}, "aggregates.0: String should have at least 1 character"),
        ({"aggregates": "order-0"}, "aggregates: Input should be a valid tuple"),
        ({"aggregates": [str(each) for each in range(5_001)]}, "aggregates: Tuple should have at most 5000 items"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        RunOptions.parse(given)


def test_a_part_that_ends_before_it_begins_is_refused_by_the_clock_of_the_spec(sqlite_url: sa.URL) -> None:
    made = rebuild(stored_in(sqlite_url), timezone="Europe/Amsterdam")
    # Midnight in Amsterdam is 23:00 in London.
    with pytest.raises(SpecError, match=r"since, until: .* is not before"):
        made.plan(RunOptions.parse({"since": "2026-01-02", "until": "2026-01-01T23:00:00+00:00"}))
    made.plan(RunOptions.parse({"since": "2026-01-02", "until": "2026-01-01T23:00:01+00:00"}))


@pytest.mark.parametrize(
    ("projector", "words"),
    [
        ("Forgetful", "does not say by what the rows of CustomerTotal are told apart"),
        ("Misspelt", "'costumer', which is no column"),
        ("ByMoney", "CustomerTotal.spent, which is no str, int, date or UUID"),
    ],
)
def test_a_part_that_is_declared_wrongly_is_refused(projector: str, words: str) -> None:
    with pytest.raises(ProjectorError, match=words):
        load_projector(f"{HERE}:{projector}")


def test_a_handler_that_touches_rows_of_another_part_is_found_out(sqlite_url: sa.URL) -> None:
    engine = stored_in(sqlite_url)
    made = rebuild(engine, projectors=[f"{HERE}:Meddler"])
    made.plan(RunOptions(aggregates=("order-0",)))
    made.clone_tables()
    with pytest.raises(PartError, match="customer_totals that belongs to another part than its event, by its customer"):
        made.replay("Meddler")


def test_an_event_without_the_key_of_its_part_is_named(sqlite_url: sa.URL) -> None:
    engine = stored_in(sqlite_url)
    with engine.begin() as connection:
        connection.execute(
            shop.stored_events.insert(), [{"aggregate_uuid": "bad", "event_class": "LineAdded", "event_properties": {}}]
        )
    made = rebuild(engine, projectors=["tests.engine.harness.shop:CustomerTotalProjector"])
    made.plan(RunOptions(aggregates=("bad",)))
    made.clone_tables()
    with pytest.raises(HandlerError, match="LineAdded at position 101: KeyError"):
        made.replay("CustomerTotalProjector")


def test_jobs_that_never_end_leave_a_part_alone(sqlite_url: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stored_in(sqlite_url)
    monkeypatch.setattr(partial_copy, "PATIENCE", timedelta(milliseconds=50))
    made = rebuild(engine, live_writer={"contract": "detached", "drain_check": "SELECT 1"})
    run_to(made, "clone", NAMED)
    with pytest.raises(SettleTimeout, match="drain_check did not give 0"):
        made.replay("OrderProjector")


class PerMonth(Projector):
    """Orders per month, in the table of orders."""

    owns = (shop.Order,)
    knows_weeks = False
    part = ByPeriod({shop.Order: "id"}, of=lambda event: PerMonth.month(event), at=lambda moment: f"{moment:%Y-%m}")

    @classmethod
    def month(cls, event: Event) -> str:
        if "on" not in event.payload and not cls.knows_weeks:
            raise KeyError("on")
        return str(event.get("on", "2026-01"))

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(shop.Order, self.month(event), customer=0, status="", placed_on=date(2026, 1, 1)).customer += 1


def test_an_event_that_was_set_aside_does_not_come_to_a_copied_row_that_holds_it(
    sqlite_url: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.metadata.create_all(engine)
    said: list[tuple[dict[str, str], datetime]] = [
        ({"on": "2026-01"}, BEGINNING),
        ({"week": "3"}, BEGINNING),
        ({"on": "2026-03"}, datetime(2026, 3, 1)),  # noqa: DTZ001
    ]
    with engine.begin() as connection:
        connection.execute(
            shop.stored_events.insert(),
            [
                {"aggregate_uuid": f"o-{at}", "event_class": "OrderPlaced", "event_properties": payload, "created_at": moment}
                for at, (payload, moment) in enumerate(said)
            ],
        )
        connection.exec_driver_sql("INSERT INTO orders (id, customer, status, placed_on) VALUES ('2026-01', 2, '', '2026-01-01')")
        connection.exec_driver_sql("INSERT INTO orders (id, customer, status, placed_on) VALUES ('2026-03', 9, '', '2026-01-01')")
    made = rebuild(engine, projectors=[f"{HERE}:PerMonth"], replay={"on_error": "dead_letter"})
    run_to(made, "replay", RunOptions.parse({"since": "2026-03-01"}))
    monkeypatch.setattr(PerMonth, "knows_weeks", True)
    made.replay("PerMonth")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT id, customer FROM orders_rebuild ORDER BY id").all()
    assert rows == [("2026-01", 2), ("2026-03", 1)]
    assert made.verify().dead_letters == {}
