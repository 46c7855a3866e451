"""Whoever keeps an SQLite database from being written is heard: the plan refuses, and no connection of ours undoes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import DatabaseTrouble, PlanError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness.findings import findings_of
from tests.engine.harness.values_shop import filled, fresh, rebuild_of, usual


@pytest.fixture
def guarded(sqlite_url: sa.URL) -> Iterator[sa.Engine]:
    """An engine that tells each of its connections to write nothing."""
    filled(sqlite_url)
    engine = _guarded(sqlite_url)
    yield engine
    engine.dispose()


def _guarded(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url)
    sa.event.listen(engine, "connect", lambda driver, _: driver.execute("PRAGMA query_only = 1").close())
    return engine


def _schema(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT name FROM sqlite_master ORDER BY name").scalars())


def test_the_plan_refuses_and_writes_nothing(guarded: sa.Engine) -> None:
    before = _schema(guarded)
    with pytest.raises(PlanError, match=r"query_only: .*keeps this database read-only.*PRAGMA query_only = 0"):
        rebuild_of(guarded).plan(RunOptions())
    assert _schema(guarded) == before


def test_a_connection_of_ours_leaves_it_on(guarded: sa.Engine) -> None:
    with dialect_for(guarded).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA query_only").scalar() == 1
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            connection.exec_driver_sql("CREATE TABLE written (n INT)")


def test_each_finding_has_its_own_remedy(guarded: sa.Engine) -> None:
    refusals = [each for each in findings_of(guarded) if each.refuses]
    assert {each.about for each in refusals} == {"query_only", "event store stored_events"}
    for each in refusals:
        assert "PRAGMA query_only = 0" in each.remedy and "journal" not in each.problem


def test_an_event_store_of_its_own_that_may_not_be_written_is_refused(new_database: Callable[[str], sa.URL]) -> None:
    store, models = new_database("sqlite"), new_database("sqlite")
    filled(store)
    filled(models)
    engine = _guarded(store)
    spec = rebuild_of(usual(models))._context.spec
    made = Rebuild(spec, run_id="apart", event_store=engine, read_models=fresh(models), log=lambda _: None)
    with pytest.raises(PlanError, match=r"event store stored_events: .*query_only"):
        made.plan(RunOptions())
    made.close()
    engine.dispose()


def test_where_it_is_put_on_after_the_plan_the_step_says_so(sqlite_url: sa.URL) -> None:
    filled(sqlite_url)
    rebuild_of(usual(sqlite_url)).plan(RunOptions())
    engine = _guarded(sqlite_url)
    with pytest.raises(DatabaseTrouble, match="read-only"):
        rebuild_of(engine).clone_tables()
    engine.dispose()
