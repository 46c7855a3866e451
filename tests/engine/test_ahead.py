"""Rows are loaded before they are asked for, in few statements, and handlers are run for it no more often than needed."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Any

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.replay.foreign_reads import ForeignReads
from projection_rebuild.replay.prefetch import Depths, Prefetcher
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.types import Rows
from tests.engine.harness.items import Item, Stored, Total

SIZE = Depths.ENOUGH


class Counting(Projector):
    """One kind of event asks for one row, one for another one that this names, and one for nothing."""

    owns = (Item, Total)

    def __init__(self) -> None:
        self.handled: Counter[str] = Counter()

    def project(self, event: Event, rows: Rows) -> None:
        self.handled[event.type] += 1
        super().project(event, rows)

    @handles("Grown")
    def grown(self, event: Event, rows: Rows) -> None:
        rows.get(Item, event.payload["id"]).amount += 1

    @handles("Added")
    def added(self, event: Event, rows: Rows) -> None:
        rows.add(Item(event.payload["id"], "p"))

    @handles("Counted")
    def counted(self, event: Event, rows: Rows) -> None:
        rows.get(Total, rows.get(Item, event.payload["id"]).amount, "m").amount += 1


def page(event_type: str, number: int) -> list[Event]:
    return [Event(each, "", event_type, {"id": f"{number}-{each}"}) for each in range(SIZE)]


SOURCE = [Item(f"{number}-{each}", "p", each) for number in range(6) for each in range(SIZE)]
SOURCE_TOTALS = [Total(each, "m") for each in range(SIZE)]


def loading(source: Stored) -> tuple[Counting, Prefetcher, RowBuffer]:
    projector = Counting()
    return projector, Prefetcher(projector, ForeignReads(Counting, source)), RowBuffer(source)


def test_events_of_which_none_asks_for_more_are_looked_at_once() -> None:
    source = Stored(*SOURCE)
    projector, ahead, rows = loading(source)
    ahead.load(page("Grown", 0), rows)
    assert projector.handled == {"Grown": 2 * SIZE}
    ahead.load(page("Grown", 1), rows)
    assert projector.handled == {"Grown": 3 * SIZE + SIZE // Depths.SAMPLE}
    assert source.loads == 2 and len(rows) == 2 * SIZE


def test_events_that_ask_for_nothing_are_hardly_looked_at() -> None:
    projector, ahead, rows = loading(Stored(*SOURCE))
    ahead.load(page("Added", 0), rows)
    ahead.load([*page("Added", 1), *page("Grown", 1)], rows)
    assert projector.handled == {"Added": SIZE + SIZE // Depths.SAMPLE, "Grown": 2 * SIZE}
    assert len(rows) == SIZE


def test_events_that_ask_for_more_are_looked_at_until_they_have_it() -> None:
    source = Stored(*SOURCE, *SOURCE_TOTALS)
    projector, ahead, rows = loading(source)
    for number in range(3):
        ahead.load(page("Counted", number), rows)
        source.loads = 0
        for event in page("Counted", number):
            projector.project(event, rows)
        # All of it was there.
        assert source.loads == 0


def test_a_kind_of_event_that_begins_to_ask_for_more_is_found_out() -> None:
    source = Stored(*SOURCE, *SOURCE_TOTALS)
    projector, ahead, rows = loading(source)
    for total in SOURCE_TOTALS:
        rows.find(Total, total.user, "m")
    for number in range(3):
        ahead.load(page("Counted", number), rows)
    assert projector.handled == {"Counted": 4 * SIZE + 2 * SIZE // Depths.SAMPLE}
    rows.forget()
    ahead.load(page("Counted", 3), rows)
    source.loads = 0
    ahead.load(page("Counted", 4), rows)
    loads: Any = source.loads
    for event in page("Counted", 4):
        projector.project(event, rows)
    assert source.loads == loads


def test_keys_that_the_database_refuses_are_left_to_the_real_pass() -> None:
    class Refusing(Stored):
        def load(self, kind: Any, keys: Any) -> Any:
            raise sa.exc.DataError("SELECT", {}, sqlite3.IntegrityError())

    projector, ahead, rows = loading(Refusing())
    ahead.load(page("Grown", 0), rows)
    assert projector.handled == {"Grown": SIZE} and len(rows) == 0
