"""The DAG of the example application, run by Airflow itself against every database."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from include.universal import cdnow, events, independent
from include.universal.demo import SPEC, run_all
from include.universal.schema import create_schema
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions
from tests.airflow_home import NOW, AirflowHome, conn
from tests.engine.harness.databases import on

pytestmark = pytest.mark.airflow


@pytest.fixture
def universal(engine: sa.Engine) -> sa.Engine:
    """3,000 generated events and the CDNOW purchases, over empty read models."""
    create_schema(engine)
    events.append_all(engine, events.generate(3_000))
    events.append_all(engine, cdnow.purchases())
    return engine


@pytest.mark.parametrize("database_kind", on("postgres", "mysql"), indirect=True)
def test_a_rebuild_of_everything(universal: sa.Engine, airflow_home: AirflowHome) -> None:
    state, printed = airflow_home.dags_test("rebuild_universal", NOW, **conn(universal))
    assert state == "success", printed[-5_000:]
    assert independent.actual_tables(universal) == independent.expected_tables(universal)
    _matches_cdnow(universal)


def test_damaged_tables_picked_by_hand(new_database: Callable[[str], sa.URL], airflow_home: AirflowHome) -> None:
    engine = sa.create_engine(new_database("postgres"), poolclass=sa.NullPool)
    create_schema(engine)
    events.append_all(engine, events.generate(3_000))
    run_all(load_spec(SPEC), engine, "fill", RunOptions(keep_old=False), lambda _: None)
    with engine.begin() as connection:
        for table in ("category_summaries", "payment_history", "subscription_items"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        connection.exec_driver_sql("UPDATE monthly_summaries SET total_cents = 0")
        connection.exec_driver_sql("INSERT INTO monthly_summaries VALUES (0, '1999-12', 1, 1)")
    chosen = {"projectors": ["PaymentHistoryProjector", "MonthlySummaryProjector"], "reason": "damage"}
    state, printed = airflow_home.dags_test("rebuild_universal", NOW | chosen, **conn(engine))
    assert state == "success", printed[-5_000:]
    actual, expected = independent.actual_tables(engine), independent.expected_tables(engine)
    untouched = ("category_summaries", "subscription_items")
    assert actual == expected | {table: {} for table in untouched}
    assert "CategorySummaryProjector was not chosen" in printed
    assert "about" in printed and "events/s" in printed.replace("/s,", "events/s")


def test_shards_are_mapped_tasks_and_join(new_database: object, tmp_path: Path, airflow_home: AirflowHome) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shards.db")
    create_schema(engine)
    events.append_all(engine, events.generate(2_000))
    chosen = {"projectors": ["SubscriptionProjector", "ExpenseProjector"], "shards": 2}
    state, printed = airflow_home.dags_test("rebuild_universal", NOW | chosen, **conn(engine))
    assert state == "success", printed[-5_000:]
    for name in ("SubscriptionProjector", "ExpenseProjector"):
        assert f"{name} 2/2: beginning" in printed and f"{name}: 2 shards joined" in printed
    actual, expected = independent.actual_tables(engine), independent.expected_tables(engine)
    assert {name: actual[name] for name in ("subscriptions", "expenses")} == {
        name: expected[name] for name in ("subscriptions", "expenses")
    }


def _matches_cdnow(engine: sa.Engine) -> None:
    """``expenses`` and ``monthly_summaries`` against totals straight from the text file, for the CDNOW customers."""
    purchases, months = independent.cdnow_totals(cdnow.DATA)
    tables = independent.actual_tables(engine)
    found: dict[tuple[object, ...], int] = {}
    for amount, category, note, quantity, spent_on, user in tables["expenses"].values():
        if category == cdnow.CATEGORY and note is None and spent_on < "2000":
            key = user, spent_on, amount, quantity
            found[key] = found.get(key, 0) + 1
    assert {key: (count,) for key, count in found.items()} == purchases
    assert {key: each for key, each in tables["monthly_summaries"].items() if key[1] < "2000"} == months


def test_a_dry_run_prints_the_sql_and_stops(new_database: object, tmp_path: Path, airflow_home: AirflowHome) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/dry.db")
    create_schema(engine)
    before = sa.inspect(engine).get_table_names()
    state, printed = airflow_home.dags_test("rebuild_universal", {"dry_run": True}, **conn(engine))
    assert state == "success"
    assert "UPDATE sqlite_master" in printed and "Dry run" in printed
    assert sa.inspect(engine).get_table_names() == before


def test_an_unknown_projector_is_refused_with_the_names_of_the_known_ones(airflow_home: AirflowHome) -> None:
    state, printed = airflow_home.dags_test("rebuild_universal", {"projectors": ["ExpensProjector"]})
    assert state == "none"
    assert "ExpensProjector" in printed and "MonthlySummaryProjector" in printed


def test_a_failed_verification_is_not_retried_and_the_next_run_takes_the_tables_over(
    tmp_path: Path, airflow_home: AirflowHome
) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/taken_over.db")
    create_schema(engine)
    events.append_all(engine, events.generate(300))
    good = (Path(cdnow.__file__).parents[1] / "rebuilds" / "universal.yaml").read_text(encoding="utf-8")
    # Appends are counted between two looks, and the second is the triggerer's.
    good = good.replace('window: "01:00-05:00"', "max_appends_per_minute: 60\n  look_every: 1s")
    spec = tmp_path / "universal.yaml"
    never = "  max_count_drift_percent: 5"
    spec.write_text(good.replace(never, f'{never}\n  assertions: ["SELECT 1"]'), encoding="utf-8")
    env = {"PROJECTION_REBUILD_SPECS": str(tmp_path), **conn(engine)}
    state, printed = airflow_home.dags_test("rebuild_universal", NOW, **env)
    assert state == "failed"
    assert "green does not pass" in printed and "UP_FOR_RETRY" not in printed.upper()
    state, printed = airflow_home.dags_test("projection_housekeeping", {}, **env)
    assert state == "success" and re.search(
        r"kept: rebuild_universal/\S+ \(cloned\): claims on .*expenses_rebuild.*checkpoints, until", printed
    )
    spec.write_text(good, encoding="utf-8")
    state, printed = airflow_home.dags_test("rebuild_universal", NOW | {"swap_now": False}, **env)
    assert state == "success", printed[-5_000:]
    assert "appends known at the next look" in printed and "appends 0 per minute" in printed
    assert "taking its claims over" in printed
    assert independent.actual_tables(engine) == independent.expected_tables(engine)


def test_a_broken_spec_is_one_readable_import_error_and_stops_no_other(tmp_path: Path, airflow_home: AirflowHome) -> None:
    good = (Path(cdnow.__file__).parents[1] / "rebuilds" / "universal.yaml").read_text(encoding="utf-8")
    (tmp_path / "good.yaml").write_text(good, encoding="utf-8")
    (tmp_path / "broken.yaml").write_text(
        good.replace("timezone: Europe/Amsterdam", "timezone: Europe/Nowhere"), encoding="utf-8"
    )
    (tmp_path / "typo.yaml").write_text(
        good.replace("projectors:ExpenseProjector", "projectors:ExpensProjector"), encoding="utf-8"
    )
    needed = "  - include.universal.projectors:SubscriptionProjector\n"
    (tmp_path / "gap.yaml").write_text(good.replace(needed, "").replace("universal", "gap", 1), encoding="utf-8")
    specs = {"PROJECTION_REBUILD_SPECS": str(tmp_path)}
    assert airflow_home.airflow("dags", "reserialize", **specs).returncode == 0
    errors = airflow_home.airflow("dags", "list-import-errors", "-o", "plain", **specs).stdout
    assert "broken.yaml" in errors and "Europe/Nowhere" in errors
    assert "typo.yaml" in errors and "ExpensProjector" in errors
    assert "gap.yaml" in errors and "add it to `projectors`" in errors
    assert "Traceback" not in errors
    listed = airflow_home.airflow("dags", "list", "-o", "plain", **specs).stdout
    assert "rebuild_universal" in listed
    assert airflow_home.airflow("dags", "reserialize").returncode == 0
    assert "broken.yaml" not in airflow_home.airflow("dags", "list-import-errors", "-o", "plain").stdout
