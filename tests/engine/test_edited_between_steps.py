"""A spec, a projector or a table that was edited while a run goes on: the next step tells it by name, and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import RebuildError, SpecError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.databases import execute
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import actual
from tests.engine.harness.specs import PROJECTORS, SPEC, projectors_of, rebuild

STEPS: dict[str, Callable[[Rebuild], object]] = {
    "clone": Rebuild.clone_tables,
    "replay": lambda made: [made.replay(name) for name in PROJECTORS],
    "replay a shard": lambda made: made.replay_shard("CustomerTotalProjector", 0),
    "replay in a stage": lambda made: made.replay_in_stage("OrderProjector"),
    "verify": Rebuild.verify,
    "swap": Rebuild.swap,
    "reconcile": Rebuild.reconcile,
    "shards": Rebuild.shards,
    "chosen": Rebuild.chosen,
}
AFTER = {
    "plan": ["clone", "shards", "chosen"],
    "clone": ["clone", "replay", "replay a shard", "replay in a stage"],
    "replay": ["verify"],
    "verify": ["swap"],
    "swap": ["reconcile", "swap"],
}


class Elsewhere(shop.OrderProjector):
    """Was called OrderProjector until somebody renamed it."""


def changed(name: str, **members: Any) -> type[Projector]:
    """A projector of the shop as somebody has edited it."""
    return type(name, (getattr(shop, name),), {"__module__": __name__, **members})


@row("orders", key=("id", "customer"), stream="id")
class OrderOfOtherKey:
    id: str
    customer: int
    status: str
    placed_on: date


@row("orders", key="id", stream="id")
class OrderOfMore:
    id: str
    customer: int
    status: str
    placed_on: date
    note: str = ""


@row("orders_of_somebody", key="id", stream="id")
class OrderElsewhere:
    id: str


@pytest.mark.parametrize("upto", AFTER)
@pytest.mark.parametrize("edit", ["taken out", "renamed"])
def test_a_projector_that_is_gone_is_named_by_every_step(shop_on_sqlite: sa.Engine, upto: str, edit: str) -> None:
    made = rebuild(shop_on_sqlite)
    run_to(made, upto, RunOptions(shards=2))
    before = actual(shop_on_sqlite)
    for step in AFTER[upto]:
        later = projectors_of(rebuild(shop_on_sqlite), OrderProjector=None if edit == "taken out" else Elsewhere)
        with pytest.raises(SpecError) as refused:
            STEPS[step](later)
        said = str(refused.value)
        assert "OrderProjector is no longer in it" in said and "run run" in said
        assert "clear `reconcile`" in said if upto == "swap" else "clear `plan`" in said
    # Nothing was touched, and put back it goes on.
    assert actual(shop_on_sqlite) == before
    run_rest(rebuild(shop_on_sqlite), upto)


def run_rest(made: Rebuild, upto: str) -> None:
    steps: list[tuple[str, Callable[[], object]]] = [
        ("clone", made.clone_tables),
        ("replay", lambda: [made.replay(name) for name in made.chosen()]),
        ("verify", made.verify),
        ("swap", made.swap),
        ("reconcile", made.reconcile),
    ]
    names = ["plan", *(name for name, _ in steps)]
    for _, step in steps[names.index(upto) :]:
        step()
    made.drop_old()


EDITS: dict[str, tuple[dict[str, Any], str]] = {
    "another event store": ({"event_store": {"conn_id": "db", "table": "other_events"}}, "event_store.table is other_events now, not stored_events"),
    "another connection": ({"event_store": {"conn_id": "elsewhere"}}, "event_store.conn_id is elsewhere now, not db"),
    "another column": ({"event_store": {"conn_id": "db", "columns": {"stream": "meta_data"}}}, "event_store.columns.stream is meta_data now"),
    "other events": ({"event_store": {"conn_id": "db", "only": {"aggregate_version": 1}}}, "event_store.only.aggregate_version is 1 now, not null"),
    "another schema of it": ({"event_store": {"conn_id": "db", "schema": "main"}}, "event_store.db_schema is main now"),
    "another contract": ({"live_writer": {"contract": "detached", "drain_check": "SELECT 0"}}, "live_writer.contract is detached now, not transactional"),
    "another schema of the tables": ({"read_models": {"conn_id": "db", "schema": "main"}}, "read_models.db_schema is main now, not null"),
    "another structure": ({"structure": {"metadata": "tests.engine.harness.shop:metadata"}}, "structure has been added"),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_another_place_is_named_by_the_next_step(shop_on_sqlite: sa.Engine, edit: str) -> None:
    run_to(rebuild(shop_on_sqlite), "verify")
    changes, words = EDITS[edit]
    for step in ("clone", "verify", "swap"):
        with pytest.raises(SpecError) as refused:
            STEPS[step](rebuild(shop_on_sqlite, **changes))
        assert words in str(refused.value)
    run_rest(rebuild(shop_on_sqlite), "verify")


CODE: dict[str, tuple[dict[str, type[Projector]], str]] = {
    "another key": (
        {"OrderProjector": changed("OrderProjector", owns=(OrderOfOtherKey,), part=None)},
        "OrderProjector: the key of orders is (id, customer) now, not (id)",
    ),
    "other columns": (
        {"OrderProjector": changed("OrderProjector", owns=(OrderOfMore,), part=None)},
        "OrderProjector: its row class of orders has other columns now: note more, updated_at gone",
    ),
    "another table": (
        {"OrderProjector": changed("OrderProjector", owns=(OrderElsewhere,), part=None)},
        "OrderProjector owns the tables orders_of_somebody now, not orders",
    ),
    "divided otherwise": (
        {"CustomerTotalProjector": changed("CustomerTotalProjector", partition_by="orders")},
        "CustomerTotalProjector is divided by orders now, not by customer",
    ),
}


@pytest.mark.parametrize("edit", CODE)
def test_a_projector_with_other_rows_is_named_by_the_next_step(shop_on_sqlite: sa.Engine, edit: str) -> None:
    run_to(rebuild(shop_on_sqlite), "verify")
    code, words = CODE[edit]
    for step in ("clone", "replay", "verify", "swap"):
        with pytest.raises(SpecError) as refused:
            STEPS[step](projectors_of(rebuild(shop_on_sqlite), **code))
        assert words in str(refused.value)
    run_rest(rebuild(shop_on_sqlite), "verify")


def test_what_may_change_while_a_run_waits_changes_nothing(shop_on_sqlite: sa.Engine) -> None:
    made = rebuild(shop_on_sqlite)
    run_to(made, "replay")

    class Corrected(shop.OrderProjector):
        version = "2"

        @handles("OrderPlaced")
        def placed(self, event: Event, rows: Rows) -> None:
            super().placed(event, rows)  # type: ignore[misc]

    Corrected.__name__ = "OrderProjector"
    free = {
        "low_traffic": {"window": "01:00-05:00"},
        "retention": {"drop_after": "1h"},
        "verify": {"max_count_drift_percent": 50, "max_dead_letters": 3},
        "swap": {"max_pause": "5s", "attempts": 7},
        "replay": {"batch_events": 50, "on_error": "dead_letter"},
        "throttle": {"look_every": "2s"},
        "notify": {"failure": [{"notifier": "a.B"}]},
        "deadline": "3h",
        "schedule": "@daily",
        "timezone": "Europe/Amsterdam",
        "projectors": list(reversed(SPEC["projectors"])),
        "event_store": {"conn_id": "db", "wait_for_holes": "1s"},
    }
    run_rest(projectors_of(rebuild(shop_on_sqlite, **free), OrderProjector=Corrected), "replay")


def test_after_the_switch_what_is_done_with_may_change(shop_on_sqlite: sa.Engine) -> None:
    run_to(rebuild(shop_on_sqlite), "swap")
    code, _ = CODE["other columns"]
    projectors_of(rebuild(shop_on_sqlite, structure={"metadata": "tests.engine.harness.shop:metadata"}), **code).reconcile()
    later = projectors_of(rebuild(shop_on_sqlite, **EDITS["another event store"][0]), OrderProjector=None)
    assert later.drop_due()
    later.drop_old()


def test_a_structure_file_that_is_edited_is_named(shop_on_sqlite: sa.Engine, tmp_path: Path) -> None:
    (tmp_path / "orders.sql").write_text(
        "CREATE TABLE orders (id TEXT PRIMARY KEY, customer INT NOT NULL, status TEXT NOT NULL, placed_on DATE NOT NULL, updated_at TIMESTAMP)"
    )
    execute(shop_on_sqlite, "DROP TABLE order_lines")
    text = (
        "rebuild: shop\nevent_store: {conn_id: db}\nread_models: {conn_id: db}\nprojectors: ['tests.engine.harness.shop:OrderProjector']\n"
        "live_writer: transactional\nstructure: {ddl: orders.sql}\n"
    )
    (tmp_path / "shop.yaml").write_text(text)

    def at_work() -> Rebuild:
        spec = load_spec(tmp_path / "shop.yaml")
        return Rebuild(spec, run_id="run", event_store=shop_on_sqlite, read_models=shop_on_sqlite, log=lambda _: None)

    run_to(at_work(), "clone")
    (tmp_path / "orders.sql").write_text((tmp_path / "orders.sql").read_text() + "; CREATE INDEX ix ON orders (status)")
    with pytest.raises(SpecError, match="the content of ddl has been changed"):
        at_work().replay("OrderProjector")
    run_to(at_work(), "reconcile")


def test_a_run_of_the_version_before_goes_on_and_is_told_what_its_plan_tells(shop_on_sqlite: sa.Engine) -> None:
    made = rebuild(shop_on_sqlite)
    run_to(made, "replay")
    ledger = made._context.ledger
    with made._context.dialect.connect() as connection:
        record: Any = dict(ledger.over(connection, "run").runs.get().stored)
        record.pop("agreed")
        state = ledger.over(connection, "run").runs.get().state
        ledger.over(connection, "run").runs.begin("shop", record)
        ledger.over(connection, "run").runs.move(state)
    with pytest.raises(SpecError, match="OrderProjector is no longer in it"):
        projectors_of(rebuild(shop_on_sqlite), OrderProjector=None).verify()
    with pytest.raises(SpecError, match="own the tables customer_totals, order_lines, orders_of_somebody now, not"):
        projectors_of(rebuild(shop_on_sqlite), **CODE["another table"][0]).verify()
    # What it does not know of, it does not miss.
    projectors_of(rebuild(shop_on_sqlite), **CODE["other columns"][0]).chosen()
    run_rest(rebuild(shop_on_sqlite), "replay")


def test_a_rollback_whose_projector_is_gone_is_told(shop_on_sqlite: sa.Engine) -> None:
    run_to(rebuild(shop_on_sqlite), "reconcile")
    back = rebuild(shop_on_sqlite, run_id="back")
    back.plan_rollback(RunOptions())
    with pytest.raises(SpecError, match="OrderProjector is no longer in it"):
        projectors_of(rebuild(shop_on_sqlite, run_id="back"), OrderProjector=None).bring_back()
    back.bring_back()
    with pytest.raises(SpecError, match="OrderProjector is no longer in it"):
        projectors_of(rebuild(shop_on_sqlite, run_id="back"), OrderProjector=None).swap()
    rebuild(shop_on_sqlite, run_id="back").swap()


def test_a_dead_run_that_needs_the_spec_as_it_was_is_left_to_a_person(shop_on_sqlite: sa.Engine) -> None:
    run_to(rebuild(shop_on_sqlite), "swap")
    edited = rebuild(shop_on_sqlite, run_id="next", event_store={"conn_id": "elsewhere"})
    with pytest.raises(RebuildError, match="was not reconciled"):
        edited.plan(RunOptions(), is_over=lambda _: True)
    # As it was, the next run finishes it first.
    rebuild(shop_on_sqlite, run_id="next").plan(RunOptions(), is_over=lambda _: True)


def test_a_projector_that_the_spec_never_had_is_named(shop_on_sqlite: sa.Engine) -> None:
    run_to(rebuild(shop_on_sqlite), "clone")
    with pytest.raises(SpecError, match="no projector Nobody"):
        rebuild(shop_on_sqlite).replay("Nobody")
