"""The stages of a replay by themselves, without a database: what becomes of an event that cannot be projected or written."""

from __future__ import annotations

from typing import Any

import pytest

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByAggregate, SelectedKeys
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import HandlerError, TooManyDeadLetters
from projection_rebuild.eventstore.store import ALL_EVENTS, EventFilter
from projection_rebuild.ledger import DeadLetter
from projection_rebuild.model.positions import Place
from projection_rebuild.replay.foreign_reads import ForeignReads
from projection_rebuild.replay.partial import OpenSelection
from projection_rebuild.replay.pipeline.budget import Budget
from projection_rebuild.replay.pipeline.error_policy import DeadLetterPolicy, ErrorPolicy, FailFast
from projection_rebuild.replay.pipeline.fold import Fold
from projection_rebuild.replay.row_tables import WriteError
from projection_rebuild.replay.scope import ReplayScope
from projection_rebuild.rows.types import Rows
from projection_rebuild.spec.replay import ReplaySection
from tests.engine.harness.items import Item, Stored


class Fussy(Projector):
    """Changes a row before it fails."""

    owns = (Item,)

    @handles("Added", "Broken")
    def added(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Item, event.stream, parent="p").amount += 1
        if event.type == "Broken":
            raise ValueError(event.payload)


def event(position: int, event_type: str = "Added") -> Event:
    return Event(position, f"i-{position}", event_type, {})


def fold_of(**limits: Any) -> Fold:
    source: Any = Stored()
    budget = Budget(ReplaySection(**limits), None, None)
    fold = Fold(Fussy, source, ForeignReads(Fussy, source), ReplayScope(), budget, lambda _: None)
    fold.begin(complete=True)
    return fold


def policy_of(fold: Fold, limit: int = 10) -> DeadLetterPolicy:
    return DeadLetterPolicy(fold, [], "Fussy", limit, lambda _: None)


def amounts(fold: Fold) -> dict[str, int]:
    return {item.id: item.amount for item in fold.rows.all(Item)}


class Database:
    """Takes the rows of a batch, unless one of these events is in it."""

    def __init__(self, fold: Fold, policy: ErrorPolicy, *refused: int) -> None:
        self.written: list[tuple[int, Place]] = []
        self._fold, self._policy, self._refused = fold, policy, {f"i-{position}" for position in refused}

    def write(self, events: int, reached: Place) -> None:
        if self._refused & {row[0] for change in self._fold.changes() for row in change.inserted}:
            raise WriteError("refused", "too long")
        self.written.append((events, reached))
        self._policy.committed(reached)
        self._fold.committed(reached)


def test_by_default_an_event_that_cannot_be_projected_ends_the_replay() -> None:
    fold = fold_of()
    policy = FailFast(fold, [DeadLetter("Fussy", 1, "Added", "ValueError")])
    with pytest.raises(HandlerError):
        policy.apply([event(2), event(3, "Broken")])
    assert policy.dead_letters(3) == [] and policy.count == 1


def test_nothing_of_a_dead_letter_stays_in_memory() -> None:
    fold = fold_of()
    policy = policy_of(fold)
    policy.apply([event(1), event(2, "Broken"), event(3)])
    policy.apply([event(4), event(5, "Broken")])
    assert amounts(fold) == {"i-1": 1, "i-3": 1, "i-4": 1}
    assert [letter.position for letter in policy.dead_letters(4)] == [2]
    assert [letter.position for letter in policy.dead_letters(5)] == [2, 5]
    assert policy.recorded == [] and policy.count == 2


def test_an_event_whose_rows_are_refused_is_found_by_halves() -> None:
    fold = fold_of()
    policy = policy_of(fold)
    policy.apply([event(position) for position in range(1, 9)])
    database = Database(fold, policy, 6)
    policy.write(8, 10, database.write)
    # The batch goes beyond its last event, and so does its last half.
    assert database.written == [(4, 4), (1, 5), (1, 6), (2, 10)]
    assert [letter.position for letter in policy.recorded] == [6]


def test_there_is_a_limit_to_dead_letters_of_handlers() -> None:
    policy = policy_of(fold_of(), limit=1)
    with pytest.raises(TooManyDeadLetters, match="more than 1 events, the last one Broken at position 2"):
        policy.apply([event(1, "Broken"), event(2, "Broken")])


def test_there_is_a_limit_to_dead_letters_of_the_database() -> None:
    fold = fold_of()
    policy = policy_of(fold, limit=1)
    policy.apply([event(1), event(2, "Broken")])
    with pytest.raises(TooManyDeadLetters, match=r"the last one Added at position 1 \(too long\)"):
        policy.write(2, 2, Database(fold, policy, 1).write)


@pytest.mark.parametrize(
    ("limits", "events", "enough"),
    [({"batch_events": 5}, 4, False), ({"batch_events": 5}, 5, True), ({"max_rows_in_memory": 2}, 1, True)],
)
def test_what_is_enough_is_told_by_events_and_memory(limits: dict[str, int], events: int, enough: bool) -> None:
    fold = fold_of(**limits)
    fold.apply([event(position) for position in range(3)])
    assert Budget(ReplaySection(**limits), None, None).is_enough(events, fold.rows) is enough


def test_rows_that_take_too_much_memory_are_loaded_again() -> None:
    fold = fold_of(max_rows_in_memory=2)
    fold.apply([event(position) for position in range(3)])
    fold.committed(2)
    assert not fold.rows.is_complete and len(fold.rows) == 0 and fold.wants_indexes


@pytest.mark.parametrize(
    ("after", "upto", "ranges"),
    [
        (None, 5, [(None, 5, "part"), (10, 5, "all")]),
        (3, 20, [(3, 10, "part"), (10, 20, "all")]),
        (10, 20, [(10, 20, "all")]),
    ],
)
def test_up_to_where_the_rows_were_copied_only_events_of_the_part_are_read(
    after: Place, upto: Place, ranges: list[tuple[Place, Place, str]]
) -> None:
    part = EventFilter(streams=("a",))
    selection = OpenSelection(ByAggregate({Item: "id"}), SelectedKeys(["a"]), 10, part)
    assert [*selection.ranges(after, upto)] == [
        (*between, {"part": part, "all": ALL_EVENTS}[which]) for *between, which in ranges
    ]
    assert [*ReplayScope().ranges(after, upto)] == [(after, upto, ALL_EVENTS)]
