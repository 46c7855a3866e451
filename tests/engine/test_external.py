"""Projectors that are programs: a shell script with psql or mariadb, called, killed, resumed, checked, and switched under load."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from include.universal.live import unit_of_work
from projection_rebuild.authoring.events import Event
from projection_rebuild.errors import FencedOut, Interrupted, PlanError, ProgramFailed
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.inline import project_live
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness import shop
from tests.engine.harness.databases import marked
from tests.engine.harness.driver import run_to
from tests.engine.harness.faults import until
from tests.engine.harness.programs import TYPES, held, look_often, program, right, running
from tests.engine.harness.shop import events
from tests.engine.harness.specs import SPEC


@pytest.fixture(params=marked("postgres", "mariadb"))
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(engine: sa.Engine) -> sa.Engine:
    shop.create(engine, "stored_events", "orders", "customer_totals")
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), events(400))
    return engine


@pytest.fixture
def waits(tmp_path: Path) -> Path:
    """A file that holds the position at which the programs stand still; none: they do not."""
    return tmp_path / "waits"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch, patience=0.5)


def rebuild(engine: sa.Engine, *projectors: Any, run_id: str = "run", log: list[str] | None = None, **keys: Any) -> Rebuild:
    made = RebuildSpec.model_validate(SPEC | {"projectors": list(projectors)} | keys)
    keep = log.append if log is not None else lambda _: None
    return Rebuild(made, run_id=run_id, event_store=engine, read_models=engine, log=keep)


def both(engine: sa.Engine, waits: Path, **keys: Any) -> Rebuild:
    return rebuild(engine, program(engine, waits, "orders"), program(engine, waits, "totals"), **keys)


def appended(engine: sa.Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(sa.select(shop.stored_events).order_by(shop.stored_events.c.id))]


def test_a_rebuild_by_programs_equals_an_independent_computation(engine: sa.Engine, waits: Path) -> None:
    made = both(engine, waits, verify={"max_count_drift_percent": 0})
    run_to(made, "verify")
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), events(500)[400:])
    result = made.swap()
    made.reconcile()
    assert held(engine) == right(events(500))
    assert result.position == 500
    report = made.report()
    assert [(each.events, each.position) for each in report.replays] == [
        (sum(event["event_class"] in TYPES[name] for event in events(500)), 500) for name in ("orders", "totals")
    ]
    # What is compared are all columns, though only the key is known.
    again = both(engine, waits, run_id="again")
    run_to(again, "clone")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE orders SET status = 'lost' WHERE customer = 3")
    for name in again.chosen():
        again.replay(name)
    found = {each.table: each for each in again.verify().tables}
    assert found["orders"].differing > 0 and found["customer_totals"].differing == 0


@pytest.mark.parametrize("keeps", ["orders", "totals"])
def test_a_program_is_ended_with_its_task_and_the_next_call_is_right(engine: sa.Engine, waits: Path, keeps: str) -> None:
    waits.write_text("150")
    log: list[str] = []
    said = program(engine, waits, keeps, environment={"TEST": str(os.getpid())})
    made = rebuild(engine, said, log=log)
    run_to(made, "clone")
    name = said["name"]

    began = time.monotonic()
    with pytest.raises(Interrupted):
        made.replay(name, stopped=lambda: time.monotonic() - began > 2.5)
    assert running() == []
    assert made.report().replays[0].position == (150 if keeps == "orders" else None)
    waits.unlink()
    result = made.replay(name)
    assert result.resumed_from == (150 if keeps == "orders" else None)
    assert any("cut short" in line for line in log)
    made.verify()
    made.swap()
    assert held(engine)[keeps == "totals"] == right(events(400))[keeps == "totals"]


def test_a_job_that_comes_back_does_not_take_a_program_back(engine: sa.Engine, waits: Path) -> None:
    """It would be called for the same events once more."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE jobs (position bigint PRIMARY KEY)")
    made = both(engine, waits, live_writer={"contract": "detached", "jobs_left": "SELECT position FROM jobs"})
    run_to(made, "replay", RunOptions(max_count_drift_percent=100))
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO jobs VALUES (7)")
    made.replay("TotalsInShell")
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM jobs")
    made.replay("TotalsInShell")
    assert held(engine, "_rebuild") == right(events(400))


def _replay_until_killed(url: str, said: dict[str, Any]) -> None:
    rebuild(sa.create_engine(url), said).replay(said["name"])


@pytest.mark.parametrize("database_kind", marked("postgres"), indirect=True)
def test_a_program_ends_even_if_its_worker_is_killed(engine: sa.Engine, waits: Path) -> None:
    waits.write_text("150")
    said = program(engine, waits, "totals", environment={"TEST": str(os.getpid())})
    made = rebuild(engine, said)
    run_to(made, "clone")
    url = engine.url.render_as_string(hide_password=False)
    engine.dispose()
    worker = multiprocessing.get_context("spawn").Process(target=_replay_until_killed, args=[url, said])
    worker.start()
    # A new process imports everything first.
    until(lambda: bool(running()))
    time.sleep(0.5)
    os.kill(int(worker.pid or 0), signal.SIGKILL)
    worker.join()
    until(lambda: not running())
    # Nobody takes what it had done for the whole.
    waits.unlink()
    made.verify()
    made.swap()
    assert held(engine)[1] == right(events(400))[1]


@pytest.mark.parametrize("database_kind", marked("postgres"), indirect=True)
def test_a_worker_that_has_lost_its_checkpoint_ends_its_program(engine: sa.Engine, waits: Path) -> None:
    waits.write_text("150")
    said = program(engine, waits, "totals", environment={"TEST": str(os.getpid())})
    first = rebuild(engine, said)
    run_to(first, "clone")
    with ThreadPoolExecutor(2) as pool:
        lost = pool.submit(first.replay, said["name"])
        until(lambda: bool(running()))
        second = rebuild(engine, said)
        taken_over = pool.submit(second.replay, said["name"])
        with pytest.raises(FencedOut):
            lost.result(30)
        waits.unlink()
        assert taken_over.result(60).resumed_from is None
    second.verify()
    second.swap()
    assert held(engine)[1] == right(events(400))[1]


