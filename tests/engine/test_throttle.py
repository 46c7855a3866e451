"""Replays that rest or wait: by the wish of a person, or because the databases have enough to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import Interrupted, RebuildError, SpecError, StepOrderError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.pipeline import feed
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.traffic import throttle as throttling
from tests.engine.harness import shop
from tests.engine.harness.clocks import StandingClock
from tests.engine.harness.databases import marked
from tests.engine.harness.driver import run_to, run_to_end
from tests.engine.harness.faults import until
from tests.engine.harness.shop import actual, events, expected
from tests.engine.harness.specs import PROJECTORS, rebuild

LOOKS = {"throttle": {"look_every": "10ms"}, "replay": {"batch_events": 50}}


class Replay:
    """A run with a replay that goes on in a thread."""

    def __init__(self, engine: sa.Engine, **changes: Any) -> None:
        self.lines: list[str] = []
        self.run = rebuild(engine, log=self.lines.append, **(LOOKS | changes))
        self.engine = engine
        self.stopped = threading.Event()
        self.ended: BaseException | Any = None
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        worker = rebuild(self.engine, log=self.lines.append, **self._changes())
        try:
            self.ended = worker.replay("OrderLineProjector", stopped=self.stopped.is_set)
        except BaseException as error:
            self.ended = error
        finally:
            worker.close()

    def _changes(self) -> dict[str, Any]:
        found = self.run._context.spec
        return {"throttle": found.throttle.model_dump(mode="json"), "replay": found.replay.model_dump(mode="json")}

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Within it the replay is at work; at its end it has to end as well."""
        self._thread.start()
        try:
            yield
        finally:
            self._thread.join(600)
            assert not self._thread.is_alive()

    def said(self, words: str) -> bool:
        return any(words in line for line in self.lines)


@pytest.fixture
def cloned(new_database: Any) -> Iterator[Callable[..., Replay]]:
    """A run with its green tables, over 2,000 events; on SQLite unless the test says otherwise."""
    made: list[Replay] = []

    def make(kind: str = "sqlite", **changes: Any) -> Replay:
        engine = sa.create_engine(new_database(kind))
        shop.fill(engine, events(2_000))
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE behind (seconds int)")
            connection.exec_driver_sql("INSERT INTO behind VALUES (0)")
        made.append(Replay(engine, **changes))
        run_to(made[-1].run, "clone")
        return made[-1]

    yield make
    for each in made:
        each.run.close()
        each.engine.dispose()


def waits(made: Rebuild) -> list[str]:
    return [each.why for each in made.waits()]


def check(replay: Replay) -> None:
    assert waits(replay.run) == []
    run_to_end(replay.run, PROJECTORS)
    assert actual(replay.engine) == expected(events(2_000))


def test_a_paused_replay_stands_still_and_goes_on_when_it_is_resumed(cloned: Callable[..., Replay]) -> None:
    replay = cloned()
    replay.run.pause(by="anna", reason="billing runs")
    with replay.going_on():
        until(lambda: waits(replay.run) == ["paused by anna: billing runs"])
        (wait,) = replay.run.waits()
        assert wait.worker == "OrderLineProjector"
        until(lambda: replay.run.waits()[0].looked_at > wait.looked_at)
        assert replay.run.report().replays[2].events == 0
        replay.run.resume(by="anna")
    assert replay.ended.position == 2_000
    assert replay.said("OrderLineProjector: waiting, paused by anna") and replay.said("OrderLineProjector: going on after")
    check(replay)


