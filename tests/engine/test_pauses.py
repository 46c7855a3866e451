"""The longest pause is a bound: what is undone when it is over, what is left for later, and what is refused beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.cutover import pause
from projection_rebuild.dialects import dialect_for
from projection_rebuild.dialects.base import HeldTables, LockPolicy, PauseTooLong
from projection_rebuild.dialects.mysql.locked_tables import LockedTables
from projection_rebuild.dialects.postgres.transactional import HeldByLocks
from projection_rebuild.errors import PlanError
from projection_rebuild.model.results import PARTS, SwapResult
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness.chains import create, run_of, schema_of
from tests.engine.harness.clocks import ShiftedClock
from tests.engine.harness.driver import run_to


@pytest.fixture
def dozen(family: str, new_database: Callable[[str], sa.URL]) -> Iterator[sa.Engine]:
    """Twelve tables where DDL commits by itself."""
    made = sa.create_engine(new_database(family))
    create(made, 12)
    yield made
    made.dispose()


def test_a_switch_that_cannot_keep_its_bound_is_refused_before_it(dozen: sa.Engine) -> None:
    with dozen.begin() as connection:
        # As a measurement leaves it that was killed.
        connection.exec_driver_sql("CREATE TABLE projection_rebuild_trial_1 (id INT)")
    for options in (RunOptions(), RunOptions(dry_run=True)):
        with pytest.raises(
            PlanError, match=r"swap.max_pause: .* the RENAME of 12 tables .*fewer tables .*or raise swap.max_pause"
        ):
            run_of(dozen, "Dozen", "run", max_pause="1ms").plan(options)
    assert not [name for name in sa.inspect(dozen).get_table_names() if "trial" in name]
    findings = run_of(dozen, "Dozen", "run", max_pause="1h").plan(RunOptions(dry_run=True)).findings
    assert not [each for each in findings if each.about == "swap.max_pause"]


def test_what_follows_the_rename_is_left_to_reconcile_when_the_time_is_up(
    dozen: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, made, clock = schema_of(dozen), run_of(dozen, "Six", "run"), ShiftedClock()
    run_to(made, "verify")
    # MySQL's own, and that of the others.
    owners, done = [LockedTables, HeldTables], []
    at_work = {owner: owner.run_at_work for owner in owners}

    def slow(self: HeldTables, *arguments: Any) -> None:
        next(run for owner, run in at_work.items() if isinstance(self, owner))(self, *arguments)
        done.append(arguments)
        # The second statement is the first one that takes its time.
        if len(done) == 2:
            clock.ahead += 61

    with monkeypatch.context() as patched:
        patched.setattr(pause, "time", clock)
        for owner in owners:
            patched.setattr(owner, "run_at_work", slow)
        assert made.swap().attempts == 1
    assert len(done) == 2
    made.reconcile()
    made.drop_old()
    assert schema_of(dozen) == before
    made.close()


@pytest.mark.postgres
@pytest.mark.parametrize("statements", [["SELECT pg_sleep(3600)"], ["SELECT pg_sleep(0.05)"] * 30], ids=["one", "many"])
def test_the_server_itself_ends_a_switch_whose_time_is_up(postgres_url: sa.URL, statements: list[str]) -> None:
    engine = sa.create_engine(postgres_url)
    dialect, began = dialect_for(engine), time.monotonic()
    with dialect.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INT)")
        with pytest.raises(PauseTooLong), dialect.transaction(connection):
            brief = LockPolicy(timedelta(seconds=1), left=lambda: 0.2)
            HeldByLocks(dialect, connection, []).run_swap(["DROP TABLE t", *statements], brief)
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar_one() == 0
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "0"
    assert time.monotonic() - began < 1800
    engine.dispose()


def test_a_result_tells_the_pause_by_its_parts(engine: sa.Engine) -> None:
    create(engine, 6)
    made = run_of(engine, "Six", "run")
    run_to(made, "verify")
    result = made.swap()
    assert [*result.pause_parts] == [*PARTS]
    assert sum(result.pause_parts.values()) == pytest.approx(result.pause_seconds, abs=0.001)
    assert "(lock " in made.report().as_markdown()
    # One of a run from before there were parts.
    older = SwapResult.model_validate(result.model_dump(exclude={"pause_parts"}))
    assert older.pause_parts == {} and "ms, 1 attempt" in older.describe()
    made.close()
