"""Every step's worker is killed after every statement that changes anything, and the step is simply run again.

Rebuilds on one database, rollbacks on two others; with REBUILD_TEST_EVERY_STATEMENT=1 both on all of them.

Each attempt is a process of its own that ends by SIGKILL after its n-th writing statement, for n = 1, 2, 3, ... After each
kill the application must work on, and the run's retry must finish the job.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from tests.conftest import EVERY_STATEMENT
from tests.engine.harness.clients import LiveShop
from tests.engine.harness.databases import on
from tests.engine.harness.sweep import REBUILD, ROLLBACK, Worker, assert_within_the_work, killed, sweep

pytestmark = pytest.mark.slow


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
