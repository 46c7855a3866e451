"""What dead runs have left goes by rule, and what a live run holds stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import ClaimRefused, FencedOut, StepOrderError, VerificationFailed
from projection_rebuild.ledger.claims import Claims
from projection_rebuild.ledger.runs import Runs
from projection_rebuild.operations import housekeeping
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.run.context import Context
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import TABLES, actual, events, expected, tables
from tests.engine.harness.specs import PROJECTORS, rebuild

LIVE = {"stored_events", *TABLES}
GREENS = {f"{each}_rebuild" for each in TABLES}
AT_ONCE = timedelta(0)
OLD = {f"{each}_old" for each in TABLES}


def over(*runs: str) -> Callable[[str], bool]:
    """A scheduler that knows these runs as ended."""
    return lambda run_id: run_id in runs


@pytest.fixture
def store(sqlite: sa.Engine) -> sa.Engine:
    return shop.fill(sqlite, events(100))


def keeper(engine: sa.Engine, keep_green: str = "0s") -> Rebuild:
    return rebuild(engine, "house/1", retention={"keep_green": keep_green})


def ledger(engine: sa.Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM projection_rebuild_{table}").scalar_one())


def test_a_dead_run_is_buried_on_every_database(engine: sa.Engine) -> None:
    shop.fill(engine, events(100))
    run_to(rebuild(engine, "dead"), "verify")
    assert tables(engine) == LIVE | GREENS
    done = keeper(engine).keep_house(is_over=over("dead"), rebuilds=["shop"])
    (gone,) = done.removed
    assert (set(gone.greens), set(gone.claims), gone.checkpoints) == (GREENS, set(TABLES), True)
    assert tables(engine) == LIVE
    assert [ledger(engine, each) for each in ("claims", "greens", "checkpoints")] == [0, 0, 0]
    # Its record stays, with what its checkpoints said.
    (report,) = keeper(engine).history()
    assert (report.state, len(report.replays)) == ("abandoned", 3)
    with pytest.raises(StepOrderError, match="given up"):
        rebuild(engine, "dead").swap()
    assert keeper(engine).keep_house(is_over=over("dead"), rebuilds=["shop"]) == housekeeping.Housekeeping(removed=[], kept=[])


def test_old_tables_are_dropped_at_their_time_though_their_run_is_gone(engine: sa.Engine) -> None:
    shop.fill(engine, events(100))
    run_to(rebuild(engine, "fill"), "reconcile", RunOptions(drop_after=timedelta(hours=1)))
    run_to(rebuild(engine, "again"), "reconcile", RunOptions(drop_after=AT_ONCE))
    assert tables(engine) == LIVE | OLD
    # The run that made them goes on, and will drop them itself.
    assert keeper(engine).keep_house(is_over=over(), rebuilds=["shop"]).removed == []
    done = keeper(engine).keep_house(is_over=over("again"), rebuilds=["shop"])
    assert [set(each.old) for each in done.removed] == [OLD] and tables(engine) == LIVE
    assert keeper(engine).history()[0].state == "finished"
    assert actual(engine) == expected(events(100))


def test_nothing_goes_before_its_time(store: sa.Engine) -> None:
    run_to(rebuild(store, "fill"), "reconcile", RunOptions(drop_after=timedelta(hours=1)))
    run_to(rebuild(store, "dead"), "verify")
    kept = keeper(store, "2h").keep_house(is_over=over("fill", "dead"), rebuilds=["shop"]).kept
    assert [(each.run_id, bool(each.due and each.due > datetime.now(UTC))) for each in kept] == [("dead", True), ("fill", True)]
    assert tables(store) == LIVE | GREENS | OLD
    assert "until" in kept[0].describe() and "orders_rebuild" in kept[0].describe()
    rebuild(store, "dead").swap()


def test_what_a_live_run_holds_stays(store: sa.Engine) -> None:
    run_to(rebuild(store, "fill"), "reconcile", RunOptions(drop_after=AT_ONCE))
    run_to(rebuild(store, "dead"), "verify")
    live = rebuild(store, "live")
    live.plan(RunOptions(), is_over=over("dead"))
    done = keeper(store).keep_house(is_over=over("fill", "dead"), rebuilds=["shop"])
    # The dead run's green tables have the names of those that the live run is about to make.
    assert done.removed == [] and {each.run_id for each in done.kept} == {"fill", "dead"}
    assert all("live" in each.why for each in done.kept)
    assert tables(store) == LIVE | GREENS | OLD
    live.clone_tables()
    assert keeper(store).keep_house(is_over=over("dead"), rebuilds=["shop"]).removed[0].run_id == "dead"
    for name in live.chosen():
        live.replay(name)
    live.verify()
    live.swap()
    assert actual(store) == expected(events(100))


def test_a_dead_run_that_holds_a_table_does_not_keep_an_old_one_alive(store: sa.Engine) -> None:
    run_to(rebuild(store, "fill"), "reconcile", RunOptions(drop_after=AT_ONCE))
    run_to(rebuild(store, "dead"), "verify")
    done = keeper(store, "2h").keep_house(is_over=over("fill", "dead"), rebuilds=["shop"])
    assert [each.run_id for each in done.removed] == ["fill"]
    assert tables(store) == LIVE | GREENS and ledger(store, "claims") == 3


def test_what_a_rollback_was_about_to_take_back_stays_as_long_as_an_old_table(store: sa.Engine) -> None:
    run_to(rebuild(store, "fill"), "reconcile", RunOptions(drop_after=timedelta(hours=1)))
    back = rebuild(store, "back")
    back.plan_rollback(RunOptions())
    kept = keeper(store).keep_house(is_over=over("fill", "back"), rebuilds=["shop"])
    assert [each.run_id for each in kept.removed] == ["back"], "a rollback that had not begun leaves nothing but claims"
    back.plan_rollback(RunOptions())
    back.bring_back()
    (left,) = keeper(store).keep_house(is_over=over("fill", "back"), rebuilds=["shop"]).kept
    assert left.run_id == "back" and set(left.greens) == GREENS and tables(store) == LIVE | GREENS
    back.swap()


@pytest.mark.parametrize(("state", "words"), [("switching", "retry its atomic_swap"), ("switched", "clear its reconcile")])
def test_a_run_in_pieces_is_left_to_a_person(store: sa.Engine, state: str, words: str) -> None:
    run_to(rebuild(store, "torn"), "swap", RunOptions(drop_after=AT_ONCE))
    with store.begin() as connection:
        connection.exec_driver_sql(f"UPDATE projection_rebuild_runs SET state = '{state}'")
    done = keeper(store).keep_house(is_over=over("torn"), rebuilds=["shop"])
    assert done.removed == [] and all(words in each.why for each in done.kept) and len(done.kept) == 2
    assert tables(store) == LIVE | OLD


def test_a_run_of_another_spec_is_its_own_housekeepers(store: sa.Engine) -> None:
    run_to(rebuild(store, "dead", rebuild="warehouse"), "verify")
    assert keeper(store).survey(is_over=over("dead"), rebuilds=["shop", "warehouse"]) == []
    # A spec that is gone has none.
    assert [each.run_id for each in keeper(store).survey(is_over=over("dead"), rebuilds=["shop"])] == ["dead"]


def test_a_green_table_that_another_run_has_made_meanwhile_stays(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While housekeeping waits for a reader, somebody else takes the dead run's claims over."""
    run_to(rebuild(store, "dead"), "clone")
    when_free, heirs = housekeeping.when_free, []

    def later(context: Context, names: Sequence[str], action: Callable[[], None]) -> None:
        if not heirs:
            heirs.append(rebuild(store, "heir"))
            heirs[0].plan(RunOptions(), is_over=lambda run: run == "dead")
            heirs[0].clone_tables()
        when_free(context, names, action)

    monkeypatch.setattr(housekeeping, "when_free", later)
    keeper(store).keep_house(is_over=over("dead"), rebuilds=["shop"])
    assert heirs and tables(store) == LIVE | GREENS
    for name in PROJECTORS:
        rebuild(store, "heir").replay(name)