def test_a_pause_in_the_middle_finds_everything_committed(cloned: Callable[..., Replay], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAGE_EVENTS", 200)
    replay = cloned(replay={"batch_events": 100_000, "commit_every": "1h"})
    worker = replay.run
    looks = 0

    def stopped() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            worker.pause(by="anna")
        return bool(worker.waits())

    with pytest.raises(Interrupted, match="rested"):
        worker.replay("OrderLineProjector", stopped=stopped)
    assert worker.report().replays[2].position > 0
    worker.resume(by="anna")
    worker.replay("OrderLineProjector")
    check(replay)


@pytest.mark.parametrize("kind", marked("sqlite", "postgres", "mariadb", "mysql"))
def test_a_look_costs_no_connection(cloned: Callable[..., Replay], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(feed, "PAGE_EVENTS", 20)
    replay, made = cloned(kind, throttle={"look_every": "0s"}, replay={"batch_events": 100_000}), list[int]()
    sa.event.listen(replay.engine, "connect", lambda *_: made.append(1))
    worker = rebuild(replay.engine, throttle={"look_every": "0s"}, replay={"batch_events": 100_000})
    worker.replay("OrderLineProjector")
    worker.close()
    # Between two looks a page is read, and reading ends before its statement does. That is no reason to connect anew.
    assert len(made) < 10
    check(replay)


def test_a_paused_replay_can_be_stopped(cloned: Callable[..., Replay]) -> None:
    replay = cloned()
    replay.run.pause(by="anna")
    with replay.going_on():
        until(lambda: waits(replay.run))
        replay.stopped.set()
    assert isinstance(replay.ended, Interrupted)
    replay.run.resume(by="anna")
    replay.run.replay("OrderLineProjector")
    check(replay)


def test_a_paused_replay_ends_with_its_run(cloned: Callable[..., Replay]) -> None:
    replay = cloned()
    replay.run.pause(by="anna")
    with replay.going_on():
        until(lambda: waits(replay.run))
        replay.run.abandon()
    assert isinstance(replay.ended, StepOrderError)


def test_above_twice_a_limit_a_replay_waits_and_goes_on_by_itself(cloned: Callable[..., Replay]) -> None:
    replay = cloned(throttle={"look_every": "10ms", "max_replica_lag": "2s", "replica_lag": "SELECT seconds FROM behind"})

    def lag(seconds: int) -> None:
        with replay.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE behind SET seconds = {seconds}")

    lag(9)
    with replay.going_on():
        until(lambda: waits(replay.run) == ["replica lag 9 s, more than 2 s"])
        lag(7)
        until(lambda: waits(replay.run) == ["replica lag 7 s, more than 2 s"])
        lag(1)
    assert replay.ended.position == 2_000
    check(replay)


def test_just_above_a_limit_a_replay_rests_as_long_as_it_works(cloned: Callable[..., Replay]) -> None:
    replay = cloned(throttle={"look_every": "10ms", "max_replica_lag": "2s", "replica_lag": "SELECT 3"})
    replay.run.replay("OrderLineProjector")
    assert replay.said("OrderLineProjector: resting for") and not replay.said("waiting")
    check(replay)


def test_a_rest_is_as_long_as_the_work_since_the_last_look(
    cloned: Callable[..., Replay], monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = cloned(throttle={"look_every": "100ms", "max_replica_lag": "2s", "replica_lag": "SELECT seconds FROM behind"})
    clock = StandingClock()
    monkeypatch.setattr(throttling, "time", clock)
    context = replay.run._context
    with context.dialect.connect() as connection:
        throttle = throttling.Throttle(context, "worker", connection, lambda: False)
        for _ in range(3):
            clock.sleep(60)
            assert throttle.look() is None
        connection.exec_driver_sql("UPDATE behind SET seconds = 3")
        for _ in range(2):
            clock.sleep(5)
            verdict, began = throttle.look(), clock.now
            assert verdict is not None
            throttle.rest(verdict)
            assert clock.now - began == pytest.approx(5, abs=0.11)
    assert replay.said("worker: resting for 5.0 s, replica lag 3 s")


def test_limits_can_be_changed_while_it_waits(cloned: Callable[..., Replay]) -> None:
    replay = cloned(throttle={"look_every": "10ms", "max_replica_lag": "2s", "replica_lag": "SELECT 9"})
    with replay.going_on():
        until(lambda: waits(replay.run) == ["replica lag 9 s, more than 2 s"])
        replay.run.set_limits({"max_replica_lag": "3s"}, by="anna")
        until(lambda: waits(replay.run) == ["replica lag 9 s, more than 3 s"])
        assert replay.run.limits().max_replica_lag.total_seconds() == 3
        replay.run.set_limits({"max_replica_lag": None}, by="anna")
    assert replay.ended.position == 2_000
    replay.run.set_limits(None, by="anna")
    assert replay.run.limits() == replay.run._context.spec.throttle
    replay.run.set_limits({"max_replica_lag": "1h"}, by="anna")
    check(replay)


def test_its_own_commits_tell_when_the_database_is_slow(cloned: Callable[..., Replay], monkeypatch: pytest.MonkeyPatch) -> None:
    replay = cloned(throttle={"look_every": "10ms", "max_commit_latency": "0ms"})
    with replay.going_on():
        until(lambda: any("commit latency" in why for why in waits(replay.run)))
        replay.run.set_limits({"max_commit_latency": "1h"}, by="anna")
    assert replay.ended.position == 2_000
    check(replay)


BUSY = {"postgres": "SELECT pg_sleep(30)", "mariadb": "SELECT sleep(30)", "mysql": "SELECT sleep(30)"}


@pytest.mark.parametrize("kind", marked(*BUSY))
def test_a_replay_waits_while_others_are_at_work(cloned: Callable[..., Replay], kind: str) -> None:
    replay = cloned(kind, throttle={"look_every": "10ms", "max_active_sessions": 0})
    busy = sa.create_engine(replay.engine.url, poolclass=sa.NullPool)
    sessions: list[int] = []

    def work() -> None:
        with busy.connect() as connection:
            own = "pg_backend_pid()" if kind == "postgres" else "connection_id()"
            sessions.append(connection.exec_driver_sql(f"SELECT {own}").scalar_one())
            try:
                connection.exec_driver_sql(BUSY[kind])
            except sa.exc.DBAPIError:
                connection.invalidate()

    worker = threading.Thread(target=work)
    worker.start()
    until(lambda: sessions)
    with replay.going_on():
        until(lambda: waits(replay.run) == ["active sessions 1, more than 0"])
        replay.run._context.dialect.cancel(sessions[0])
        worker.join()
    assert replay.ended.position == 2_000


def test_wrong_limits_are_refused_and_change_nothing(cloned: Callable[..., Replay]) -> None:
    replay = cloned()
    with pytest.raises(SpecError, match="max_lag"):
        replay.run.set_limits({"max_lag": "3s"}, by="anna")
    with pytest.raises(SpecError, match="max_replica_lag"):
        replay.run.set_limits({"max_replica_lag": 3}, by="anna")
    assert replay.run.notes() == {}


def test_a_lag_that_cannot_be_asked_is_an_error_without_a_retry(cloned: Callable[..., Replay]) -> None:
    replay = cloned(throttle={"look_every": "10ms", "max_replica_lag": "2s", "replica_lag": "SELECT nothing FROM nowhere"})
    with pytest.raises(RebuildError, match=r"throttle\.replica_lag") as caught:
        replay.run.replay("OrderLineProjector")
    assert not caught.value.retryable


def test_a_run_that_has_switched_is_not_paused(cloned: Callable[..., Replay]) -> None:
    replay = cloned()
    run_to_end(replay.run, PROJECTORS)
    with pytest.raises(StepOrderError, match="switch has begun"):
        replay.run.pause(by="anna")


def test_a_new_beginning_is_not_paused(cloned: Callable[..., Replay]) -> None:
    replay = cloned()
    replay.run.pause(by="anna")
    run_to(replay.run, "replay", RunOptions())
    assert waits(replay.run) == []


def test_limits_that_nobody_can_watch_are_a_note_of_the_plan(cloned: Callable[..., Replay]) -> None:
    replay = cloned(throttle={"max_replica_lag": "2s", "max_active_sessions": 5})
    notes = [str(each) for each in replay.run.plan(RunOptions(dry_run=True)).findings]
    assert sum("throttle" in each for each in notes) == 2
