"""Rows in memory: what handlers may rely on, with and without a source behind them."""

from __future__ import annotations

from typing import Any

import pytest

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import ProjectorError, RowError
from projection_rebuild.replay.foreign_reads import ForeignReads
from projection_rebuild.rows.buffer import MissLog, RowBuffer
from projection_rebuild.rows.recording import RecordingRows, Unknown
from projection_rebuild.rows.types import Rows, row, row_type
from tests.engine.harness.items import Item, Stored, Total


@row("named", key="name")
class Named:
    amount: int
    name: str


@row("posts", key="id", lookups=["author"])
class Post:
    id: str
    author: str
    tags: list[str]
    extra: dict[str, Any] | None = None


def test_a_new_row_is_an_insert() -> None:
    rows = RowBuffer()
    rows.add(Item("a", "p", 3))
    (change,) = rows.changes()
    assert (change.inserted, change.updated, change.deleted) == ([("a", "p", 3)], [], [])


def test_a_row_that_was_loaded_and_changed_is_an_update() -> None:
    rows = RowBuffer(Stored(Item("a", "p", 3)))
    rows.get(Item, "a").amount = 4
    (change,) = rows.changes()
    assert (change.inserted, change.updated) == ([], [("a", "p", 4)])


def test_a_row_that_was_only_looked_at_is_not_written() -> None:
    rows = RowBuffer(Stored(Item("a", "p", 3)))
    assert rows.get(Item, "a").amount == 3
    assert rows.changes() == []


def test_added_and_removed_between_two_settles_is_nothing() -> None:
    rows = RowBuffer()
    rows.add(Item("a", "p"))
    rows.remove(Item, "a")
    assert rows.changes() == []


def test_removed_and_added_again_is_an_update() -> None:
    rows = RowBuffer(Stored(Item("a", "p", 3)))
    rows.remove(Item, "a")
    rows.add(Item("a", "p", 9))
    (change,) = rows.changes()
    assert (change.inserted, change.updated, change.deleted) == ([], [("a", "p", 9)], [])


def test_removed_stays_removed_after_a_settle() -> None:
    rows = RowBuffer(Stored(Item("a", "p", 3)))
    rows.remove(Item, "a")
    assert rows.changes()[0].deleted == [("a",)]
    rows.settle()
    assert rows.find(Item, "a") is None
    assert rows.changes() == []


def test_removing_what_is_not_there_does_nothing() -> None:
    rows = RowBuffer()
    rows.remove(Item, "a")
    assert rows.changes() == []


def test_after_a_settle_only_later_changes_count() -> None:
    rows = RowBuffer()
    rows.add(Item("a", "p"))
    rows.add(Item("b", "p"))
    rows.settle()
    rows.get(Item, "b").amount = 1
    (change,) = rows.changes()
    assert (change.inserted, change.updated) == ([], [("b", "p", 1)])


def test_keys_of_several_columns() -> None:
    rows = RowBuffer()
    rows.get_or_add(Total, 1, "2026-01", amount=2).amount += 5
    rows.get_or_add(Total, 1, "2026-01").amount += 1
    assert rows.all(Total) == [Total(1, "2026-01", 8)]


def test_a_missing_row_and_a_double_one_are_errors_that_name_the_table() -> None:
    rows = RowBuffer()
    with pytest.raises(RowError, match="items"):
        rows.get(Item, "a")
    rows.add(Item("a", "p"))
    with pytest.raises(RowError, match="items"):
        rows.add(Item("a", "q"))


def test_a_lookup_finds_rows_in_memory_and_in_the_source_in_the_order_of_their_keys() -> None:
    rows = RowBuffer(Stored(Item("c", "p"), Item("b", "p"), Item("x", "other")))
    rows.add(Item("a", "p"))
    rows.remove(Item, "c")
    assert [each.id for each in rows.where(Item, parent="p")] == ["a", "b"]


def test_removed_rows_leave_the_lookups_and_the_memory() -> None:
    misses = MissLog()
    rows = RowBuffer(Stored(), complete=True, misses=misses)
    for number in range(20):
        rows.add(Item(f"{number}", "p"))
        rows.settle()
        assert [each.id for each in rows.where(Item, parent="p")] == [f"{number}"]
        rows.remove(Item, f"{number}")
        rows.settle()
    assert rows.where(Item, parent="p") == []
    assert len(rows) == 0 and not rows._table(Item).index["parent"]
    assert misses.missed == set()


def test_a_row_that_comes_back_with_another_lookup_column_is_found_by_that_one_only() -> None:
    rows = RowBuffer(Stored(Item("a", "p")))
    rows.where(Item, parent="p")
    rows.remove(Item, "a")
    rows.add(Item("a", "q"))
    assert rows.where(Item, parent="p") == []
    assert [each.id for each in rows.where(Item, parent="q")] == ["a"]


def test_what_is_known_to_be_missing_takes_memory_too() -> None:
    rows = RowBuffer(Stored(Item("a", "p"), Item("b", "p")))
    rows.where(Item, parent="q")
    rows.find(Item, "c")
    assert len(rows) == 2
    rows.get(Item, "a")
    rows.remove(Item, "a")
    assert len(rows) == 3
    for key in ("a", "c"):
        rows.get_or_add(Item, key, parent="r")
    assert len(rows) == 3
    rows.forget()
    assert len(rows) == 0


