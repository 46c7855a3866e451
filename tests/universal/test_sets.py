"""The summaries by SQL and by handlers: identical tables, whatever the ranges."""

from __future__ import annotations

import sqlalchemy as sa

from include.universal.events import append_all, generate
from include.universal.independent import actual_tables, expected_tables
from include.universal.live import traffic
from include.universal.schema import create_schema
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions
from tests.universal.harness.runs import SPEC, ended

SUMMARIES = ("CategorySummaryProjector", "MonthlySummaryProjector")
TABLES = ("category_summaries", "monthly_summaries")


def run(engine: sa.Engine, run_id: str, *, set_based: bool, batch: int) -> tuple[Rebuild, list[str]]:
    """A run of the summaries whose green tables are filled; and its log."""
    lines: list[str] = []
    spec = load_spec(SPEC)
    replay = spec.replay.model_copy(update={"set_based": set_based, "batch_events": batch})
    spec = spec.model_copy(update={"replay": replay})
    made = Rebuild(spec, run_id=run_id, event_store=engine, read_models=engine, log=lines.append)
    made.plan(RunOptions(projectors=SUMMARIES, keep_old=False), is_over=lambda _: True)
    made.clone_tables()
    for name in SUMMARIES:
        made.replay(name)
    return made, lines


def green(engine: sa.Engine) -> dict[str, object]:
    with engine.connect() as connection:
        return {table: sorted(map(tuple, connection.exec_driver_sql(f"SELECT * FROM {table}_rebuild"))) for table in TABLES}


def test_both_forms_give_identical_tables(engine: sa.Engine) -> None:
    create_schema(engine)
    append_all(engine, generate(4_000, users=40))
    made, _ = run(engine, "handlers", set_based=False, batch=4_000)
    by_handlers = green(engine)
    assert all(by_handlers.values())
    made.verify()
    ended(made)
    for batch in (4_000, 170):
        made, lines = run(engine, f"sql-{batch}", set_based=True, batch=batch)
        assert green(engine) == by_handlers
        assert not any("its handlers do the work" in line for line in lines)
    # What comes after the replay: rounds of catching up, and the drain within the switch.
    traffic(engine, 200, seed=5)
    made.verify()
    traffic(engine, 100, seed=6)
    ended(made)
    expected, found = expected_tables(engine), actual_tables(engine)
    assert {table: found[table] for table in TABLES} == {table: expected[table] for table in TABLES}
