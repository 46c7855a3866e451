"""Writers that project in jobs of their own, where it is known which events have jobs left: a queue that is never empty."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from include.universal.live import unit_of_work
from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import SettleTimeout, SpecSqlError, SwapNotPossible
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.replay.inline import project_live
from projection_rebuild.run import jobs
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.stores import EventStoreSection
from tests.engine.harness import shop
from tests.engine.harness.databases import on
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import actual, events, expected
from tests.engine.harness.specs import rebuild
from tests.engine.harness.writers import ALL, TOLD_APART, TYPES, Application, prepare, project_a_job


@pytest.fixture
def server(server_kind: str, new_database: Callable[[str], sa.URL]) -> Iterator[sa.Engine]:
    engine = sa.create_engine(new_database(server_kind))
    yield prepare(engine)
    engine.dispose()


def _with_jobs_left(engine: sa.Engine) -> list[dict[str, Any]]:
    """Events that jobs have projected, but those of the orders that came last: there are events of others between them."""
    stored = events(200)
    orders = {event["aggregate_uuid"] for event in stored[150:]} - {event["aggregate_uuid"] for event in stored[:150]}
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), stored)
    store = EventStore(dialect_for(engine), EventStoreSection(conn_id="db"))
    with unit_of_work(engine) as connection:
        for event in (event for page, _ in store.pages(None, 200, TYPES, size=1_000) for event in page):
            if event.stream in orders:
                _enqueue(connection, event.position)
                continue
            for projector in ALL:
                project_live(connection, projector, event)
    return stored


def _enqueue(connection: sa.Connection, *positions: int) -> None:
    connection.exec_driver_sql(f"INSERT INTO jobs VALUES {', '.join(f'({each})' for each in positions)}")


def _do_jobs(engine: sa.Engine, most: int = 1_000) -> None:
    application = Application(engine, project_a_job)
    for _ in range(most):
        if not project_a_job(application):
            return


def test_jobs_that_are_left_keep_no_rebuild_away(prepared: sa.Engine) -> None:
    """The tables that are switched in hold what was done, and the jobs that are left do the rest there."""
    _switch_there_and_back(prepared, part=False)


@pytest.mark.parametrize("database_kind", on("sqlite", "mariadb"), indirect=True)
def test_nor_do_they_keep_the_rebuild_of_a_part_away(prepared: sa.Engine) -> None:
    _switch_there_and_back(prepared, part=True)


def _switch_there_and_back(prepared: sa.Engine, *, part: bool) -> None:
    stored = _with_jobs_left(prepared)
    chosen = tuple(sorted({event["aggregate_uuid"] for event in stored[:40]})) if part else None
    made = rebuild(prepared, live_writer=TOLD_APART)
    before = actual(prepared)
    run_to(made, "swap", RunOptions(max_count_drift_percent=100, aggregates=chosen, keep_old=True))
    assert actual(prepared) == before
    _do_jobs(prepared, most=3)
    made.reconcile()
    back = rebuild(prepared, "back", live_writer=TOLD_APART)
    done = actual(prepared)
    back.plan_rollback(RunOptions())
    back.bring_back()
    back.swap()
    assert actual(prepared) == done != before
    _do_jobs(prepared)
    assert actual(prepared) == expected(stored)


def test_an_event_that_is_committed_while_the_switch_drains_is_left_to_its_job(
    server: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a lower position than one that the switch has seen, and nobody had asked for its job."""
    stored = _with_jobs_left(server)
    later = events(230)[len(stored) : len(stored) + 2]
    made = rebuild(server, live_writer=TOLD_APART)
    run_to(made, "verify", RunOptions(max_count_drift_percent=100))
    listed, positions_left = EventStore.listed, jobs.positions_left
    slow, begun = server.connect(), []

    def after_an_append_has_begun(self: EventStore, *between: Any) -> dict[int, str]:
        if not begun:
            begun.append(True)
            slow.execute(shop.stored_events.insert().values(**later[0]))
            with server.begin() as connection:
                connection.execute(shop.stored_events.insert().values(**later[1]))
                _enqueue(connection, len(stored) + 2)
        return listed(self, *between)

    def before_it_is_committed(*given: Any) -> frozenset[int]:
        found = positions_left(*given)
        if slow.in_transaction():
            _enqueue(slow, len(stored) + 1)
            slow.commit()
        return found

    with slow:
        monkeypatch.setattr(EventStore, "listed", after_an_append_has_begun)
        monkeypatch.setattr(jobs, "positions_left", before_it_is_committed)
        assert made.swap().position == len(stored) + 2
    monkeypatch.undo()
    _do_jobs(server)
    assert actual(server) == expected([*stored, *later])


@pytest.fixture
def kept(new_database: Callable[[str], sa.URL]) -> Iterator[sa.Engine]:
    """MariaDB, which has no RENAME of locked tables: sentries have them until then."""
    engine = sa.create_engine(new_database("mariadb"))
    yield prepare(engine)
    engine.dispose()