def test_a_lookup_that_is_not_declared_is_refused() -> None:
    with pytest.raises(RowError, match="lookups"):
        RowBuffer().where(Item, amount=1)


@pytest.mark.parametrize("name", ["id", "parent"])
@pytest.mark.parametrize("kept", ["loaded", "new", "written"])
def test_changing_a_key_or_a_lookup_column_is_refused(name: str, kept: str) -> None:
    rows = RowBuffer(Stored(Item("a", "p")), complete=kept != "loaded")
    if kept != "loaded":
        rows.add(Item("a", "p"))
    if kept == "written":
        rows.settle()
    setattr(rows.get(Item, "a"), name, "z")
    with pytest.raises(RowError, match="remove the row and add another"):
        rows.changes()


def test_changing_a_part_of_a_key_of_a_new_row_is_refused() -> None:
    rows = RowBuffer()
    rows.add(Total(1, "2026-01"))
    rows.get(Total, 1, "2026-01").month = "2026-02"
    with pytest.raises(RowError, match="user, month"):
        rows.changes()


def test_what_was_touched_is_known_until_it_is_written() -> None:
    rows = RowBuffer(Stored(), complete=True)
    for key in ("a", "b", "c"):
        rows.add(Item(key, "p"))
    rows.remove(Item, "b")
    rows.find(Item, "d")
    assert [rows.holds(Item, (key,)) for key in ("a", "b", "c", "d")] == [True, False, True, False]
    assert dict(rows.touched_values(lambda kind: "parent")) == {row_type(Item): {"p"}}
    rows.settle()
    rows.get(Item, "a").amount = 1
    rows.remove(Item, "c")
    assert [rows.holds(Item, (key,)) for key in ("a", "b", "c")] == [True, False, False]
    assert dict(rows.touched_values(lambda kind: "id")) == {row_type(Item): {"a", "c"}}


@pytest.mark.parametrize("complete", [True, False])
def test_what_was_done_since_the_last_settle_can_be_taken_back(complete: bool) -> None:
    source = Stored(Post("stored", "ann", ["x"])) if not complete else Stored()
    rows = RowBuffer(source, complete=complete)
    rows.add(Post("new", "bob", []))
    rows.undo()
    assert rows.changes() == [] and rows.find(Post, "new") is None and rows.where(Post, author="bob") == []
    rows.add(Post("kept", "ann", ["a"]))
    rows.add(Post("gone", "ann", []))
    rows.settle()
    rows.get(Post, "kept").tags.append("b")
    rows.get(Post, "kept").author = "bob"
    rows.remove(Post, "gone")
    rows.add(Post("more", "ann", []))
    if not complete:
        rows.get(Post, "stored").tags.clear()
    rows.undo()
    assert rows.changes() == []
    stored = [] if complete else [Post("stored", "ann", ["x"])]
    assert rows.where(Post, author="ann") == [Post("gone", "ann", []), Post("kept", "ann", ["a"]), *stored]
    assert rows.where(Post, author="bob") == [] and rows.find(Post, "more") is None
    rows.remove(Post, "kept")
    rows.add(Post("more", "ann", []))
    (change,) = rows.changes()
    assert (change.inserted, change.deleted) == ([("more", "ann", [], None)], [("kept",)])


def test_what_is_taken_back_is_looked_up_again() -> None:
    rows = RowBuffer(Stored(Item("a", "p", 7)))
    # Without a look, as the database would refuse it at the commit.
    rows.add(Item("a", "p"))
    rows.preload_where(row_type(Item), "parent", ["p"])
    rows.undo()
    assert rows.where(Item, parent="p") == [Item("a", "p", 7)]
    rows = RowBuffer(Stored(Item("a", "p", 7)))
    rows.add(Item("a", "p"))
    rows.remove(Item, "a")
    rows.undo()
    assert rows.find(Item, "a") == Item("a", "p", 7)


def test_a_key_may_stand_anywhere_among_the_columns() -> None:
    rows = RowBuffer()
    assert rows.get_or_add(Named, "n", amount=2) == Named(2, "n")
    assert rows.get_or_add(Named, "n", amount=3) == Named(2, "n")
    for key in ((), ("n", 1)):
        with pytest.raises(RowError, match="identified by name"):
            rows.get_or_add(Named, *key)


def test_preloading_asks_once_for_many_keys_and_remembers_what_is_missing() -> None:
    source = Stored(Item("a", "p"), Item("b", "p"))
    rows = RowBuffer(source)
    rows.preload(row_type(Item), [("a",), ("b",), ("c",)])
    assert rows.get(Item, "a").id == "a"
    assert rows.find(Item, "c") is None
    assert source.loads == 1


