"""Streams, types, payloads and times of any kind that a store may have: read right, or refused in the plan by name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import MachineTrouble, PlanError, SpecError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.row_tables import WriteError
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.stores import EventStoreSection
from tests.conftest import EVERY_STATEMENT
from tests.engine.harness import decoders
from tests.engine.harness.databases import flavour
from tests.engine.harness.driver import run_to
from tests.engine.harness.tally import (
    CustomerProjector,
    DayProjector,
    PayloadProjector,
    SetProjector,
    Store,
    StreamProjector,
    TallyProjector,
    tallied,
)

MARK = "a-mark-that-no-message-may-show"


def problems(made: Rebuild) -> str:
    with pytest.raises(PlanError) as refused:
        made.plan(RunOptions())
    assert MARK not in str(refused.value)
    return str(refused.value)


# Streams ------------------------------------------------------------------------------------------------------------

UUIDS = [UUID(int=number * 7919 << 64 | number) for number in range(1, 40)]


def counted(streams: list[str]) -> list[tuple[str, int]]:
    return sorted(Counter(streams).items())


FORMS: dict[str, Callable[[UUID], str]] = {"uuid": str, "hex": lambda each: each.hex, "text": lambda each: each.bytes.hex()}
FEW_WAYS = [("uuid", "handlers"), ("uuid", "shards"), ("uuid", "sets"), ("uuid", "part"), ("hex", "shards"), ("text", "shards")]
EVERY_WAY = [*product(FORMS, ["handlers", "shards", "sets", "part"])]


@pytest.mark.parametrize(("form", "how"), EVERY_WAY if EVERY_STATEMENT else FEW_WAYS)
def test_streams_of_bytes_are_what_the_spec_says(engine: sa.Engine, form: str, how: str) -> None:
    text = FORMS[form]
    fixed = flavour(engine) in ("mysql", "mariadb") and form != "text"
    store = Store(engine, {"stream": "binary(16)" if fixed else "{bytes}"})
    stored = [each.hex.encode() if form == "text" else each.bytes for each in UUIDS]
    store.add({"id": number, "stream": stored[number % 13]} for number in range(60))
    wanted = counted([text(UUIDS[number % 13]) for number in range(60)])
    given = {"store": {"stream_format": form}, "replay": {"shards": 3} if how == "shards" else {}}
    run_to(store.rebuild(SetProjector if how == "sets" else StreamProjector, **given), "drop")
    assert tallied(store) == wanted
    if how == "part":
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE tallies SET events = 0 WHERE stream = :s"), {"s": wanted[3][0]})
        options = RunOptions(aggregates=(wanted[3][0],))
        run_to(store.rebuild(StreamProjector, run_id="part", **given), "drop", options)
        assert tallied(store) == wanted


def test_streams_of_bytes_are_refused_where_nothing_says_what_they_are(engine: sa.Engine) -> None:
    store = Store(engine, {"stream": "{bytes}"})
    store.add([{"id": 1, "stream": UUIDS[0].bytes}])
    assert "its stream column stream holds bytes" in problems(store.rebuild())


def test_bytes_that_are_no_uuid_are_refused(engine: sa.Engine) -> None:
    store = Store(engine, {"stream": "{bytes}"})
    store.add([{"id": 1, "stream": UUIDS[0].bytes}, {"id": 2, "stream": b"short"}])
    assert "holds values that are not 16 bytes long" in problems(store.rebuild(store={"stream_format": "uuid"}))


def test_a_stream_format_for_a_column_of_text_is_refused(engine: sa.Engine) -> None:
    store = Store(engine)
    store.add([{"id": 1, "stream": "s"}])
    assert "event_store.stream_format is for bytes" in problems(store.rebuild(store={"stream_format": "hex"}))


def test_a_uuid_is_a_stream(new_database: Callable[[str], sa.URL]) -> None:
    for kind in ("postgres", "mariadb"):
        store = Store(sa.create_engine(new_database(kind)), {"stream": "uuid"})
        store.add({"id": number, "stream": str(UUIDS[number % 5])} for number in range(20))
        run_to(store.rebuild(StreamProjector, replay={"shards": 2}), "reconcile")
        assert tallied(store) == counted([str(UUIDS[number % 5]) for number in range(20)])


def test_whole_numbers_are_streams(engine: sa.Engine) -> None:
    store = Store(engine, {"stream": "bigint"})
    store.add({"id": number, "stream": number % 5} for number in range(20))
    run_to(store.rebuild(StreamProjector, replay={"shards": 2}), "drop")
    assert tallied(store) == counted([str(number % 5) for number in range(20)])
    said = "for 1 of them: 3x"
    with pytest.raises(PlanError, match=said):
        store.rebuild(StreamProjector, run_id="part").plan(RunOptions(aggregates=("3", "3x")))


@pytest.mark.parametrize("sql", ["double precision", "numeric(12,2)"])
def test_a_stream_that_no_text_tells_for_certain_is_refused(engine: sa.Engine, sql: str) -> None:
    store = Store(engine, {"stream": sql})
    store.add([{"id": 1, "stream": 1.5}])
    assert "its stream column stream is of the type" in problems(store.rebuild())


def test_streams_of_two_types_are_refused(sqlite_url: sa.URL) -> None:
    store = Store(sa.create_engine(sqlite_url), {"stream": "text"})
    store.add([{"id": 1, "stream": "aa"}, {"id": 2, "stream": b"\xaa"}])
    said = problems(store.rebuild(store={"stream_format": "hex"}))
    assert "its stream column stream holds bytes and text, so that two streams may look like one" in said


def test_no_stream_and_an_empty_one_are_two_things(engine: sa.Engine) -> None:
    store = Store(engine)
    streams = [None, "", "a", None, ""]
    store.add({"id": number, "stream": each} for number, each in enumerate(streams))
    run_to(store.rebuild(TallyProjector), "reconcile")
    assert tallied(store) == [("<>", 2), ("<a>", 1), ("no stream", 2)]


def test_a_part_is_refused_where_events_have_no_stream(engine: sa.Engine) -> None:
    store = Store(engine)
    store.add([{"id": 1, "stream": None}, {"id": 2, "stream": "a"}])
    with pytest.raises(PlanError, match="some of its events have no stream"):
        store.rebuild(TallyProjector).plan(RunOptions(aggregates=("a",)))


LOOSE = {
    "postgresql": "citext",
    "mysql": "varchar(60) COLLATE utf8mb4_0900_ai_ci",
    "mariadb": "varchar(60) COLLATE utf8mb4_general_ci",
    "sqlite": "varchar(60) COLLATE NOCASE",
}
ALIKE = ["made", "Made", "made ", "màde"]


def loose(engine: sa.Engine) -> str:
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE EXTENSION citext")
    return LOOSE[flavour(engine)]


@pytest.mark.parametrize("how", ["handlers", "shards", "sets", "part", "dead letters"])
def test_streams_are_told_apart_byte_by_byte(engine: sa.Engine, how: str) -> None:
    store = Store(engine, {"stream": loose(engine)})
    store.add({"id": number, "stream": ALIKE[number % 4]} for number in range(40))
    if how == "dead letters":
        store.add([{"id": 100, "stream": "made", "data": "7"}, {"id": 101, "stream": "Made"}])
    replay = {"shards": {"shards": 3}, "dead letters": {"on_error": "dead_letter"}}.get(how, {})
    made = store.rebuild(SetProjector if how == "sets" else StreamProjector, replay=replay, verify={"max_dead_letters": 1})
    run_to(made, "replay")
    if how == "dead letters":
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE stored_events SET data = '{}' WHERE id = 100")
        # A later event of `Made` is none of `made`, so the one that was set aside may come late.
        made.replay("StreamProjector")
    for step in (made.verify, made.swap, made.reconcile, made.drop_old):
        step()
    more = ["made", "Made"] if how == "dead letters" else []
    assert tallied(store) == counted([*ALIKE * 10, *more])
    if how == "part":
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE tallies SET events = 0 WHERE stream = 'Made'")
        run_to(store.rebuild(StreamProjector, run_id="part"), "drop", RunOptions(aggregates=("Made",)))
        assert tallied(store) == counted(ALIKE * 10)


@pytest.mark.parametrize("projector", [StreamProjector, SetProjector])
def test_types_are_told_apart_byte_by_byte(engine: sa.Engine, projector: type[StreamProjector]) -> None:
    store = Store(engine, {"type": f"{loose(engine)} NOT NULL"})
    store.add({"id": number, "stream": "s", "type": ALIKE[number % 4]} for number in range(40))
    made = store.rebuild(projector)
    found = [each.problem for each in made.plan(RunOptions()).findings]
    assert f"no projector of this spec handles {', '.join(sorted(ALIKE[1:]))}" in found
    run_to(made, "reconcile")
    assert tallied(store) == [("s", 10)]
    assert made._context.store.counts(None, 100) == dict.fromkeys(ALIKE, 10)


@pytest.mark.parametrize("kind", ["text as bytes", "an enumeration"])
def test_types_may_be_bytes_or_an_enumeration(engine: sa.Engine, kind: str) -> None:
    of = flavour(engine)
    if kind == "text as bytes":
        sql = {"postgresql": "bytea NOT NULL", "sqlite": "blob NOT NULL"}.get(of, "varbinary(60) NOT NULL")
        stored: Any = b"made"
    else:
        sql, stored = {"postgresql": "kind NOT NULL"}.get(of, "varchar(9) NOT NULL"), "made"
        if of in ("mysql", "mariadb"):
            sql = "enum('other', 'made') NOT NULL"
        if of == "postgresql":
            with engine.begin() as connection:
                connection.exec_driver_sql("CREATE TYPE kind AS ENUM ('other', 'made')")
    store = Store(engine, {"type": sql})
    if of == "postgresql" and kind == "an enumeration":
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE CAST (varchar AS kind) WITH INOUT AS IMPLICIT")
    store.add({"id": number, "stream": "s", "type": stored} for number in range(10))
    run_to(store.rebuild(StreamProjector), "reconcile")
    assert tallied(store) == [("s", 10)]


# Payloads -----------------------------------------------------------------------------------------------------------


def test_json_in_bytes_is_json(engine: sa.Engine) -> None:
    store = Store(engine, {"data": "{bytes}"})
    store.add({"id": number, "data": json.dumps({"customer": f"ü{number % 4}"}).encode()} for number in range(40))
    run_to(store.rebuild(CustomerProjector, PayloadProjector, replay={"shards": 3}), "reconcile")
    assert store.rows("customers") == [(f"ü{number}", 10) for number in range(4)]
    assert len(store.rows("payloads")) == 40


@pytest.mark.parametrize("kind", ["json", "text", "bytes"])
def test_an_empty_payload_may_be_written_in_any_way(engine: sa.Engine, kind: str) -> None:
    empty = ["[]", "null", "{}", " [ ] ", None]
    store = Store(engine, {"data": "{" + kind + "}"})
    store.add({"id": at, "data": each.encode() if each and kind == "bytes" else each} for at, each in enumerate(empty))
    run_to(store.rebuild(PayloadProjector), "reconcile")
    assert [row[1] for row in store.rows("payloads")] == ["none"] * 5


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (f'["{MARK}"]', "a list"),
        (json.dumps(f'{{"a": "{MARK}"}}'), "a string"),
        ("7", "a number"),
        ("true", "a boolean"),
        ("1.5", "a number"),
    ],
)
def test_a_payload_that_is_no_object_is_named_by_the_plan(engine: sa.Engine, stored: str, said: str) -> None:
    store = Store(engine)
    store.add([{"id": 3, "data": stored}])
    found = problems(store.rebuild(PayloadProjector))
    assert f"the event made at position 3: the payload is {said}, not an object" in found


@pytest.mark.parametrize("stored", [f"{MARK}", "", "{", '{"a": NaN}', "[" * 5000])
def test_a_payload_that_is_no_json_is_named_by_the_plan(engine: sa.Engine, stored: str) -> None:
    store = Store(engine, {"data": "{text}"})
    store.add([{"id": 3, "data": stored}])
    assert "the event made at position 3: it is not JSON" in problems(store.rebuild(PayloadProjector))


def test_text_that_is_no_utf8_is_named_by_the_plan(sqlite_url: sa.URL) -> None:
    store = Store(sa.create_engine(sqlite_url), {"data": "text"})
    with store.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO stored_events (id, type, data) VALUES (3, 'made', CAST(x'7bff7d' AS TEXT))")
    assert "the event made at position 3: it is not JSON" in problems(store.rebuild(PayloadProjector))


def test_the_plan_looks_at_one_of_each_type(engine: sa.Engine) -> None:
    store = Store(engine)
    store.add({"id": number, "type": "other"} for number in range(20))
    store.add([{"id": 30, "type": "made", "data": "[1]"}, {"id": 40, "type": "other"}])
    assert "the event made at position 30" in problems(store.rebuild(PayloadProjector))
    made = store.rebuild(PayloadProjector, replay={"on_error": "dead_letter"})
    found = [f"{each}" for each in made.plan(RunOptions()).findings]
    assert any("the event made at position 30" in each and "sets such events aside" in each for each in found)


WEI, AMOUNT = 123456789012345678901234, "1234567890123456.78"
LARGE = f'{{"wei": {WEI}, "amount": {AMOUNT}, "customer": "a"}}'


@pytest.mark.parametrize("batch", [1, 1_000])
def test_numbers_are_exact(engine: sa.Engine, batch: int) -> None:
    store = Store(engine, {"data": "{text}"})
    store.add([{"id": 1, "data": LARGE}])
    run_to(store.rebuild(PayloadProjector, store={"decimals": True}, replay={"batch_events": batch}), "reconcile")
    _, _, wei, amount, said = store.rows("payloads")[0]
    if engine.dialect.name != "sqlite":
        # SQLite has no exact numbers of this size.
        assert (int(wei), Decimal(amount)) == (WEI, Decimal(AMOUNT))
    text = said if isinstance(said, str) else None
    if text is None:
        with engine.connect() as connection:
            text = connection.exec_driver_sql("SELECT said::text FROM payloads").scalar_one()
    if flavour(engine) != "mysql":
        # MySQL keeps JSON numbers beyond 64 bits as doubles.
        assert str(WEI) in text and AMOUNT in text


def test_whole_numbers_are_exact_without_asking_and_fractions_are_floats(engine: sa.Engine) -> None:
    store = Store(engine, {"data": "{text}"})
    store.add([{"id": 1, "data": f'{{"wei": {WEI}, "customer": 0.1}}'}])
    event = store.rebuild(PayloadProjector)._context.store.find([1])[0]
    assert event["wei"] == WEI and event["customer"] == 0.1 and isinstance(event["customer"], float)


@pytest.mark.parametrize("decoder", decoders.ENCODE)
def test_any_payload_can_be_decoded(engine: sa.Engine, decoder: str) -> None:
    store = Store(engine, {"data": "{bytes}"})
    encode = decoders.ENCODE[decoder]
    store.add(
        {"id": number, "stream": f"s{number % 3}", "data": encode({"customer": f"c{number % 4}", "wei": number})}
        for number in range(24)
    )
    store.add([{"id": 30, "stream": "s0", "type": "other", "data": None}])
    log: list[str] = []
    given = {"store": {"decoder": f"tests.engine.harness.decoders:{decoder}"}, "replay": {"shards": 3}}
    made = store.rebuild(CustomerProjector, StreamProjector, PayloadProjector, log=log.append, **given)
    found = [each.problem for each in made.plan(RunOptions()).findings]
    assert any("stored in a form that SQL of this server cannot look into" in each for each in found)
    run_to(made, "reconcile")
    assert store.rows("customers") == [(f"c{number}", 6) for number in range(4)]
    assert tallied(store) == [(f"s{number}", 8) for number in range(3)]
    assert [int(row[2]) for row in sorted(store.rows("payloads"))] == [*range(24)]


def test_a_decoder_gets_text_as_text(engine: sa.Engine) -> None:
    store = Store(engine, {"data": "{text}"})
    store.add({"id": number, "data": decoders.KEY.encrypt(b'{"customer": "a"}').decode()} for number in range(5))
    run_to(store.rebuild(CustomerProjector, store={"decoder": "tests.engine.harness.decoders:encrypted_text"}), "reconcile")
    assert store.rows("customers") == [("a", 5)]


@pytest.mark.parametrize(
    ("decoder", "said"),
    [("gzipped", "the decoder failed with BadGzipFile"), ("a_list", "the payload is a list, not an object")],
)
def test_what_a_decoder_cannot_take_is_named_by_the_plan(engine: sa.Engine, decoder: str, said: str) -> None:
    store = Store(engine, {"data": "{bytes}"})
    store.add([{"id": 3, "data": MARK.encode()}])
    found = problems(store.rebuild(PayloadProjector, store={"decoder": f"tests.engine.harness.decoders:{decoder}"}))
    assert f"the event made at position 3: {said}" in found


@pytest.mark.parametrize(
    "decoder", ["nowhere:at_all", "tests.engine.harness.decoders:missing", "tests.engine.harness.decoders:NO_FUNCTION", "plain"]
)
def test_a_decoder_that_cannot_be_had_is_one_readable_error(sqlite_url: sa.URL, decoder: str) -> None:
    store = Store(sa.create_engine(sqlite_url))
    with pytest.raises(SpecError, match=r"event_store\.decoder .*write package\.module:function"):
        store.rebuild(store={"decoder": decoder})


def test_a_decoder_and_decimals_are_not_one_wish() -> None:
    with pytest.raises(ValueError, match="leave out"):
        EventStoreSection.model_validate({"conn_id": "db", "decoder": "a:b", "decimals": True})


def test_a_sick_machine_is_no_fault_of_the_event(engine: sa.Engine) -> None:
    store = Store(engine, {"data": "{bytes}"})
    store.add([{"id": 3, "data": b"x"}])
    made = store.rebuild(PayloadProjector, store={"decoder": "tests.engine.harness.decoders:on_a_sick_machine"})
    with pytest.raises(MachineTrouble, match=r"ENOSPC.*the decoder was at the event made at position 3") as failed:
        made.plan(RunOptions())
    assert failed.value.retryable


@pytest.mark.parametrize("batch", [3, 1_000])
def test_a_refused_row_is_told_by_its_event(engine: sa.Engine, batch: int) -> None:
    store = Store(engine, {"data": "{text}"})
    store.add({"id": number, "data": json.dumps({"customer": f"c{number}"})} for number in range(20))
    store.add([{"id": 20, "data": json.dumps({"customer": (MARK * 10)[:55]})}])
    store.add({"id": number, "data": json.dumps({"customer": f"c{number}"})} for number in range(21, 40))
    made = store.rebuild(PayloadProjector, replay={"batch_events": batch})
    run_to(made, "clone")
    with pytest.raises(WriteError, match="the event made at position 20: cannot insert into payloads_rebuild") as refused:
        made.replay("PayloadProjector")
    assert MARK not in str(refused.value) and refused.value.position == 20
    assert len(store.rows("payloads", "_rebuild")) == 20


def test_a_nul_in_a_payload_is_told_by_its_event(postgres_url: sa.URL) -> None:
    store = Store(sa.create_engine(postgres_url), {"data": "json"})
    store.add([{"id": 1, "data": '{"customer": "a"}'}, {"id": 2, "data": '{"customer": "a\\u0000b"}'}, {"id": 3, "data": "{}"}])
    made = store.rebuild(PayloadProjector)
    run_to(made, "clone")
    with pytest.raises(WriteError, match="the event made at position 2: "):
        made.replay("PayloadProjector")


# Times --------------------------------------------------------------------------------------------------------------

FIRST = datetime(2026, 3, 1, 12, tzinfo=UTC)
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def days(count: int) -> list[tuple[str, int]]:
    return [(f"{FIRST + timedelta(days=number):%Y-%m-%d}", 2) for number in range(count)]


@pytest.mark.parametrize("unit", PER_SECOND)
def test_numbers_since_1970_are_times(engine: sa.Engine, unit: str) -> None:
    store = Store(engine, {"at": "bigint"})
    seconds = [int((FIRST + timedelta(hours=12 * number)).timestamp()) for number in range(1, 11)]
    store.add({"id": at, "stream": f"s{at}", "at": each * PER_SECOND[unit]} for at, each in enumerate(seconds))
    run_to(store.rebuild(DayProjector, StreamProjector, store={"recorded_at_unit": unit}), "drop")
    wanted = store.rows("days")
    assert sum(count for _, count in wanted) == 10 and wanted[0] == ("2026-03-02", 2)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE days SET events = 0 WHERE day >= '2026-03-04'")
        connection.exec_driver_sql("DELETE FROM tallies WHERE last >= 5")
    made = store.rebuild(DayProjector, StreamProjector, run_id="since", store={"recorded_at_unit": unit})
    run_to(made, "drop", RunOptions(since=datetime(2026, 3, 4, tzinfo=UTC), max_count_drift_percent=100))
    assert store.rows("days") == wanted and len(store.rows()) == 10


def test_numbers_whose_unit_nobody_says_are_told_and_refused_where_time_matters(engine: sa.Engine) -> None:
    store = Store(engine, {"at": "bigint"})
    store.add([{"id": 1, "stream": "s", "at": 1_770_000_000}])
    found = [each.problem for each in store.rebuild(StreamProjector).plan(RunOptions()).findings]
    assert any("its time column at holds numbers" in each for each in found)
    with pytest.raises(PlanError, match="recorded_at_unit"):
        store.rebuild(StreamProjector).plan(RunOptions(since=FIRST))


def test_a_unit_for_a_column_of_times_is_refused_where_time_matters(engine: sa.Engine) -> None:
    store = Store(engine)
    store.add([{"id": 1, "stream": "s", "at": FIRST.replace(tzinfo=None)}])
    with pytest.raises(PlanError, match="recorded_at_unit is for numbers"):
        store.rebuild(StreamProjector, store={"recorded_at_unit": "s"}).plan(RunOptions(since=FIRST))


def test_what_is_no_time_is_refused_where_time_matters(engine: sa.Engine) -> None:
    store = Store(engine, {"at": "{bytes}"})
    store.add([{"id": 1, "stream": "s", "at": b"x"}])
    with pytest.raises(PlanError, match="its time column at is of the type"):
        store.rebuild(StreamProjector).plan(RunOptions(since=FIRST))


@pytest.mark.parametrize("sql", ["timestamptz", "timestamp"])
def test_times_with_and_without_zone(postgres_url: sa.URL, sql: str) -> None:
    engine = sa.create_engine(postgres_url, connect_args={"options": "-c TimeZone=Asia/Shanghai"})
    store = Store(engine, {"at": sql})
    with engine.begin() as connection:
        for number in range(6):
            moment = FIRST + timedelta(days=number // 2)
            connection.execute(
                sa.text("INSERT INTO stored_events VALUES (:id, 's' || :id, 'made', '{}', :at)"),
                {"id": number, "at": moment if sql == "timestamptz" else moment.replace(tzinfo=None)},
            )
    run_to(store.rebuild(DayProjector), "drop")
    assert store.rows("days") == days(3)
    run_to(store.rebuild(DayProjector, run_id="since"), "drop", RunOptions(since=FIRST + timedelta(days=1)))
    assert store.rows("days") == days(3)


@pytest.mark.parametrize(
    "kind", [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def test_text_is_refused_where_the_database_would_lose_its_offset(new_database: Callable[[str], sa.URL], kind: str) -> None:
    store = Store(sa.create_engine(new_database(kind)), {"at": "varchar(40)"})
    store.add([{"id": 1, "stream": "s", "at": "2026-03-01T12:00:00+02:00"}])
    with pytest.raises(PlanError, match="holds text, which this database may take for other times"):
        store.rebuild(StreamProjector).plan(RunOptions(since=FIRST))


# Views ----------------------------------------------------------------------------------------------------------------


def test_a_view_is_refused_by_name(engine: sa.Engine) -> None:
    store = Store(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW all_events AS SELECT * FROM stored_events")
    assert "all_events is a view" in problems(store.rebuild(store={"table": "all_events"}))


@pytest.mark.parametrize("kind", ["materialized view", "foreign table"])
def test_what_only_looks_like_a_table_is_refused_by_name(postgres_url: sa.URL, kind: str) -> None:
    store = Store(sa.create_engine(postgres_url))
    made = {
        "materialized view": ["CREATE MATERIALIZED VIEW all_events AS SELECT * FROM stored_events"],
        "foreign table": [
            "CREATE FOREIGN DATA WRAPPER nowhere",
            "CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere",
            "CREATE FOREIGN TABLE all_events (id bigint) SERVER elsewhere",
        ],
    }
    with store.engine.begin() as connection:
        for statement in made[kind]:
            connection.exec_driver_sql(statement)
    assert f"all_events is a {kind}" in problems(store.rebuild(store={"table": "all_events"}))


def test_a_partitioned_table_is_a_store(postgres_url: sa.URL) -> None:
    engine = sa.create_engine(postgres_url)
    store = Store(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE split (LIKE stored_events, PRIMARY KEY (id)) PARTITION BY RANGE (id)")
        connection.exec_driver_sql("CREATE TABLE split_low PARTITION OF split FOR VALUES FROM (MINVALUE) TO (10)")
        connection.exec_driver_sql("CREATE TABLE split_high PARTITION OF split FOR VALUES FROM (10) TO (MAXVALUE)")
        connection.exec_driver_sql("INSERT INTO split SELECT n, 's', 'made', '{}', NULL FROM generate_series(0, 19) n")
    run_to(store.rebuild(StreamProjector, store={"table": "split"}), "reconcile")
    assert tallied(store) == [("s", 20)]


def test_aggregates_that_no_stream_can_be_are_named(new_database: Callable[[str], sa.URL]) -> None:
    for kind, sql, stored in (("postgres", "uuid", str(UUIDS[0])), ("postgres", "integer", 7), ("mariadb", "bigint", 7)):
        store = Store(sa.create_engine(new_database(kind)), {"stream": sql})
        store.add([{"id": 1, "stream": stored}])
        for name in ("abc", "12345678901234567890123"):
            with pytest.raises(PlanError, match=f"has no event of these projectors for 1 of them: {name}"):
                store.rebuild(StreamProjector).plan(RunOptions(aggregates=(name,)))


def test_what_an_event_must_have_is_compared_byte_by_byte(engine: sa.Engine) -> None:
    store = Store(engine, {"stream": f"{loose(engine)} NOT NULL"}, key="")
    store.add([{"id": 1, "stream": "A"}, {"id": 2, "stream": "A"}, {"id": 1, "stream": "a"}])
    run_to(store.rebuild(StreamProjector, store={"only": {"stream": "A"}}), "reconcile")
    assert tallied(store) == [("A", 2)]


TWICE = [
    '{"customer": "a", "customer": "b"}',
    '{"customer": "b", "customer": "a"}',
    '{"customer": "a", "of": {"customer": "z"}, "customer": 7}',
    '{"customer": null, "customer": "b"}',
    '{"customer": "a\\"\\\\n", "customer": "ü"}',
    '{"customer": 1, "customer": 12345678901234567890}',
]
LAST = [("12345678901234567890", 1), ("7", 1), ("a", 1), ("b", 2), ("ü", 1)]


@pytest.mark.parametrize("kind", ["json", "text", "bytes"])
def test_of_a_field_that_a_payload_has_twice_the_last_one_counts(engine: sa.Engine, kind: str) -> None:
    sql = {"json": "json" if flavour(engine) == "postgresql" else "{json}", "text": "{text}", "bytes": "{bytes}"}[kind]
    store = Store(engine, {"data": sql})
    store.add({"id": at, "data": each.encode() if kind == "bytes" else each} for at, each in enumerate(TWICE))
    for shards in (1, 3):
        made = store.rebuild(CustomerProjector, run_id=f"{shards} shards", replay={"shards": shards})
        run_to(made, "drop")
        assert sorted((name, count) for name, count in store.rows("customers")) == LAST
