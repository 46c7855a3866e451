"""Every step is killed after every statement that changes anything, and simply run again.

Each attempt is a process of its own that ends by SIGKILL after its n-th writing statement, for n = 1, 2, 3, ..., until an
attempt comes to its end. After each kill the application must find its tables.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from include.projection_rebuild.rebuild import Rebuild
from include.projection_rebuild.spec import RunOptions
from tests.engine import shop
from tests.engine.test_rebuild import PROJECTORS, TABLES, actual, events, expected, spec, tables

pytestmark = pytest.mark.slow

WRITES = re.compile(
    r"\s*(INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|RENAME|LOCK|FLUSH|UNLOCK|BEGIN|START|COMMIT|SELECT pg_catalog.setval)",
    re.IGNORECASE,
)
MOST = 400
"""No step has more writing statements than this; beyond it a step is not getting anywhere."""

STEPS: dict[str, Callable[[Rebuild], object]] = {
    "plan": lambda made: made.plan(RunOptions()),
    "clone_tables": Rebuild.clone_tables,
    **{name: lambda made, name=name: made.replay(name) for name in PROJECTORS},  # type: ignore[misc]
    "verify_counts": Rebuild.verify,
    "atomic_swap": Rebuild.swap,
    "reconcile": Rebuild.reconcile,
    "drop_old_tables": Rebuild.drop_old,
}


def open_run(engine: sa.Engine) -> Rebuild:
    small = spec(replay={"batch_events": 40, "max_rows_in_memory": 20})
    return Rebuild(small, run_id="crashing", event_store=engine, read_models=engine)


def _attempt(url: str, step: str, deadly: int) -> None:
    engine = sa.create_engine(url)
    done = 0

    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        nonlocal done
        if WRITES.match(statement):
            done += 1
            if done == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

    made = open_run(engine)
    sa.event.listen(engine, "after_cursor_execute", count)
    STEPS[step](made)
    # Straight out: what a worker does at its end is not what is tested here.
    os._exit(0)


def run_with_crashes(url: str, step: str, check: Callable[[], None]) -> int:
    """Kills a step after its 1st, 2nd, 3rd ... write until it ends by itself; returns the number of kills."""
    fork = multiprocessing.get_context("fork")
    for deadly in range(1, MOST):
        worker = fork.Process(target=_attempt, args=(url, step, deadly))
        worker.start()
        worker.join(120)
        if worker.exitcode == 0:
            return deadly - 1
        assert worker.exitcode == -signal.SIGKILL, f"{step} failed by itself after {deadly - 1} kills"
        check()
    raise AssertionError(f"{step} never came to its end")


def test_every_step_survives_a_kill_after_every_write(engine: sa.Engine) -> None:
    shop.metadata.create_all(engine)
    stored = events(150)
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), stored)
    url = engine.url.render_as_string(hide_password=False)

    def application_works() -> None:
        with engine.connect() as connection:
            for table in TABLES:
                connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
        engine.dispose()

    engine.dispose()
    kills = {step: run_with_crashes(url, step, application_works) for step in STEPS}
    assert actual(engine) == expected(stored)
    assert tables(engine) == {"stored_events", *TABLES}
    # Each step was really killed within its work, not beside it.
    assert min(kills.values()) >= 2, kills
    assert kills["atomic_swap"] >= 10 and kills["clone_tables"] >= 10, kills
    engine.dispose()
