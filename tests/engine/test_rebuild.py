"""Whole rebuilds on every database: the result, resuming after a kill, and what each step refuses."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import (
    ClaimRefused,
    CloneError,
    ConnectionLost,
    FencedOut,
    HandlerError,
    Interrupted,
    PlanError,
    StepOrderError,
    VerificationFailed,
)
from projection_rebuild.replay.handler_replay import HandlerReplay
from projection_rebuild.replay.row_tables import GreenTables, WriteError
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.traffic.throttle import Throttle
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to, run_to_end
from tests.engine.harness.seams import without_the_last_look_for_orphans
from tests.engine.harness.shop import TABLES, actual, events, expected, tables
from tests.engine.harness.specs import PROJECTORS, rebuild


@pytest.mark.parametrize("memory", [200_000, 5], ids=["in memory", "bounded"])
def test_a_rebuild_equals_an_independent_computation(engine: sa.Engine, stored: list[dict[str, Any]], memory: int) -> None:
    said: list[str] = []
    made = rebuild(engine, log=said.append, replay={"batch_events": 100, "max_rows_in_memory": memory})
    run_to(made, "drop")
    assert actual(engine) == expected(stored)
    warned = [line for line in said if "rows take more than replay.max_rows_in_memory (5) at position" in line]
    assert len(warned) == (3 if memory == 5 else 0)
    assert tables(engine) == {"stored_events", *TABLES}


@pytest.mark.parametrize("seen", [True, False], ids=["before", "after"])
def test_parents_beside_the_run_that_are_gone_since_verification_are_missed(
    engine: sa.Engine, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = sa.MetaData()
    for table in shop.metadata.sorted_tables:
        table.to_metadata(metadata)
    customers = sa.Table(
        "customers", metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), mysql_engine="InnoDB"
    )
    metadata.tables["orders"].append_constraint(
        sa.ForeignKeyConstraint(["customer"], ["customers.id"], name="fk_customer", ondelete="CASCADE")
    )
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), events(100))
        connection.execute(customers.insert(), [{"id": number} for number in range(17)])
    made = rebuild(engine)
    run_to(made, "verify")
    with engine.begin() as connection:
        connection.execute(customers.delete().where(customers.c.id == 3))
    if seen:
        with pytest.raises(VerificationFailed, match=r"lost their parents since verification(.|\n)*orders, .*customer"):
            made.swap()
        assert actual(engine)["orders"] == {}
    else:
        without_the_last_look_for_orphans(monkeypatch)
        made.swap()
        assert any("lost their parents since verification" in each for each in made.reconcile().findings)


def test_damaged_tables_are_right_again_and_the_comparison_tells(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine, "fill"), "drop")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE orders SET status = 'lost' WHERE customer = 3")
        connection.exec_driver_sql("INSERT INTO customer_totals (customer, orders, spent) VALUES (999, 1, 1)")
        gone = connection.exec_driver_sql("DELETE FROM order_lines WHERE line = 4").rowcount
    made = rebuild(engine)
    run_to(made, "replay", RunOptions(max_count_drift_percent=50))
    found = {each.table: each for each in made.verify().tables}
    assert found["orders"].differing > 0
    assert (found["orders"].only_blue, found["orders"].only_green) == (0, 0)
    assert (found["customer_totals"].only_blue, found["customer_totals"].samples["only_blue"]) == (1, ["999"])
    assert found["order_lines"].only_green == gone > 0
    made.swap()
    made.reconcile()
    assert actual(engine) == expected(stored)


def test_the_columns_and_defaults_that_a_projector_does_not_write_are_kept(
    engine: sa.Engine, stored: list[dict[str, Any]]
) -> None:
    run_to(rebuild(engine), "drop")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT DISTINCT note FROM orders").scalars().all() == ["none"]


def test_names_and_constraints_are_as_before(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    def shape() -> dict[str, Any]:
        inspector = sa.inspect(engine)
        return {
            table: (
                [(each["name"], str(each["type"]), each["nullable"]) for each in inspector.get_columns(table)],
                inspector.get_pk_constraint(table)["constrained_columns"],
                sorted((each["name"], each["column_names"], each["unique"]) for each in inspector.get_indexes(table)),
                sorted((each["referred_table"], each["constrained_columns"]) for each in inspector.get_foreign_keys(table)),
            )
            for table in TABLES
        }

    before = shape()
    for number in range(3):
        run_to(rebuild(engine, f"run-{number}"), "drop")
        assert shape() == before


def test_generated_ids_go_on_from_where_they_were(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine), "drop")
    with engine.begin() as connection:
        highest = connection.exec_driver_sql("SELECT max(row_id) FROM order_lines").scalar_one()
        connection.execute(
            shop.metadata.tables["order_lines"]
            .insert()
            .values(order_id="order-0", line=999, product="p", price=1, options={}, gift=False)
        )
        assert connection.exec_driver_sql("SELECT row_id FROM order_lines WHERE line = 999").scalar_one() > highest


def test_events_that_arrive_meanwhile_are_drained(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "verify")
    late = {"aggregate_uuid": "late", "event_class": "OrderPlaced", "event_properties": {"customer": 1, "on": "2026-03-01"}}
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), [late])
    result = made.swap()
    assert result.position == 1_001
    assert actual(engine) == expected([*stored, late])


@pytest.mark.parametrize("when", ["before verification", "before the switch"])
def test_an_event_below_what_was_read_is_noticed(engine: sa.Engine, stored: list[dict[str, Any]], when: str) -> None:
    """Ids that are handed out before the INSERT escape every settled head; the counts find them, without any sample."""
    at = next(at for at, event in enumerate(stored, start=1) if at > 400 and event["event_class"] == "LineAdded")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM stored_events WHERE id = {at}")
    made = rebuild(engine, verify={"sample": 0})
    run_to(made, "replay" if when == "before verification" else "verify")
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), [{"id": at} | stored[at - 1]])
    with pytest.raises(VerificationFailed, match="the store holds"):
        made.verify() if when == "before verification" else made.swap()
    assert not any(name.endswith("_old") for name in tables(engine))
    made.clone_tables()
    run_to_end(made, PROJECTORS)
    assert actual(engine) == expected(stored)


def test_every_step_can_be_called_again(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    made.plan(RunOptions())
    made.plan(RunOptions())
    made.clone_tables()
    for name in PROJECTORS:
        made.replay(name)
    made.clone_tables()
    for name in PROJECTORS * 2:
        made.replay(name)
    made.verify()
    made.verify()
    first = made.swap()
    assert made.swap() == first
    assert made.replay("OrderProjector").events == 0
    made.verify()
    made.reconcile()
    made.reconcile()
    assert set(made.drop_old()) == {f"{table}_old" for table in TABLES}
    assert made.drop_old() == []
    assert actual(engine) == expected(stored)


def test_old_tables_are_kept_until_they_are_due(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine, "fill"), "drop")
    before = actual(engine)
    made = rebuild(engine)
    run_to(made, "reconcile", RunOptions(drop_after="2h"))
    assert actual(engine, "_old") == before
    started = made.report().started_at
    assert 7_000 < (made.drop_due() - started).total_seconds() < 7_400


def test_without_keeping_the_old_tables_are_due_at_once(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "reconcile", RunOptions(keep_old=False))
    assert (made.drop_due() - made.report().started_at).total_seconds() < 60


def test_a_later_run_replaces_old_tables_and_an_earlier_drop_leaves_them_alone(
    engine: sa.Engine, stored: list[dict[str, Any]]
) -> None:
    first, second = rebuild(engine, "first"), rebuild(engine, "second")
    run_to(first, "reconcile")
    run_to(second, "reconcile")
    assert first.drop_old() == []
    assert {f"{table}_old" for table in TABLES} <= tables(engine)
    assert set(second.drop_old()) == {f"{table}_old" for table in TABLES}
    assert tables(engine) == {"stored_events", *TABLES}


def test_a_table_that_took_the_old_name_is_not_dropped(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "reconcile")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE customer_totals_old")
        connection.exec_driver_sql("CREATE TABLE somebody (n int)")
        connection.exec_driver_sql("ALTER TABLE somebody RENAME TO customer_totals_old")
    assert "customer_totals_old" not in made.drop_old()
    assert "customer_totals_old" in tables(engine)


@pytest.mark.parametrize("leftover", ["orders_rebuild", "orders_old"])
def test_a_leftover_that_no_run_made_is_refused_and_kept(engine: sa.Engine, stored: list[dict[str, Any]], leftover: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {leftover} (n int)")
    with pytest.raises(PlanError, match=leftover):
        rebuild(engine).plan(RunOptions())
    assert leftover in tables(engine)


def test_leftovers_of_an_earlier_run_are_replaced(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine, "dead"), "replay")
    made = rebuild(engine)
    made.plan(RunOptions(), is_over=lambda run: run == "dead")
    made.clone_tables()
    for name in PROJECTORS:
        made.replay(name)
    made.verify()
    made.swap()
    assert actual(engine) == expected(stored)


def test_a_green_name_that_somebody_takes_after_the_plan_is_refused(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    made.plan(RunOptions())
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders_rebuild (n int)")
    with pytest.raises(CloneError, match="orders_rebuild"):
        made.clone_tables()


def test_verification_counts_by_its_tolerance(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine, "fill"), "drop")
    right = actual(engine)
    rows = len(right["order_lines"])
    with engine.begin() as connection:
        ids = connection.exec_driver_sql("SELECT row_id FROM order_lines ORDER BY row_id").scalars().all()

    def leave(share: float) -> None:
        doomed = ", ".join(map(str, ids[round(rows * share) :]))
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DELETE FROM order_lines WHERE row_id IN ({doomed})")

    leave(0.97)
    within = rebuild(engine, "within")
    run_to(within, "verify")
    within.abandon()
    leave(0.90)
    with pytest.raises(VerificationFailed, match=r"order_lines.*drift"):
        run_to(rebuild(engine, "beyond"), "verify")
    with pytest.raises(StepOrderError, match="verified"):
        rebuild(engine, "beyond").swap()


def test_an_empty_green_is_refused_whatever_the_tolerance(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO customer_totals (customer, orders, spent) VALUES (1, 1, 1)")
        connection.exec_driver_sql("DELETE FROM stored_events")
    made = rebuild(engine)
    with pytest.raises(VerificationFailed, match="customer_totals: green is empty"):
        run_to(made, "verify", RunOptions(projectors=["CustomerTotalProjector"], max_count_drift_percent=100))


@pytest.mark.postgres
def test_a_connection_that_is_lost_in_an_assertion_says_nothing_of_it(postgres_url: sa.URL) -> None:
    engine = sa.create_engine(postgres_url)
    shop.metadata.create_all(engine)
    made = rebuild(engine, verify={"assertions": ["SELECT pg_terminate_backend(pg_backend_pid())"]})
    run_to(made, "replay")
    with pytest.raises(ConnectionLost, match=r"^verify_counts: .*The live tables are untouched.*PR-DB-01"):
        made.verify()
    engine.dispose()


def test_assertions_decide(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    good = "SELECT id FROM {orders} WHERE customer < 0"
    bad = "SELECT count(*) FROM {orders} WHERE status = 'shipped'"
    run_to(rebuild(engine, "good", verify={"assertions": [good]}), "drop")
    with pytest.raises(VerificationFailed, match="shipped"):
        run_to(rebuild(engine, "bad", verify={"assertions": [bad]}), "verify")


def test_a_row_without_its_parent_is_found_before_the_swap(
    engine: sa.Engine, database_kind: str, stored: list[dict[str, Any]]
) -> None:
    stray = {"customer": 1, "line": 1, "product": "p", "price": "1.00", "options": {}}
    with engine.begin() as connection:
        connection.execute(
            shop.stored_events.insert(), [{"aggregate_uuid": "nobody", "event_class": "LineAdded", "event_properties": stray}]
        )
    with pytest.raises(VerificationFailed, match="order_lines"):
        run_to(rebuild(engine), "verify")


def test_a_replay_that_was_stopped_goes_on_from_its_checkpoint(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    lines: list[str] = []
    made = rebuild(engine, log=lines.append)
    run_to(made, "clone")
    looks = iter([False, False, False, True])
    with pytest.raises(Interrupted):
        made.replay("OrderProjector", stopped=lambda: next(looks))
    assert 0 < made.report().replays[0].position < 1_000
    again = rebuild(engine, log=lines.append)
    result = again.replay("OrderProjector")
    assert result.resumed_from > 0
    assert f"resuming at position {result.resumed_from}" in "\n".join(lines)
    run_to_end(again, PROJECTORS[1:])
    assert actual(engine) == expected(stored)


def _replay_and_die(url: str, batches: int) -> None:
    """A worker that is killed in the middle of a batch's transaction."""
    put, done = GreenTables.put, 0

    def deadly(self: GreenTables, *given: Any) -> None:
        nonlocal done
        put(self, *given)
        done += 1
        if done == batches:
            os.kill(os.getpid(), signal.SIGKILL)

    GreenTables.put = deadly  # type: ignore[method-assign]
    rebuild(sa.create_engine(url)).replay("OrderProjector")


