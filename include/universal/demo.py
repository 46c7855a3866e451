"""A whole rebuild in one command: it fills the example application on SQLite, damages its tables, and rebuilds them.

``python -m include.universal.demo [--events N] [--prepare-only]``
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.markdown import Markdown

from include.universal import cdnow, events, independent
from include.universal.schema import create_schema
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec import RebuildSpec, RunOptions, load_spec

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "include" / "rebuilds" / "universal.yaml"

DAMAGE = {
    "a projector's bug: totals of one category are wrong": "UPDATE category_summaries SET total_cents = total_cents * 2 WHERE category = 'travel'",
    "data loss: some payments are gone": "DELETE FROM payment_history WHERE id < '05'",
    "a row that no event explains": "INSERT INTO monthly_summaries (user_id, month, expenses, total_cents) VALUES (0, '1999-12', 1, 1)",
}
"""Kinds of damage to blue before the rebuild, each with the SQL that causes it."""

NEXT = """\
What to try next:
  make up          Airflow with this spec as a DAG: open it, unpause rebuild_universal, press Trigger
  make test        the tests (about 18 minutes), on real PostgreSQL, MariaDB and MySQL servers that they start themselves
  README.md        how to point it at your own application, in five steps
"""


def database() -> Path:
    """The path of the demo's SQLite file: ``REBUILD_DEMO_DB``, or ``.demo/universal.db`` in the project."""
    return Path(os.environ.get("REBUILD_DEMO_DB", ROOT / ".demo" / "universal.db"))


def prepare(path: Path, count: int, say: Console) -> sa.Engine:
    """Creates the database: ``count`` generated events, the CDNOW purchases, filled read models, and the damage.

    :param say: prints the progress
    :returns: an engine for the database
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is complete, so that nothing takes a half-prepared file for the database.
    unfinished = path.with_name(path.name + ".unfinished")
    for leftover in (path, unfinished):
        # By name, not by pattern: the folder that REBUILD_DEMO_DB names may hold files of other people.
        for suffix in ("", "-wal", "-shm", "-journal"):
            leftover.with_name(leftover.name + suffix).unlink(missing_ok=True)
    engine = sa.create_engine(f"sqlite:///{unfinished}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    create_schema(engine)
    say.print(f"Storing {count:,} generated events and the real purchases of the CDNOW sample ...")
    events.append_all(engine, events.generate(count))
    events.append_all(engine, cdnow.purchases())
    say.print("Filling the read models ...")
    run_all(load_spec(SPEC), engine, "fill", RunOptions(keep_old=False), lambda _: None)
    for damage, statement in DAMAGE.items():
        with engine.begin() as connection:
            rows = connection.exec_driver_sql(statement).rowcount
        say.print(f"Damaging them: {damage} ({rows:,} row{'s' if rows != 1 else ''})")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    unfinished.rename(path)
    return sa.create_engine(f"sqlite:///{path}")


def run_all(spec: RebuildSpec, engine: sa.Engine, run_id: str, options: RunOptions, log: Callable[[str], None]) -> Rebuild:
    """Runs all steps of one run in the order of the DAG, without waiting for the retention.

    :returns: the run, for its report
    """
    rebuild = Rebuild(spec, run_id=run_id, event_store=engine, read_models=engine, log=log)
    plan = rebuild.plan(options)
    rebuild.clone_tables()
    for projector in plan.projectors:
        rebuild.replay(projector)
    rebuild.verify()
    rebuild.swap()
    rebuild.reconcile()
    if options.keep_old is False:
        rebuild.drop_old()
    return rebuild


def check(engine: sa.Engine, say: Console) -> bool:
    """Compares every table with an independent computation from the events; returns whether all of them are equal."""
    expected, actual = independent.expected_tables(engine), independent.actual_tables(engine)
    for table in independent.KEYS:
        is_equal = expected[table] == actual[table]
        say.print(
            f"  {table}: {len(actual[table]):,} rows, {'equal' if is_equal else 'NOT EQUAL'} to an independent computation from the events"
        )
    return expected == actual


def main() -> int:
    """Runs the command line; returns 0 if every table is correct at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=120_000, help="how many events to generate")
    parser.add_argument("--prepare-only", action="store_true", help="only make the store, if there is none yet")
    arguments = parser.parse_args()
    say = Console(highlight=False, soft_wrap=True)
    path = database()
    if arguments.prepare_only:
        if not path.exists():
            prepare(path, arguments.events, say)
        return 0
    began = time.monotonic()
    engine = prepare(path, arguments.events, say)
    say.rule("Rebuild")
    rebuild = run_all(load_spec(SPEC), engine, "demo", RunOptions(reason="the demo: a bug and lost data"), say.print)
    say.rule("Report")
    say.print(Markdown(rebuild.report().as_markdown()))
    say.rule("Check")
    is_correct = check(engine, say)
    say.print(f"\nDone in {time.monotonic() - began:.0f} s. The damaged tables are still there as <table>_old, in {path}.\n")
    say.print(NEXT)
    return 0 if is_correct else 1


if __name__ == "__main__":
    raise SystemExit(main())
