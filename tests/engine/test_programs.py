"""Programs that do not do as they are told, on SQLite: those that heed no end, and those that cannot be started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import FencedOut, PlanError, ProgramFailed, StepOrderError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.projector_replay import ReplayResult
from projection_rebuild.replay.stages import Closed
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.faults import until
from tests.engine.harness.programs import look_often
from tests.engine.harness.shop import events
from tests.engine.harness.specs import SPEC

WRITES_ON = """
import signal, sqlite3, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
connection = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
while True:
    try:
        connection.execute("INSERT INTO customer_totals_rebuild SELECT coalesce(max(customer), 0) + 1, 1, 0 FROM customer_totals_rebuild")
    except sqlite3.OperationalError:
        pass
    time.sleep(0.02)
"""


@pytest.fixture
def engine(sqlite_url: sa.URL) -> Iterator[sa.Engine]:
    made = sa.create_engine(sqlite_url)
    shop.fill(made, events(20))
    yield made
    made.dispose()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch, patience=0.8)


def rebuild(engine: sa.Engine, *command: str, stages: Sequence[dict[str, Any]] = (), **keys: Any) -> Rebuild:
    said = {"name": "Totals", "command": command, "tables": {"customer_totals": ["customer"]}, "event_types": ["OrderPlaced"]}
    spec = RebuildSpec.model_validate(SPEC | {"projectors": [said | keys], "stages": stages})
    return Rebuild(spec, run_id="run", event_store=engine, read_models=engine, log=lambda _: None)


def totals(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM customer_totals_rebuild").scalar_one())


@pytest.mark.parametrize("step", [lambda made: made.replay("Totals"), Rebuild.clone_tables])
def test_a_program_that_heeds_no_end_writes_nothing_into_tables_made_anew(
    engine: sa.Engine, step: Callable[[Rebuild], object]
) -> None:
    first = rebuild(engine, sys.executable, "-c", WRITES_ON, str(engine.url.database))
    run_to(first, "clone")
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(first.replay, "Totals")
        until(lambda: totals(engine) > 2)
        step(rebuild(engine, "true"))
        with pytest.raises(FencedOut):
            lost.result(300)
    assert totals(engine) == 0


WORKER = """
import sys, time
from projection_rebuild.replay.external.process import Process
program = Process([sys.executable, "-c", sys.argv[1]], patience=0.2, directory=None, environment={})
print(program._process.pid, program.line(20), flush=True)
time.sleep(600)
"""
SLEEPS = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


@pytest.mark.parametrize("whole_group", [True, False])
def test_a_program_ends_when_its_worker_and_all_around_it_are_killed(whole_group: bool) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, SLEEPS],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={"PYTHONPATH": "include"},
    )
    try:
        guard, program = map(int, (worker.stdout or sys.stdin).readline().split())
        assert is_alive(program)
        if whole_group:
            os.killpg(worker.pid, signal.SIGKILL)
        else:
            os.kill(guard, signal.SIGKILL)
        until(lambda: not is_alive(program))
    finally:
        worker.kill()
        worker.communicate()


def is_alive(process: int) -> bool:
    """Whether it is there, and no zombie that nobody has asked about yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        # It may go while it is looked at.
        return False


@pytest.mark.parametrize("directory", ["/no/such/place", "/etc/hostname"])
def test_a_directory_that_is_not_there_is_named(engine: sa.Engine, directory: str) -> None:
    made = rebuild(engine, "true", directory=directory)
    run_to(made, "clone")
    with pytest.raises(ProgramFailed, match=f"it cannot be started in its directory {directory}"):
        made.replay("Totals")
    # Nothing was called, so nothing was cut short: no table is made anew.
    assert rebuild(engine, "true").replay("Totals").position == 20


ORDERS: dict[str, Any] = {"tables": {"orders": ["id"]}}


def fails_beyond_the_replay(engine: sa.Engine, last: str) -> None:
    """A run whose program has done its replay, and then, asked for more, fails."""
    run_to(rebuild(engine, "true", **ORDERS), last)
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), events(60)[20:])
    broken = rebuild(engine, "false", **ORDERS)
    with pytest.raises(ProgramFailed, match="exit code 1"):
        broken.verify() if last == "replay" else broken.swap()


def test_a_verification_whose_program_was_cut_short_is_retried(engine: sa.Engine) -> None:
    fails_beyond_the_replay(engine, "replay")
    made = rebuild(engine, "true", **ORDERS)
    assert made.verify().passed
    # As complete as a replay leaves them.
    assert len(sa.inspect(engine).get_indexes("orders_rebuild")) == len(sa.inspect(engine).get_indexes("orders"))
    assert made.swap().position == 60


def test_a_switch_whose_program_was_cut_short_asks_for_a_verification(engine: sa.Engine) -> None:
    fails_beyond_the_replay(engine, "verify")
    made = rebuild(engine, "true", **ORDERS)
    with pytest.raises(StepOrderError, match="clear verify_counts and what follows"):
        made.swap()
    # What was verified is thrown away, so it is not switched.
    made.replay("Totals")
    with pytest.raises(StepOrderError, match="is cloned"):
        made.swap()
    made.verify()
    assert made.swap().position == 60


NIGHT = {"name": "night", "projectors": ["Totals"], "window": "22:00-05:00"}
ANY: dict[str, Any] = {"event_types": ["OrderPlaced", "LineAdded", "OrderShipped", "OrderCancelled"]}


def test_a_windows_end_lets_a_program_finish_its_call(engine: sa.Engine, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    command = ["sh", "-c", f"echo {{from}} >> {calls}; sleep 0.5"]
    made = rebuild(engine, *command, stages=[NIGHT], batch_positions=5, **ANY)
    run_to(made, "clone")
    evening, morning = datetime(2026, 1, 2, 23, tzinfo=UTC), datetime(2026, 1, 3, 6, tzinfo=UTC)
    result = made.replay_in_stage("Totals", now=lambda: morning if calls.exists() else evening)
    assert isinstance(result, Closed) and calls.read_text().split() == ["1"]
    result = made.replay_in_stage("Totals", now=lambda: evening)
    assert isinstance(result, ReplayResult) and result.resumed_from == 5
    assert calls.read_text().split() == ["1", "6", "11", "16"]


def test_a_program_that_no_window_is_long_enough_for_is_refused(engine: sa.Engine) -> None:
    with pytest.raises(PlanError, match="set its batch_positions"):
        rebuild(engine, "true", stages=[NIGHT]).plan(RunOptions())
    rebuild(engine, "true", stages=[NIGHT], on_retry="repeat").plan(RunOptions(dry_run=True))
    rebuild(engine, "true", stages=[NIGHT]).plan(RunOptions(dry_run=True, replay_now=True))