def test_a_replay_killed_within_a_batch_loses_and_doubles_nothing(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "clone")
    engine.dispose()
    url = engine.url.render_as_string(hide_password=False)
    worker = multiprocessing.get_context("spawn").Process(target=_replay_and_die, args=(url, 3))
    worker.start()
    worker.join(600)
    assert worker.exitcode == -signal.SIGKILL
    result = made.replay("OrderProjector")
    assert result.resumed_from > 0
    run_to_end(made, PROJECTORS[1:])
    assert actual(engine) == expected(stored)


def test_a_second_worker_on_the_same_checkpoint_is_fenced_out(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "clone")
    context = made._context
    with context.dialect.connect() as one, context.dialect.connect() as two:
        read = context.ledger.over(one, "run").checkpoints.of_projectors()["OrderProjector"]
        late = HandlerReplay(context, shop.OrderProjector, read, two)
        throttle = Throttle(context, "OrderProjector", one, lambda: False)
        HandlerReplay(context, shop.OrderProjector, read, one).replay_to(500, throttle, lambda _: None)
        with pytest.raises(FencedOut):
            late.replay_to(500, throttle, lambda _: None)
    run_to_end(made, PROJECTORS)
    assert actual(engine) == expected(stored)


def test_a_worker_of_an_earlier_clone_is_fenced_out(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "clone")
    context = made._context
    with context.dialect.connect() as connection:
        read = context.ledger.over(connection, "run").checkpoints.of_projectors()["OrderProjector"]
        made.clone_tables()
        zombie = HandlerReplay(context, shop.OrderProjector, read, connection)
        with pytest.raises(FencedOut):
            zombie.replay_to(500, Throttle(context, "OrderProjector", connection, lambda: False), lambda _: None)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM orders_rebuild").scalar_one() == 0


