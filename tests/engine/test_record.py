"""The record of runs: what, why, by whom, counts, durations and code; kept in the ledger, whatever becomes of the run."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.fingerprint import source_hash
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import StepOrderError, VerificationFailed
from projection_rebuild.ledger import RunState
from projection_rebuild.planning import estimate
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.run.report import Report
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import events
from tests.engine.harness.specs import PROJECTORS, rebuild


@pytest.fixture
def store(sqlite: sa.Engine) -> sa.Engine:
    """A store with 200 events over empty read models, on SQLite."""
    return shop.fill(sqlite, events(200))


def kept(engine: sa.Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT run_id, markdown FROM projection_rebuild_reports ORDER BY started_at"))


def test_a_run_leaves_its_report_on_every_database(engine: sa.Engine) -> None:
    shop.fill(engine, events(200))
    made = rebuild(engine)
    plan = made.plan(RunOptions(reason="totals were wrong"), by="alice")
    made.swap_now(by="bob", reason="the fair begins")
    made.swap_now(by="bob", reason="the fair begins at ten")
    made.clone_tables()
    for name in plan.projectors:
        made.replay(name)
        made.replay(name)
    made.verify()
    made.swap()
    made.reconcile()
    made.drop_old()
    (report,) = made.history()
    assert report == made.report()
    assert (report.reason, report.by, report.state) == ("totals were wrong", "alice", RunState.FINISHED)
    assert report.verification is not None and report.verification.tables[0].green_rows > 0
    assert list(report.durations) == [
        "cloning", "replay and verification", "waiting and switch", "reconciliation", "retention and drop"
    ]  # fmt: skip
    assert {each.projector for each in report.code} == set(PROJECTORS) and len(report.code) == 3
    ((run_id, markdown),) = kept(engine)
    assert (run_id, markdown) == ("run", report.as_markdown())
    words = [
        "UTC by alice",
        "Why: totals were wrong",
        "swap now, bob",
        "the fair begins at ten",
        "OrderProjector (",
        "Durations:",
    ]
    for word in words:
        assert word in markdown
    assert Report.model_validate(report.as_json()) == report


def test_differences_are_shown_by_key_and_a_failed_run_leaves_its_report(store: sa.Engine) -> None:
    run_to(rebuild(store, "fill"), "drop")
    with store.begin() as connection:
        connection.exec_driver_sql("DELETE FROM orders")
    with pytest.raises(VerificationFailed):
        run_to(rebuild(store, "fails", verify={"assertions": ["SELECT 1"]}), "verify")
    failed, first = rebuild(store).history()
    assert (failed.run_id, first.run_id, failed.state) == ("fails", "fill", RunState.CLONED)
    assert "failed:" in failed.as_markdown() and "orders, only after: `order-" in failed.as_markdown()
    assert failed.verification is not None and failed.verification.at is not None


def test_a_run_that_is_planned_anew_keeps_the_report_of_what_it_did_before(store: sa.Engine) -> None:
    run_to(rebuild(store), "reconcile")
    made = rebuild(store)
    made.plan(RunOptions(reason="again"))
    again, before = made.history()
    assert (again.state, before.state) == (RunState.PLANNED, RunState.RECONCILED)
    assert before.swap is not None and not made.notes()


def test_a_run_under_way_is_in_the_history_as_it_is_now(store: sa.Engine) -> None:
    made = rebuild(store)
    assert made.history() == []
    run_to(made, "verify")
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE projection_rebuild_runs SET state = 'cloned'")
    assert [each.state for each in made.history()] == [RunState.CLONED]
    made.abandon()
    assert [each.state for each in made.history()] == [RunState.ABANDONED]
    assert "abandoned" in kept(store)[0][1]


def test_a_run_goes_on_over_a_ledger_that_lacks_the_newer_tables(store: sa.Engine) -> None:
    made = rebuild(store)
    made.plan(RunOptions())
    with store.begin() as connection:
        for name in ("reports", "notes", "code"):
            connection.exec_driver_sql(f"DROP TABLE projection_rebuild_{name}")
    assert made.notes() == {} and len(made.history()) == 1
    made.swap_now(by="alice")
    made.clone_tables()
    for name in PROJECTORS:
        made.replay(name)
    made.verify()
    assert len(kept(store)) == 1


def test_swap_now_is_said_to_a_run_that_has_not_switched(store: sa.Engine) -> None:
    made = rebuild(store)
    run_to(made, "verify")
    made.swap_now(by="alice")
    assert made.notes()["swap_now"].by == "alice"
    made.swap()
    with pytest.raises(StepOrderError, match="is switched"):
        made.swap_now(by="alice")


def test_a_decision_counts_for_the_verification_that_it_was_about(store: sa.Engine) -> None:
    made = rebuild(store)
    made.plan(RunOptions())
    with pytest.raises(StepOrderError, match="not yet verified"):
        made.decide(True, by="alice")
    run_to(made, "verify")
    assert decided(made) is None
    made.decide(True, by="alice")
    assert decided(made) is True
    made.decide(False, by="bob", reason="too many differ")
    assert decided(made) is False
    made.verify()
    assert decided(made) is None


def decided(made: Rebuild) -> bool | None:
    found = made.decided()
    return None if found is None else bool(found.value["approved"])


def test_a_changed_projector_has_another_hash_and_the_record_has_both(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    class InARepl(Projector):
        owns = (shop.Order,)

        @handles("OrderPlaced")
        def placed(self, event: object, rows: object) -> None:
            """Never runs."""

    assert source_hash(shop.OrderProjector) == source_hash(shop.OrderLineProjector) != source_hash(InARepl)
    InARepl.__module__ = "no.such.module"
    assert source_hash(InARepl) == "unknown"
    made = rebuild(store)
    made.plan(RunOptions())
    made.clone_tables()
    made.replay("OrderProjector")
    monkeypatch.setattr("projection_rebuild.run.record.source_hash", lambda _: "f00d")
    monkeypatch.setattr(shop.OrderProjector, "version", "2")
    made.replay("OrderProjector")
    assert [(each.version, each.source == "f00d") for each in made.report().code] == [("", False), ("2", True)]


def test_a_dry_run_says_what_there_is_to_replay_and_how_long_it_will_take_by_the_last_rate(store: sa.Engine) -> None:
    first = rebuild(store).plan(RunOptions(dry_run=True))
    assert [each.projector for each in first.forecasts] == first.projectors
    assert {each.seconds for each in first.forecasts} == {None} and "known after a first run" in first.describe()
    run_to(rebuild(store, "fill"), "drop")
    rates = {each.projector: each.rate for each in rebuild(store, "fill").report().replays}
    with store.begin() as connection:
        connection.execute(shop.stored_events.insert(), events(200))
        kinds = dict(connection.exec_driver_sql("SELECT event_class, count(*) FROM stored_events GROUP BY 1").all())  # type: ignore[arg-type]
    plan = rebuild(store, "next").plan(RunOptions(dry_run=True, projectors=("CustomerTotalProjector",)))
    (expected,) = plan.forecasts
    assert expected.events == kinds["OrderPlaced"] + kinds["LineAdded"]
    assert expected.seconds == pytest.approx(expected.events / rates["CustomerTotalProjector"])
    assert "time:       about 0:00:01 if one follows the other" in plan.describe()
    # As it is told to whoever asks by REST.
    assert plan.model_dump(mode="json")["forecasts"][0]["seconds"] == expected.seconds
    assert rebuild(store, "fill").history()[0].run_id == "fill", "a dry run leaves no trace"


def test_what_shards_do_beside_each_other_is_foreseen_by_the_rate_of_one_worker(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to(rebuild(store, "fill"), "drop")
    past = rebuild(store, "fill").report()
    rate = {each.projector: each.rate for each in past.replays}["CustomerTotalProjector"]
    divided = past.model_copy(update={"plan": past.plan.model_copy(update={"shards": {"CustomerTotalProjector": 4}})})
    for report, shards, faster in ((past, 1, 1), (past, 2, 2), (divided, 4, 1), (divided, 1, 1 / 4)):
        monkeypatch.setattr(estimate, "history", lambda *_, report=report: [report])
        options = RunOptions(dry_run=True, projectors=("CustomerTotalProjector",), shards=shards)
        plan = rebuild(store, "next").plan(options)
        assert plan.forecasts[0].seconds == pytest.approx(plan.forecasts[0].events / rate / faster)
        assert (f"in {shards} shards at once" in plan.describe()) == (shards > 1)
