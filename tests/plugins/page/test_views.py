"""What the page says, from what was seen; no Airflow, and a database only where something is seen of a real replay."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import Interrupted
from projection_rebuild.ledger import DeadLetter, Wait
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.results import SwapResult, TableComparison, Verification
from projection_rebuild.operations.status import Look, Progress, RunSeen, TableSeen
from projection_rebuild.run.report import ReplayRecord, Report, Said
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.traffic.low_traffic import Traffic
from projection_rebuild_airflow.ids import DagRunId, dag_run_of
from projection_rebuild_airflow.page.seen import DagRunSeen, Seen
from projection_rebuild_airflow.page.views.rebuild import RebuildView, rebuild_view
from projection_rebuild_airflow.page.views.runs import RunView
from projection_rebuild_airflow.page.views.tables import TableView
from projection_rebuild_airflow.page.views.task_states import most_urgent
from projection_rebuild_airflow.page.views.tones import Tone
from projection_rebuild_airflow.page.views.traffic import Gauge
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import events
from tests.engine.harness.specs import rebuild

NOW = datetime(2026, 11, 25, 15, 0, tzinfo=UTC)
RUN = "rebuild_shop/manual__2026-11-25T14:50:00+00:00"
SPEC: dict[str, Any] = {
    "rebuild": "shop",
    "timezone": "Europe/Amsterdam",
    "event_store": {"conn_id": "db"},
    "read_models": {"conn_id": "db"},
    "projectors": ["shop:Orders", "shop:Lines"],
    "live_writer": "transactional",
}
STATES = {"planned": 10, "cloned": 9, "verified": 4, "switched": 3, "reconciled": 2, "finished": 1}
"""Minutes ago at which a run came to each state."""


def report(state: str, run_id: str = RUN, **more: Any) -> Report:
    order = list(STATES)
    reached = order[: order.index(state) + 1] if state in order else []
    made: dict[str, Any] = {
        "rebuild": "shop",
        "run_id": run_id,
        "state": state,
        "started_at": NOW - timedelta(minutes=10),
        "moved": {each: NOW - timedelta(minutes=STATES[each]) for each in reached if each != "planned"},
        "reason": "",
        "plan": Plan(
            rebuild="shop", run_id=run_id, projectors=["Orders"], tables=["orders"], schema_name=None, events=9, head=100
        ),
        "replays": [ReplayRecord(projector="Orders", events=50_000, position=100, seconds=10.0)],
        "verification": None,
        "swap": SwapResult(tables=["orders"], position=100, pause_seconds=0.041, attempts=2) if "switched" in reached else None,
        "reconciliation": None,
        "dropped": [],
    }
    return Report.model_validate(made | more)


def running(state: str, progress: Sequence[Progress] = (), **more: Any) -> RunSeen:
    return RunSeen(report=report(state, **more), progress=list(progress), holds=["orders"], waits=[], dead_letters=[])


def dag_run(ledger_run: str, tasks: dict[str, str]) -> DagRunSeen:
    return DagRunSeen(dag_run_of(ledger_run) or DagRunId("", ""), "running", tasks)


def seen(
    *runs: RunSeen,
    tasks: dict[str, str] | None = None,
    past: Sequence[Report] = (),
    tables: Sequence[TableSeen] = (),
    appends: int | None = None,
    sessions: int | None = None,
    **spec: Any,
) -> Seen:
    return Seen(
        spec=RebuildSpec.model_validate(SPEC | spec),
        look=Look(traffic=Traffic(1_000, sessions, NOW, appended=appends), runs=list(runs), first=1),
        tables=tables,
        past=past,
        earlier=None if appends is None else Traffic(1_000 - appends, None, NOW - timedelta(minutes=1)),
        dag_runs={} if tasks is None else {run.report.run_id: dag_run(run.report.run_id, tasks) for run in runs},
    )


def shown(what: Seen, *, may: bool = True, only: str = "") -> RebuildView:
    return rebuild_view(what, lambda dag_id: may and dag_id == "rebuild_shop", only)


def one(what: Seen, *, may: bool = True) -> RunView:
    (run,) = shown(what, may=may).runs
    return run


# Progress -----------------------------------------------------------------------------------------------------------


def test_a_replay_half_way_has_its_share_its_rate_the_time_left_and_its_lag() -> None:
    half = Progress(projector="Orders", events=30_000, position=400, head=800, seconds=60.0)
    (replay,) = one(seen(running("cloned", [half]), tasks={"replay.Orders": "running"})).replays
    assert (replay.share, replay.tone) == (0.5, Tone.BUSY)
    assert replay.events == "30,000 of about 60,000 events"
    assert (replay.rate, replay.left) == ("500 events/s", "1 min left")
    assert replay.lag == "600 positions behind the head"
    assert replay.href.endswith("/tasks/replay.Orders")


def test_a_replay_that_has_not_begun_and_one_that_is_done_need_no_guess() -> None:
    progress = [
        Progress(projector="Orders", events=0, position=None, head=None, seconds=0.0),
        Progress(projector="Lines", events=7, position=990, head=990, seconds=0.0),
    ]
    waiting, done = one(seen(running("cloned", progress), tasks={})).replays
    assert (waiting.share, waiting.events, waiting.rate, waiting.left) == (0.0, "not begun", "", "")
    assert (done.share, done.tone, done.events, done.left) == (1.0, Tone.OK, "7 events", "replayed")


def test_events_that_were_set_aside_are_named_and_a_few_stand_for_many() -> None:
    letters = [DeadLetter("Orders", 1_000 + each, "OrderPlaced", "KeyError") for each in range(23)]
    run = one(seen(running("cloned").model_copy(update={"dead_letters": letters}), tasks={}))
    assert run.dead_letters[0] == "OrderPlaced at position 1,000, Orders: KeyError"
    assert (len(run.dead_letters), run.more_dead_letters) == (20, 3)
    assert one(seen(running("cloned"), tasks={})).dead_letters == []


def test_shards_have_lines_of_their_own_and_their_own_rests(sqlite_url: sa.URL) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.fill(engine, events(10))
    made = rebuild(engine, projectors=["tests.engine.harness.shop:OrderProjector"], replay={"shards": 2})
    run_to(made, "clone")
    made.pause(by="anna")
    looks: list[Look] = []

    def stopped() -> bool:
        looks.append(made.look())
        return True

    with pytest.raises(Interrupted, match="OrderProjector 2/2 was stopped while it rested"):
        made.replay_shard("OrderProjector", 1, stopped=stopped)
    assert made.waits() == []
    what = Seen(spec=made._context.spec, look=looks[0], tables=[], past=[], earlier=None, dag_runs={})
    own, first, second = one(what, may=False).replays
    assert (own.projector, own.rests) == ("OrderProjector", "")
    assert (first.projector, first.rests) == ("OrderProjector, shard 1", "")
    assert second.projector == "OrderProjector, shard 2"
    assert second.rests.startswith("rests for") and second.rests.endswith(": paused by anna")


def test_a_shard_links_to_the_mapped_task_of_all_shards() -> None:
    progress = [Progress(projector="Orders", events=10, position=400, head=800, seconds=1.0, shard=2)]
    (shard,) = one(seen(running("cloned", progress), tasks={})).replays
    assert shard.href.endswith("/tasks/replay.shards/mapped")


# Where a run stands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "headline", "tone"),
    [
        ({"plan": "success", "replay.A": "running", "replay.B": "success"}, "at work on replay", Tone.BUSY),
        ({"plan": "success", "replay.A": "failed", "replay.B": "running"}, "failed at replay", Tone.BAD),
        ({"verify_counts": "failed", "atomic_swap": "upstream_failed"}, "failed at verify", Tone.BAD),
        ({"approve_swap": "awaiting_input"}, "waits for approval", Tone.WAIT),
        ({"wait_for_low_traffic": "deferred"}, "waits for low traffic", Tone.WAIT),
        ({"plan": "success", "clone_tables": "queued"}, "clone is about to begin", Tone.WAIT),
        ({"clone_tables": "up_for_retry"}, "clone failed and is tried again soon", Tone.WAIT),
    ],
)
def test_the_headline_is_what_needs_attention_most(tasks: dict[str, str], headline: str, tone: Tone) -> None:
    run = one(seen(running("cloned"), tasks=tasks))
    assert (run.headline, run.tone) == (headline, tone)
    whole = shown(seen(running("cloned"), tasks=tasks))
    assert (whole.status, whole.tone) == (headline, tone)


def test_the_steps_stand_in_their_order_and_link_to_their_tasks() -> None:
    tasks = {"atomic_swap": "", "replay.B": "success", "plan": "success", "replay.A": "skipped", "unknown": "running"}
    steps = one(seen(running("cloned"), tasks=tasks)).steps
    assert [(each.name, each.state, each.tone) for each in steps] == [
        ("plan", "success", Tone.OK),
        ("replay", "success", Tone.OK),
        ("switch", "not yet", Tone.IDLE),
    ]
    assert steps[0].href == "dags/rebuild_shop/runs/manual__2026-11-25T14%3A50%3A00%2B00%3A00/tasks/plan"


def test_the_most_urgent_state_speaks_for_several_tasks() -> None:
    assert most_urgent(["success", "", "running", "failed", "deferred"]) == "failed"
    assert most_urgent(["skipped", "", "success"]) == "success"
    assert most_urgent(["", "skipped"]) == ""


def test_a_run_from_a_repl_has_no_links_and_no_buttons() -> None:
    run = one(seen(running("verified", run_id="by hand"), tasks=None))
    assert (run.href, run.steps, run.actions, run.headline) == ("", [], [], "verified")


def test_a_run_that_failed_and_holds_no_table_any_more_is_not_shown() -> None:
    left = RunSeen(report=report("cloned"), progress=[], holds=[], waits=[], dead_letters=[])
    failed = Seen(RebuildSpec.model_validate(SPEC), Look(traffic=Traffic(1, None, NOW), runs=[left]), [], [], None, {})
    assert shown(failed).runs == []
    assert len(shown(failed, only=RUN).runs) == 1


def test_without_runs_the_status_says_how_the_last_one_ended() -> None:
    assert shown(seen()).status == "never rebuilt yet"
    assert shown(seen(past=[report("reconciled")])).status == "idle; the last run was switched 2 min ago"
    assert shown(seen()).again_in > shown(seen(running("cloned"))).again_in


# What may be done ---------------------------------------------------------------------------------------------------


def test_who_may_only_look_is_offered_nothing() -> None:
    waiting = seen(running("verified"), tasks={"wait_for_low_traffic": "deferred"})
    assert [each.name for each in one(waiting).actions] == ["swap-now"]
    assert one(waiting, may=False).actions == []


def test_replays_are_paused_and_resumed_until_they_are_verified() -> None:
    assert [each.name for each in one(seen(running("cloned"), tasks={})).actions] == ["swap-now", "pause"]
    paused = Said(name="pause", value={"reason": "month's end"}, by="anna", at=NOW)
    run = one(seen(running("cloned", notes=[paused]), tasks={"replay.Orders": "running"}))
    assert [each.name for each in run.actions] == ["swap-now", "resume"]
    assert (run.headline, run.tone) == ("paused by anna", Tone.WAIT)


def test_a_worker_that_rests_says_why() -> None:
    half = Progress(projector="Orders", events=30_000, position=400, head=800, seconds=60.0)
    run = running("cloned", [half])
    run.waits.append(Wait("Orders", "replica lag 12 s (limit 10 s)", NOW - timedelta(seconds=40), NOW))
    (replay,) = one(seen(run, tasks={})).replays
    assert replay.rests == "rests for 40 s: replica lag 12 s (limit 10 s)"


def test_what_airflow_cannot_ask_again_is_answered_on_the_page() -> None:
    again = one(seen(running("verified"), tasks={"approve_swap": "failed"}))
    assert [each.name for each in again.actions] == ["swap-now", "approve", "reject"]
    assert [each.name for each in one(seen(running("cloned"), tasks={"approve_swap": "failed"})).actions] == ["swap-now", "pause"]


def test_swap_now_is_offered_until_it_was_said_and_until_the_switch() -> None:
    said = Said(name="swap_now", value={"reason": ""}, by="anna", at=NOW)
    after = one(seen(running("verified", notes=[said]), tasks={}))
    assert after.actions == []
    assert "Swap now by anna, Wed 25 Nov 16:00:00" in after.facts
    assert one(seen(running("switched"), tasks={})).actions == []


def test_an_open_approval_has_a_link_to_its_answer() -> None:
    assert one(seen(running("verified"), tasks={"approve_swap": "awaiting_input"})).answer_href.endswith(
        "/tasks/approve_swap/required_actions"
    )
    assert one(seen(running("verified"), tasks={"approve_swap": "success"})).answer_href == ""


# Verification -------------------------------------------------------------------------------------------------------


def test_a_verification_is_shown_with_its_failures_and_sample_keys() -> None:
    found = Verification(
        tables=[
            TableComparison(
                table="orders",
                blue_rows=1_000,
                green_rows=900,
                drift_percent=10.0,
                tolerance_percent=5.0,
                identical=890,
                differing=10,
                only_blue=100,
                only_green=0,
                samples={"only_blue": ["order-1", "order-2"]},
            )
        ],
        failures=["orders: 900 rows against 1,000 is a drift of 10.00 %"],
    )
    shown_now = one(seen(running("cloned", verification=found))).verification
    assert shown_now is not None and not shown_now.passed and shown_now.failures == found.failures
    (row,) = shown_now.tables
    assert (row.before, row.after, row.drift, row.allowed, row.too_far) == ("1,000", "900", "10.00 %", "5 %", True)
    assert row.samples == {"only before": ["order-1", "order-2"]}


# Traffic ------------------------------------------------------------------------------------------------------------


def gauges(what: Seen) -> dict[str, Gauge]:
    return {each.label: each for each in shown(what).gauges}


def test_traffic_stands_against_its_limits() -> None:
    limits = {"low_traffic": {"max_appends_per_minute": 60, "max_active_sessions": 4}}
    busy = gauges(seen(appends=120, sessions=3, **limits))
    assert (busy["appends"].value, busy["appends"].tone) == ("120 per minute", Tone.WAIT)
    assert (busy["appends"].share, busy["appends"].limit) == (1.0, "limit 60 per minute")
    assert (busy["active sessions"].share, busy["active sessions"].tone) == (0.75, Tone.OK)
    unknown = gauges(seen(**limits))
    assert unknown["appends"].value == "known at the next look"
    assert unknown["active sessions"].share is None and unknown["active sessions"].value == "not known here"
    free = gauges(seen(appends=120, sessions=4))
    assert (free["appends"].value, free["appends"].limit, free["appends"].tone) == ("120 per minute", "no limit", Tone.IDLE)
    assert "active sessions" not in free


def test_the_window_is_by_the_clock_of_the_spec() -> None:
    shut = gauges(seen(low_traffic={"window": "01:00-05:00", "max_appends_per_minute": 9}))
    assert (shut["window"].value, shut["window"].tone) == ("opens Thu 26 Nov 01:00:00, in 9 h", Tone.WAIT)
    assert shut["window"].limit == "01:00 to 05:00, Europe/Amsterdam"
    # The limits are shown before it opens as well.
    assert "appends" in shut
    opened = gauges(seen(low_traffic={"window": "15:00-17:00"}))["window"]
    assert (opened.value, opened.tone) == ("open; closes Wed 25 Nov 17:00:00, in 1 h", Tone.OK)
    assert gauges(seen())["window"].value == "at any time"


def test_what_the_gate_saw_is_told_while_the_switch_waits_for_it() -> None:
    look = Said(name="traffic", value={"message": "waiting: 120 appends per minute (limit 60)"}, by="", at=NOW)
    assert shown(seen(running("verified", notes=[look]))).gate == "The gate, now: waiting: 120 appends per minute (limit 60)"
    assert shown(seen(running("switched", notes=[look]))).gate == ""


# Tables -------------------------------------------------------------------------------------------------------------


def test_tables_say_whose_they_are_and_when_they_go() -> None:
    kept = NOW + timedelta(hours=72)
    tables: Sequence[TableView] = shown(
        seen(
            tables=[
                TableSeen(table="orders", name="orders", role="blue", rows=1_200, size=2048),
                TableSeen(table="orders", name="orders_rebuild", role="green", rows=600, size=1024, run_id=RUN),
                TableSeen(
                    table="orders", name="orders_old", role="old", rows=1, size=0, run_id="rebuild_shop/x", drop_after=kept
                ),
                TableSeen(table="lines", name="lines_old", role="old", rows=1, size=0),
                TableSeen(table="lines", name="lines_rebuild", role="green", rows=1, size=0),
                TableSeen(table="total", name="total_old", role="old", rows=1, size=0, run_id="by hand", drop_after=NOW),
            ]
        )
    ).tables
    assert [each.note for each in tables] == [
        "",
        "made by manual__2026-11-25T14:50:00+00:00",
        "dropped Sat 28 Nov 16:00:00, in 3 d; retired by x",
        "not ours; the next switch needs its name",
        "not ours; a rebuild is refused while it is there",
        "due to be dropped; retired by by hand",
    ]
    assert (tables[0].rows, tables[0].size, tables[0].share, tables[1].share) == ("1,200", "2.0 KiB", 1.0, 0.5)
    assert [bool(each.href) for each in tables] == [False, True, True, False, False, False]


# History ------------------------------------------------------------------------------------------------------------


def test_history_has_duration_pause_and_rate_and_says_what_was_taken_back() -> None:
    taken = report("reconciled")
    back = report(
        "finished", "rollback_shop/y", plan=taken.plan.model_copy(update={"rolls_back": RUN}), by="anna", reason="wrong"
    )
    latest, first = shown(seen(past=[back, taken])).past
    assert (first.duration, first.pause, first.rate, first.projectors) == ("7 min", "41 ms", "5,000/s", "1 of 2")
    assert first.state == "switched, taken back by y"
    assert (latest.title, latest.by, latest.reason) == ("Rollback of manual__2026-11-25T14:50:00+00:00", "anna", "wrong")
    assert first.report == "dags/rebuild_shop/report?run_id=manual__2026-11-25T14%3A50%3A00%2B00%3A00"
    lengths, pauses, rates = shown(seen(past=[back, taken])).charts
    assert [bar.kind for bar in pauses.bars] == ["", "back"]
    assert (lengths.latest, pauses.latest, rates.latest) == ("7 min", "41 ms", "5,000")


def test_a_run_of_more_projectors_than_the_spec_has_now_says_how_many_it_had() -> None:
    plan = report("finished").plan.model_copy(update={"projectors": ["Orders", "Lines", "Totals"]})
    (past,) = shown(seen(past=[report("finished", plan=plan)])).past
    assert past.projectors == "3"


def test_a_replay_that_has_handled_no_event_has_no_rate_in_the_history() -> None:
    begun = [ReplayRecord(projector="Orders", events=0, position=None, seconds=9.0)]
    what = shown(seen(past=[report("cloned", replays=begun)]))
    rates = what.charts[2]
    assert (what.past[0].rate, rates.latest, rates.bars) == ("", "nothing yet", [])


def test_the_page_says_whose_clock_it_goes_by() -> None:
    assert shown(seen()).at == "Wed 25 Nov 16:00:00, Europe/Amsterdam"


def test_a_run_that_has_not_switched_has_no_pause() -> None:
    (planned,) = shown(seen(past=[report("verified")])).past
    assert (planned.duration, planned.pause) == ("", "")


def test_only_one_run_of_the_history_is_shown_where_one_is_asked_for() -> None:
    what = seen(past=[report("finished"), report("finished", "rebuild_shop/other")])
    assert [each.key for each in shown(what, only="rebuild_shop/other").past] == ["rebuild_shop/other"]
