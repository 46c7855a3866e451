"""When a replay commits, what it keeps in memory, and what is left if it ends early."""

from __future__ import annotations

import gc
import re
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import HandlerError, Interrupted
from projection_rebuild.eventstore import store as event_store
from projection_rebuild.eventstore.store import FIRST_PAGE
from projection_rebuild.ledger import Checkpoints
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.memory import Memory, collector_off
from projection_rebuild.replay.pipeline import feed, loop, pipeline, writer
from projection_rebuild.run import progress
from projection_rebuild.traffic import throttle
from tests.engine.harness import shop
from tests.engine.harness.clocks import StandingClock
from tests.engine.harness.driver import run_to, run_to_end
from tests.engine.harness.shop import actual, events, expected
from tests.engine.harness.specs import PROJECTORS, rebuild

TOTALS = ["tests.engine.harness.shop:CustomerTotalProjector"]


@pytest.fixture
def engine(sqlite: sa.Engine) -> sa.Engine:
    """What a replay decides for itself does not depend on the database."""
    return sqlite


@pytest.fixture
def stored(engine: sa.Engine) -> list[dict[str, Any]]:
    """A store with 5,000 events over empty read models: a few pages for each projector."""
    made = events(5_000)
    shop.fill(engine, made)
    return made


def commits(made: Rebuild, projector: str, **given: Any) -> list[int]:
    """The positions of a projector's checkpoints while it is replayed."""
    seen: list[int] = []
    advance = Checkpoints.advance

    def noted(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["position"])
        return advance(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "advance", noted)
        made.replay(projector, **given)
    return seen


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        ({}, 1, 1),
        ({"batch_events": 500}, 3, 12),
        ({"commit_every": "0s"}, 1, 1),
        ({"max_rows_in_memory": 100}, 2, 5),
        ({"batch_events": 500, "max_memory": 1}, 3, 12),
    ],
)
def test_a_replay_commits_when_it_is_enough(
    engine: sa.Engine, stored: list[dict[str, Any]], settings: dict[str, Any], least: int, most: int
) -> None:
    made = rebuild(engine, replay=settings)
    run_to(made, "clone")
    seen = commits(made, "OrderLineProjector")
    assert least <= len(seen) <= most and seen[-1] == 5_000 and seen == sorted(set(seen))
    run_to_end(made, PROJECTORS)
    assert actual(engine) == expected(stored)