def test_a_failing_handler_names_its_event_and_commits_what_came_before(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    poison = {"aggregate_uuid": "no such order", "event_class": "OrderShipped", "event_properties": {"secret": "s3cret"}}
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), [poison])
    made = rebuild(engine)
    run_to(made, "clone")
    with pytest.raises(HandlerError) as caught:
        made.replay("OrderProjector")
    text = str(caught.value)
    assert "OrderProjector" in text and "OrderShipped" in text and "1001" in text
    assert "s3cret" not in text and caught.value.__cause__ is None
    with engine.begin() as connection:
        green = {row[0] for row in connection.exec_driver_sql("SELECT id FROM orders_rebuild")}
        assert green == set(expected(stored)["orders"])
        connection.exec_driver_sql("DELETE FROM stored_events WHERE id = 1001")
    reached = made.report().replays[0].position
    assert made.replay("OrderProjector").resumed_from == reached > 900
    run_to_end(made, PROJECTORS[1:])
    assert actual(engine) == expected(stored)


def test_errors_of_the_database_quote_no_rows(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "clone")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE order_lines_rebuild")
    with pytest.raises(Exception, match="order_lines_rebuild") as caught:
        made.replay("OrderLineProjector")
    assert "[parameters:" not in str(caught.value) and "order-" not in str(caught.value)
    assert not engine.hide_parameters


