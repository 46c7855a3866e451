"""The check: the same events in every way, held against each other. What it finds is in test_check_mutations.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
import yaml

from projection_rebuild import __main__ as command
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import handles
from projection_rebuild.checking.check import Checked, check, place_name
from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import PlanError, SettleTimeout, SpecError
from projection_rebuild.rows.types import Rows
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness import shop
from tests.engine.harness.databases import execute, marked
from tests.engine.harness.shop import event_of, events, tables
from tests.engine.harness.specs import SPEC, spec

HERE = "tests.engine.test_check"
SQL = "tests.engine.harness.shop_sets:CustomerTotalProjector"
BY_SQL = ["by its SQL in one range", "by its SQL, three events a range", "by its SQL, one event a range"]
HANDLERS = [
    "live",
    "folded in one batch",
    "forgetting after every event",
    "forgetting after every three events",
    "in 3 shards",
]


class KilledProjector(shop.OrderProjector):
    """Its worker is gone in the middle of the events."""

    @handles("OrderShipped", "OrderCancelled")
    def moved(self, event: Event, rows: Rows) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class StoppedProjector(shop.OrderProjector):
    """Somebody presses Ctrl-C in the middle of the events."""

    @handles("OrderShipped", "OrderCancelled")
    def moved(self, event: Event, rows: Rows) -> None:
        raise KeyboardInterrupt


class PickyProjector(shop.OrderProjector):
    """Fails at the orders of one customer, after it has changed a row."""

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        super().placed(event, rows)
        if event["customer"] == 3:
            raise ValueError(f"the secret {event.payload}")

    @handles("OrderShipped", "OrderCancelled")
    def moved(self, event: Event, rows: Rows) -> None:
        if rows.find(shop.Order, event.stream):
            super().moved(event, rows)


class SlowProjector(shop.OrderProjector):
    """While it is at work, somebody else is too."""

    meanwhile: ClassVar[list[Callable[[], None]]] = []

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        while self.meanwhile:
            self.meanwhile.pop()()
        super().placed(event, rows)


class NosyProjector(shop.CustomerTotalProjector):
    """Looks at a table of another projector's."""

    reads = (shop.Order,)
    partition_by = ""

    @handles("LineAdded")
    def added(self, event: Event, rows: Rows) -> None:
        if rows.get(shop.Order, event.stream).status != "cancelled":
            super().added(event, rows)


class NobodysProjector(NosyProjector):
    """Looks at a table that nobody fills."""

    reads = (shop.OrderLine,)

    @handles("LineAdded")
    def added(self, event: Event, rows: Rows) -> None:
        rows.where(shop.OrderLine, order_id=event.stream)


def only(projectors: Sequence[str], **changes: Any) -> RebuildSpec:
    return spec(projectors=[each if ":" in each else f"{HERE}:{each}" for each in projectors], **changes)


def checked(engine: sa.Engine, given: RebuildSpec, **how: Any) -> Checked:
    return check(given, event_store=engine, read_models=engine, **how)


@pytest.fixture
def store(engine: sa.Engine) -> sa.Engine:
    """A shop with 40 events, on each kind of database."""
    return shop.fill(engine, events(40))


@pytest.fixture
def one(sqlite: sa.Engine) -> sa.Engine:
    """The same where the database does not matter."""
    return shop.fill(sqlite, events(40))


def left(engine: sa.Engine) -> list[str]:
    """What of tables apart is there."""
    if engine.dialect.name == "sqlite":
        return sorted(each.name for each in Path(tempfile.gettempdir()).glob(f"{place_name(engine.url, None, 'shop')}.db*"))
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT schema_name FROM information_schema.schemata").scalars()
        return sorted(each for each in found if each.startswith("projection_rebuild_check"))


def test_all_ways_agree_and_nothing_stays(store: sa.Engine) -> None:
    before, lines = tables(store), spec().projectors[1]
    found = checked(store, only(["tests.engine.harness.shop:OrderProjector", str(lines), SQL]))
    assert found.agrees and not found.left_out and not found.remarks, found.describe()
    assert found.agreed == {
        "OrderProjector": HANDLERS,
        "CustomerTotalProjector": HANDLERS + BY_SQL,
        "OrderLineProjector": HANDLERS,
    }
    assert (found.events, found.upto) == (40, 40)
    assert tables(store) == before and not left(store)
    with store.connect() as connection:
        assert not [each for each in sa.inspect(connection).get_table_names() if each.startswith("projection_rebuild")]