@pytest.mark.parametrize("database_kind", marked("postgres"), indirect=True)
@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PROGRAM_FAILS": "7"}, "OrdersInShell, called up to position 400: it ended with exit code 7"),
        ({"PROGRAM_SAYS": "events 3"}, "it has handled 3 events, and the store holds"),
        ({"PROGRAM_SAYS": "position 401"}, "it reports position 401, which is outside its range"),
    ],
)
def test_a_program_that_does_not_do_what_it_was_asked_for_fails(
    engine: sa.Engine, waits: Path, environment: dict[str, str], words: str
) -> None:
    log: list[str] = []
    made = rebuild(engine, program(engine, waits, "orders", environment=environment), log=log)
    run_to(made, "clone")
    with pytest.raises(ProgramFailed, match=words) as caught:
        made.replay("OrdersInShell")
    assert caught.value.retryable
    assert "secret" not in str(caught.value) + "".join(log)


@pytest.mark.parametrize("database_kind", marked("postgres"), indirect=True)
def test_a_command_that_is_not_there_says_so(engine: sa.Engine, waits: Path) -> None:
    made = rebuild(engine, program(engine, waits, "orders", command=["no-such-program", "{from}"]))
    run_to(made, "clone")
    with pytest.raises(ProgramFailed, match="its command cannot be started"):
        made.replay("OrdersInShell")


@pytest.mark.parametrize("database_kind", marked("postgres"), indirect=True)
def test_its_output_is_logged_where_the_spec_says_so(engine: sa.Engine, waits: Path) -> None:
    log: list[str] = []
    said = program(
        engine,
        waits,
        "orders",
        show_output=True,
        command=["sh", "-c", "echo from {from} to {to}; echo $PROJECTION_REBUILD_TABLES"],
    )
    made = rebuild(engine, said, log=log)
    run_to(made, "clone")
    made.replay("OrdersInShell")
    assert "OrdersInShell says: from 1 to 400" in log
    assert 'OrdersInShell says: {"orders":"orders_rebuild"}' in log


def test_the_application_appends_and_projects_through_the_switch(engine: sa.Engine, waits: Path) -> None:
    """Every event is in the tables once, whoever has put it there."""
    first = both(engine, waits, run_id="first")
    run_to(first, "drop")
    made = both(engine, waits, swap={"attempts": 300, "max_pause": "3s"})
    for step in (
        lambda: made.plan(RunOptions()),
        made.clone_tables,
        *[lambda n=n: made.replay(n) for n in ("OrdersInShell", "TotalsInShell")],
        made.verify,
    ):
        step()
    stop, failures = threading.Event(), []

    def client(number: int) -> None:
        at = 0
        while not stop.is_set():
            at += 1
            said = {"customer": number, "on": "2026-01-01"}
            try:
                with unit_of_work(engine) as connection:
                    row = {"aggregate_uuid": f"live-{number}-{at}", "event_class": "OrderPlaced", "event_properties": said}
                    position = connection.execute(shop.stored_events.insert().values(**row)).inserted_primary_key[0]  # type: ignore[index]
                    event = Event(position=position, stream=row["aggregate_uuid"], type="OrderPlaced", payload=said)  # type: ignore[arg-type]
                    for projector in (shop.OrderProjector, shop.CustomerTotalProjector):
                        project_live(connection, projector, event)
            except sa.exc.DBAPIError as error:
                failures.append(error)
            time.sleep(0.05)

    clients = [threading.Thread(target=client, args=[number]) for number in (100, 101)]
    for each in clients:
        each.start()
    try:
        until(lambda: len(appended(engine)) > 410)
        result = made.swap()
        before = len(appended(engine))
        until(lambda: len(appended(engine)) > before + 10)
    finally:
        stop.set()
        for each in clients:
            each.join()
    assert failures == []
    assert result.position > 410
    assert held(engine) == right(appended(engine))
    assert made.reconcile().findings == []


def test_a_rollback_brings_old_tables_up_to_date_by_their_programs(engine: sa.Engine, waits: Path) -> None:
    run_to(both(engine, waits, run_id="first"), "reconcile")
    run_to(both(engine, waits, run_id="second"), "reconcile")
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), events(450)[400:])
    back = both(engine, waits, run_id="back")
    back.plan_rollback(RunOptions())
    back.bring_back()
    back.swap()
    assert held(engine) == right(events(450))


def test_what_cannot_be_right_is_refused_in_the_plan(engine: sa.Engine, waits: Path) -> None:
    shop.metadata.create_all(engine)
    made = rebuild(engine, program(engine, waits, "orders"), "tests.engine.test_external:LinesOnly")
    with pytest.raises(PlanError, match="order_lines: it has a foreign key to orders, which is filled by OrdersInShell"):
        made.plan(RunOptions())


class LinesOnly(shop.OrderLineProjector):
    depends_on = ()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"name": "9"}, "name"),
        ({"command": []}, "command"),
        ({"tables": {"orders": []}}, "tables"),
        ({"event_types": []}, "event_types"),
    ],
)
def test_a_program_is_described_in_full(keys: dict[str, Any], words: str) -> None:
    said = {"name": "A", "command": ["a"], "tables": {"orders": ["id"]}, "event_types": ["X"]}
    with pytest.raises(ValueError, match=words):
        RebuildSpec.model_validate(SPEC | {"projectors": [said | keys]})