def test_a_run_that_comes_to_life_again_is_left_alone(store: sa.Engine) -> None:
    run_to(rebuild(store, "dead"), "verify")
    answers = iter([True, False])
    (kept,) = keeper(store).keep_house(is_over=lambda run: next(answers), rebuilds=["shop"]).kept
    assert kept.why == "it is at work again" and tables(store) == LIVE | GREENS


def test_a_housekeeper_that_was_killed_leaves_a_claim_that_the_next_one_removes(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to(rebuild(store, "fill"), "reconcile", RunOptions(drop_after=AT_ONCE))

    def die(*_: object) -> bool:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(housekeeping, "drop_retired", die)
        patched.setattr("projection_rebuild.ledger.Claims.release", lambda *_: None)
        with pytest.raises(SystemExit):
            keeper(store).keep_house(is_over=over("fill"), rebuilds=["shop"])
    assert ledger(store, "claims") == 1
    second = rebuild(store, "house/2", retention={"keep_green": "0s"})
    done = second.keep_house(is_over=over("fill", "house/1"), rebuilds=["shop"])
    assert {each.run_id for each in done.removed} == {"fill", "house/1"}
    assert tables(store) == LIVE and ledger(store, "claims") == 0


def test_a_failed_run_can_be_cleared_before_its_time(store: sa.Engine) -> None:
    with pytest.raises(VerificationFailed):
        run_to(rebuild(store, "failed", verify={"assertions": ["SELECT 1"]}), "verify")
    keeper(store, "1h").keep_house(is_over=over("failed"), rebuilds=["shop"])
    made = rebuild(store, "failed")
    made.verify()
    made.swap()
    assert actual(store) == expected(events(100))


def test_nothing_was_ever_rebuilt_here(store: sa.Engine) -> None:
    assert keeper(store).keep_house(is_over=over(), rebuilds=[]).describe() == "no dead run has left anything"
    assert tables(store) == LIVE


def test_a_run_that_moves_while_it_is_removed_does_not_end_the_housekeeping(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to(rebuild(store, "dead"), "verify")

    def moved_meanwhile(*_: object, **__: object) -> None:
        raise FencedOut("another worker has moved it")

    with monkeypatch.context() as patch:
        patch.setattr(Runs, "move", moved_meanwhile)
        (kept,) = keeper(store).keep_house(is_over=over("dead"), rebuilds=["shop"]).kept
    assert "another worker has moved it" in kept.why
    assert [each.run_id for each in keeper(store).keep_house(is_over=over("dead"), rebuilds=["shop"]).removed] == ["dead"]


def test_a_run_whose_old_tables_went_before_it_was_reconciled_gives_its_claims_up(store: sa.Engine) -> None:
    made = rebuild(store, "early")
    run_to(made, "swap")
    made.drop_old()
    assert ledger(store, "claims") == len(TABLES)
    made.reconcile()
    assert ledger(store, "claims") == 0


def test_claims_are_not_taken_from_a_run_that_comes_to_its_switch_meanwhile(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker was taken for dead, and holds the claims' rows while it announces its switch."""
    run_to(rebuild(store, "dead"), "verify")
    hand_over = Claims.hand_over

    def after_the_announcement(claims: Claims, heir: str) -> None:
        claims._connection.exec_driver_sql("UPDATE projection_rebuild_runs SET state = 'switching' WHERE run_id = 'dead'")
        hand_over(claims, heir)

    monkeypatch.setattr(Claims, "hand_over", after_the_announcement)
    with pytest.raises(ClaimRefused, match="retry its atomic_swap"):
        rebuild(store, "heir").plan(RunOptions(), is_over=over("dead"))
    with store.connect() as connection:
        assert {*connection.exec_driver_sql("SELECT run_id FROM projection_rebuild_claims").scalars()} == {"dead"}


def test_a_switch_that_another_worker_has_reconciled_meanwhile_ends_well(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry of the step finds it done, and reconcile follows, before the first worker has recorded how long it took."""
    made = rebuild(store, "slow")
    run_to(made, "verify")
    dialect = type(dialect_for(store))
    looked = dialect.left_on_old

    def after_the_other(*given: Any) -> list[str]:
        monkeypatch.setattr(dialect, "left_on_old", looked)
        rebuild(store, "slow").reconcile()
        return looked(*given)

    monkeypatch.setattr(dialect, "left_on_old", after_the_other)
    made.swap()
    report = made.report()
    assert report.state == "reconciled" and report.swap is not None and report.swap.pause_parts
