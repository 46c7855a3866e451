"""The example application's own rebuild, held against a computation that shares nothing with its projectors."""

from __future__ import annotations

from itertools import chain

import sqlalchemy as sa

from include.universal.cdnow import purchases
from include.universal.events import append_all, generate
from include.universal.independent import actual_tables, expected_tables
from include.universal.live import traffic
from include.universal.schema import create_schema
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions
from tests.universal.harness.runs import SPEC, ended


def begun(engine: sa.Engine, run_id: str) -> Rebuild:
    """A run whose green tables are filled and checked, right before its switch."""
    rebuild = Rebuild(load_spec(SPEC), run_id=run_id, event_store=engine, read_models=engine, log=lambda _: None)
    plan = rebuild.plan(RunOptions(keep_old=False))
    rebuild.clone_tables()
    for projector in plan.projectors:
        rebuild.replay(projector)
    rebuild.verify()
    return rebuild


def test_a_rebuild_fills_and_then_repairs_all_six_tables(engine: sa.Engine) -> None:
    create_schema(engine)
    append_all(engine, chain(purchases(), generate(4_000)))
    ended(begun(engine, "fill"))
    expected = expected_tables(engine)
    assert actual_tables(engine) == expected
    assert all(expected.values())

    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE category_summaries SET total_cents = total_cents + 1")
        connection.exec_driver_sql("DELETE FROM monthly_summaries WHERE user_id = 7")
    assert actual_tables(engine) != expected
    ended(begun(engine, "repair"))
    assert actual_tables(engine) == expected


def test_the_application_keeps_its_tables_current_before_during_and_after(engine: sa.Engine) -> None:
    create_schema(engine)
    traffic(engine, 400, seed=1)
    assert actual_tables(engine) == expected_tables(engine)

    rebuild = begun(engine, "run")
    traffic(engine, 300, seed=2)
    ended(rebuild)
    traffic(engine, 300, seed=3)
    assert actual_tables(engine) == expected_tables(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM stored_events").scalar_one() == 1_000