def test_only_the_first_events_are_looked_at_and_only_some_projectors(one: sa.Engine) -> None:
    found = checked(one, spec(), events=7, projectors=["CustomerTotalProjector"])
    assert (found.events, found.upto, [*found.agreed]) == (7, 7, ["CustomerTotalProjector"])


def test_a_projector_without_any_event_agrees_with_nothing(one: sa.Engine) -> None:
    execute(one, "UPDATE stored_events SET event_class = 'Unknown' WHERE event_class IN ('LineAdded', 'OrderCancelled')")
    found = checked(one, spec(), projectors=["OrderLineProjector"])
    assert not found.agrees and "OrderLineProjector" not in found.agreed
    assert found.left_out == ["OrderLineProjector: none of these events is of a type that it handles"]


def test_a_projector_that_fails_at_its_first_event_agrees_with_nothing(one: sa.Engine) -> None:
    execute(one, "UPDATE stored_events SET event_properties = '[]' WHERE event_class = 'OrderPlaced'")
    found = checked(one, spec(), projectors=["OrderProjector"])
    assert found.differing and not found.agreed and not found.left_out


@pytest.mark.parametrize("mode", ["fail", "dead_letter"])
def test_an_event_that_cannot_be_projected(one: sa.Engine, mode: str) -> None:
    found = checked(one, only(["PickyProjector"], replay={"on_error": mode}))
    if mode == "dead_letter":
        assert found.agrees and found.agreed["PickyProjector"] == HANDLERS
        return
    (part,) = found.differing
    first = next(at for at, each in enumerate(events(40), start=1) if each["event_properties"].get("customer") == 3)
    assert part.event and (part.event.type, part.event.position) == ("OrderPlaced", first)
    said = found.describe()
    assert "cannot be projected to the end" in said and "gives no trouble" not in said and "secret" not in said
    # What comes before it is compared all the same.
    assert found.agreed["PickyProjector"] == HANDLERS and not found.agrees


