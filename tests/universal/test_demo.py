"""The demo as a user starts it, small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from include.universal.independent import actual_tables, expected_tables

PROJECT = Path(__file__).parents[2]


def demo(database: Path, *arguments: str) -> str:
    environment = os.environ | {
        "REBUILD_DEMO_DB": str(database),
        "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "include")]),
    }
    command = [sys.executable, "-m", "include.universal.demo", "--events", "5000", *arguments]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wrong_tables(database: Path) -> set[str]:
    engine = sa.create_engine(f"sqlite:///{database}")
    try:
        expected, actual = expected_tables(engine), actual_tables(engine)
    finally:
        engine.dispose()
    return {table for table in expected if expected[table] != actual[table]}


def test_the_demo_repairs_what_it_has_damaged(tmp_path: Path) -> None:
    database = tmp_path / "shop.db"
    said = demo(database)
    assert "Damaging" in said
    assert "NOT EQUAL" not in said
    assert "make up" in said
    assert wrong_tables(database) == set()
    with sa.create_engine(f"sqlite:///{database}").connect() as connection:
        assert sa.inspect(connection).has_table("category_summaries_old")


def test_prepared_tables_are_damaged_and_left_alone_the_second_time(tmp_path: Path) -> None:
    database = tmp_path / "shop.db"
    demo(database, "--prepare-only")
    assert wrong_tables(database) == {"category_summaries", "monthly_summaries", "payment_history"}
    before = database.read_bytes()
    demo(database, "--prepare-only")
    assert database.read_bytes() == before


def test_the_demo_deletes_nothing_but_its_own_database(tmp_path: Path) -> None:
    neighbour = tmp_path / "shop.db.backup"
    neighbour.write_text("mine")
    demo(tmp_path / "shop.db", "--prepare-only")
    assert neighbour.read_text() == "mine"
