"""Rows that are looked up by NULL: found in memory, loaded again and live alike."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.inline import project_live
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.nodes import GROWN, NodeProjector
from tests.engine.harness.specs import SPEC

EXPECTED = [("a", None, 2), ("b", "a", 1), ("c", None, 1), ("d", "a", 0), ("e", None, 0)]


@pytest.fixture
def store(engine: sa.Engine) -> sa.Engine:
    shop.metadata.create_all(engine, tables=[shop.stored_events])
    options = " ENGINE=InnoDB" if engine.dialect.name in ("mysql", "mariadb") else ""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE nodes (id varchar(9) PRIMARY KEY, parent varchar(9), children integer NOT NULL){options}"
        )
        for name, parent in GROWN:
            said = {"aggregate_uuid": name, "event_class": "Grown", "event_properties": {"parent": parent}}
            connection.execute(shop.stored_events.insert(), said)
    return engine


def nodes(engine: sa.Engine) -> list[tuple[str, str | None, int]]:
    with engine.connect() as connection:
        return sorted(tuple(each) for each in connection.exec_driver_sql("SELECT id, parent, children FROM nodes"))


@pytest.mark.parametrize("replay", [{}, {"batch_events": 1, "max_rows_in_memory": 0}])
def test_a_replay_finds_them_in_memory_and_in_the_table(store: sa.Engine, replay: dict[str, int]) -> None:
    spec = RebuildSpec.model_validate(SPEC | {"projectors": [f"{NodeProjector.__module__}:NodeProjector"], "replay": replay})
    run_to(Rebuild(spec, run_id="run", event_store=store, read_models=store, log=lambda _: None), "reconcile")
    assert nodes(store) == EXPECTED


def test_live_code_finds_them(store: sa.Engine) -> None:
    live = store.execution_options(isolation_level="READ COMMITTED") if store.dialect.name != "sqlite" else store
    for position, (name, parent) in enumerate(GROWN, start=1):
        with live.begin() as connection:
            project_live(connection, NodeProjector, Event(position, name, "Grown", {"parent": parent}))
    assert nodes(store) == EXPECTED
