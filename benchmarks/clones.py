"""What the steps around a replay cost on large tables: clone, indexes, verification and switch, by the product's own verbs.

The green table is filled by one INSERT ... SELECT instead of a replay. PostgreSQL only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import sqlalchemy as sa

from benchmarks.ours import Setup, rebuild_of
from benchmarks.store import Database, Store
from include.universal.projectors import ExpenseProjector
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions

ROLLBACKS = 4
"""So often the switch is taken back, or forth again: each is a switch like the first."""

_FILL = """
    INSERT INTO expenses (id, user_id, category, amount_cents, quantity, note, spent_on)
    SELECT lpad(to_hex(n), 8, '0') || '-0000-4000-a000-000000000000', mod(n, 25000), 'category ' || mod(n, 8), mod(n, 20000), 1, 'note ' || n,
      date '2023-01-01' + (n / 20000)::int
    FROM generate_series(1, {}) n"""


def run(server: Database, rows: int) -> dict[str, float]:
    """Rebuilds a table of so many rows whose keys ascend.

    :returns: seconds of each step; ``pause``, the median of all switches, is for how long writers were held
    """
    engine = server.create(f"clone{rows}")
    store = Store(server.kind, engine, size=rows)
    with engine.begin() as connection:
        connection.exec_driver_sql(_FILL.format(rows))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE expenses")
    store.settle()
    seconds: dict[str, float] = {}
    setup = Setup(projectors=(ExpenseProjector,))
    with _closing(rebuild_of(store.url, setup.spec(), "clone")) as rebuild:
        _step(seconds, "plan", lambda: rebuild.plan(RunOptions(keep_old=True)))
        _step(seconds, "structure", rebuild.clone_tables)
        _step(seconds, "copy of the rows", lambda: _copy(engine))
        _step(seconds, "indexes and statistics", lambda: rebuild.replay(ExpenseProjector.name()))
        _step(seconds, "verify", rebuild.verify)
        _step(seconds, "swap", rebuild.swap)
        rebuild.reconcile()
        pauses = [_pause(rebuild)]
    for number in range(ROLLBACKS):
        with _closing(rebuild_of(store.url, setup.spec(), f"rollback{number}")) as rollback:
            rollback.plan_rollback(RunOptions(keep_old=True))
            rollback.bring_back()
            rollback.swap()
            rollback.reconcile()
            pauses.append(_pause(rollback))
    engine.dispose()
    return seconds | {"pause": median(pauses)}


def _step(seconds: dict[str, float], name: str, step: Callable[[], object]) -> None:
    began = time.monotonic()
    step()
    seconds[name] = time.monotonic() - began


def _copy(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO expenses_rebuild SELECT * FROM expenses")


def _pause(rebuild: Rebuild) -> float:
    swapped = rebuild.report().swap
    return swapped.pause_seconds if swapped else 0.0


@contextmanager
def _closing(rebuild: Rebuild) -> Iterator[Rebuild]:
    try:
        yield rebuild
    finally:
        rebuild.close()
