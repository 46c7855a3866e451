"""The rollback DAG, run by Airflow itself while the rebuild that it takes back still waits for its retention."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from include.universal import events, independent
from include.universal.demo import SPEC, run_all
from include.universal.schema import create_schema
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions
from tests.airflow_home import NOW, AirflowHome, conn

pytestmark = [pytest.mark.airflow, pytest.mark.postgres]


def state_of(engine: sa.Engine, rebuild: str) -> str | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("projection_rebuild_runs"):
            return None
        query = sa.text("SELECT state FROM projection_rebuild_runs WHERE run_id LIKE :prefix ORDER BY started_at DESC")
        found: str | None = connection.execute(query, {"prefix": f"{rebuild}/%"}).scalars().first()
        return found


def test_a_switch_is_taken_back_while_its_run_waits(new_database: Callable[[str], sa.URL], airflow_home: AirflowHome) -> None:
    engine = sa.create_engine(new_database("postgres"), poolclass=sa.NullPool)
    create_schema(engine)
    events.append_all(engine, events.generate(500))
    run_all(load_spec(SPEC), engine, "fill", RunOptions(keep_old=False), lambda _: None)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE monthly_summaries SET total_cents = -1")
    before = independent.actual_tables(engine)

    # With nothing that could be taken back, that is said; and it tells how long a run takes on this machine, as busy as it is.
    airflow_home.airflow("version")
    began = time.monotonic()
    state, printed = airflow_home.dags_test("rollback_universal", {}, **conn(engine))
    assert state == "failed" and "nothing to take back" in printed
    patience = max(20, round(5 * (time.monotonic() - began)))

    ended: list[tuple[str, str]] = []
    kept = NOW | {"keep_old": True, "drop_after": f"{patience}s"}
    repair = threading.Thread(target=lambda: ended.append(airflow_home.dags_test("rebuild_universal", kept, **conn(engine))))
    repair.start()
    while state_of(engine, "rebuild_universal") != "reconciled":
        assert repair.is_alive(), ended
        time.sleep(0.2)
    assert independent.actual_tables(engine) == independent.expected_tables(engine)

    state, printed = airflow_home.dags_test("rollback_universal", {"keep_old": False, "reason": "it was right"}, **conn(engine))
    assert state == "success", printed[-5_000:]
    assert "Rollback of the run rebuild_universal/" in printed
    assert independent.actual_tables(engine) == before
    repair.join()
    assert ended[0][0] == "success", ended[0][1][-5_000:]
    left = {name for name in sa.inspect(engine).get_table_names() if name.endswith(("_old", "_rebuild"))}
    assert left == set() and independent.actual_tables(engine) == before
    # With the old tables gone there is nothing left to take back, and that is said.
    state, printed = airflow_home.dags_test("rollback_universal", {}, **conn(engine))
    assert state == "failed" and "nothing to take back" in printed