def written(made: Rebuild, projector: str, clock: StandingClock, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What a replay does to green: each statement that reads or writes its rows, and with how many of them."""
    done: list[tuple[str, int]] = []

    def note(connection: Any, cursor: Any, statement: str, values: Any, context: Any, many: bool) -> None:
        if re.match(r"(SELECT|INSERT|UPDATE|DELETE)\b.*_rebuild\b", statement, re.DOTALL) and "sqlite_" not in statement:
            done.append((statement, len(values) if many else 1))

    for module in (loop, pipeline, writer, throttle, progress):
        monkeypatch.setattr(module, "time", clock)
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        made.replay(projector)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    return done


@pytest.mark.parametrize("settings", [{}, {"batch_events": 700}])
def test_what_a_replay_does_depends_on_no_clock(
    new_database: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(feed, "PAGE_EVENTS", 100)
    seen, made = [], []
    for jump in (0.0, 3_600.0):
        store = sa.create_engine(new_database("sqlite"))
        shop.fill(store, events(1_500))
        run = rebuild(store, projectors=TOTALS, replay=settings)
        run_to(run, "clone")
        with monkeypatch.context() as patched:
            seen.append(written(run, "CustomerTotalProjector", StandingClock(jump), patched))
        with store.connect() as connection:
            made.append(connection.exec_driver_sql("SELECT * FROM customer_totals_rebuild ORDER BY 1").all())
    assert seen[0] == seen[1] and made[0] == made[1] != []
    if not settings:
        # What is new is inserted once, and nothing is read or changed.
        assert [statement[:6] for statement, _ in seen[0]] == ["INSERT"]


def test_one_writer_is_not_kept_from_writing_for_long(
    engine: sa.Engine, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rebuild(engine, replay={"batch_events": 5_000})
    monkeypatch.setattr(type(dialect_for(engine)), "rows_per_transaction", 500)
    run_to(made, "clone")
    assert len(commits(made, "OrderLineProjector")) > 1


def test_a_stopped_replay_has_committed_all_that_it_did(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine, replay={})
    run_to(made, "clone")
    looks = iter([False, True])
    with pytest.raises(Interrupted):
        made.replay("OrderLineProjector", stopped=lambda: next(looks))
    assert made.report().replays[2].events == FIRST_PAGE
    handled = sum(each["event_class"] in shop.OrderLineProjector.event_types() for each in stored)
    assert made.replay("OrderLineProjector").events == handled - FIRST_PAGE


def test_pages_hold_as_many_events_as_their_payloads_allow(
    engine: sa.Engine, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = rebuild(engine)._context.store

    def pages(*types: str) -> list[int]:
        return [len(events) for events, _ in store.pages(0, 10_000, types, size=2_000) if events]

    everything = list({each["event_class"] for each in stored})
    first, *others = pages(*everything)
    assert first == FIRST_PAGE and max(others) == 2_000 and first + sum(others) == 5_000
    # Known by now.
    assert pages(*everything)[0] == 2_000
    large = {"aggregate_uuid": "x", "event_class": "Large", "event_properties": {"text": "x" * 10_000}}
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), [large] * 300)
    monkeypatch.setattr(event_store, "PAGE_TEXT", 500_000)
    first, *others = pages("Large")
    assert first == FIRST_PAGE and 40 <= max(others) <= 50 and first + sum(others) == 300
    monkeypatch.setattr(event_store, "PAGE_TEXT", 5)
    assert sum(pages("Large")) == 300


def test_rows_that_are_looked_up_in_green_are_found_by_an_index(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    def indexes() -> int:
        return len(sa.inspect(engine).get_indexes("order_lines_rebuild"))

    made = rebuild(engine, replay={"batch_events": 500})
    run_to(made, "clone")
    before, looks = indexes(), iter([False, False, True, True])
    for expected_indexes in (before, before + 1):
        with pytest.raises(Interrupted):
            made.replay("OrderLineProjector", stopped=lambda: next(looks))
        assert indexes() == expected_indexes
    bounded = rebuild(engine, replay={"batch_events": 500, "max_rows_in_memory": 10})
    run_to(bounded, "clone")
    assert indexes() == before
    looks = iter([False, False, True])
    with pytest.raises(Interrupted):
        bounded.replay("OrderLineProjector", stopped=lambda: next(looks))
    assert indexes() == before + 1


def test_what_came_before_a_failing_event_is_committed_whatever_was_in_memory(
    engine: sa.Engine, stored: list[dict[str, Any]]
) -> None:
    said = {"customer": 1, "line": 1, "product": "p", "price": "no number", "options": {}}
    poison = {"aggregate_uuid": "x", "event_class": "LineAdded", "event_properties": said}
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), [poison])
    made = rebuild(engine, replay={})
    run_to(made, "clone")
    with pytest.raises(HandlerError, match="5001"):
        made.replay("OrderLineProjector")
    assert made.report().replays[2].position == 5_000
    assert actual(engine, "_rebuild")["order_lines"] == expected(stored)["order_lines"]


def test_rows_are_counted_once_their_size_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = [0.0]

    class Process:
        def memory_info(self) -> Any:
            return SimpleNamespace(rss=1024 * 1024 * (100 + taken[0]))

    monkeypatch.setattr("psutil.Process", Process)
    memory = Memory(limit=10)
    assert not memory.is_full(1_000)
    taken[0] = 9
    assert memory.is_full(2_000)
    # The system has not been given anything back; the next rows use the same room.
    assert not memory.is_full(1_999)
    assert memory.is_full(2_000)


def test_the_collector_is_as_it_was() -> None:
    with collector_off():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_a_large_batch_tells_how_far_it_is(
    engine: sa.Engine, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY", 0.0)
    lines: list[str] = []
    made = rebuild(engine, log=lines.append, replay={"batch_events": 1_000_000})
    run_to(made, "clone")
    lines.clear()
    positions = commits(made, "OrderProjector")
    shares = [float(line.split()[1].rstrip("%,")) for line in lines if "%," in line]
    assert len(positions) == 1
    assert len(shares) > 2 and shares == sorted(shares) and 0 < shares[0] < 100 == shares[-1]
