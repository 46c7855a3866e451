"""What a watcher is shown of a rebuild, on every database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import Interrupted
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import TABLES
from tests.engine.harness.specs import PROJECTORS, rebuild


def roles(engine: sa.Engine) -> dict[tuple[str, str], str | None]:
    return {(each.table, each.role): each.run_id for each in rebuild(engine, "").tables()}


def test_a_watcher_before_the_first_run_finds_blue_and_leaves_nothing(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    before = sa.inspect(engine).get_table_names()
    watcher = rebuild(engine, "")
    seen = watcher.look()
    assert (seen.traffic.head, seen.runs) == (1_000, [])
    assert roles(engine) == dict.fromkeys([(table, "blue") for table in TABLES])
    assert sa.inspect(engine).get_table_names() == before


def test_a_replay_that_was_stopped_half_way_is_seen_where_it_is(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "clone", RunOptions(projectors=("OrderLineProjector", "CustomerTotalProjector"), reason="to see"))
    asked = iter([False, False, False])
    with pytest.raises(Interrupted):
        made.replay("CustomerTotalProjector", stopped=lambda: next(asked, True))
    seen = rebuild(engine, "").look().runs
    assert [(each.report.run_id, each.report.state, each.report.reason) for each in seen] == [("run", "cloned", "to see")]
    progress = {each.projector: each for each in seen[0].progress}
    assert set(progress) == {"OrderLineProjector", "CustomerTotalProjector"}
    assert (progress["CustomerTotalProjector"].events, progress["OrderLineProjector"].events) == (300, 0)
    assert 300 <= progress["CustomerTotalProjector"].position < progress["CustomerTotalProjector"].head == 1_000
    assert seen[0].holds == ["customer_totals", "order_lines"]
    assert roles(engine)["order_lines", "green"] == "run"
    assert ("orders", "green") not in roles(engine)


def test_old_tables_have_their_run_and_their_time_and_a_rollback_takes_them(
    engine: sa.Engine, stored: list[dict[str, Any]]
) -> None:
    run_to(rebuild(engine, "fill"), "drop")
    run_to(rebuild(engine, "kept"), "reconcile", RunOptions(drop_after=timedelta(hours=3)))
    assert rebuild(engine, "").look().runs == []
    history = {each.run_id: each for each in rebuild(engine, "").history()}
    assert {each.run_id: str(each.state) for each in history.values()} == {"kept": "reconciled", "fill": "finished"}
    old = {each.name: each for each in rebuild(engine, "").tables() if each.role == "old"}
    assert set(old) == {f"{table}_old" for table in TABLES}
    assert {each.run_id for each in old.values()} == {"kept"}
    switched = history["kept"].moved["switched"]
    assert all(
        each.drop_after and abs(each.drop_after - switched - timedelta(hours=3)) < timedelta(minutes=1) for each in old.values()
    )
    back = rebuild(engine, "back")
    back.plan_rollback(RunOptions(keep_old=False))
    back.bring_back()
    assert [each.report.plan.rolls_back for each in rebuild(engine, "").look().runs] == ["kept"]
    assert {each.run_id for each in rebuild(engine, "").tables() if each.role == "green"} == {"back"}


def test_sizes_come_from_statistics_also_while_green_is_filled(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine, "fill"), "drop")
    made = rebuild(engine)
    run_to(made, "clone")
    watcher = rebuild(engine, "")
    watcher.tables()
    for name in PROJECTORS:
        made.replay(name)
    sizes = {(each.table, each.role): each for each in watcher.tables()}
    for table in TABLES:
        blue, green = sizes[table, "blue"], sizes[table, "green"]
        assert green.size > 0 and 0.5 * blue.rows <= green.rows <= 2 * blue.rows, (blue, green)


def test_a_watcher_sees_only_the_runs_of_its_rebuild(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    run_to(rebuild(engine, "mine"), "clone", RunOptions(projectors=("OrderLineProjector",)))
    run_to(rebuild(engine, "theirs", rebuild="other"), "plan", RunOptions(projectors=("CustomerTotalProjector",)))
    assert [each.report.run_id for each in rebuild(engine, "").look().runs] == ["mine"]
    assert [each.report.run_id for each in rebuild(engine, "", rebuild="other").look().runs] == ["theirs"]
    rebuild(engine, "mine").abandon()
    assert rebuild(engine, "").look().runs == []


def test_shards_are_seen_one_by_one(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "clone")
    context = made._context
    with context.dialect.connect() as connection:
        context.ledger.over(connection, "run").shards.begin({"OrderProjector": 2}, head=1_000)
    (run,) = rebuild(engine, "").look().runs
    seen = [(each.projector, each.shard) for each in run.progress if each.projector == "OrderProjector"]
    assert seen == [("OrderProjector", None), ("OrderProjector", 1), ("OrderProjector", 2)]
