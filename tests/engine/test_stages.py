"""A rebuild in waves: it works within its windows only, goes on where the last night stopped, and ends as any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from include.universal.cdnow import purchases
from include.universal.events import append_all, generate
from include.universal.independent import actual_tables, expected_tables
from include.universal.live import traffic
from include.universal.schema import create_schema
from projection_rebuild.errors import Interrupted, SpecError, StepOrderError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.projector_replay import ReplayResult
from projection_rebuild.replay.stages import Closed
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness.specs import rebuild
from tests.universal.harness.runs import SPEC, ended, run

FRIDAY = datetime(2026, 1, 2, 12, tzinfo=UTC)
EXPENSES = ("ExpenseProjector", "CategorySummaryProjector", "MonthlySummaryProjector")
REST = ("SubscriptionProjector", "SubscriptionItemProjector", "PaymentHistoryProjector")
STAGES: list[dict[str, Any]] = [
    {"name": "purchases", "projectors": EXPENSES, "window": "22:00-05:00", "days": ["FRI", "SAT", "SUN"]},
    {"name": "rest", "projectors": REST, "windows": {"SUN": ["01:00-06:00"], "MON": ["01:00-06:00"]}},
]


class Clock:
    """It goes on by some minutes whenever somebody looks at it."""

    def __init__(self, minutes: int) -> None:
        self.now = FRIDAY
        self.step = timedelta(minutes=minutes)
        self.looks: list[datetime] = []

    def __call__(self) -> datetime:
        self.now += self.step
        self.looks.append(self.now)
        return self.now


def in_stages(**changes: Any) -> RebuildSpec:
    given = load_spec(SPEC).model_dump(by_alias=True, mode="json")
    return RebuildSpec.model_validate(given | {"timezone": "UTC", "stages": STAGES, "replay": {"batch_events": 500}} | changes)


@pytest.mark.parametrize(
    "kind", [pytest.param("postgres", marks=pytest.mark.postgres), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def test_real_purchases_over_several_nights(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database(kind))
    create_schema(engine)
    append_all(engine, chain(purchases(), generate(800)))
    run(engine, "fill", RunOptions(keep_old=False))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE monthly_summaries SET total_cents = 0")
        connection.exec_driver_sql("UPDATE subscriptions SET name = 'lost'")
    clock, said = Clock(minutes=40), []
    spec = in_stages()

    def opened() -> Rebuild:
        return Rebuild(spec, run_id="run", event_store=engine, read_models=engine, log=said.append)

    made = opened()
    made.plan(RunOptions(keep_old=False))
    made.clone_tables()
    waits: list[Closed] = []
    while waiting := made.replay_stages(now=clock):
        waits.append(waiting)
        assert len(waits) < 30
        assert waiting.opens > clock.now
        # The application goes on by day, and the next night is another process.
        made.close()
        traffic(engine, 20, seed=len(waits))
        clock.now = waiting.opens - clock.step
        made = opened()
    assert [each.stage for each in waits] == sorted(each.stage for each in waits)
    assert {each.stage for each in waits} == {"purchases", "rest"} and len(waits) >= 4
    assert waits[0].opens == datetime(2026, 1, 2, 22, tzinfo=UTC)
    assert any("resuming at position" in line for line in said) and any("has ended" in line for line in said)
    made.verify()
    ended(made)
    assert actual_tables(engine) == expected_tables(engine)
    made.close()


def test_outside_its_window_nothing_is_read(sqlite_url: sa.URL) -> None:
    made = universal(sqlite_url)
    result = made.replay_in_stage("ExpenseProjector", now=lambda: FRIDAY)
    assert result == Closed("ExpenseProjector", "purchases", datetime(2026, 1, 2, 22, tzinfo=UTC))
    assert "opens at Fri 2026-01-02 22:00 UTC" in result.describe()
    assert made.report().replays[0].position is None


def universal(url: sa.URL, **options: Any) -> Rebuild:
    """A run of which the tables are cloned."""
    engine = sa.create_engine(url)
    create_schema(engine)
    append_all(engine, generate(2_000))
    made = Rebuild(in_stages(), run_id="run", event_store=engine, read_models=engine, log=lambda _: None)
    made.plan(RunOptions(**options))
    made.clone_tables()
    return made


def test_a_windows_end_is_a_clean_stop_and_a_stop_by_hand_is_none(sqlite_url: sa.URL) -> None:
    made = universal(sqlite_url)
    evening = datetime(2026, 1, 3, 4, 59, 58, tzinfo=UTC)
    seconds = iter(range(1_000))
    result = made.replay_in_stage("ExpenseProjector", now=lambda: evening + timedelta(seconds=next(seconds)))
    assert isinstance(result, Closed) and result.opens == datetime(2026, 1, 3, 22, tzinfo=UTC)
    reached = {each.projector: each.position for each in made.report().replays}["ExpenseProjector"]
    assert 0 < reached < 2_000
    at_night = datetime(2026, 1, 3, 23, tzinfo=UTC)
    looks = iter([False, True, True, True])
    with pytest.raises(Interrupted):
        made.replay_in_stage("ExpenseProjector", stopped=lambda: next(looks), now=lambda: at_night)
    again = made.replay_in_stage("ExpenseProjector", now=lambda: at_night)
    assert isinstance(again, ReplayResult) and again.resumed_from >= reached


def test_a_run_that_is_not_to_wait_goes_on_at_any_time(sqlite_url: sa.URL) -> None:
    made = universal(sqlite_url, replay_now=True)
    assert made.replay_stages(now=lambda: FRIDAY) is None
    made.verify()


def test_projectors_that_were_not_chosen_are_passed_over(sqlite_url: sa.URL) -> None:
    made = universal(sqlite_url, projectors=("SubscriptionProjector",), rebuild_dependents=True)
    waiting = made.replay_stages(now=lambda: FRIDAY)
    assert waiting is not None and (waiting.stage, waiting.projector) == ("rest", "SubscriptionProjector")


def test_a_spec_without_stages_has_nothing_to_go_through(sqlite_url: sa.URL) -> None:
    engine = sa.create_engine(sqlite_url)
    with pytest.raises(StepOrderError, match="no `stages`"):
        rebuild(engine).replay_stages()


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([STAGES[0]], "SubscriptionProjector, SubscriptionItemProjector, PaymentHistoryProjector is in none of them"),
        ([STAGES[0], STAGES[1] | {"projectors": (*REST, "Nobody")}], "rest names Nobody, which is none of the projectors"),
        ([STAGES[0], STAGES[1] | {"projectors": (*REST, EXPENSES[0])}], "ExpenseProjector is named twice"),
        ([STAGES[0], STAGES[1] | {"name": "purchases"}], "two have the same name"),
        (
            [{"name": "a", "projectors": REST[1:]}, {"name": "b", "projectors": (*EXPENSES, REST[0])}],
            "PaymentHistoryProjector is in an earlier stage than SubscriptionProjector",
        ),
        ([STAGES[0] | {"window": "at night"}, STAGES[1]], r"stages\.0\.window: write a window"),
        ([STAGES[0] | {"days": []}, STAGES[1]], "no window ever opens"),
    ],
)
def test_stages_that_do_not_fit_are_refused(tmp_path: Path, stages: list[dict[str, Any]], words: str) -> None:
    given = load_spec(SPEC).model_dump(by_alias=True, mode="json") | {"stages": stages}
    path = tmp_path / "universal.yaml"
    path.write_text(json.dumps(given), encoding="utf-8")
    with pytest.raises(SpecError, match=words):
        load_spec(path)
