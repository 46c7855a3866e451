"""The proof is fresh when it counts: while a run waits, and right before its switch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import Diverged, ObjectMissing, StepOrderError, VerificationFailed
from projection_rebuild.model.results import Sampled
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.traffic.low_traffic import Outcome, Waiting
from projection_rebuild.verification import sample
from projection_rebuild.verification.fresh_proof import PROOF
from tests.engine.harness import shop
from tests.engine.harness.databases import execute
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import actual, events, expected
from tests.engine.harness.specs import rebuild

SOON = {"sample_every": "1ms"}
TWO = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
MARKED = "UPDATE orders_rebuild SET status = 'lost' WHERE id = '{}'"


@pytest.fixture
def engine(new_database: Any, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """SQLite, unless a test says otherwise."""
    made = sa.create_engine(new_database(getattr(request, "param", "sqlite")))
    shop.fill(made, events(150))
    yield made
    made.dispose()


def newest_order(engine: sa.Engine) -> tuple[str, str]:
    """The order that was touched last, and its status in green."""
    query = (
        "SELECT id, status FROM orders_rebuild WHERE id = (SELECT aggregate_uuid FROM stored_events WHERE id = "
        "(SELECT max(id) FROM stored_events WHERE event_class IN ('OrderPlaced', 'OrderShipped', 'OrderCancelled')))"
    )
    with engine.connect() as connection:
        order, status = connection.exec_driver_sql(query).one()
    return str(order), str(status)


class Unsampled(shop.CustomerTotalProjector):
    """It does not say whose rows its events touch."""

    partition_by = ""
    part = None


def look(made: Rebuild) -> Outcome:
    return made.look_at_traffic(Waiting(datetime.now(UTC))).outcome


@pytest.mark.parametrize("engine", TWO, indirect=True)
def test_what_is_done_to_green_while_it_waits_ends_the_wait(engine: sa.Engine) -> None:
    made = rebuild(engine, verify=SOON)
    run_to(made, "verify")
    assert look(made) is Outcome.PASS and made.notes()[PROOF].value["looks"] == 1
    first = made.report().verification
    order, status = newest_order(engine)
    execute(engine, MARKED.format(order))
    with pytest.raises(Diverged, match=rf"the row {order} is not as its events make it, in status(.|\n)*clear verify_counts"):
        look(made)
    report = made.report()
    assert report.state == "cloned" and report.verification is not None and first is not None
    assert "in status" in report.verification.failures[0] and report.verification.at != first.at
    assert any("in status" in line for line in made.history()[0].as_markdown().splitlines())
    # Whoever only tries again does not get past it.
    with pytest.raises(StepOrderError):
        made.swap()
    with pytest.raises(VerificationFailed, match="in status"):
        made.verify()
    execute(engine, f"UPDATE orders_rebuild SET status = '{status}' WHERE id = '{order}'")
    assert made.verify().passed and look(made) is Outcome.PASS
    made.swap()
    assert actual(engine) == expected(events(150))
    made.close()


def test_a_proof_that_is_fresh_is_not_taken_again(engine: sa.Engine) -> None:
    made = rebuild(engine)
    run_to(made, "verify")
    execute(engine, MARKED.format(newest_order(engine)[0]))
    assert look(made) is Outcome.PASS and PROOF not in made.notes()
    made.close()


@pytest.mark.parametrize("engine", TWO, indirect=True)
def test_what_was_touched_last_is_looked_at_right_before_the_switch(engine: sa.Engine) -> None:
    made = rebuild(engine, verify={"sample": 20})
    run_to(made, "verify")
    order, _ = newest_order(engine)
    execute(engine, MARKED.format(order))
    before = actual(engine)
    with pytest.raises(Diverged, match=f"the row {order} is not as its events make it"):
        made.swap()
    assert actual(engine) == before and made.report().state == "cloned"
    made.close()


@pytest.mark.parametrize("sampled", [0, 20])
def test_green_that_was_emptied_is_not_switched_in_though_nothing_of_it_is_sampled(engine: sa.Engine, sampled: int) -> None:
    made = rebuild(
        engine, projectors=["tests.engine.harness.shop:OrderProjector", f"{__name__}:Unsampled"], verify={"sample": sampled}
    )
    run_to(made, "replay")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO customer_totals SELECT * FROM customer_totals_rebuild")
    made.verify()
    execute(engine, "DELETE FROM customer_totals_rebuild")
    with pytest.raises(Diverged, match="customer_totals: green is empty and blue is not"):
        made.swap()
    report = made.report()
    assert report.state == "cloned" and report.verification is not None and "green is empty" in report.verification.failures[-1]
    made.close()


def test_green_that_somebody_has_dropped_is_named(engine: sa.Engine) -> None:
    made = rebuild(engine, projectors=["tests.engine.harness.shop:OrderProjector", f"{__name__}:Unsampled"])
    run_to(made, "verify")
    execute(engine, "DROP TABLE customer_totals_rebuild")
    with pytest.raises(ObjectMissing, match="customer_totals_rebuild"):
        made.swap()
    made.close()


def test_events_since_then_are_no_difference(engine: sa.Engine) -> None:
    made = rebuild(engine, verify=SOON)
    run_to(made, "verify")
    more = [each | {"aggregate_uuid": f"more-{each['aggregate_uuid']}"} for each in events(40)]
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), more)
    assert look(made) is Outcome.PASS
    made.swap()
    made.reconcile()
    assert actual(engine) == expected([*events(150), *more])
    made.close()


def test_a_difference_that_does_not_stay_ends_nothing(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(engine, verify=SOON)
    run_to(made, "verify")
    order, status = newest_order(engine)
    execute(engine, MARKED.format(order))
    take, looks = sample.take, []

    def mended(*given: Any, again: Mapping[str, Sequence[str]] | None = None, **more: Any) -> list[Sampled]:
        if again is not None:
            execute(engine, f"UPDATE orders_rebuild SET status = '{status}' WHERE id = '{order}'")
        found = take(*given, again=again, **more)
        looks.append([each.projector for each in found if each.findings])
        return found

    monkeypatch.setattr(sample, "take", mended)
    assert look(made) is Outcome.PASS
    assert looks == [["OrderProjector"], []]
    made.close()


def test_a_run_that_an_earlier_version_has_verified_goes_on(engine: sa.Engine) -> None:
    made = rebuild(engine)
    run_to(made, "verify")
    context = made._context
    with context.dialect.connect() as connection:
        record = context.ledger.over(connection, context.run_id).runs.get().stored
        known: Any = {name: each for name, each in record["verification"].items() if name not in ("sample", "notes", "at")}
        context.ledger.over(connection, context.run_id).runs.amend(verification=known)
    # Nothing is known of a sample, so one is due.
    assert look(made) is Outcome.PASS and made.notes()[PROOF].value["looks"] == 1
    made.swap()
    assert actual(engine) == expected(events(150))
    made.close()


def test_without_a_sample_nothing_is_looked_at(engine: sa.Engine) -> None:
    made = rebuild(engine, verify={"sample": 0} | SOON)
    run_to(made, "verify")
    found = made.report().verification
    assert found is not None and {each.not_sampled for each in found.sample} == {"verify.sample is 0"}
    execute(engine, MARKED.format(newest_order(engine)[0]))
    assert look(made) is Outcome.PASS
    made.swap()
    made.close()


def test_a_run_that_was_switched_while_it_was_looked_at_stays_switched(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rebuild(engine, verify=SOON)
    run_to(made, "verify")
    execute(engine, MARKED.format("order-0"))
    take, switched = sample.take, []

    def switching(*given: Any, again: Mapping[str, Sequence[str]] | None = None, **more: Any) -> list[Sampled]:
        found = take(*given, again=again, **more)
        if again is not None and not switched:
            switched.append(True)
            # Another worker, which looks at what was touched last only.
            other = rebuild(engine, verify={"sample": 1})
            other.swap()
            other.close()
        return found

    monkeypatch.setattr(sample, "take", switching)
    look(made)
    assert switched and made.report().state == "switched"
    made.close()