def test_an_event_that_only_some_ways_can_take_is_told_from_one_that_none_can(
    one: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live a row is there at once, for the database to look at; in a replay when all is done."""
    with one.begin() as connection:
        connection.exec_driver_sql("DROP TABLE customer_totals")
        connection.exec_driver_sql(
            "CREATE TABLE customer_totals (customer integer PRIMARY KEY, orders integer NOT NULL CHECK (orders > 0), spent numeric(14, 2) NOT NULL)"
        )
    found = checked(one, only(["tests.engine.harness.shop:CustomerTotalProjector"]))
    (part,) = found.differing
    assert part.way == "live" and part.event and part.event.type == "OrderPlaced"
    assert f"that event gives no trouble {', '.join(HANDLERS[1:])}" in found.describe()


def test_who_reads_another_ones_table_finds_it_filled(one: sa.Engine) -> None:
    found = checked(one, only(["NosyProjector", "tests.engine.harness.shop:OrderProjector"]), projectors=["NosyProjector"])
    assert found.agrees and found.agreed == {"NosyProjector": HANDLERS[:4]}


def test_what_is_left_out_is_named_with_its_reason(one: sa.Engine) -> None:
    program = {"name": "Program", "command": ["true"], "tables": {"order_lines": ["row_id"]}, "event_types": ["LineAdded"]}
    given = spec(projectors=["tests.engine.harness.shop:OrderProjector", f"{HERE}:NobodysProjector", program])
    found = checked(one, given)
    assert found.agrees and [*found.agreed] == ["OrderProjector"]
    assert "left out: Program: it is a program" in found.describe()
    assert "left out: NobodysProjector: it reads order_lines, which no other projector" in found.describe()
    assert not checked(one, given, projectors=["Program"]).agrees


@pytest.mark.parametrize("name", ["TotalsBySqlAlone", "ForOneDatabase"])
def test_a_projector_that_has_only_sql(one: sa.Engine, name: str) -> None:
    found = checked(one, only([f"tests.engine.harness.shop_sets:{name}"]))
    if name == "TotalsBySqlAlone":
        assert found.agrees and found.agreed == {name: BY_SQL}
    else:
        assert not found.agrees and "its SQL cannot be used: none for this database" in found.describe()


def test_sql_is_left_out_where_a_run_does_not_use_it(one: sa.Engine) -> None:
    found = checked(one, only([SQL], replay={"set_based": False}))
    assert found.agrees and found.agreed == {"CustomerTotalProjector": HANDLERS}
    assert found.left_out == ["CustomerTotalProjector, by its SQL: replay.set_based is off"]


@pytest.mark.parametrize(
    "database_kind",
    marked("sqlite", "postgres", "mariadb"),
    indirect=True,
)
def test_tables_get_the_structure_that_the_spec_declares(store: sa.Engine, tmp_path: Path) -> None:
    """Without its foreign keys: a projector's rows are looked at without those of others."""
    (tmp_path / "new.sql").write_text(
        "CREATE TABLE customer_totals (customer integer PRIMARY KEY REFERENCES orders_of (n), orders integer NOT NULL, spent numeric(14, 2));"
    )
    with store.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders_of (n integer PRIMARY KEY)")
        connection.exec_driver_sql("ALTER TABLE customer_totals DROP COLUMN spent")
    given = only(["tests.engine.harness.shop:CustomerTotalProjector"], structure={"ddl": str(tmp_path / "new.sql")})
    found = checked(store, given)
    assert found.agrees, found.describe()
    with pytest.raises(Exception, match="spent"):
        checked(store, given.model_copy(update={"structure": None}))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"projectors": ["Nobody"]}, SpecError, "no projector"),
        ({"events": 3, "empty": True}, PlanError, "holds no event"),
        ({"gone": True}, PlanError, "there is no table orders"),
    ],
    ids=["unknown", "empty", "gone"],
)
def test_what_cannot_be_checked_is_refused(one: sa.Engine, given: dict[str, Any], error: type[Exception], words: str) -> None:
    with one.begin() as connection:
        if given.pop("empty", False):
            connection.exec_driver_sql("DELETE FROM stored_events")
        if given.pop("gone", False):
            connection.exec_driver_sql("DROP TABLE orders")
    with pytest.raises(error, match=words):
        checked(one, spec(), **given)
    assert not left(one)


def test_events_that_appear_meanwhile_are_told(one: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def append() -> None:
        with one.begin() as connection:
            connection.execute(shop.stored_events.insert(), [{"id": 0} | events(1)[0]])

    monkeypatch.setattr(SlowProjector, "meanwhile", [append])
    with pytest.raises(SettleTimeout, match="have appeared up to position 40"):
        checked(one, only(["SlowProjector"]))


def test_ctrl_c_leaves_nothing(store: sa.Engine) -> None:
    with pytest.raises(KeyboardInterrupt):
        checked(store, only(["StoppedProjector"]))
    assert not left(store)


def test_what_a_killed_check_has_left_goes_with_the_next(store: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump(SPEC | {"projectors": [f"{HERE}:KilledProjector"]}))
    url = store.url.render_as_string(hide_password=False)
    given = [sys.executable, "-m", "projection_rebuild", "check", str(path), "--read-models", url]
    assert subprocess.run(given, check=False).returncode == -signal.SIGKILL
    assert left(store)
    assert checked(store, spec(projectors=["tests.engine.harness.shop:OrderProjector"])).agrees
    assert not left(store)


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Callable[..., str]:
    """Writes a spec file."""

    def write(*projectors: str) -> str:
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC | {"projectors": [*projectors] or SPEC["projectors"]}))
        return str(tmp_path / "spec.yaml")

    return write


