"""Old events: chains, splits and drops by type and version, the same in a replay and live; what is unknown is an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event, Undecodable
from projection_rebuild.authoring.upcasting import Upcasters
from projection_rebuild.errors import PoisonEvent, ProjectorError, UndecodableEvent, UpcastError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.inline import project_live
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.databases import marked
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import actual, events, expected
from tests.engine.harness.specs import spec

upcasters = Upcasters()


@upcasters.upcasts("OrderPlaced", 1)
def customer_has_a_number(event: Event) -> Event:
    return event.evolved(payload={"client": int(event["who"]), "on": event["on"]})


@upcasters.upcasts("OrderPlaced", 2)
def client_is_called_customer(event: Event) -> Event:
    return event.evolved(payload={"customer": event["client"], "on": event["on"]})


@upcasters.upcasts("LinesAdded", into=["LineAdded"])
def apart(event: Event) -> Iterable[Event]:
    return [event.evolved("LineAdded", each) for each in event["lines"]]


@upcasters.upcasts("OrderEnded", "legacy", into=["OrderShipped", "OrderCancelled"])
def by_its_reason(event: Event) -> Iterable[Event]:
    return [event.evolved(event["as"])] if event["as"] else []


upcasters.drops("LineAdded", "draft")


class OrderProjector(shop.OrderProjector):
    owns = shop.OrderProjector.owns
    upcasters = upcasters


class OrderLineProjector(shop.OrderLineProjector):
    depends_on = (OrderProjector,)
    upcasters = upcasters


class CustomerTotalProjector(shop.CustomerTotalProjector):
    upcasters = upcasters


PROJECTORS = (OrderProjector, OrderLineProjector, CustomerTotalProjector)


def as_they_were(stored: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same events as old versions of the application would have written them."""
    old: list[dict[str, Any]] = []
    for number, event in enumerate(stored):
        said, version, kind = event["event_properties"], "1", event["event_class"]
        if kind == "OrderPlaced":
            version = str(number % 3 + 1)
            said = [{"who": str(said["customer"])}, {"client": said["customer"]}, {"customer": said["customer"]}][number % 3]
            said |= {"on": event["event_properties"]["on"]}
        elif kind == "LineAdded" and number % 2:
            kind, said = "LinesAdded", {"lines": [said, said | {"line": said["line"] + 1000}]}
        elif kind in ("OrderShipped", "OrderCancelled") and number % 2:
            kind, version, said = "OrderEnded", "legacy", said | {"as": kind}
        old.append(event | {"event_class": kind, "event_properties": said, "event_version": version})
        if number % 5 == 0:
            old.append(event | {"event_class": "LineAdded", "event_properties": {"nothing": 1}, "event_version": "draft"})
            old.append(event | {"event_class": "OrderEnded", "event_properties": {"as": None}, "event_version": "legacy"})
    return old


