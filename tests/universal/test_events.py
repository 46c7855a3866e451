"""The generator: the same events each time, only what can follow, and text that breaks careless code."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from include.universal.events import NewEvent, append, append_all, generate
from include.universal.projectors import ALL
from include.universal.schema import create_schema, stored_events

MANY = 30_000


@pytest.fixture(scope="module")
def many() -> list[NewEvent]:
    return list(generate(MANY))


def streams(events: list[NewEvent]) -> dict[str, list[NewEvent]]:
    found: dict[str, list[NewEvent]] = defaultdict(list)
    for event in events:
        found[event.stream].append(event)
    return found


def texts(events: list[NewEvent]) -> set[Any]:
    return {event.payload[name] for event in events for name in ("note", "description", "reason") if name in event.payload}


def test_the_same_seed_gives_the_same_events(many: list[NewEvent]) -> None:
    assert list(generate(2_000)) == many[:2_000]
    assert list(generate(2_000, seed=8)) != many[:2_000]


@pytest.mark.parametrize("count", [0, 1, 999])
def test_there_are_as_many_as_asked_for(count: int) -> None:
    assert len(list(generate(count))) == count


def test_every_handled_type_occurs(many: list[NewEvent]) -> None:
    assert {event.type for event in many} == {each for projector in ALL for each in projector.event_types()}


def test_versions_count_up_in_each_stream(many: list[NewEvent]) -> None:
    for events in streams(many).values():
        assert [event.version for event in events] == list(range(1, len(events) + 1))


def test_streams_are_short_interleaved_and_of_many_users(many: list[NewEvent]) -> None:
    found = streams(many)
    assert 7 < len(many) / len(found) < 14
    assert sum(one.stream != other.stream for one, other in pairwise(many)) > 0.9 * len(many)
    assert len({event["user_id"] for event in (each.payload for each in many) if "user_id" in event}) > 200


def test_time_does_not_run_backwards(many: list[NewEvent]) -> None:
    assert all(one.recorded_at <= other.recorded_at for one, other in pairwise(many))


def test_nothing_follows_a_cancellation(many: list[NewEvent]) -> None:
    for events in streams(many).values():
        kinds = [event.type for event in events]
        assert "SubscriptionCancelled" not in kinds[:-1]
        assert ("SubscriptionCreated" in kinds) == (kinds[0] == "SubscriptionCreated")
        assert kinds.count("SubscriptionCreated") <= 1


def test_items_are_removed_once_and_only_after_they_were_added(many: list[NewEvent]) -> None:
    there: set[tuple[str, str]] = set()
    for event in many:
        if event.type == "SubscriptionItemAdded":
            there.add((event.stream, event.payload["item_id"]))
        elif event.type == "SubscriptionItemRemoved":
            there.remove((event.stream, event.payload["item_id"]))


def test_expense_events_say_what_is_true_of_the_expense(many: list[NewEvent]) -> None:
    there: dict[str, dict[str, Any]] = {}
    for event in many:
        said = event.payload
        if event.type == "ExpenseRecorded":
            assert there.setdefault(said["expense_id"], dict(said)) == said
        elif event.type == "ExpenseRecategorised":
            before = there[said["expense_id"]]
            same = ("user_id", "amount_cents")
            assert [said[name] for name in same] == [before[name] for name in same]
            assert said["from_category"] == before["category"]
            before["category"] = said["to_category"]
        elif event.type == "ExpenseDeleted":
            before = there.pop(said["expense_id"])
            all_of_it = ("user_id", "amount_cents", "category", "spent_on")
            assert [said[name] for name in all_of_it] == [before[name] for name in all_of_it]


@pytest.mark.parametrize("part", ["'", '"', "\t", "\n", "\\", "%", "☕"])
def test_some_texts_hold_what_is_hard_to_quote(many: list[NewEvent], part: str) -> None:
    assert any(part in text for text in texts(many) if text)


def test_some_texts_are_empty_or_missing(many: list[NewEvent]) -> None:
    assert {"", None} <= texts(many)


def test_what_is_stored_is_what_was_generated(engine: sa.Engine) -> None:
    create_schema(engine, read_models=False)
    events = list(generate(1_500))
    assert append_all(engine, events[:-1], batch=400) == len(events) - 1
    with engine.begin() as connection:
        last = append(connection, events[-1])

    columns = stored_events.c
    with engine.connect() as connection:
        stored = connection.execute(sa.select(stored_events).order_by(columns.id)).all()
    assert [
        NewEvent(row.aggregate_uuid, row.aggregate_version, row.event_class, _decoded(row.event_properties), f"{row.created_at}")
        for row in stored
    ] == events
    assert (last.position, last.stream, last.version) == (stored[-1].id, events[-1].stream, events[-1].version)
    assert {row.event_version for row in stored} == {1}


def test_a_version_of_a_stream_is_stored_once(engine: sa.Engine) -> None:
    create_schema(engine, read_models=False)
    (event,) = generate(1)
    append_all(engine, [event])
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        append(connection, event)


def _decoded(payload: Any) -> Any:
    return json.loads(payload) if isinstance(payload, str) else payload