def url_of(engine: sa.Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def test_the_command_says_what_agrees(one: sa.Engine, path: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    given = ["check", path(), "--read-models", url_of(one), "--projectors", "OrderProjector", "--events", "9"]
    assert command.main(given) == 0
    assert capsys.readouterr().out.splitlines() == [
        "9 events, up to position 9",
        f"OrderProjector: the same rows {', '.join(HANDLERS)}",
    ]


def test_the_command_fails_where_ways_differ(
    one: sa.Engine, path: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["check", path(f"{HERE}:PickyProjector"), "--read-models", url_of(one)]) == 1
    assert "PickyProjector, live: it cannot be projected to the end" in capsys.readouterr().out


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_number_of_events_is_a_number(path: Callable[..., str], count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["check", path(), "--read-models", "sqlite://", "--events", count])
    assert "give a whole number of events, 1 or more" in capsys.readouterr().err


# A database that is only read -------------------------------------------------------------------------------------------


@pytest.fixture
def reader(store: sa.Engine, new_database: Callable[[str], sa.URL], database_kind: str) -> Iterator[tuple[sa.URL, sa.URL]]:
    """How somebody connects who may only read the shop; and another database, in which anything may be made."""
    scratch, url = new_database(database_kind), store.url
    with store.begin() as connection:
        if database_kind == "postgres":
            connection.exec_driver_sql(f"ALTER DATABASE {url.database} SET default_transaction_read_only = on")
        elif database_kind == "sqlite":
            url = sa.make_url(f"sqlite:///file:{url.database}?mode=ro&uri=true")
        else:
            connection.exec_driver_sql("CREATE USER reading@'127.0.0.1'")
            connection.exec_driver_sql(f"GRANT SELECT ON {url.database}.* TO reading@'127.0.0.1'")
            url = url.set(username="reading", password=None)
    store.dispose()
    yield url, scratch
    if database_kind in ("mysql", "mariadb"):
        with store.begin() as connection:
            connection.exec_driver_sql("DROP USER reading@'127.0.0.1'")


def test_with_a_place_elsewhere_the_shop_is_only_read(
    reader: tuple[sa.URL, sa.URL], path: Callable[..., str], capsys: pytest.CaptureFixture[str], database_kind: str
) -> None:
    live, scratch = (each.render_as_string(hide_password=False) for each in reader)
    given = ["check", path(*SPEC["projectors"][:2], SQL), "--read-models", live]
    assert command.main([*given, "--scratch", scratch]) == 0
    said = capsys.readouterr().out
    assert said.count(f"the same rows {', '.join(HANDLERS)}") == 3
    if database_kind == "sqlite":
        # There the file is another one anyway, and nothing has to be said about it.
        assert command.main(given) == 0
    else:
        assert "left out: CustomerTotalProjector, by its SQL: events and read models are in two databases" in said
        assert command.main(given) == 1
    engine = sa.create_engine(reader[1])
    assert not left(engine) and not tables(engine)


def test_a_place_is_of_the_same_kind(one: sa.Engine) -> None:
    with pytest.raises(SpecError, match="the scratch database is mysql"):
        checked(one, spec(), scratch=sa.create_engine("mysql+mysqldb://nobody@127.0.0.1:1/none"))


def test_writers_of_the_live_file_do_not_wait(one: sa.Engine) -> None:
    """Whoever has SQLite's file attached keeps its writers waiting while a transaction lasts."""
    with dialect_for(one).scratch("projection_rebuild_check_here") as scratch:
        dialect_for(one).bring(scratch, "stored_events", "id", 30)
        with scratch.dialect.connect() as connection, scratch.dialect.transaction(connection):
            assert connection.exec_driver_sql("SELECT count(*) FROM stored_events").scalar_one() == 30
            with one.begin() as writer:
                writer.execute(shop.stored_events.insert(), events(1))


def test_a_way_that_fails_is_told_of_by_the_first_event_at_which_it_does(one: sa.Engine) -> None:
    """Here a later shard is the first one, by the order of events, that fails."""
    with one.begin() as connection:
        connection.execute(
            shop.stored_events.insert(), [event_of(1, "Made", "a"), *[event_of(each, "Got", order="a") for each in range(2, 12)]]
        )
    (part,) = checked(one, only(["tests.engine.test_shards:ByCustomer"])).differing
    assert part.event is not None
    (what,) = part.what
    assert f"the event Got at position {part.event.position}: RowError, orders has no row" in what, part.describe()
    assert "may be another shard's" in what and "retry the task" not in what


def test_sql_that_cannot_be_executed_is_a_finding_and_the_others_are_compared(one: sa.Engine) -> None:
    found = checked(one, only(["tests.engine.test_sets:MisspelledSql", shop.OrderProjector.__module__ + ":OrderProjector"]))
    assert {each.projector for each in found.differing} == {"MisspelledSql"} and len(found.agreed["OrderProjector"]) > 1
    assert all("by its SQL" in each.way and "cannot be executed" in each.what[0] for each in found.differing), found.describe()
