"""Every step's worker is killed after every statement that changes anything, and the step is simply run again.

Rebuilds on one database, rollbacks on two others; with REBUILD_TEST_EVERY_STATEMENT=1 both on all of them.

Each attempt is a process of its own that ends by SIGKILL after its n-th writing statement, for n = 1, 2, 3, ... After each
kill the application must work on, and the run's retry must finish the job.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from tests.conftest import EVERY_STATEMENT
from tests.engine.injection import WRITES, Fault
from tests.engine.live_shop import LiveShop
from tests.engine.sweep import REBUILD, ROLLBACK, STEPS, Attempt, Worker, assert_within_the_work, on, sweep

pytestmark = pytest.mark.slow

_fork = multiprocessing.get_context("fork")


def _die(_driver: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _work(shop: LiveShop, run_id: str, step: str, deadly: int) -> None:
    made = shop.open_run(run_id)
    with Fault(deadly, _die, after=True, only=WRITES).on(made):
        STEPS[step](made)
    # Straight out: what a worker does at its end is not what is tested here.
    os._exit(0)


def killed(shop: LiveShop) -> Attempt:
    """Attempts in processes of their own, which are killed."""

    def attempt(run_id: str, step: str, deadly: int) -> bool:
        doomed = _fork.Process(target=_work, args=(shop, run_id, step, deadly))
        doomed.start()
        doomed.join(600)
        assert doomed.exitcode in (0, -signal.SIGKILL), f"{step} failed by itself"
        return doomed.exitcode != 0

    return attempt


KILLED = [
    pytest.param(*kind.values, steps, marks=kind.marks, id=f"{kind.values[0]}-{name}")
    for name, steps, kinds in (("rebuild", REBUILD, on("postgres")), ("rollback", ROLLBACK, on("sqlite", "mariadb")))
    for kind in kinds
]


@pytest.mark.parametrize(("database_kind", "steps"), KILLED, indirect=["database_kind"])
def test_every_step_survives_a_kill_after_every_write(database_url: sa.URL, steps: Sequence[str]) -> None:
    shop = LiveShop(database_url)
    worker = Worker(shop)
    # The ends of both are the same steps.
    struck = steps if steps is REBUILD or EVERY_STATEMENT else ("plan_rollback", "bring_back", "atomic_swap")
    kills = sweep(shop, killed(shop), worker.retry, steps, struck)
    assert_within_the_work(kills)
    worker.close()
