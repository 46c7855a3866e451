"""Projectors that look at another one's table, and projectors that go in one pass: what time they see, on real purchases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from include.universal.cdnow import DATA, purchases
from include.universal.events import NewEvent, append, append_all
from include.universal.independent import cdnow_totals
from include.universal.live import unit_of_work
from include.universal.projectors import CategorySummaryProjector, MonthlySummaryProjector
from include.universal.rows import CategorySummary, MonthlySummary
from include.universal.schema import create_schema
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import HandlerError, PlanError, ProjectorError, RowError, StepOrderError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.inline import project_live
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.dependencies import choose, order
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.projectors import foreign_readings
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness.databases import marked
from tests.engine.harness.seams import before_the_drain
from tests.universal.harness.running_totals import MonthsAndTotals, RunningTotal, RunningTotalProjector
from tests.universal.harness.runs import SPEC

HERE = "tests.universal.test_reading"
SHARED = "tests.universal.harness.running_totals"


APART = ["include.universal.projectors:MonthlySummaryProjector", f"{SHARED}:RunningTotalProjector"]
TOGETHER = [f"{SHARED}:MonthsAndTotals"]
SERVERS = marked("postgres", "mariadb")


@pytest.fixture
def shop(kind: str, new_database: Callable[[str], sa.URL]) -> sa.Engine:
    """The purchases in the store, over empty tables."""
    engine = sa.create_engine(new_database(kind))
    create_schema(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE running_totals (id varchar(36) PRIMARY KEY, month_cents bigint NOT NULL)")
    append_all(engine, purchases())
    return engine


def opened(engine: sa.Engine, run_id: str, projectors: list[str]) -> Rebuild:
    given = load_spec(SPEC).model_dump(by_alias=True, mode="json")
    spec = RebuildSpec.model_validate(
        given | {"projectors": projectors, "replay": {"batch_events": 1_000, "max_rows_in_memory": 500}}
    )
    return Rebuild(spec, run_id=run_id, event_store=engine, read_models=engine, log=lambda _: None)


def replayed(made: Rebuild, **options: Any) -> None:
    made.plan(RunOptions(keep_old=False, max_count_drift_percent=100, **options))
    made.clone_tables()
    for name in made.chosen():
        made.replay(name)


def switched(made: Rebuild) -> None:
    made.verify()
    made.swap()
    made.reconcile()
    made.drop_old()
    made.close()


def totals(engine: sa.Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {key: cents for key, cents in connection.exec_driver_sql("SELECT id, month_cents FROM running_totals")}


def at_each_purchase(events: list[NewEvent]) -> dict[str, int]:
    """What each purchase's customer had spent in its month, it included: in the order of the purchases."""
    spent: dict[tuple[Any, ...], int] = defaultdict(int)
    found = {}
    for said in (event.payload for event in events):
        month = said["user_id"], said["spent_on"][:7]
        spent[month] += said["amount_cents"]
        found[said["expense_id"]] = spent[month]
    return found


@pytest.mark.parametrize("kind", SERVERS)
def test_in_one_pass_each_sees_the_other_at_its_very_event_in_a_rebuild_and_live(kind: str, shop: sa.Engine) -> None:
    made = opened(shop, "together", TOGETHER)
    replayed(made)
    assert totals(shop) == {}
    switched(made)
    known = list(purchases())
    assert totals(shop) == at_each_purchase(known)
    more = [
        each._replace(payload=each.payload | {"expense_id": f"more-{at}"}, version=1_000 + at)
        for at, each in enumerate(known[-20:])
    ]
    for event in more:
        with unit_of_work(shop) as connection:
            stored = append(connection, event)
            project_live(connection, MonthsAndTotals, stored)
    live = totals(shop)
    assert live == at_each_purchase([*known, *more])
    again = opened(shop, "again", TOGETHER)
    replayed(again)
    switched(again)
    assert totals(shop) == live


