"""Runs of the example's rebuild, and what its tables hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions

SPEC = Path(__file__).parents[3] / "include" / "rebuilds" / "universal.yaml"


def ended(rebuild: Rebuild) -> None:
    rebuild.swap()
    rebuild.reconcile()
    rebuild.drop_old()


def run(engine: sa.Engine, run_id: str, options: RunOptions, between: Callable[[], object] = lambda: None) -> None:
    """A whole run; something happens after each of its steps."""
    rebuild = Rebuild(load_spec(SPEC), run_id=run_id, event_store=engine, read_models=engine, log=lambda _: None)
    plan = rebuild.plan(options)
    rebuild.clone_tables()
    between()
    for projector in plan.projectors:
        rebuild.replay(projector)
        between()
    rebuild.verify()
    between()
    ended(rebuild)
    rebuild.close()


def totals(engine: sa.Engine) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What the read models say, in the form of the independent computation."""
    with engine.connect() as connection:
        bought = Counter(
            tuple(row)
            for row in connection.exec_driver_sql(
                "SELECT user_id, CAST(spent_on AS char(10)), amount_cents, quantity FROM expenses"
            )
        )
        months = {
            tuple(row[:2]): tuple(row[2:])
            for row in connection.exec_driver_sql("SELECT user_id, month, expenses, total_cents FROM monthly_summaries")
        }
    return {key: (count,) for key, count in bought.items()}, months
