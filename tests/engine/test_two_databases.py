"""Event store and read models in two databases, of different kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import PlanError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.seams import before_the_drain
from tests.engine.harness.shop import actual, events, expected
from tests.engine.harness.specs import spec

PAIRS = [
    pytest.param("sqlite", "postgres", marks=[pytest.mark.postgres]),
    pytest.param("postgres", "mysql", marks=[pytest.mark.postgres, pytest.mark.mysql]),
    pytest.param("mariadb", "sqlite", marks=[pytest.mark.mariadb]),
    pytest.param("mysql", "mariadb", marks=[pytest.mark.mysql, pytest.mark.mariadb]),
    pytest.param("sqlite", "sqlite"),
]


IMPATIENT: dict[str, dict[str, Any]] = {
    "postgresql": {"options": "-c lock_timeout=200ms"},
    "mysql": {"init_command": "SET lock_wait_timeout = 1"},
    "sqlite": {"timeout": 0.2},
}


def impatient(engine: sa.Engine) -> sa.Engine:
    """Connections that wait for a lock but shortly."""
    return sa.create_engine(engine.url, poolclass=sa.NullPool, connect_args=IMPATIENT[engine.url.get_backend_name()])


@pytest.mark.parametrize(("store_kind", "models_kind"), PAIRS)
def test_events_of_one_database_become_rows_of_another(
    store_kind: str, models_kind: str, new_database: Callable[[str], sa.URL], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, models = sa.create_engine(new_database(store_kind)), sa.create_engine(new_database(models_kind))
    shop.metadata.create_all(store, tables=[shop.stored_events])
    shop.metadata.create_all(models, tables=[each for each in shop.metadata.sorted_tables if each is not shop.stored_events])
    stored = events(1_000)
    with store.begin() as connection:
        connection.execute(shop.stored_events.insert(), stored)
    nobody = {"contract": "detached", "drain_check": "SELECT 0"}
    unhurried = spec(live_writer=nobody, swap={"max_pause": "20s"})
    made = Rebuild(unhurried, run_id="two", event_store=store, read_models=models)
    run_to(made, "verify")
    late = {"aggregate_uuid": "late", "event_class": "OrderPlaced", "event_properties": {"customer": 1, "on": "2026-03-01"}}
    with store.begin() as connection:
        connection.execute(shop.stored_events.insert(), [late])
    held_back = []

    def append() -> None:
        with pytest.raises(sa.exc.OperationalError), impatient(store).begin() as connection:
            connection.execute(shop.stored_events.insert(), [late | {"aggregate_uuid": "held back"}])
        held_back.append(True)

    before_the_drain(monkeypatch, append)
    made.swap()
    assert held_back
    made.reconcile()
    made.drop_old()
    assert actual(models) == expected([*stored, late])
    assert sa.inspect(store).get_table_names() == ["stored_events"]
    # Nobody is held any longer.
    with store.begin() as connection:
        connection.execute(shop.stored_events.insert(), [late])
    store.dispose()
    models.dispose()


@pytest.mark.parametrize("writer", ["transactional", {"contract": "detached", "jobs_left": "SELECT 1 WHERE 0"}])
def test_one_transaction_over_two_databases_is_refused(new_database: Callable[[str], sa.URL], writer: Any) -> None:
    store, models = sa.create_engine(new_database("sqlite")), sa.create_engine(new_database("sqlite"))
    shop.metadata.create_all(store)
    shop.metadata.create_all(models)
    with pytest.raises(PlanError, match="two databases"):
        Rebuild(spec(live_writer=writer), run_id="two", event_store=store, read_models=models).plan(RunOptions())


@pytest.mark.postgres
def test_read_models_in_a_schema_of_their_own(new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database("postgres"))
    shop.metadata.create_all(engine, tables=[shop.stored_events])
    stored = events(500)
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), stored)
        connection.exec_driver_sql('CREATE SCHEMA "Read Models"')
    inside = engine.execution_options(schema_translate_map={None: "Read Models"})
    shop.metadata.create_all(inside, tables=[each for each in shop.metadata.sorted_tables if each is not shop.stored_events])
    made = Rebuild(
        spec(read_models={"conn_id": "db", "schema": "Read Models"}), run_id="schema", event_store=engine, read_models=engine
    )
    run_to(made, "drop", RunOptions())
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER DATABASE " + str(engine.url.database) + ' SET search_path = "Read Models"')
    engine.dispose()
    assert actual(engine) == expected(stored)
    assert not any(name.startswith("projection_rebuild") for name in sa.inspect(engine).get_table_names("public"))
    engine.dispose()
