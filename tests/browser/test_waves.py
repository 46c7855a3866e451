"""A rebuild of two stages under a real scheduler, by the REST API: its program is ended with its task, what has no window open waits
without a worker, and a switch is approved."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

from tests.browser.harness.running import RunningAirflow
from tests.browser.harness.waves import EVENTS, Waves
from tests.engine.harness.faults import until
from tests.engine.harness.programs import held, right, running
from tests.engine.harness.shop import events

DAG = "rebuild_waves"
PATIENCE = 240


class Run:
    """A run of the DAG."""

    def __init__(self, airflow: RunningAirflow, **conf: Any) -> None:
        self.ask: Callable[..., Any] = lambda *words: airflow.ask("operator", *words)
        self.ask("PATCH", f"dags/{DAG}", {"is_paused": False})
        made = self.ask("POST", f"dags/{DAG}/dagRuns", {"logical_date": None, "conf": conf})
        self.run_id = made["dag_run_id"]
        self.path = f"dags/{DAG}/dagRuns/{quote(self.run_id)}"

    def wait(self, task: str, state: str) -> dict[str, Any]:
        """Waits until a task is in a state, and gives what Airflow says of it."""
        said: dict[str, Any] = {}

        def is_there() -> bool:
            said.update(self.ask("GET", f"{self.path}/taskInstances/{quote(task)}"))
            return bool(said["state"] == state)

        try:
            until(is_there, seconds=PATIENCE)
        except AssertionError:
            raise AssertionError(f"{task} is {said.get('state')}, not {state}") from None
        return said

    def approve(self) -> None:
        """Answers what is asked before the switch.

        Airflow ends a task whose answer comes before the process that has asked is gone, and asks again.
        """

        def is_answered() -> bool:
            state = self.ask("GET", f"{self.path}/taskInstances/approve_swap")["state"]
            if state == "awaiting_input":
                time.sleep(2)
                answer = {"chosen_options": ["Approve"], "params_input": {}}
                with suppress(HTTPError):
                    self.ask("PATCH", f"{self.path}/taskInstances/approve_swap/-1/hitlDetails", answer)
            return bool(state == "success")

        until(is_answered, seconds=PATIENCE)


def test_a_rebuild_in_waves(running_airflow: RunningAirflow, waves: Waves) -> None:
    waves.waits.write_text("150")
    run = Run(running_airflow, approval=True, swap_now=True)
    until(lambda: bool(running()), seconds=PATIENCE)
    task = "replay.TotalsInShell"
    run.ask("PATCH", f"{run.path}/taskInstances/{task}", {"new_state": "failed"})
    until(lambda: not running(), seconds=PATIENCE)
    assert run.wait(task, "failed")["try_number"] == 1

    waves.waits.unlink()
    opens = waves.write_spec(timedelta(seconds=40))
    cleared = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": [task], "include_downstream": True}
    run.ask("POST", f"dags/{DAG}/clearTaskInstances", cleared)
    run.wait(task, "success")
    waiting = run.wait("replay.OrderProjector", "deferred")
    assert datetime.now(UTC) < opens
    assert waiting["trigger"]["classpath"].endswith("DateTimeTrigger")
    done = run.wait("replay.OrderProjector", "success")
    assert datetime.fromisoformat(done["end_date"]) >= opens and done["try_number"] == 1

    run.approve()
    run.wait("reconcile", "success")
    assert held(waves.engine) == right(events(EVENTS))
