"""Handlers that read back what they gave: the same rows in one batch, forgotten after each event, after a resume, in shards and live."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import HandlerError, Interrupted, UnfitValue
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.inline import project_live
from projection_rebuild.replay.row_tables import WriteError
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.specs import SPEC

LATEST = datetime(2026, 3, 4, 5, 6, 7)  # noqa: DTZ001 - as a column without a zone keeps it


@row("accounts", key="id", stream="id")
class Account:
    id: UUID
    amount: Decimal = Decimal(0)
    latest: datetime | None = None
    code: str = ""
    later: int = 0


@row("hours", key=("stream", "at"), stream="stream")
class Hour:
    stream: str
    at: datetime
    events: int = 0


@row("prices", key=("stream", "price"), stream="stream")
class Price:
    stream: str
    price: Decimal
    number: int = 0


@row("places", key="name", stream="stream")
class Place:
    name: str
    stream: str
    number: int


class AccountProjector(Projector):
    """Gives everything as text or finer than its column, and compares with what it gave before."""

    owns = (Account, Hour, Price, Place)

    @handles("Paid")
    def paid(self, event: Event, rows: Rows) -> None:
        account = rows.get_or_add(Account, event.stream, amount=Decimal("0.009"))  # type: ignore[arg-type]
        account.amount += Decimal("0.005")
        at = datetime.fromisoformat(event["at"])
        if account.latest is not None:
            # A time with an offset and one without cannot be compared.
            account.later += account.latest.replace(tzinfo=UTC) < at
        account.latest = at
        account.code = (account.code.strip() + "x ")[-3:]
        rows.get_or_add(Hour, event.stream, at).events += 1
        rows.get_or_add(Price, event.stream, Decimal(event["price"])).number += len(account.code)

    @handles("Moved")
    def moved(self, event: Event, rows: Rows) -> None:
        if (found := rows.find(Place, event["name"])) is None:
            rows.add(Place(event["name"], event.stream, event["to"]))
        else:
            found.number = event["to"]


ONE, TWO = "0A000000-0000-0000-0000-000000000001", "0a00000000000000000000000000000b"


def moved(stream: str, name: str, to: int) -> tuple[str, str, dict[str, Any]]:
    return stream, "Moved", {"name": name, "to": to}


def paid(stream: str, number: int) -> tuple[str, str, dict[str, Any]]:
    said = {"at": f"2026-03-04T05:06:07.{number}00000+00:00", "price": f"1.00{number}"}
    return stream, "Paid", said


EVENTS = [
    *(moved(ONE, name, number) for number, name in enumerate("abcd")),
    *(paid((ONE, TWO)[number % 2], number % 5) for number in range(10)),
    # Each takes what another one has just given up, round in a circle; and two exchange theirs.
    moved(ONE, "a", 99),
    moved(ONE, "b", 0),
    moved(ONE, "a", 1),
    moved(ONE, "c", 98),
    moved(ONE, "d", 2),
    moved(ONE, "c", 3),
    moved(ONE, "b", 97),
    moved(ONE, "a", 0),
    moved(ONE, "b", 1),
    *(paid((ONE, TWO)[number % 2], number % 5) for number in range(10)),
]

TYPES = {
    "postgresql": ("uuid", "timestamp(0)", "char(4)"),
    "mysql": ("char(36)", "datetime", "char(4)"),
    "sqlite": ("text", "datetime", "text"),
}


@pytest.fixture
def store(engine: sa.Engine) -> sa.Engine:
    """The events, beside empty read models."""
    shop.metadata.create_all(engine, tables=[shop.stored_events])
    number, at, code = TYPES[engine.dialect.name]
    options = " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4" if engine.dialect.name == "mysql" else ""
    with engine.begin() as connection:
        for table in (
            f"accounts (id {number} PRIMARY KEY, amount numeric(14,2) NOT NULL, latest {at}, code {code} NOT NULL, later int NOT NULL)",
            f"hours (stream varchar(40), at {at}, events int NOT NULL, PRIMARY KEY (stream, at))",
            "prices (stream varchar(40), price numeric(10,2), number int NOT NULL, PRIMARY KEY (stream, price))",
            "places (name varchar(9) PRIMARY KEY, stream varchar(40), number int NOT NULL UNIQUE)",
        ):
            connection.exec_driver_sql(f"CREATE TABLE {table}{options}")
        for stream, kind, said in EVENTS:
            given = {"aggregate_uuid": stream, "event_class": kind, "event_properties": said}
            connection.execute(shop.stored_events.insert(), given)
    return engine


def found(engine: sa.Engine) -> dict[str, list[tuple[Any, ...]]]:
    with engine.connect() as connection:
        return {
            table: sorted(tuple(map(str, each)) for each in connection.exec_driver_sql(f"SELECT * FROM {table}"))
            for table in ("accounts", "hours", "prices", "places")
        }


def live(engine: sa.Engine, events: Any = EVENTS) -> None:
    numbers = count(1)
    application = engine.execution_options(isolation_level="READ COMMITTED") if engine.dialect.name != "sqlite" else engine
    for stream, kind, said in events:
        with application.begin() as connection:
            project_live(connection, AccountProjector, Event(next(numbers), stream, kind, said))


def rebuild(engine: sa.Engine, replay: dict[str, Any], run_id: str = "run") -> Rebuild:
    spec = RebuildSpec.model_validate(SPEC | {"projectors": [f"{__name__}:AccountProjector"], "replay": replay})
    return Rebuild(spec, run_id=run_id, event_store=engine, read_models=engine, log=lambda _: None)


WAYS: dict[str, dict[str, Any]] = {
    "in one batch": {},
    "in small batches": {"batch_events": 2},
    "forgotten": {"batch_events": 1, "max_rows_in_memory": 0},
    "set aside": {"on_error": "dead_letter"},
    "in shards": {"shards": 2},
}


def stopped_at(looks: int) -> Callable[[], bool]:
    numbers = count(1)
    return lambda: next(numbers) > looks


@pytest.mark.parametrize("resumes", [False, True], ids=["", "resumed"])
def test_every_way_gives_the_rows_that_live_code_gives(store: sa.Engine, monkeypatch: pytest.MonkeyPatch, resumes: bool) -> None:
    live(store)
    wanted = found(store)
    assert [each[-1] for each in wanted["places"]] == ["0", "1", "3", "2"]
    if store.dialect.name != "sqlite":
        assert [each[1] for each in wanted["accounts"]] == ["0.11", "0.11"]
        # MySQL's sister cuts what the others round; tenths of a second up to four are the same second anyway.
        assert [each[-1] for each in wanted["hours"]] == ["10", "10"]
    assert len(wanted["hours"]) == (2 if store.dialect.name != "sqlite" else 10)
    monkeypatch.setattr("projection_rebuild.replay.pipeline.feed.PAGE_EVENTS", 3)
    for way, replay in WAYS.items():
        made = rebuild(store, replay)
        run_to(made, "clone")
        if resumes and "shards" not in replay:
            for _ in range(3):
                with pytest.raises(Interrupted):
                    made.replay("AccountProjector", stopped=stopped_at(2))
                made = rebuild(store, replay)
        run_to(made, "drop")
        made.close()
        assert found(store) == wanted, way


def test_what_cannot_be_held_is_refused_by_its_event_and_live(store: sa.Engine) -> None:
    wrong = [paid(ONE, 1), paid("no UUID", 2)]
    with store.begin() as connection:
        connection.execute(sa.delete(shop.stored_events))
        for number, (stream, kind, said) in enumerate(wrong, start=1):
            given = {"id": number, "aggregate_uuid": stream, "event_class": kind, "event_properties": said}
            connection.execute(shop.stored_events.insert(), given)
    made = rebuild(store, {})
    run_to(made, "clone")
    with pytest.raises(HandlerError, match="event Paid at position 2: the column id of accounts cannot hold the str") as refused:
        made.replay("AccountProjector")
    assert "no UUID" not in str(refused.value)
    with pytest.raises(UnfitValue, match="the column id of accounts"):
        live(store, wrong)
    with store.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM accounts").scalar() == 1


LOOSE = {
    "postgresql": ["CREATE EXTENSION citext", "ALTER TABLE places ALTER name TYPE citext"],
    "mysql": ["ALTER TABLE places MODIFY name varchar(9) COLLATE utf8mb4_general_ci"],
    "sqlite": [
        "DROP TABLE places",
        "CREATE TABLE places (name text COLLATE NOCASE PRIMARY KEY, stream text, number int NOT NULL UNIQUE)",
    ],
}


def test_two_keys_that_are_one_to_the_database_are_refused_by_the_second_ones_event(store: sa.Engine) -> None:
    alike = [moved(ONE, "b", 1), moved(ONE, "a", 2), moved(ONE, "A", 3), moved(ONE, "a", 4)]
    with store.begin() as connection:
        connection.execute(sa.delete(shop.stored_events))
        for statement in LOOSE[store.dialect.name]:
            connection.exec_driver_sql(statement)
        for number, (stream, kind, said) in enumerate(alike, start=1):
            given = {"id": number, "aggregate_uuid": stream, "event_class": kind, "event_properties": said}
            connection.execute(shop.stored_events.insert(), given)
    for number, replay in enumerate((WAYS["in one batch"], WAYS["in small batches"], WAYS["forgotten"])):
        made = rebuild(store, replay, f"run-{number}")
        plan = made.plan(RunOptions())
        assert any("the same key to the database" in each.problem and each.about == "places.name" for each in plan.findings)
        made.clone_tables()
        with pytest.raises(
            WriteError, match=r"event Moved at position 3: cannot insert into places_rebuild.* in name \((collation|type) "
        ):
            made.replay("AccountProjector")
        with store.connect() as connection:
            assert connection.exec_driver_sql("SELECT name FROM places_rebuild ORDER BY 1").scalars().all() == ["a", "b"]
        made.abandon()
        made.close()
    with pytest.raises(sa.exc.IntegrityError):
        live(store, alike)
    with store.connect() as connection:
        assert connection.exec_driver_sql("SELECT name FROM places ORDER BY 1").scalars().all() == ["a", "b"]
