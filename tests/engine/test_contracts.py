"""The contracts of live writers that project outside the append transaction, each with its writers at work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import PlanError, SwapNotPossible
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import actual, events, expected
from tests.engine.harness.specs import rebuild
from tests.engine.harness.writers import CHECKPOINTED, DETACHED, TOLD_APART, Application, consume, project_a_job

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("contract", "work"),
    [pytest.param(CHECKPOINTED, consume, id="checkpointed"), pytest.param(TOLD_APART, project_a_job, id="detached")],
)
def test_nothing_is_lost_or_doubled(prepared: sa.Engine, contract: dict[str, Any], work: Callable[[Application], int]) -> None:
    bounds = {"attempts": 100}
    with Application(prepared, work) as application:
        time.sleep(1)
        for number in range(4):
            made = rebuild(prepared, f"run-{number}", live_writer=contract, swap=bounds)
            # Every other run rebuilds a part: all but these orders and their customers are copied while they are written.
            placed = [event["aggregate_uuid"] for event in application.stored[: application.appended - 5 : 7]]
            part = tuple(placed) if number % 2 else None
            run_to(made, "drop", RunOptions(max_count_drift_percent=100, aggregates=part))
            time.sleep(0.2)
    assert application.failures == []
    assert application.appended > 100
    assert actual(prepared) == expected(application.stored[: application.appended])


def test_jobs_that_never_end_leave_everything_as_it_was(prepared: sa.Engine) -> None:
    stored = events(200)
    with prepared.begin() as connection:
        connection.execute(shop.stored_events.insert(), stored)
        connection.exec_driver_sql("INSERT INTO jobs VALUES (1)")
    said: list[str] = []
    # Nothing but the jobs is to end an attempt, however busy the machine is.
    bounds = {"attempts": 2, "max_pause": "200ms", "lock_timeout": "10s"}
    made = rebuild(prepared, live_writer=DETACHED, swap=bounds, log=said.append)
    run_to(made, "verify")
    with pytest.raises(SwapNotPossible, match="drain_check"):
        made.swap()
    assert sum("attempt 1 of 2 at the switch was undone: live_writer.drain_check never gave 0" in each for each in said) == 1
    assert actual(prepared)["orders"] == {}
    with prepared.begin() as connection:
        connection.exec_driver_sql("DELETE FROM jobs")
    rebuild(prepared, live_writer=DETACHED).swap()
    assert actual(prepared) == expected(stored)


def test_positions_of_other_consumers_in_the_table_are_refused(prepared: sa.Engine) -> None:
    with prepared.begin() as connection:
        connection.exec_driver_sql("INSERT INTO consumers VALUES ('somebody else', 7)")
    with pytest.raises(PlanError, match="somebody else"):
        rebuild(prepared, live_writer=CHECKPOINTED).plan(RunOptions())
