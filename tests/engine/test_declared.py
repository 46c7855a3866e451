"""Declared tables: what a declaration means at each event, what it refuses, and that the example's are its handlers' equals."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import islice
from typing import Any

import pytest

from include.universal.declared import DECLARED
from include.universal.events import generate
from include.universal.projectors import ALL
from projection_rebuild.authoring import Event, Projector, Rows, handles, row
from projection_rebuild.authoring.declared import (
    Entity,
    Groups,
    case,
    coalesce,
    concat,
    current,
    event,
    first,
    last,
    lower,
    maximum,
    minimum,
    prefix,
    truncate,
)
from projection_rebuild.errors import ProjectorError, RowError
from projection_rebuild.rows.buffer import RowBuffer

Declare = Callable[[], Any]


@row("accounts", key="id", lookups=["owner"])
class Account:
    id: str
    owner: str
    note: str | None = None
    visits: int = 0
    balance: Decimal = Decimal(0)
    ratio: float = 0.0
    active: bool = True


@row("days", key=("owner", "day"))
class Day:
    owner: str
    day: str
    count: int = 0
    total: Decimal = Decimal(0)


@row("peaks", key="owner")
class Peak:
    owner: str
    events: int = 0
    most: int | None = None
    least: int | None = None
    opened: str | None = None
    seen: str | None = None


def projected(projector: type[Projector], *events: tuple[str, dict[str, Any]]) -> RowBuffer:
    """The rows after some events of the stream ``s``."""
    rows, made = RowBuffer(), projector()
    for position, (event_type, payload) in enumerate(events, 1):
        made.project(Event(position, "s", event_type, payload, f"2024-05-17 08:30:{position:02}"), rows)
    return rows


def declared(*tables: Any) -> type[Projector]:
    return type("Made", (Projector,), {"declares": tables})


def one(rows: RowBuffer, row_class: type, *key: Any) -> Any:
    found = rows.find(row_class, *key)
    assert found is not None
    return found


def opened(**columns: object) -> Entity:
    return Entity(Account, key=event.stream).insert("Opened", **{"owner": event.owner, **columns})


def value_of(name: str, expression: object, payload: dict[str, Any]) -> Any:
    rows = projected(declared(opened(**{name: expression})), ("Opened", {"owner": "Ann", **payload}))
    return getattr(one(rows, Account, "s"), name)


def test_an_entity_is_inserted_updated_counted_and_deleted() -> None:
    table = (
        opened()
        .update("Visited", visits=current.visits + 1, note=event.note)
        .update("Paid", balance=current.balance - event.amount)
        .delete("Closed")
    )
    steps: list[tuple[str, dict[str, Any]]] = [
        ("Opened", {"owner": "Ann"}),
        ("Visited", {"note": "x"}),
        ("Visited", {"note": None}),
        ("Paid", {"amount": 3}),
    ]
    account = one(projected(declared(table), *steps), Account, "s")
    assert (account.owner, account.visits, account.note, account.balance) == ("Ann", 2, None, -3)
    assert projected(declared(table), *steps, ("Closed", {})).find(Account, "s") is None


def test_an_update_of_no_row_and_a_second_insert_are_errors_as_in_handlers() -> None:
    table = declared(opened().update("Visited", visits=current.visits + 1))
    with pytest.raises(RowError):
        projected(table, ("Visited", {}))
    with pytest.raises(RowError):
        projected(table, ("Opened", {"owner": "a"}), ("Opened", {"owner": "b"}))


def test_a_value_that_cannot_be_made_leaves_the_row_as_it_was() -> None:
    table = declared(opened().update("Renamed", note=event.note, owner=event.missing))
    rows = projected(table, ("Opened", {"owner": "a"}))
    with pytest.raises(KeyError):
        table().project(Event(2, "s", "Renamed", {"note": "new"}), rows)
    assert one(rows, Account, "s").note is None


def test_an_upsert_makes_the_row_or_replaces_its_values() -> None:
    table = declared(Entity(Account, key=event.id).upsert("Set", owner=event.owner, note=event.field("note", default=None)))
    rows = projected(table, ("Set", {"id": "a", "owner": "x", "note": "n"}), ("Set", {"id": "a", "owner": "y"}))
    assert (one(rows, Account, "a").owner, one(rows, Account, "a").note) == ("y", None)


def test_all_rows_of_a_parent_are_deleted() -> None:
    table = declared(Entity(Account, key=event.id).insert("Opened", owner=event.stream).delete_where("Left", owner=event.stream))
    rows = projected(table, ("Opened", {"id": "a"}), ("Opened", {"id": "b"}), ("Left", {}))
    assert rows.find(Account, "a") is None and rows.find(Account, "b") is None


def test_a_group_has_no_row_while_its_sums_are_zero() -> None:
    table = declared(
        Groups(Day)
        .add("Spent", owner=event.stream, day=event.day, count=1, total=event.amount)
        .subtract("Returned", owner=event.stream, day=event.day, count=1, total=event.amount)
    )
    spent, returned = ({"day": "d", "amount": 5}, {"day": "d", "amount": 3})
    rows = projected(table, ("Spent", spent), ("Returned", returned))
    assert (one(rows, Day, "s", "d").count, one(rows, Day, "s", "d").total) == (0, 2)
    assert projected(table, ("Returned", spent), ("Spent", spent)).find(Day, "s", "d") is None


def test_what_one_event_does_to_several_groups_is_done_in_the_order_of_their_keys() -> None:
    asked = []

    class Watched(RowBuffer):
        def get_or_add(self, row_class: type[Any], *key: Any, **defaults: Any) -> Any:
            asked.append(key)
            return super().get_or_add(row_class, *key, **defaults)

    table = declared(
        Groups(Day)
        .add("Moved", owner=event.stream, day=event.to, count=1)
        .subtract("Moved", owner=event.stream, day=event.came_from, count=1)
    )
    for to, came_from in (("b", "a"), ("a", "b")):
        table().project(Event(1, "s", "Moved", {"to": to, "came_from": came_from}), Watched())
    assert asked == [("s", "a"), ("s", "b")] * 2


def test_a_group_keeps_the_largest_smallest_first_and_last() -> None:
    table = declared(
        Groups(Peak).add(
            "Seen",
            owner=event.stream,
            events=1,
            most=maximum(event.n),
            least=minimum(event.n),
            opened=first(event.at),
            seen=last(event.at),
        )
    )
    rows = projected(table, *(("Seen", {"n": n, "at": at}) for n, at in ((3, "x"), (7, "y"), (None, "z"), (-1, "w"))))
    peak = one(rows, Peak, "s")
    assert (peak.events, peak.most, peak.least, peak.opened, peak.seen) == (4, 7, -1, "x", "w")


@pytest.mark.parametrize(
    ("name", "expression", "payload", "wanted"),
    [
        ("note", event.type, {}, "Opened"),
        ("note", event.recorded_at, {}, "2024-05-17 08:30:01"),
        ("visits", event.position, {}, 1),
        ("note", event["stream"], {"stream": "field"}, "field"),
        ("note", event.field("text", default="none"), {}, "none"),
        ("note", event.field("text", default="none"), {"text": None}, None),
        ("visits", event.a + event.b, {"a": 2, "b": 3}, 5),
        ("visits", 10 - event.a * 2, {"a": 2}, 6),
        ("visits", -event.a, {"a": 2}, -2),
        ("note", prefix(event.text, 2), {"text": "日本語"}, "日本"),
        ("note", prefix(event.text, 2), {"text": None}, None),
        ("note", lower(event.text), {"text": "ÀB"}, "àb"),
        ("note", concat(event.a, "-", event.b), {"a": "x", "b": "y"}, "x-y"),
        ("note", coalesce(event.field("a", default=None), event.b), {"b": "y"}, "y"),
        ("note", coalesce(event.a, event.missing), {"a": "x"}, "x"),
        ("note", case((event.n > 3, "many"), (event.n == 3, "three"), otherwise="few"), {"n": 3}, "three"),
        (
            "note",
            case(((event.n > 3) & ~(event.n == 9), "a"), ((event.n == 9) | (event.n == 1), "b"), otherwise="c"),
            {"n": 9},
            "b",
        ),
        ("active", event.n == None, {"n": None}, True),  # noqa: E711 - an expression
        ("active", event.n != "x", {"n": None}, True),
        ("note", truncate(event.at, "year"), {"at": "2024-05-17T08:30:00"}, "2024-01-01"),
        ("note", truncate(event.at, "month"), {"at": "2024-05-17"}, "2024-05-01"),
        ("note", truncate(event.at, "day"), {"at": "2024-05-17 08:30"}, "2024-05-17"),
        ("note", truncate(event.at, "hour"), {"at": "2024-05-17T08:30:00"}, "2024-05-17T08:00:00"),
    ],
)
def test_what_an_expression_gives(name: str, expression: object, payload: dict[str, Any], wanted: object) -> None:
    assert value_of(name, expression, payload) == wanted


@pytest.mark.parametrize(
    ("name", "expression", "payload"),
    [
        ("visits", event.a + event.b, {"a": "1", "b": "2"}),
        ("visits", event.a * 3, {"a": "1"}),
        ("visits", event.a + event.b, {"a": True, "b": 1}),
        ("visits", event.a + 1, {"a": None}),
        ("note", prefix(event.text, 2), {"text": [1, 2, 3]}),
        ("note", concat(event.a, event.b), {"a": "x", "b": 1}),
        ("note", truncate(event.at, "month"), {"at": "17.5.2024"}),
        ("note", truncate(event.at, "hour"), {"at": "2024-05-17"}),
        ("note", event.missing, {}),
    ],
)
def test_what_no_expression_takes_is_an_error(name: str, expression: object, payload: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        value_of(name, expression, payload)


def entity() -> Entity:
    return Entity(Account, key=event.stream)


REFUSED: dict[str, tuple[Declare, str]] = {
    "an unknown column": (lambda: opened(onwer="x"), "no column onwer; is it owner"),
    "no row class": (lambda: Entity(int, key=event.stream), "not a row class"),
    "half of a key": (lambda: Entity(Day, key={"owner": event.stream}), "the key is owner, day"),
    "the key among the columns": (lambda: opened(id="x"), "id comes from the key"),
    "a column without a value": (lambda: entity().insert("Opened", note="x"), "owner has no default"),
    "no event type": (lambda: entity().insert(owner="x"), "one event type or more"),
    "an update of the key": (lambda: opened().update("Moved", id=event.to), "cannot change id"),
    "an update of nothing": (lambda: opened().update("Moved"), "at least one column"),
    "the row in an insert": (lambda: opened(visits=current.visits + 1), "only an update has a row"),
    "another column of the row": (lambda: opened().update("U", note=current.owner), "write a handler"),
    "a condition on the row": (
        lambda: opened().update("U", note=case((current.visits > 3, "many"), otherwise="few")),
        "write a handler",
    ),
    "a product of the row": (lambda: opened().update("U", visits=current.visits * 2), "write a handler"),
    "a count of floats": (lambda: opened().update("U", ratio=current.ratio + 1), "floats depend on the order"),
    "a count that is set": (
        lambda: declared(opened().update("A", visits=current.visits + 1).update("B", visits=0)),
        "visits is counted, and B sets it",
    ),
    "a count that an upsert replaces": (
        lambda: declared(entity().upsert("A", owner="x").update("B", visits=current.visits + 1)),
        "visits is counted, and A sets it",
    ),
    "a text for a number": (lambda: opened(visits="x"), "a str is no value"),
    "true for a number": (lambda: opened(visits=True), "a bool is no value"),
    "none where none may be": (lambda: opened(owner=None), "never None"),
    "a list": (lambda: opened(note=["x"]), "cannot name a value of the type list"),
    "a number for a text": (lambda: opened(note=event.a + event.b), "gives a number"),
    "a text expression for a number": (lambda: opened(visits=lower(event.a)), "gives a text"),
    "a condition for a text": (lambda: opened(note=event.a == 1), "gives true or false"),
    "deletion by what is no lookup": (lambda: opened().delete_where("Left", note=event.note), "one of the lookups"),
    "deletion by what an update moves": (
        lambda: declared(opened().update("Sold", owner=event.to).delete_where("Left", owner=event.stream)),
        "which an update changes",
    ),
    "an entity that nothing inserts": (lambda: declared(entity().delete("Closed")), "no event inserts"),
    "one event, two things": (lambda: declared(opened().delete("Opened")), "twice"),
    "nothing at all": (lambda: declared(entity()), "no event makes a row"),
    "a group without its key": (lambda: Groups(Day).add("Spent", owner=event.stream, count=1), "day identifies the group"),
    "a group without a number": (lambda: Groups(Day).add("Spent", owner=event.stream, day=event.day), "at least one column"),
    "a sum of floats": (lambda: Groups(Account).add("S", id=event.stream, ratio=event.n), "floats depend on the order"),
    "a sum of texts": (lambda: Groups(Account).add("S", id=event.stream, note=event.n), "texts are not added"),
    "the largest text": (lambda: Groups(Peak).add("S", owner=event.stream, seen=maximum(event.n)), "kept of numbers"),
    "a maximum that is taken back": (
        lambda: declared(
            Groups(Peak).add("A", owner=event.stream, most=maximum(event.n), events=1).subtract("B", owner=event.stream, events=1)
        ),
        "cannot be subtracted from",
    ),
    "two ways of keeping": (
        lambda: declared(
            Groups(Peak).add("A", owner=event.s, most=maximum(event.n)).add("B", owner=event.s, most=minimum(event.n))
        ),
        "choose one",
    ),
    "one table twice": (lambda: declared(opened(), opened()), "declares Account twice"),
    "python's if": (lambda: opened(note="x" if event.a == 1 else "y"), "no truth value"),
    "a case of values": (lambda: case((1, "x"), otherwise="y"), "pairs of a condition"),
    "a prefix of nothing": (lambda: prefix(event.a, 0), "at least 1"),
    "an unknown unit": (lambda: truncate(event.a, "week"), "and not 'week'"),  # type: ignore[arg-type]
    "one to choose from": (lambda: coalesce(event.a), "two values or more"),
    "one to join": (lambda: concat(event.a), "two texts or more"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_right_is_refused_when_it_is_declared(what: str) -> None:
    declare, words = REFUSED[what]
    with pytest.raises(ProjectorError) as error:
        declare()
    assert words in str(error.value)


def test_a_declared_table_and_a_handler_live_in_one_projector() -> None:
    class Both(Projector):
        owns = (Day,)
        declares = (opened(),)

        @handles("Opened", "Spent")
        def seen(self, event: Event, rows: Rows) -> None:
            if event.type == "Opened":
                # What is declared comes first.
                assert rows.find(Account, event.stream) is not None
            rows.get_or_add(Day, event.stream, "d").count += 1

    assert (Both.owns, Both.event_types()) == ((Account, Day), ("Opened", "Spent"))
    rows = projected(Both, ("Opened", {"owner": "a"}), ("Spent", {}))
    assert one(rows, Day, "s", "d").count == 2


def test_the_declared_example_has_the_rows_of_its_handlers() -> None:
    for by_hand, by_declaration in zip(ALL, DECLARED, strict=True):
        assert {*by_declaration.owns} == {*by_hand.owns}
        assert by_declaration.event_types() == by_hand.event_types()
        both = [RowBuffer(), RowBuffer()]
        for rows, projector in zip(both, (by_hand(), by_declaration()), strict=True):
            for position, made in enumerate(islice(generate(20_000), 20_000), 1):
                projector.project(Event(position, made.stream, made.type, made.payload, made.recorded_at), rows)
        one_way, other = ([sorted(change.inserted, key=repr) for change in rows.changes()] for rows in both)
        assert one_way == other
        assert any(one_way)