@pytest.mark.parametrize("kind", SERVERS)
def test_apart_a_reader_sees_green_as_its_owner_has_filled_it_and_never_before_its_event(kind: str, shop: sa.Engine) -> None:
    _, months = cdnow_totals(DATA)
    made = opened(shop, "apart", APART)
    replayed(made)
    # Appended since: their months are in nobody's green yet, and the reader must find them all the same.
    late = [
        each._replace(
            payload=each.payload | {"expense_id": f"late-{at}", "spent_on": f"1999-{at % 12 + 1:02}-01"}, version=2_000 + at
        )
        for at, each in enumerate(list(purchases())[:30])
    ]
    append_all(shop, late)
    switched(made)
    found = totals(shop)
    for said in (event.payload for event in purchases()):
        assert found[said["expense_id"]] == months[said["user_id"], said["spent_on"][:7]][1]
    late_months: dict[tuple[Any, ...], int] = defaultdict(int)
    for said in (event.payload for event in late):
        late_months[said["user_id"], said["spent_on"][:7]] += said["amount_cents"]
    for said in (event.payload for event in late):
        assert found[said["expense_id"]] == late_months[said["user_id"], said["spent_on"][:7]]


@pytest.mark.parametrize("kind", SERVERS[:1])
def test_a_reader_without_its_owner_in_the_run_sees_the_live_table(kind: str, shop: sa.Engine) -> None:
    made = opened(shop, "owner", APART)
    replayed(made, projectors=("MonthlySummaryProjector",))
    switched(made)
    with shop.begin() as connection:
        connection.exec_driver_sql("UPDATE monthly_summaries SET total_cents = 7")
    reader = opened(shop, "reader", APART)
    told = reader.plan(RunOptions(projectors=("RunningTotalProjector",), dry_run=True)).describe()
    assert "RunningTotalProjector reads it, and this run does not rebuild it" in told
    replayed(reader, projectors=("RunningTotalProjector",))
    switched(reader)
    assert set(totals(shop).values()) == {7}


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_reader_is_not_replayed_before_its_owner(kind: str, shop: sa.Engine) -> None:
    made = opened(shop, "apart", APART)
    made.plan(RunOptions())
    made.clone_tables()
    with pytest.raises(StepOrderError, match="reads tables of MonthlySummaryProjector, which is not replayed"):
        made.replay("RunningTotalProjector")


class Meddler(RunningTotalProjector):
    @handles("ExpenseRecorded")
    def recorded(self, event: Event, rows: Rows) -> None:
        rows.get(MonthlySummary, event["user_id"], event["spent_on"][:7]).total_cents += 1


class Nosy(Projector):
    """Does not say what it looks at."""

    owns = (RunningTotal,)

    @handles("ExpenseRecorded")
    def recorded(self, event: Event, rows: Rows) -> None:
        rows.find(MonthlySummary, event["user_id"], event["spent_on"][:7])


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("culprit", ["Meddler", "Nosy"])
def test_a_handler_changes_nothing_that_it_reads_and_reads_nothing_undeclared(kind: str, shop: sa.Engine, culprit: str) -> None:
    made = opened(shop, "run", [APART[0], f"{HERE}:{culprit}"])
    made.plan(RunOptions())
    made.clone_tables()
    made.replay("MonthlySummaryProjector")
    with pytest.raises(HandlerError, match=f"{culprit} failed on the event ExpenseRecorded at position 1: RowError"):
        made.replay(culprit)
    event = Event(1, "s", "ExpenseRecorded", dict(next(purchases()).payload))
    words = "only `reads`" if culprit == "Meddler" else "neither `owns` nor `reads`"
    with shop.begin() as connection:
        months = {"user_id": event["user_id"], "month": event["spent_on"][:7], "expenses": 1, "total_cents": 1}
        connection.execute(sa.text("INSERT INTO monthly_summaries VALUES (:user_id, :month, :expenses, :total_cents)"), months)
        with pytest.raises(RowError, match=words):
            project_live(connection, {"Meddler": Meddler, "Nosy": Nosy}[culprit], event)