def test_a_buffer_over_an_empty_source_asks_nothing() -> None:
    source = Stored()
    rows = RowBuffer(source, complete=True)
    rows.get_or_add(Total, 1, "2026-01")
    assert source.loads == 0
    rows.settle()
    rows.forget()
    rows.find(Total, 1, "2026-01")
    assert source.loads == 1


def test_a_probe_learns_keys_and_changes_nothing() -> None:
    source = Stored(Item("a", "p", 1), Total(1, "m", 1))
    rows = RowBuffer(source)
    probe = RecordingRows(rows)
    for key in ("a", "b"):
        probe.next_event()
        with pytest.raises(Unknown):
            probe.get(Item, key)
    assert probe.load_wanted()
    assert source.loads == 1
    probe.next_event()
    probe.get(Item, "a").amount = 99
    probe.remove(Item, "a")
    assert not probe.load_wanted()
    assert rows.get(Item, "a").amount == 1
    assert rows.changes() == []


def test_a_probe_looks_rows_up_as_well() -> None:
    source = Stored(Item("a", "p"), Item("b", "p"))
    rows = RowBuffer(source)
    probe = RecordingRows(rows)
    with pytest.raises(Unknown):
        probe.where(Item, parent="p")
    probe.load_wanted()
    assert [each.id for each in probe.where(Item, parent="p")] == ["a", "b"]
    assert source.loads == 1


def test_a_key_must_be_a_column() -> None:
    with pytest.raises(ProjectorError, match="nonsense"):

        @row("t", key="nonsense")
        class _Wrong:
            id: str


@row("Sales", key="id", lookups=["seller"], columns={"id": "Sale Id", "seller": "Sold %s by"})
class Sale:
    id: str
    seller: str
    amount: int = 0


def test_handlers_see_attributes_and_the_database_sees_columns() -> None:
    kind = row_type(Sale)
    assert (kind.columns, kind.key) == (("Sale Id", "Sold %s by", "amount"), ("Sale Id",))
    assert kind.types == {"Sale Id": str, "Sold %s by": str, "amount": int}
    assert kind.column("seller") == "Sold %s by"
    rows = RowBuffer(Stored(Sale("a", "s", 1), Sale("b", "s", 2)))
    rows.get_or_add(Sale, "c", seller="s").amount = 3
    rows.get(Sale, "a").amount = 4
    assert [each.id for each in rows.where(Sale, seller="s")] == ["a", "b", "c"]
    (change,) = rows.changes()
    assert (change.inserted, change.updated) == ([("c", "s", 3)], [("a", "s", 4)])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"nobody": "x"}, "'nobody' is not among its columns"),
        ({"id": "amount"}, "id and amount are both the column 'amount'"),
        ({"id": ""}, "give the column's name"),
        ({"id": 3}, "give the column's name"),
    ],
)
def test_columns_that_are_named_wrongly_are_refused(columns: Any, words: str) -> None:
    with pytest.raises(ProjectorError, match=words):

        @row("t", key="id", columns=columns)
        class _Wrong:
            id: str
            amount: int


def test_a_plain_class_is_no_row() -> None:
    with pytest.raises(ProjectorError, match="@row"):
        row_type(str)


def test_a_change_within_a_column_is_a_change() -> None:
    rows = RowBuffer(Stored(Post("a", "p", ["x"], {"seen": {"by": [1]}}), Post("b", "p", [])))
    rows.get(Post, "a").tags.append("y")
    assert [change.updated for change in rows.changes()] == [[("a", "p", ["x", "y"], {"seen": {"by": [1]}})]]
    rows.settle()
    for post in rows.where(Post, author="p"):
        if post.extra:
            post.extra["seen"]["by"].append(2)
    assert [change.updated for change in rows.changes()] == [[("a", "p", ["x", "y"], {"seen": {"by": [1, 2]}})]]
    rows.settle()
    assert rows.get_or_add(Post, "a").tags == ["x", "y"] and rows.changes() == []


def test_a_probe_changes_nothing_within_a_column_or_an_event() -> None:
    rows, given = RowBuffer(Stored(Post("a", "p", ["x"]))), ["z"]
    rows.preload(row_type(Post), [("a",), ("c",)])
    rows.preload_where(row_type(Post), "author", ["p"])
    probe = RecordingRows(rows)
    probe.get(Post, "a").tags.append("y")
    probe.where(Post, author="p")[0].tags.append("y")
    added = Post("b", "q", given)
    probe.add(added)
    added.tags.append("y")
    probe.get_or_add(Post, "c", author="q", tags=given).tags.append("y")
    assert rows.get(Post, "a").tags == ["x"] and given == ["z"]


class Tagger(Projector):
    reads = (Post,)

    @handles("Tagged")
    def tagged(self, event: Event, rows: Rows) -> None:
        rows.get(Post, event.stream).tags.append("y")


def test_a_change_within_a_column_that_is_only_read_is_refused() -> None:
    source = Stored(Post("a", "p", ["x"]))
    with pytest.raises(RowError, match="posts, which its projector only `reads`"):
        ForeignReads(Tagger, source).of(Tagger()).project(Event(position=1, stream="a", type="Tagged", payload={}), RowBuffer())
    assert source.rows[Post, ("a",)][2] == ["x"]
