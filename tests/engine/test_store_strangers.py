"""Stores, sessions and values that strangers came with: each was silently wrong, refused for no reason, or told in words that help nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import handles
from projection_rebuild.errors import ClaimRefused, PartError, PlanError
from projection_rebuild.ledger import Runs
from projection_rebuild.replay.inline import project_live
from projection_rebuild.replay.row_tables import WriteError
from projection_rebuild.rows.types import Rows
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness.driver import run_to
from tests.engine.harness.tally import CustomerProjector, Payload, PayloadProjector, SetProjector, Store, StreamProjector, tallied

# Text that is padded with blanks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["handlers", "sets", "shards", "part"])
def test_padded_streams_and_types_are_read_without_their_blanks(postgres_url: sa.URL, how: str) -> None:
    engine = sa.create_engine(postgres_url)
    store = Store(engine, {"stream": "char(20)", "type": "char(8) NOT NULL"})
    store.add({"id": number, "stream": f"s{number % 3}"} for number in range(12))
    replay = {"shards": 2} if how == "shards" else {}
    projector = SetProjector if how == "sets" else StreamProjector
    run_to(store.rebuild(projector, replay=replay), "drop")
    assert tallied(store) == [("s0", 4), ("s1", 4), ("s2", 4)]
    with engine.begin() as connection:
        project_live(connection, StreamProjector, Event(12, "s0", "made", {}))
    store.add([{"id": 12, "stream": "s0"}])
    if how == "part":
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE tallies SET events = 77 WHERE stream = 's1'")
        run_to(store.rebuild(projector, run_id="part"), "drop", RunOptions(aggregates=("s1",)))
    assert tallied(store) == [("s0", 5), ("s1", 4), ("s2", 4)]


@pytest.mark.parametrize("replay", [{}, {"batch_events": 1, "max_rows_in_memory": 0}])
def test_a_key_that_is_padded_is_a_key_as_any_other(postgres_url: sa.URL, replay: dict[str, int]) -> None:
    store = Store(sa.create_engine(postgres_url))
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE tallies ALTER stream TYPE char(20)")
    store.add([{"id": each, "stream": f"s{each % 2}"} for each in range(1, 8)])
    made = store.rebuild(StreamProjector, replay=replay)
    assert not [each for each in made.plan(RunOptions()).findings if "tallies" in each.about]
    run_to(made, "drop")
    with store.engine.begin() as connection:
        project_live(connection, StreamProjector, Event(8, "s0", "made", {}))
    assert tallied(store) == [("s0" + " " * 18, 4), ("s1" + " " * 18, 4)]


# A letter of four bytes in somebody else's statement ----------------------------------------------------------------


@contextmanager
def somebody_says(engine: sa.Engine, text: str) -> Iterator[None]:
    with engine.connect() as connection:
        session = connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()

        def say() -> None:
            try:
                connection.exec_driver_sql(f"SELECT SLEEP(60), '{text}'")
            except sa.exc.DBAPIError:
                connection.invalidate()

        speaker = threading.Thread(target=say)
        speaker.start()
        time.sleep(0.5)
        try:
            yield
        finally:
            with engine.connect() as other:
                other.exec_driver_sql(f"KILL QUERY {session}")
            speaker.join()


@pytest.mark.parametrize(
    "kind", [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def test_what_others_execute_is_nobodys_error(new_database: Callable[[str], sa.URL], kind: str) -> None:
    engine = sa.create_engine(new_database(kind).update_query_dict({"charset": "utf8mb4"}))
    store = Store(engine)
    store.add({"id": number, "stream": "s"} for number in range(5))
    with somebody_says(engine, "😀"):
        made = store.rebuild(StreamProjector, throttle={"max_active_sessions": 1_000}, low_traffic={"max_active_sessions": 9})
        run_to(made, "reconcile")
        with made._context.dialect.connect() as connection:
            assert made._context.dialect.traffic.active_sessions(connection) == 1
    assert tallied(store) == [("s", 5)]


# Times --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["2026-06-01T00:00:00.000+0000", "20260601T000000Z", "2026-W23-1", "now", "12:00", "x"])
def test_a_text_that_is_no_time_to_the_database_is_refused_where_time_matters(sqlite_url: sa.URL, text: str) -> None:
    store = Store(sa.create_engine(sqlite_url))
    store.add([{"id": 1, "stream": "a", "at": "2026-06-01 00:00:00"}, {"id": 2, "stream": "b", "at": text}])
    with pytest.raises(PlanError, match="holds texts that this database takes for no time"):
        store.rebuild(StreamProjector).plan(RunOptions(since=datetime(2026, 1, 1, tzinfo=UTC)))


def test_parts_of_a_millisecond_leave_no_event_out(sqlite_url: sa.URL) -> None:
    store = Store(sa.create_engine(sqlite_url))
    store.add(
        [
            {"id": 1, "stream": "a", "at": "2026-06-01 00:00:00.000400"},
            {"id": 2, "stream": "b", "at": "2026-06-01 00:00:00.000600"},
        ]
    )
    run_to(store.rebuild(StreamProjector), "drop")
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE tallies SET events = 9")
    until = datetime(2026, 6, 1, 0, 0, 0, 700, tzinfo=UTC)
    run_to(store.rebuild(StreamProjector, run_id="until"), "drop", RunOptions(until=until))
    assert tallied(store) == [("a", 1), ("b", 1)]


def test_a_moment_beyond_every_number_is_no_error(engine: sa.Engine) -> None:
    store = Store(engine, {"at": "bigint"})
    store.add([{"id": 1, "stream": "a", "at": 1_770_000_000_000_000_000}])
    run_to(store.rebuild(StreamProjector), "drop")
    made = store.rebuild(StreamProjector, run_id="until", store={"recorded_at_unit": "ns"})
    run_to(made, "drop", RunOptions(until=datetime(9998, 1, 1, tzinfo=UTC)))
    assert tallied(store) == [("a", 1)]


# Positions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql", ["bigint GENERATED BY DEFAULT AS IDENTITY (CACHE 20)", "bigserial", "bigint DEFAULT nextval('apart')"]
)
def test_positions_that_sessions_get_in_advance_are_told(postgres_url: sa.URL, sql: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE apart CACHE 20")
    store = Store(engine, {"id": f"{sql} NOT NULL"})
    if sql == "bigserial":
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER SEQUENCE stored_events_id_seq CACHE 20")
    found = [f"{each}" for each in store.rebuild(StreamProjector).plan(RunOptions()).findings]
    assert any("gives each session positions in advance" in each and "CACHE 1" in each for each in found)


def test_a_schema_that_only_the_application_has_attached_is_refused(sqlite_url: sa.URL) -> None:
    store = Store(sa.create_engine(sqlite_url))
    with pytest.raises(PlanError, match="has no schema other"):
        store.rebuild(StreamProjector, store={"schema": "other"}).plan(RunOptions())
    store.rebuild(StreamProjector, store={"schema": "main"}).plan(RunOptions())


# Values -------------------------------------------------------------------------------------------------------------


class NoNumber(PayloadProjector):
    """Gives what is no number to a column of numbers."""

    @handles("made")
    def made(self, event: Event, rows: Rows) -> None:
        rows.add(Payload(event.position, "c", amount=Decimal(event["amount"])))


@pytest.mark.parametrize("amount", ["Infinity", "-Infinity", "sNaN"])
@pytest.mark.parametrize("count", [3, 300])
@pytest.mark.parametrize(
    "kind", [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def test_what_is_no_number_is_told_by_its_event(
    new_database: Callable[[str], sa.URL], kind: str, count: int, amount: str
) -> None:
    store = Store(sa.create_engine(new_database(kind)))
    store.add({"id": at, "data": f'{{"amount": "{amount if at == 2 else 1}"}}'} for at in range(count))
    made = store.rebuild(NoNumber)
    run_to(made, "clone")
    with pytest.raises(WriteError, match="the event made at position 2"):
        made.replay("NoNumber")


@pytest.mark.parametrize("name", ["--1", "-", "\uff11", "日本", "9223372036854775808"])
def test_an_aggregate_that_cannot_be_is_named(engine: sa.Engine, name: str) -> None:
    store = Store(engine, {"stream": "bigint"})
    store.add([{"id": 1, "stream": 1}])
    with pytest.raises(PlanError, match=f"has no event of these projectors for 1 of them: {name}"):
        store.rebuild(StreamProjector).plan(RunOptions(aggregates=(name,)))


@pytest.mark.parametrize("charset", ["latin1", "ascii", "utf8mb3"])
@pytest.mark.parametrize(
    "kind", [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def test_an_aggregate_that_the_column_cannot_spell_is_named(
    new_database: Callable[[str], sa.URL], kind: str, charset: str
) -> None:
    store = Store(sa.create_engine(new_database(kind)), {"stream": f"varchar(20) CHARACTER SET {charset}"})
    store.add([{"id": 1, "stream": "a"}])
    with pytest.raises(PlanError, match="has no event of these projectors for 1 of them: 日本😀"):
        store.rebuild(StreamProjector).plan(RunOptions(aggregates=("日本😀", "a")))


def test_two_plans_of_one_run_at_once_are_told(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(engine)
    store.rebuild(CustomerProjector, run_id="other").plan(RunOptions())
    store.rebuild(CustomerProjector, run_id="other").abandon()
    monkeypatch.setattr(Runs, "begin", _begin_twice(Runs.begin))
    with pytest.raises(ClaimRefused, match="another worker is planning the run run at this moment"):
        store.rebuild(CustomerProjector).plan(RunOptions())


def _begin_twice(begin: Callable[..., None]) -> Callable[..., None]:
    def twice(self: Runs, *given: object) -> None:
        begin(self, *given)
        runs = self._schema.runs
        monkeyed = runs.delete
        runs.delete = lambda: sa.delete(runs).where(sa.false())  # type: ignore[method-assign]
        try:
            begin(self, *given)
        finally:
            runs.delete = monkeyed  # type: ignore[method-assign]

    return twice


# Bytes that are no UTF-8 --------------------------------------------------------------------------------------------


def test_a_type_of_other_bytes_is_refused(engine: sa.Engine) -> None:
    store = Store(engine, {"type": "varbinary(60)" if engine.dialect.name in ("mysql", "mariadb") else "{bytes}"})
    store.add([{"id": 1, "stream": "a", "type": b"made"}, {"id": 2, "stream": "a", "type": b"\xff"}])
    with pytest.raises(PlanError, match="its type column type holds bytes that are no UTF-8"):
        store.rebuild(StreamProjector).plan(RunOptions())


@pytest.mark.parametrize("shards", [1, 3])
def test_a_stream_of_other_bytes_is_set_aside(engine: sa.Engine, shards: int) -> None:
    store = Store(engine, {"stream": "{bytes}"})
    store.add([{"id": 1, "stream": b"a"}, {"id": 2, "stream": b"\xff\xfe"}, {"id": 3, "stream": b"b"}, {"id": 4, "stream": b"a"}])
    replay = {"shards": shards, "on_error": "dead_letter"}
    run_to(store.rebuild(StreamProjector, store={"stream_format": "text"}, replay=replay, verify={"max_dead_letters": 1}), "drop")
    assert tallied(store) == [("a", 2), ("b", 1)]


def test_a_part_by_streams_of_other_bytes_is_refused(engine: sa.Engine) -> None:
    store = Store(engine, {"stream": "{bytes}"})
    store.add(
        [
            {"id": 1, "stream": b"a", "at": datetime(2026, 6, 1, tzinfo=UTC).replace(tzinfo=None)},
            {"id": 2, "stream": b"\xff\xfe", "at": datetime(2026, 6, 1, tzinfo=UTC).replace(tzinfo=None)},
        ]
    )
    made = store.rebuild(StreamProjector, store={"stream_format": "text"}, replay={"on_error": "dead_letter"})
    with pytest.raises(PartError, match="bytes that are no text"):
        made.plan(RunOptions(since=datetime(2026, 1, 1, tzinfo=UTC)))