def as_they_are(old: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What these say in today's words, by code of its own."""
    today: list[dict[str, Any]] = []
    for event in old:
        said = event["event_properties"]
        match event["event_class"], event["event_version"]:
            case "OrderPlaced", _:
                who = said.get("customer", said.get("client", said.get("who")))
                today.append(event | {"event_properties": {"customer": int(who), "on": said["on"]}})
            case "LinesAdded", _:
                today += [event | {"event_class": "LineAdded", "event_properties": each} for each in said["lines"]]
            case "OrderEnded", _:
                today += [event | {"event_class": said["as"]}] if said["as"] else []
            case _, "draft":
                pass
            case _:
                today.append(event)
    return today


@pytest.fixture(params=marked("postgres", "mariadb"))
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(engine: sa.Engine) -> sa.Table:
    """Empty tables; versions of types are texts here."""
    metadata = sa.MetaData()
    for table in shop.metadata.tables.values():
        table.to_metadata(metadata)
    made = metadata.tables["stored_events"]
    made.c.event_version.type = sa.String(20)
    metadata.create_all(engine)
    return made


def rebuild(engine: sa.Engine, **changes: Any) -> Rebuild:
    names = [f"{__name__}:{each.__name__}" for each in PROJECTORS]
    store = {"conn_id": "db", "columns": {"type_version": "event_version"}}
    made = spec(projectors=names, event_store=store, **changes)
    return Rebuild(made, run_id="run", event_store=engine, read_models=engine, log=lambda _: None)


def test_old_events_come_out_as_new_ones_in_a_replay_and_live(engine: sa.Engine, store: sa.Table) -> None:
    old = as_they_were(events(400))
    with engine.begin() as connection:
        connection.execute(store.insert(), old[:400])
    made = rebuild(engine)
    plan = made.plan(RunOptions())
    assert not [each for each in plan.findings if each.about == "events"]
    run_to(made, "drop")
    assert actual(engine) == expected(as_they_are(old[:400]))
    # The same classes go on live, event by event.
    for event in old[400:]:
        with engine.begin() as connection:
            position = connection.execute(store.insert().values(**event)).inserted_primary_key[0]  # type: ignore[index]
            version = event["event_version"]
            said = Event(
                position=position,
                stream=event["aggregate_uuid"],
                type=event["event_class"],
                payload=event["event_properties"],
                type_version=int(version) if version.isdecimal() else version,
            )
            for projector in PROJECTORS:
                project_live(connection, projector, said)
    assert actual(engine) == expected(as_they_are(old))
    again = rebuild(engine, rebuild="again")
    run_to(again, "swap")
    found = again.report().verification
    assert found and all(each.differing == each.only_blue == each.only_green == 0 for each in found.tables)
    assert actual(engine) == expected(as_they_are(old))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"event_version": "9"}, "OrderPlaced version 9 at position 3 .* its version is unknown"),
        ({"event_version": "1", "event_properties": {"who": "secret"}}, "OrderPlaced version 1 at position 3 .* ValueError"),
    ],
    ids=["unknown version", "failing upcaster"],
)
def test_what_cannot_be_brought_up_to_date_ends_the_replay_there(
    engine: sa.Engine, store: sa.Table, bad: dict[str, Any], words: str
) -> None:
    good = {"event_class": "OrderPlaced", "event_version": "3", "event_properties": {"customer": 1, "on": "2026-01-01"}}
    rows = [{"aggregate_uuid": f"o-{number}"} | good for number in range(5)]
    rows[2] |= bad
    with engine.begin() as connection:
        connection.execute(store.insert(), rows)
    made = rebuild(engine)
    run_to(made, "clone")
    with pytest.raises(UpcastError, match=words) as caught:
        made.replay("OrderProjector")
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None
    assert len(actual(engine, "_rebuild")["orders"]) == 2


def test_a_payload_that_is_no_json_ends_the_replay_there(engine: sa.Engine, store: sa.Table) -> None:
    engine.dispose()
    with engine.begin() as connection:
        columns = "id, aggregate_uuid, event_class, event_version, event_properties"
        kind = "TEXT" if engine.dialect.name == "postgresql" else "LONGTEXT"
        connection.exec_driver_sql("DROP TABLE stored_events")
        connection.exec_driver_sql(
            "CREATE TABLE stored_events (id bigint PRIMARY KEY, aggregate_uuid varchar(36), aggregate_version int, "
            f"event_class varchar(100), event_version int, event_properties {kind}, meta_data {kind}, created_at timestamp NULL)"
        )
        good = "1, 'o-1', 'OrderPlaced', 3, '{\"customer\": 1, \"on\": \"2026-01-01\"}'"
        connection.exec_driver_sql(f"INSERT INTO stored_events ({columns}) VALUES ({good})")
    made = rebuild(engine)
    run_to(made, "clone")
    with engine.begin() as connection:
        # Appended since the plan has looked at the events.
        connection.exec_driver_sql(f"INSERT INTO stored_events ({columns}) VALUES (2, 'o-2', 'OrderPlaced', 3, '{{secret')")
    with pytest.raises(UndecodableEvent, match="OrderPlaced at position 2 cannot be decoded") as caught:
        made.replay("OrderProjector")
    assert "secret" not in str(caught.value)
    assert list(actual(engine, "_rebuild")["orders"]) == ["o-1"]


