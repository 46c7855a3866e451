"""The short form of ``make prove``, and the proof's own eyes: damage that is there is found and told apart.

Each contract on some databases, each database with some contract; with REBUILD_TEST_EVERY_STATEMENT=1 all of each.
"""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from include.universal import live
from include.universal.schema import create_schema
from projection_rebuild.spec.live_writer import LiveWriter
from tests.conftest import EVERY_STATEMENT
from tests.engine.harness.databases import on
from tools.prove import witness
from tools.prove.clients import Role, Seen
from tools.prove.comparison import Comparison, Rows, compare
from tools.prove.proof import Proof, prove
from tools.prove.rebuilding import Outcome, Task, Work
from tools.prove.report import describe
from tools.prove.setting import Clients, Setting
from tools.prove.strangers import STRANGERS

TRANSACTIONAL, CHECKPOINTED, DETACHED = LiveWriter
SHORT = [
    pytest.param(*kind.values, contract, clients, marks=kind.marks, id=f"{kind.values[0]}-{contract}-{clients}")
    for contract, clients, kinds in (
        (TRANSACTIONAL, Clients.RBA, on("sqlite", "postgres")),
        (CHECKPOINTED, Clients.RBA, on("sqlite", "mariadb")),
        (DETACHED, Clients.APPEND, on("mysql")),
    )
    for kind in kinds
]


@pytest.mark.slow
@pytest.mark.xdist_group("proof")
@pytest.mark.parametrize(("database_kind", "contract", "clients"), SHORT, indirect=["database_kind"])
def test_nothing_is_lost_doubled_or_failed(
    database_kind: str, database_url: sa.URL, contract: LiveWriter, clients: Clients
) -> None:
    # Two cores may have other tests to run besides.
    setting = Setting(database_kind, contract, clients, leisure=4)
    proof = prove(setting, database_url.render_as_string(hide_password=False), rebuilds=2, kills=1, writers=2)
    assert proof.holds, describe(setting.describe(), proof, 0)
    assert (proof.rebuilds, proof.rollbacks) == (2, 1)
    assert proof.appended - proof.by_strangers > 10
    assert (proof.by_strangers > 0) is (database_kind in STRANGERS)


@pytest.mark.slow
@pytest.mark.xdist_group("proof")
@pytest.mark.parametrize("contract", [CHECKPOINTED, DETACHED] if EVERY_STATEMENT else [CHECKPOINTED])
def test_a_contract_that_the_application_does_not_keep_is_found_out(postgres_url: sa.URL, contract: LiveWriter) -> None:
    engine = sa.create_engine(postgres_url)
    setting = Setting("postgres", contract, Clients.APPEND, declared=TRANSACTIONAL)
    for _ in range(10):
        # A switch does harm only if something is yet to be projected at that moment.
        if not prove(setting, postgres_url.render_as_string(hide_password=False), rebuilds=3, kills=0).holds:
            return
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
    pytest.fail("no harm was seen")


@pytest.fixture
def application(engine: sa.Engine) -> sa.Engine:
    """40 events and their rows, each projected once."""
    create_schema(engine)
    live.metadata.create_all(engine)
    live.add_consumer(engine)
    witness.metadata.create_all(engine)
    live.traffic(engine, 40, seed=1, store=lambda *given: live.append_and_project(*given, projectors=witness.PROJECTORS))
    return engine


def change(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_what_is_right_is_found_right(application: sa.Engine) -> None:
    assert compare(application) == Comparison(events=40, lost=0, doubled=0, rows={})


def test_lost_and_doubled_events_are_told_apart(application: sa.Engine) -> None:
    change(
        application,
        "DELETE FROM applied_events WHERE position <= 2",
        "UPDATE applied_events SET times = 3 WHERE position = 7",
    )
    found = compare(application)
    assert (found.lost, found.doubled) == (2, 2)


def test_an_event_that_is_projected_before_its_turn_will_be_doubled(application: sa.Engine) -> None:
    change(application, "INSERT INTO jobs (queue, position) VALUES (0, 40)", "UPDATE consumer_positions SET position = 38")
    of = {contract: Setting(application.dialect.name, contract, Clients.APPEND).projected() for contract in LiveWriter}
    found = {contract: compare(application, where) for contract, where in of.items()}
    assert {contract: (each.lost, each.doubled) for contract, each in found.items()} == {
        TRANSACTIONAL: (0, 0),
        CHECKPOINTED: (0, 2),
        DETACHED: (0, 1),
    }
    assert found[CHECKPOINTED].rows


def test_wrong_rows_are_counted_by_table(application: sa.Engine) -> None:
    change(
        application,
        "UPDATE category_summaries SET total_cents = total_cents + 1",
        "INSERT INTO monthly_summaries (user_id, month) VALUES (-1, '2024-01')",
        "DELETE FROM payment_history",
    )
    rows = compare(application).rows
    assert rows.keys() == {"category_summaries", "monthly_summaries", "payment_history"}
    assert rows["monthly_summaries"] == Rows(extra=1)
    assert rows["category_summaries"].different > 0 and rows["payment_history"].missing > 0


HARM = {
    "a lost event": Proof(lost=1),
    "a doubled event": Proof(doubled=1),
    "a wrong row": Proof(rows={"expenses": Rows(different=1)}),
    "an empty read": Proof(empty_reads=1),
    "a rebuild that gave up": Proof(gave_up=["for a reason"]),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_any_harm_breaks_the_proof(harm: Proof) -> None:
    assert Proof().holds and (Proof() + Proof()).holds
    assert not harm.holds and not (Proof() + harm).holds
    assert "DOES NOT HOLD" in describe("it", harm, 2.0)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("engine", ["mysql", "mariadb"])
def test_only_mysqls_deadlock_is_an_exception(engine: str, role: Role) -> None:
    proof, seen = Proof(), Seen(role)
    seen.failed("OperationalError 1213", "Deadlock found when trying to get lock")
    proof.take_client(seen, engine)
    assert (proof.holds, proof.deadlocks) == ((True, 1) if engine == "mysql" else (False, 0))
    seen.failed("OperationalError 2013", "Lost connection to server during query")
    proof.take_client(seen, engine)
    assert not proof.holds
    assert "Lost connection" in describe("it", proof, 2.0)


def test_a_failed_run_is_told_with_its_reason() -> None:
    proof = Proof()
    proof.take_run(Task("first", Work.REBUILD), Outcome(pause=0.1, retries=1))
    proof.take_run(Task("back", Work.ROLLBACK), Outcome(pause=0.2))
    proof.take_run(Task("second", Work.REBUILD), Outcome(failure="SwapNotPossible: no switch"))
    assert (proof.rebuilds, proof.rollbacks, proof.retries, proof.pauses) == (1, 1, 1, [0.1, 0.2])
    assert "second: SwapNotPossible: no switch" in describe("it", proof, 2.0)