def _within_the_drain(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Right after the switch has asked once which jobs are left, with the tables held."""
    positions_left, listed, drained = jobs.positions_left, EventStore.listed, []

    def begun(self: EventStore, *between: Any) -> dict[int, str]:
        drained.append(False)
        return listed(self, *between)

    def asked(*given: Any) -> frozenset[int]:
        found = positions_left(*given)
        if drained == [False]:
            drained[0] = True
            action()
        return found

    monkeypatch.setattr(EventStore, "listed", begun)
    monkeypatch.setattr(jobs, "positions_left", asked)


@pytest.mark.mariadb
def test_a_job_that_comes_past_a_sentry_undoes_the_attempt(kept: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its event is in the table that was about to be retired, and was not drained."""
    stored, said = _with_jobs_left(kept), []
    made = rebuild(kept, live_writer=TOLD_APART, swap={"max_pause": "20s"}, log=said.append)
    run_to(made, "verify", RunOptions(max_count_drift_percent=100))

    def send_sentries_away() -> None:
        with kept.connect() as connection:
            sentries = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'DROP VIEW%%' AND DB = DATABASE()"
            found = connection.exec_driver_sql(sentries).scalars().all()
            assert found
            for each in found:
                connection.exec_driver_sql(f"KILL QUERY {each}")
        _do_jobs(kept, most=3)

    _within_the_drain(monkeypatch, send_sentries_away)
    assert made.swap().attempts > 1
    monkeypatch.undo()
    assert any("a job had come to the tables before they were renamed" in each for each in said)
    assert not [each for each in sa.inspect(kept).get_table_names() if each.startswith("~")]
    _do_jobs(kept)
    assert actual(kept) == expected(stored)


@pytest.mark.mariadb
def test_sentries_stay_for_as_long_as_the_drain_takes(kept: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """However shortly locks are waited for: a second, the shortest that the server knows."""
    stored, failed = _with_jobs_left(kept), []
    made = rebuild(kept, live_writer=TOLD_APART, swap={"max_pause": "20s"})
    run_to(made, "verify", RunOptions(max_count_drift_percent=100))

    def work() -> None:
        try:
            _do_jobs(kept)
        except sa.exc.DBAPIError as error:
            failed.append(error)

    worker = threading.Thread(target=work)

    def take_long() -> None:
        worker.start()
        time.sleep(1.2)

    _within_the_drain(monkeypatch, take_long)
    assert made.swap().attempts == 1
    worker.join()
    assert not failed and actual(kept) == expected(stored)


@pytest.mark.parametrize("database_kind", on("sqlite", "postgres"), indirect=True)
def test_a_queue_that_is_far_behind_holds_nobody(prepared: sa.Engine) -> None:
    stored = _with_jobs_left(prepared)
    made = rebuild(prepared, live_writer=TOLD_APART, swap={"attempts": 2, "small_backlog": 60})
    run_to(made, "verify", RunOptions(max_count_drift_percent=100))
    later = events(230)[len(stored) :]
    with prepared.begin() as connection:
        connection.execute(shop.stored_events.insert(), later)
        _enqueue(connection, *range(len(stored) + 1, len(stored) + len(later) + 1))
    with pytest.raises(SwapNotPossible, match=r"more than swap\.small_backlog events"):
        made.swap()
    _do_jobs(prepared)
    made.swap()
    assert actual(prepared) == expected([*stored, *later])


@pytest.mark.parametrize("database_kind", on("sqlite", "mysql"), indirect=True)
def test_verification_waits_for_jobs_that_are_far_behind(prepared: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, said = _with_jobs_left(prepared), []
    made = rebuild(prepared, live_writer=TOLD_APART, swap={"small_backlog": 10}, log=said.append)
    run_to(made, "replay")
    monkeypatch.setattr(jobs, "PATIENCE", timedelta(milliseconds=50))
    with pytest.raises(SettleTimeout, match=r"more than 10 events \(swap\.small_backlog\)"):
        made.verify()
    assert any("waiting for jobs" in each for each in said)
    _do_jobs(prepared)
    made.verify()
    made.swap()
    assert actual(prepared) == expected(stored)


@pytest.mark.parametrize("database_kind", on("sqlite", "mariadb"), indirect=True)
def test_a_job_that_comes_back_is_not_done_twice(prepared: sa.Engine) -> None:
    stored = events(200)
    with prepared.begin() as connection:
        connection.execute(shop.stored_events.insert(), stored)
    made = rebuild(prepared, live_writer=TOLD_APART, swap={"attempts": 1, "lock_timeout": "10s"})
    run_to(made, "verify")
    with prepared.begin() as connection:
        _enqueue(connection, 7)
    with pytest.raises(SwapNotPossible, match="a job was left for an event that green holds"):
        made.swap()
    assert actual(prepared)["orders"] == {}


@pytest.mark.parametrize("database_kind", on("sqlite", "postgres"), indirect=True)
@pytest.mark.parametrize("sql", ["SELECT 'x'", "SELECT no_such_column FROM jobs", "SELECT NULL", "SELECT 1 UNION ALL SELECT 1"])
def test_what_gives_no_positions_is_refused_by_name(prepared: sa.Engine, sql: str) -> None:
    made = rebuild(prepared, live_writer={**TOLD_APART, "jobs_left": sql})
    with pytest.raises(SpecSqlError, match=r"live_writer\.jobs_left"):
        run_to(made, "replay")
