"""The benchmark at a toy's size: every way leaves the tables that the hand-written SQL gives. Nothing is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks import floor, pauses, rounds, tables
from benchmarks.bench import Bench, Options
from benchmarks.results import Results
from benchmarks.store import Database, Store
from benchmarks.ways import Measured, Stage, ways
from include.universal.independent import actual_tables, expected_tables
from include.universal.schema import create_schema
from projection_rebuild.model.results import PARTS
from tests.conftest import Databases

EVENTS, PART = 2_000, 200
ON = [pytest.param("sqlite"), pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.mark.parametrize("kind", ON)
def test_every_way_leaves_the_answer_of_the_hand_written_sql(kind: str, databases: Databases, tmp_path: Path) -> None:
    server = Database(kind, databases.server(kind) if kind != "sqlite" else None, tmp_path)
    bench = Bench(Options((kind,), EVENTS, rounds=1, part=PART, into=tmp_path))
    runs = list(bench.measure(kind, server))
    here = [way for way in ways() if not way.engines or kind in way.engines]
    assert {run.way for run in runs if run.equal and run.rows} == {way.name for way in here if way.suffix}
    assert {run.way: run.events for run in runs}["seed"] == PART
    assert list(Results.read((tmp_path / "benchmark.jsonl").read_bytes())) == runs
    report = (tmp_path / "benchmark.md").read_text()
    assert all(f"| {way.title} |" in report for way in here)
    assert (tmp_path / "images" / "benchmark-speeds.svg").read_bytes().startswith(b"<?xml")


def test_the_hand_written_sql_is_right(database_kind: str, new_database: Callable[[str], sa.URL]) -> None:
    url = new_database(database_kind)
    engine = sa.create_engine(url.update_query_dict({"local_infile": "1"}) if url.get_backend_name() == "mysql" else url)
    create_schema(engine)
    store = Store(database_kind, engine, EVENTS)
    store.grow_to(EVENTS)
    floor.run(store, "floor")
    with engine.begin() as connection:
        for name in tables.names():
            connection.execute(sa.text(f"INSERT INTO {name} SELECT * FROM {name}_floor"))
    expected, actual = expected_tables(engine), actual_tables(engine)
    assert {name: actual[name] for name in tables.names()} == {name: expected[name] for name in tables.names()}


def test_a_way_with_other_rows_is_refused(sqlite_url: sa.URL, tmp_path: Path) -> None:
    store = Store("sqlite", sa.create_engine(sqlite_url), EVENTS)
    store.grow_to(EVENTS)
    stage = Stage(store, PART)
    rounds.prepare(stage)

    def harmed(_: Stage) -> Measured:
        floor.run(store, "floor")
        with store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE expenses_floor SET note = 'x' WHERE id = (SELECT min(id) FROM expenses_floor)")
        return Measured(1.0)

    way = replace(next(way for way in ways() if way.name == "floor"), run=harmed)
    with pytest.raises(rounds.Wrong, match="'expenses': 1"):
        rounds.run_round(stage, 1, [way], Results(tmp_path / "runs"), lambda _: None)


def test_the_pause_of_a_switch_is_measured_by_its_parts(tmp_path: Path) -> None:
    bench = Bench(Options((), 0, rounds=0, part=0, into=tmp_path, switches=(1, 10)))
    (one, ten) = bench.switch("sqlite", Database("sqlite", None, tmp_path))
    assert (one.size, ten.size) == (1, 10)
    assert [*one.parts] == [*PARTS, pauses.CPU] and sum(one.parts[name] for name in PARTS) == pytest.approx(one.seconds, rel=0.2)
    assert "| SQLite | 10 |" in (tmp_path / "benchmark.md").read_text()