class First(Projector):
    owns = (MonthlySummary,)
    reads = (RunningTotal,)

    @handles("A")
    def on(self, event: Event, rows: Rows) -> None:
        """Nothing."""


def test_a_circle_of_readers_is_refused_with_its_names() -> None:
    with pytest.raises(
        PlanError, match=r"RunningTotalProjector -> First -> RunningTotalProjector|First -> RunningTotalProjector -> First"
    ):
        order({"First": First, "RunningTotalProjector": RunningTotalProjector})


def test_readers_are_dependents() -> None:
    known = {"RunningTotalProjector": RunningTotalProjector, "MonthlySummaryProjector": MonthlySummaryProjector}
    options = RunOptions(projectors=("MonthlySummaryProjector",), rebuild_dependents=True)
    assert choose(known, options) == ["MonthlySummaryProjector", "RunningTotalProjector"]


class After(Projector):
    owns = (MonthlySummary,)
    depends_on = (RunningTotalProjector,)

    @handles("A")
    def on(self, event: Event, rows: Rows) -> None:
        """Nothing."""


def test_whoever_depends_on_a_member_depends_on_the_whole() -> None:
    assert order({"After": After, "MonthsAndTotals": MonthsAndTotals}) == ["MonthsAndTotals", "After"]


@pytest.mark.parametrize("kind", [pytest.param("mysql", marks=pytest.mark.mysql)])
def test_a_reader_alone_looks_at_the_live_table_also_while_its_own_is_held(
    kind: str, shop: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    months = opened(shop, "months", APART[:1])
    replayed(months)
    switched(months)
    made = opened(shop, "totals", APART)
    replayed(made, projectors=["RunningTotalProjector"])
    made.verify()
    last = list(purchases())[-1]
    late = last._replace(payload=last.payload | {"expense_id": "late"}, version=5_000)
    drained: list[bool] = []

    def behind() -> None:
        if not drained:
            append_all(shop, [late])
        drained.append(True)

    before_the_drain(monkeypatch, behind)
    made.swap()
    assert "late" in totals(shop)


class OfOneUser(MonthlySummaryProjector):
    """What everybody's projector does, for some."""

    def project(self, event: Event, rows: Rows) -> None:
        if event["user_id"] == 1:
            super().project(event, rows)


def test_a_member_that_projects_in_its_own_way_does_so_among_others_too() -> None:
    whole = type("Whole", (Projector,), {"composed_of": (OfOneUser, CategorySummaryProjector)})
    rows = RowBuffer()
    for user in (1, 2):
        said = {"user_id": user, "spent_on": "2026-01-01", "category": "c", "amount_cents": 5}
        whole().project(Event(user, "s", "ExpenseRecorded", said), rows)
    assert [each.user_id for each in rows.all(MonthlySummary)] == [1]
    assert [each.user_id for each in rows.all(CategorySummary)] == [1, 2]


def test_what_is_composed_has_nothing_of_its_own() -> None:
    with pytest.raises(ProjectorError, match="has only what they have"):
        type("Wrong", (Projector,), {"composed_of": (MonthlySummaryProjector,), "owns": (RunningTotal,)})


@row("monthly_summaries", key=("user_id", "month"))
class MyMonth:
    user_id: int
    month: str


class Otherwise(Nosy):
    reads = (MyMonth,)


def test_a_table_is_read_by_the_class_of_its_owner() -> None:
    found = list(foreign_readings({"Otherwise": Otherwise, "MonthlySummaryProjector": MonthlySummaryProjector}))
    assert found == [
        "Otherwise reads monthly_summaries by MyMonth; use MonthlySummary, by which MonthlySummaryProjector writes it"
    ]