def test_a_duplicate_row_is_an_error_without_its_values(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    twice = next(event for event in stored if event["event_class"] == "OrderPlaced")
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), [twice])
    made = rebuild(engine, replay={"batch_events": 100, "max_rows_in_memory": 5})
    run_to(made, "clone")
    with pytest.raises((WriteError, HandlerError)) as caught:
        made.replay("OrderProjector")
    assert "orders_rebuild" in str(caught.value) or "OrderPlaced" in str(caught.value)
    assert twice["aggregate_uuid"] not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_two_runs_never_work_on_the_same_table(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    rebuild(engine, "first").plan(RunOptions(projectors=["OrderProjector"], rebuild_dependents=True))
    with pytest.raises(ClaimRefused, match="first"):
        rebuild(engine, "second").plan(RunOptions())
    rebuild(engine, "second").plan(RunOptions(projectors=["CustomerTotalProjector"]))


def test_a_run_that_was_taken_over_cannot_switch(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    dead = rebuild(engine, "dead")
    run_to(dead, "verify")
    rebuild(engine, "heir").plan(RunOptions(), is_over=lambda run: True)
    with pytest.raises((FencedOut, StepOrderError)):
        dead.swap()
    assert not any(name.endswith("_old") for name in tables(engine))


def test_waiting_for_the_retention_does_not_block_the_next_run(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine, "first"), "reconcile")
    run_to(rebuild(engine, "second"), "swap")
    assert actual(engine) == expected(stored)


def test_only_the_chosen_projectors_are_rebuilt(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "drop", RunOptions(projectors=["CustomerTotalProjector"]))
    found = actual(engine)
    assert found["customer_totals"] == expected(stored)["customer_totals"]
    assert found["orders"] == {}


def test_a_dry_run_touches_nothing_and_prints_sql_that_works(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    before = set(sa.inspect(engine).get_table_names())
    plan = rebuild(engine).plan(RunOptions(dry_run=True))
    assert set(sa.inspect(engine).get_table_names()) == before
    assert "Dry run" in plan.describe()
    with rebuild(engine)._context.dialect.connect() as connection:
        for statement in plan.sql:
            connection.exec_driver_sql(
                statement.replace("%", "%%") if "%%" in connection.dialect.identifier_preparer.quote("%") else statement
            )
    assert set(sa.inspect(engine).get_table_names()) == before


def test_the_plan_notes_types_that_nobody_handles(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    with engine.begin() as connection:
        connection.execute(
            shop.stored_events.insert(), [{"aggregate_uuid": "x", "event_class": "OrderForgotten", "event_properties": {}}]
        )
    assert any("OrderForgotten" in str(each) for each in rebuild(engine).plan(RunOptions(dry_run=True)).findings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DROP TABLE customer_totals", "no table customer_totals"),
        ("ALTER TABLE customer_totals DROP COLUMN spent", "no column spent"),
    ],
)
def test_a_plan_refuses_tables_that_do_not_fit(engine: sa.Engine, stored: list[dict[str, Any]], change: str, words: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(change)
    before = tables(engine)
    with pytest.raises(PlanError, match=words):
        rebuild(engine).plan(RunOptions())
    assert tables(engine) == before


def test_a_plan_refuses_a_key_that_is_not_unique(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE customer_totals")
        connection.exec_driver_sql("CREATE TABLE customer_totals (customer int, orders int, spent numeric(14, 2))")
    with pytest.raises(PlanError, match="neither primary key nor unique"):
        rebuild(engine).plan(RunOptions())


def test_a_plan_refuses_unknown_projectors_with_the_list_of_known_ones(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    with pytest.raises(PlanError, match=r"Nobody.*OrderProjector"):
        rebuild(engine).plan(RunOptions(projectors=["Nobody"]))


def test_a_plan_refuses_by_name_what_would_be_lost(engine: sa.Engine, database_kind: str, stored: list[dict[str, Any]]) -> None:
    body = {
        "sqlite": "CREATE VIEW orders_old AS SELECT 1 AS tr",
        "postgres": "CREATE FUNCTION tr(orders) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    }.get(database_kind, "CREATE TRIGGER tr BEFORE INSERT ON orders FOR EACH ROW SET NEW.note = 'x'")
    with engine.begin() as connection:
        connection.exec_driver_sql(body)
    with pytest.raises(PlanError, match=r"(trigger|function) .*tr|orders_old, which is taken by the view"):
        rebuild(engine).plan(RunOptions())


def test_an_event_store_that_is_configured_wrongly_is_refused(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    wrong = {"conn_id": "db", "columns": {"type": "kind"}}
    with pytest.raises(Exception, match=r"columns\.type"):
        rebuild(engine, event_store=wrong).plan(RunOptions())


def test_the_report_tells_the_whole_story(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "drop", RunOptions(reason="a bug in totals"))
    text = made.report().as_markdown()
    for word in ["shop", "finished", "a bug in totals", *PROJECTORS, *TABLES, "held for", "orders_old"]:
        assert word in text
    assert made.report().as_json()["swap"]["position"] == 1_000
