"""Projectors that give SQL: the same tables as by handlers, the same checkpoints, and what becomes of events it cannot take."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import HandlerError, Interrupted, PlanError, ProjectorError
from projection_rebuild.model.positions import Place
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay import set_based as sets_module
from projection_rebuild.replay.set_based import SetBasedReplay, SetError
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.projectors import load_projector
from tests.engine.harness import shop, shop_sets
from tests.engine.harness.driver import run_to, run_to_end
from tests.engine.harness.shop import actual, events, expected
from tests.engine.harness.specs import PROJECTORS, SPEC, rebuild

BOTH = [*SPEC["projectors"][:2], "tests.engine.harness.shop_sets:CustomerTotalProjector"]
ALONE = ["tests.engine.harness.shop_sets:TotalsBySqlAlone"]
LATE = {"aggregate_uuid": "late", "event_class": "OrderPlaced", "event_properties": {"customer": 1, "on": "2026-03-01"}}


@pytest.fixture
def engine(sqlite: sa.Engine) -> sa.Engine:
    """Where the database does not matter."""
    return sqlite


def fill(engine: sa.Engine) -> list[dict[str, Any]]:
    """1,000 events over empty read models."""
    made = events(1_000)
    shop.fill(engine, made)
    return made


def append(engine: sa.Engine, event: dict[str, Any]) -> None:
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), [event])


def by_sql(made: Rebuild, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges over which SQL is run."""
    ranges: list[tuple[Place, Place]] = []
    run = SetBasedReplay.run

    def noted(
        self: SetBasedReplay, connection: sa.Connection, after: Place, upto: Place, among: Collection[int] | None = None
    ) -> None:
        ranges.append((after, upto))
        run(self, connection, after, upto, among)

    monkeypatch.setattr(SetBasedReplay, "run", noted)
    return ranges


