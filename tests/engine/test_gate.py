"""The low-traffic gate against real servers: what their statistics say of reads and transactions, and what a person says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import StepOrderError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.traffic.low_traffic import Outcome, Verdict, Waiting
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.faults import until
from tests.engine.harness.shop import events
from tests.engine.harness.specs import rebuild

LIMITS = {
    "max_appends_per_minute": 0,
    "max_active_sessions": 100,
    "max_reads_per_minute": 1_000_000,
    "max_transaction_age": "1s",
    "max_replica_lag": "1s",
}
KNOWN = {"sqlite": {"appends"}, "postgresql": {"appends", "sessions", "reads", "transaction", "replica"}}
KNOWN["mysql"] = KNOWN["postgresql"] - {"replica"}
WORDS = {
    "appends": "appends",
    "reads": "reads of the live tables",
    "sessions": "active sessions",
    "transaction": "oldest transaction on the live tables",
    "replica": "replica lag",
}


def probes(verdict: Verdict) -> dict[str, float | None]:
    """Values by a short word."""
    found = {each.name: each.value for each in verdict.probes}
    return {word: found[name] for word, name in WORDS.items()}


@pytest.fixture
def verified(engine: sa.Engine) -> Iterator[Rebuild]:
    """A run of a shop that waits for its switch."""
    shop.fill(engine, events(50))
    run_to(rebuild(engine, "fill"), "drop")
    made = rebuild(engine, low_traffic=LIMITS)
    run_to(made, "verify")
    yield made
    made.close()


def test_the_databases_own_statistics(verified: Rebuild, engine: sa.Engine) -> None:
    first = verified.look_at_traffic(Waiting(datetime.now(UTC)))
    assert first.outcome is Outcome.WAIT
    mariadb = getattr(engine.dialect, "is_mariadb", False)
    known = KNOWN[engine.dialect.name] - ({"reads"} if mariadb else set())
    looks = [first]

    def look() -> dict[str, float | None]:
        # InnoDB makes its list of transactions anew only when nobody has read it for a tenth of a second.
        time.sleep(0.15)
        looks.append(verified.look_at_traffic(looks[-1].waiting))
        return probes(looks[-1])

    assert {word for word, value in look().items() if value is not None} == known
    if "reads" in known:
        read_much(engine)
        until(lambda: (look()["reads"] or 0) > 0)
    if "transaction" in known:
        assert look()["transaction"] == 0
        with engine.connect() as stranger:
            stranger.exec_driver_sql("SELECT count(*) FROM orders").scalar_one()
            until(lambda: (look()["transaction"] or 0) > 1)
            assert "oldest transaction on the live tables" in looks[-1].message and not looks[-1].probes[3].quiet
        until(lambda: look()["transaction"] == 0)
    if "appends" in known:
        with engine.begin() as connection:
            connection.execute(shop.stored_events.insert(), events(3))
        assert (look()["appends"] or 0) > 0
    # Nobody has ever been at the tables for long: the next look finds it quiet.
    until(lambda: look() and looks[-1].outcome is Outcome.PASS)
    noted = verified.notes()["traffic"].value
    assert noted["outcome"] == "pass" and noted["probes"][0]["name"] == "appends" and noted["message"] == looks[-1].message


def read_much(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        for _ in range(20):
            connection.exec_driver_sql("SELECT * FROM orders").all()
    # A session says at its end at the latest what it has read.
    engine.dispose()


def test_a_plan_says_which_limits_hold_nothing_up_on_this_database(engine: sa.Engine) -> None:
    shop.metadata.create_all(engine)
    plan = rebuild(engine, low_traffic=LIMITS).plan(RunOptions(dry_run=True))
    said = {each.about.removeprefix("low_traffic.") for each in plan.findings if each.about.startswith("low_traffic")}
    mariadb = getattr(engine.dialect, "is_mariadb", False)
    expected = {"sqlite": set(LIMITS) - {"max_appends_per_minute"}, "postgresql": set(), "mysql": {"max_replica_lag"}}
    assert said == expected[engine.dialect.name] | ({"max_reads_per_minute"} if mariadb else set())
    assert not any("low_traffic" in each.about for each in rebuild(engine).plan(RunOptions(dry_run=True)).findings)


def waits(made: Any) -> Verdict:
    found: Verdict = made.look_at_traffic(Waiting(datetime.now(UTC)))
    return found


def test_the_lag_of_replicas_is_asked_for_by_the_sql_that_the_replay_uses_too(sqlite_url: sa.URL) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.metadata.create_all(engine)
    made = rebuild(engine, low_traffic={"max_replica_lag": "1s"}, throttle={"replica_lag": "SELECT 1.5"})
    run_to(made, "verify")
    assert "replica lag 1.5 s (limit 1 s)" in waits(made).message


def test_swap_now_overrides_also_while_it_waits(sqlite_url: sa.URL) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.metadata.create_all(engine)
    made = rebuild(engine, low_traffic=LIMITS)
    with pytest.raises(StepOrderError, match="run the step"):
        run_to(made, "plan")
        rebuild(engine, "another").look_at_traffic(Waiting(datetime.now(UTC)))
    run_to(made, "verify")
    assert waits(made).outcome is Outcome.WAIT
    made.swap_now(by="bob")
    assert waits(made).outcome is Outcome.PASS and "bob said" in waits(made).message
    made.stand_down("nobody needs it")
    with pytest.raises(StepOrderError, match="given up"):
        waits(made)
    (report,) = made.history()
    assert report.state == "abandoned" and "nobody needs it" in report.as_markdown()
