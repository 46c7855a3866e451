"""Taking a switch back, and going forward again: the old tables with all events since, on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import ClaimRefused, HeldByRollback, PlanError, StepOrderError
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.ledger import RunState
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.clients import append, project
from tests.engine.harness.driver import roll_back_to, run_to
from tests.engine.harness.shop import TABLES, actual, events, expected, tables
from tests.engine.harness.specs import PROJECTORS, rebuild


def roll_back(engine: sa.Engine, run_id: str, last: str = "drop", **options: Any) -> Rebuild:
    made = rebuild(engine, run_id)
    roll_back_to(made, last, RunOptions(**options))
    return made


@pytest.fixture
def stored(engine: sa.Engine) -> list[dict[str, Any]]:
    """400 events, all projected, and then one order lost: what a rebuild would repair."""
    made = events(1_000)
    shop.fill(engine, made[:400])
    run_to(rebuild(engine, "fill"), "drop")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE orders SET status = 'odd' WHERE id = 'order-0'")
    return made


def odd(stored: list[dict[str, Any]]) -> dict[str, Any]:
    """The tables as they are without the repair."""
    found = expected(stored)
    return found | {"orders": found["orders"] | {"order-0": (found["orders"]["order-0"][0], "odd")}}


def test_back_and_forth(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine, "repair")
    run_to(made, "reconcile")
    append(engine, stored[400:500])
    assert actual(engine) == expected(stored[:500])
    roll_back(engine, "back", "reconcile")
    assert actual(engine) == odd(stored[:500])
    append(engine, stored[500:600])
    assert actual(engine) == odd(stored[:600])
    # What the rebuild had retired is live again; its own drop finds nothing to do.
    assert made.drop_old() == []
    forward = roll_back(engine, "forward", "reconcile")
    assert actual(engine) == expected(stored[:600])
    append(engine, stored[600:700])
    assert sorted(forward.drop_old()) == sorted(f"{table}_old" for table in TABLES)
    assert actual(engine) == expected(stored[:700])
    assert tables(engine) == {"stored_events", *TABLES}
    report = rebuild(engine, "back").report()
    assert report.plan.rolls_back == "repair" and report.swap is not None
    replayed = [line for line in report.as_markdown().splitlines() if line.startswith("| OrderProjector |")]
    assert len(replayed) == 1 and replayed[0].endswith("|  |")
    # And the next rebuild finds everything as it needs it.
    run_to(rebuild(engine, "next"), "drop")
    assert actual(engine) == expected(stored[:700])


def test_a_rollback_that_stops_anywhere_is_taken_over_by_another(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine, "repair"), "reconcile")
    append(engine, stored[400:450])
    roll_back(engine, "first", "back")
    append(engine, stored[450:500])
    with pytest.raises(ClaimRefused, match="first"):
        rebuild(engine, "second").plan_rollback(RunOptions())
    second = rebuild(engine, "second")
    second.plan_rollback(RunOptions(), is_over=lambda run: run == "first")
    second.bring_back()
    with pytest.raises(StepOrderError, match="given up"):
        rebuild(engine, "first").swap()
    second.swap()
    second.reconcile()
    assert actual(engine) == odd(stored[:500])


def test_each_step_called_twice_is_called_once(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine, "repair"), "reconcile")
    append(engine, stored[400:450])
    made = rebuild(engine, "back")
    for step in (
        lambda: made.plan_rollback(RunOptions()),
        made.bring_back,
        lambda: made.plan_rollback(RunOptions()),
        made.bring_back,
        made.swap,
        made.reconcile,
    ):
        step()
        step()
    assert made.bring_back() > 0
    assert actual(engine) == odd(stored[:450])
    with pytest.raises(PlanError, match="switched already"):
        made.plan_rollback(RunOptions())


def test_a_rollback_that_is_planned_anew_keeps_what_its_attempts_have_applied(
    engine: sa.Engine, stored: list[dict[str, Any]]
) -> None:
    run_to(rebuild(engine, "repair"), "reconcile")
    append(engine, stored[400:450])
    made = roll_back(engine, "back", "back")
    # As an attempt leaves it that was given up when it had drained.
    ledger = made._context.ledger
    with made._context.dialect.connect() as connection:
        plan = made._context.plan_of(ledger.over(connection, "back").runs.get())
        drained = plan.model_copy(update={"already": [*(plan.already or ()), 451]})
        ledger.over(connection, "back").runs.move(RunState.VERIFIED, plan=drained)
    assert 451 in (made.plan_rollback(RunOptions()).already or ())


def test_a_drop_waits_for_the_rollback_that_needs_the_tables(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine, "repair")
    run_to(made, "reconcile", RunOptions(keep_old=False))
    due = made.drop_due()
    roll_back(engine, "back", "back")
    assert made.drop_due() > due
    with pytest.raises(HeldByRollback, match="back"):
        made.drop_old()
    # A rollback that is over holds nothing, whatever its tables are called by now.
    assert sorted(made.drop_old(is_over=lambda run: run == "back")) == sorted(f"{table}_rebuild" for table in TABLES)
    assert actual(engine) == expected(stored[:400])
    with pytest.raises(StepOrderError, match="gone"):
        rebuild(engine, "back").bring_back()


def test_a_rebuild_that_begins_meanwhile_is_refused_and_later_drops_what_is_left(
    engine: sa.Engine, stored: list[dict[str, Any]]
) -> None:
    run_to(rebuild(engine, "repair"), "reconcile")
    roll_back(engine, "back", "back")
    with pytest.raises(ClaimRefused, match="back"):
        rebuild(engine, "later").plan(RunOptions())
    later = rebuild(engine, "later")
    later.plan(RunOptions(), is_over=lambda run: run == "back")
    run_rest = [later.clone_tables, *(lambda name=name: later.replay(name) for name in PROJECTORS), later.verify, later.swap]  # type: ignore[misc]
    for step in run_rest:
        step()
    later.reconcile()
    assert actual(engine) == expected(stored[:400])
    assert later.drop_old() and tables(engine) == {"stored_events", *TABLES}


def test_what_is_no_longer_possible_is_refused_with_the_reason(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    with pytest.raises(PlanError, match="nothing to take back"):
        rebuild(engine, "back").plan_rollback(RunOptions())
    run_to(rebuild(engine, "repair"), "reconcile")
    with pytest.raises(PlanError, match="has no run nobody"):
        rebuild(engine, "back").plan_rollback(RunOptions(), of="nobody")
    part = rebuild(engine, "part", projectors=["tests.engine.harness.shop:CustomerTotalProjector"])
    run_to(part, "reconcile")
    with pytest.raises(PlanError, match="customer_totals_old is what the run part has retired since"):
        rebuild(engine, "back").plan_rollback(RunOptions(), of="repair")
    before = actual(engine)
    roll_back(engine, "back", "drop")
    assert actual(engine) == before
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE orders_old RENAME TO orders_of_somebody")
    with pytest.raises(PlanError, match="no table orders_old any more"):
        rebuild(engine, "again").plan_rollback(RunOptions(), of="repair")


def test_a_dry_run_prints_the_sql_and_touches_nothing(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine, "repair"), "reconcile")
    before = tables(engine)
    plan = rebuild(engine, "back").plan_rollback(RunOptions(dry_run=True))
    assert any("orders_old" in each and "orders_rebuild" in each for each in plan.sql)
    assert "Rollback of the run repair" in plan.describe()
    assert tables(engine) == before
    run_to(rebuild(engine, "not refused"), "drop")


@pytest.mark.postgres
def test_an_append_that_was_open_during_the_switch_is_in_both_tables(
    new_database: Callable[[str], sa.URL], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(new_database("postgres"))
    stored = events(300)
    shop.fill(engine, stored[:200])
    run_to(rebuild(engine, "fill"), "drop")
    made = rebuild(engine, "repair", swap={"wait_for_snapshots": "0s"})
    run_to(made, "verify")
    with engine.connect() as slow:
        # It has its position, and is not committed when the switch happens; one with a higher position is.
        position = slow.execute(shop.stored_events.insert().values(**stored[200])).inserted_primary_key[0]  # type: ignore[index]
        append(engine, stored[201:202])
        # As it stands when the append begins just after the last settled head has been read.
        with monkeypatch.context() as patch:
            patch.setattr(EventStore, "settled_head", lambda self: position - 1)
            made.swap()
        project(slow, position, stored[200])
        slow.commit()
    found = made.reconcile()
    assert found.late == 1 and not found.findings
    assert actual(engine) == expected(stored[:202])
    roll_back(engine, "back")
    assert actual(engine) == expected(stored[:202])


@pytest.fixture
def reconciled(sqlite_url: sa.URL) -> Iterator[sa.Engine]:
    """A shop whose tables a run has switched, keeping the old ones."""
    made = sa.create_engine(sqlite_url)
    shop.metadata.create_all(made)
    with made.begin() as connection:
        connection.execute(shop.stored_events.insert(), events(50))
    run_to(rebuild(made, "repair"), "reconcile")
    yield made
    made.dispose()


def states(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return [*connection.execute(sa.text("SELECT state FROM projection_rebuild_runs ORDER BY run_id")).scalars()]


def test_a_run_that_was_given_up_has_no_switch_to_be_taken_back(reconciled: sa.Engine) -> None:
    # As a version before this one left it, or a switch of MySQL's that did not happen.
    with reconciled.begin() as connection:
        connection.exec_driver_sql("UPDATE projection_rebuild_runs SET state = 'abandoned'")
    with pytest.raises(PlanError, match="it has not switched"):
        rebuild(reconciled, "back").plan_rollback(RunOptions(), of="repair")


@pytest.mark.parametrize("state", ["switching", "switched", "reconciled", "finished"])
def test_a_run_that_has_come_to_its_switch_is_not_given_up(reconciled: sa.Engine, state: str) -> None:
    with reconciled.begin() as connection:
        connection.execute(sa.text("UPDATE projection_rebuild_runs SET state = :state"), {"state": state})
    with pytest.raises(StepOrderError, match=f"is {state}, and no run may go from there to abandoned"):
        rebuild(reconciled, "repair").abandon()
    assert states(reconciled) == [state]