# Without a database -----------------------------------------------------------------------------------------------


def event(kind: str, version: int | str = 1, **said: Any) -> Event:
    return Event(position=7, stream="s", type=kind, payload=said, type_version=version)


def test_a_chain_is_followed_to_its_end() -> None:
    (made,) = upcasters.current(event("OrderPlaced", 1, who="5", on="2026-01-01"))
    assert (made.type, made.type_version, dict(made.payload)) == ("OrderPlaced", 3, {"customer": 5, "on": "2026-01-01"})


def test_the_types_to_read_are_those_that_become_what_is_handled() -> None:
    assert CustomerTotalProjector.stored_types() == ("LineAdded", "LinesAdded", "OrderPlaced")
    assert OrderProjector.stored_types() == ("OrderCancelled", "OrderEnded", "OrderPlaced", "OrderShipped")
    assert shop.OrderProjector.stored_types() == shop.OrderProjector.event_types()


def test_without_upcasters_only_the_first_version_is_known() -> None:
    plain = Upcasters()
    assert plain.bring_up_to_date(given := [event("A")]) is given
    with pytest.raises(UpcastError, match="A version 2 at position 7"):
        plain.bring_up_to_date([event("A"), event("A", 2)])
    assert Upcasters(current={"A": 2}).bring_up_to_date(given := [event("A", 2)]) == given
    with pytest.raises(UpcastError, match="A version 1"):
        Upcasters(current={"A": 2}).current(event("A", 1))


def test_an_undecodable_event_is_an_error_live_too() -> None:
    broken = Undecodable(position=7, stream="s", type="OrderPlaced", cause="it is not JSON")
    with pytest.raises(UndecodableEvent, match="OrderPlaced at position 7"):
        upcasters.bring_up_to_date([broken])
    with pytest.raises(PoisonEvent):
        Upcasters().bring_up_to_date([broken])


def test_circles_and_second_upcasters_are_refused_by_name() -> None:
    made = Upcasters()
    made.upcasts("A", 1, into=["B"])(lambda event: event)
    with pytest.raises(ProjectorError, match="B 1 -> A 1 -> B 1"):
        made.upcasts("B", 1, into=[("A", 1)])(lambda event: event)
    with pytest.raises(ProjectorError, match="two upcasters of A version 1"):
        made.drops("A")


@pytest.mark.parametrize("given", [None, "text", event("C"), Event(position=8, stream="s", type="B", payload={})])
def test_an_upcaster_that_gives_something_else_is_an_error(given: Any) -> None:
    made = Upcasters()
    made.upcasts("A", 1, into=["B"])(lambda event: given)
    with pytest.raises(UpcastError, match="A version 1 at position 7"):
        made.current(event("A"))


def test_an_upcaster_that_gives_its_own_event_back_is_told_how_to() -> None:
    made = Upcasters()
    made.upcasts("A", 1)(lambda event: event)
    with pytest.raises(UpcastError, match="evolved"):
        made.current(event("A"))


def test_the_parts_of_an_event_see_each_others_rows() -> None:
    rows = RowBuffer()
    OrderProjector().project(event("OrderPlaced", customer=1, on="2026-01-01"), rows)
    for each in upcasters.current(event("OrderEnded", "legacy", **{"as": "OrderShipped", "at": "2026-01-02 10:00:00"})):
        OrderProjector().project(each, rows)
    assert rows.get(shop.Order, "s").status == "shipped"