def test_ranges_follow_each_other_and_the_rest_is_drained_by_handlers(
    engine: sa.Engine, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rebuild(engine, projectors=BOTH)
    ranges = by_sql(made, monkeypatch)
    run_to(made, "verify")
    assert len(ranges) >= 9 and ranges[0][0] is None and ranges[-1][1] == 1_000
    assert [after for after, _ in ranges[1:]] == [upto for _, upto in ranges[:-1]]
    append(engine, LATE)
    before = len(ranges)
    made.swap()
    assert len(ranges) == before
    assert actual(engine) == expected([*stored, LATE])


def test_handlers_are_used_where_the_spec_says_so(
    engine: sa.Engine, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rebuild(engine, projectors=BOTH, replay={"set_based": False})
    ranges = by_sql(made, monkeypatch)
    run_to(made, "drop")
    assert ranges == [] and actual(engine) == expected(stored)


def test_a_replay_by_sql_that_was_stopped_goes_on_from_its_checkpoint(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine, projectors=BOTH)
    run_to(made, "clone")
    looks = iter([False, False, True])
    with pytest.raises(Interrupted):
        made.replay("CustomerTotalProjector", stopped=lambda: next(looks))
    # Two ranges of 100 events of its types.
    own = [at for at, each in enumerate(stored, start=1) if each["event_class"] in ("OrderPlaced", "LineAdded")]
    assert made.replay("CustomerTotalProjector").resumed_from == own[199]
    run_to_end(made, PROJECTORS)
    assert actual(engine) == expected(stored)


def test_positions_that_green_holds_already_are_left_out(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    projector = shop_sets.CustomerTotalProjector

    def in_ranges_of(most: int) -> SetBasedReplay:
        context = rebuild(engine, projectors=BOTH, replay={"batch_events": most})._context
        return SetBasedReplay(context, projector, applied_above=[3, 5, 2_000])

    there = [at for at, each in enumerate(stored, start=1) if each["event_class"] in projector.event_types() and at not in (3, 5)]
    assert in_ranges_of(100).next_range(None, 1_000) == (there[99], 100)
    assert in_ranges_of(10_000).next_range(None, 1_000) == (1_000, len(there))
    assert in_ranges_of(10_000).next_range(2, 5) == (5, sum(2 < at <= 5 for at in there))


def test_a_range_holds_no_more_events_than_there_is_time_for(
    engine: sa.Engine, stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets_module, "FIRST_RANGE", 50)
    monkeypatch.setattr(sets_module, "FEWEST", 10)
    context = rebuild(engine, projectors=BOTH, replay={"batch_events": 1_000})._context
    sets = SetBasedReplay(context, context.projector("CustomerTotalProjector"), applied_above=[])
    # Nothing was there, so it was quick, which says nothing about events.
    sets.took(0, 0.001)
    bound, count = sets.next_range(None, 1_000)
    assert count == 50 and bound is not None and bound < 1_000
    for took, most in ((2 * sets._target_seconds, 25), (sets._target_seconds / 1_000, 500)):
        sets.took(count, took)
        bound, count = sets.next_range(None, 1_000)
        assert count == most
    sets.took(count, 0.0)
    assert sets.next_range(bound, 1_000)[0] == 1_000


@pytest.mark.postgres
def test_what_sql_cannot_take_is_named_by_the_handlers(new_database: Any) -> None:
    engine = sa.create_engine(new_database("postgres"))
    fill(engine)
    append(engine, {"aggregate_uuid": "x", "event_class": "LineAdded", "event_properties": {"customer": "s3cret", "price": "1"}})
    lines: list[str] = []
    made = rebuild(engine, projectors=BOTH, log=lines.append)
    run_to(made, "clone")
    with pytest.raises(HandlerError, match="1001") as caught:
        made.replay("CustomerTotalProjector")
    assert {each.projector: each.position for each in made.report().replays}["CustomerTotalProjector"] == 1_000
    assert any("its handlers do the work" in line for line in lines)
    assert "s3cret" not in "".join([*lines, str(caught.value)])
    alone = rebuild(engine, "alone", projectors=ALONE)
    alone.plan(RunOptions(), is_over=lambda _: True)
    alone.clone_tables()
    with pytest.raises(SetError, match=r"TotalsBySqlAlone.* 22P02") as refused:
        alone.replay("TotalsBySqlAlone")
    assert "s3cret" not in str(refused.value) and refused.value.__suppress_context__
    engine.dispose()


@pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def test_sql_alone_does_everything_up_to_the_switch(kind: str, new_database: Any) -> None:
    engine = sa.create_engine(new_database(kind))
    made_events = fill(engine)
    made = rebuild(engine, projectors=ALONE)
    run_to(made, "replay")
    append(engine, LATE)
    made.verify()
    append(engine, LATE)
    made.swap()
    made.reconcile()
    assert actual(engine)["customer_totals"] == expected([*made_events, LATE, LATE])["customer_totals"]
    engine.dispose()


@pytest.mark.mysql
def test_sql_alone_is_refused_where_the_switch_cannot_run_it(new_database: Any) -> None:
    engine = sa.create_engine(new_database("mysql"))
    fill(engine)
    with pytest.raises(PlanError, match=r"TotalsBySqlAlone.*give it handlers"):
        rebuild(engine, projectors=ALONE).plan(RunOptions())
    engine.dispose()


def test_a_projector_with_neither_is_refused(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    with pytest.raises(PlanError, match="none for this database"):
        rebuild(engine, projectors=["tests.engine.harness.shop_sets:ForOneDatabase"]).plan(RunOptions())


class MisspelledSql(load_projector(BOTH[2])):  # type: ignore[misc]
    given: ClassVar[Any] = ["DELETE FROM {customer_totals} WHERE 1 = 0", "DELETE FROM {customer_totalz}"]

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        given: Sequence[str] = cls.given
        return given


def test_sql_that_cannot_be_executed_is_named_with_its_projector(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine, projectors=[f"{__name__}:MisspelledSql"])
    made.plan(RunOptions())
    made.clone_tables()
    with pytest.raises(ProjectorError, match="MisspelledSql: 2 of the 2 texts in its `statements` for sqlite cannot be executed"):
        made.replay("MisspelledSql")


@pytest.mark.parametrize("given", ["DELETE FROM {customer_totals}", [None], None])
def test_statements_that_are_no_list_of_texts_are_refused_in_the_plan(
    engine: sa.Engine, stored: list[dict[str, Any]], given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MisspelledSql, "given", given)
    with pytest.raises(ProjectorError, match="MisspelledSql: its `statements` give no list of texts"):
        rebuild(engine, projectors=[f"{__name__}:MisspelledSql"]).plan(RunOptions())


def test_two_databases_leave_the_work_to_the_handlers(new_database: Any) -> None:
    store, models = (sa.create_engine(new_database("sqlite")) for _ in range(2))
    fill(store)
    shop.metadata.create_all(models)
    jobs = {"contract": "detached", "drain_check": "SELECT 0"}
    spec = rebuild(store, projectors=BOTH, live_writer=jobs)._context.spec
    made = Rebuild(spec, run_id="run", event_store=store, read_models=models, log=lambda _: None)
    notes = made.plan(RunOptions()).findings
    assert any("CustomerTotalProjector" in str(each) and "two databases" in str(each) for each in notes)
    made.clone_tables()
    made.replay("CustomerTotalProjector")
    assert actual(models, "_rebuild")["customer_totals"] == expected(events(1_000))["customer_totals"]


def test_reads_beside_handlers_are_refused() -> None:
    with pytest.raises(ProjectorError, match="`reads_events`"):
        load_projector("tests.engine.test_sets:Wrong")


class Wrong(shop.OrderProjector):
    reads_events = ("OrderPlaced",)
