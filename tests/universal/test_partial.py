"""Parts of the real purchases rebuilt: held against the text file, and against what the tables were before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from include.universal.cdnow import DATA, purchases
from include.universal.events import append_all
from include.universal.independent import actual_tables, cdnow_totals, expected_tables
from include.universal.live import traffic
from include.universal.schema import create_schema
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness.databases import marked
from tests.universal.harness.runs import run

EXPENSES = ("ExpenseProjector", "CategorySummaryProjector", "MonthlySummaryProjector")
SERVERS = marked("postgres", "mariadb")


@pytest.mark.parametrize("kind", SERVERS)
def test_purchases_since_a_day(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    """Blue lacks the last purchases of the file, and has a wrong sum in an old month that nobody asks to be repaired."""
    engine = sa.create_engine(new_database(kind))
    create_schema(engine)
    append_all(engine, purchases())
    run(engine, "fill", RunOptions())
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM expenses WHERE spent_on >= '1998-04-01'")
        connection.exec_driver_sql("UPDATE monthly_summaries SET total_cents = 0, expenses = 0 WHERE month >= '1998-04'")
        connection.exec_driver_sql("UPDATE monthly_summaries SET total_cents = total_cents + 1 WHERE month = '1997-03'")
        connection.exec_driver_sql("UPDATE expenses SET note = 'of a customer who never came back' WHERE user_id = 4")
    options = RunOptions.parse({"projectors": EXPENSES, "since": "1998-04-01", "max_count_drift_percent": 100})
    run(engine, "part", options)
    found = actual_tables(engine)
    bought, months = cdnow_totals(DATA)
    wrong = {key: (row[0], row[1] + 1) if key[1] == "1997-03" else row for key, row in months.items()}
    assert found["monthly_summaries"] == wrong
    counted: dict[tuple[Any, ...], int] = {}
    for _, note, quantity, day, user, cents in in_order(found["expenses"]):
        assert note == ("of a customer who never came back" if user == 4 else None)
        counted[user, day, cents, quantity] = counted.get((user, day, cents, quantity), 0) + 1
    assert {key: (count,) for key, count in counted.items()} == bought


def in_order(expenses: dict[Any, Any]) -> list[tuple[Any, ...]]:
    """Category, note, quantity, day, user and cents of each."""
    return [(category, note, quantity, day, user, cents) for cents, category, note, quantity, day, user in expenses.values()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "part"),
    [
        pytest.param("postgres", {"since": "2023-01-01T01:00:00+00:00"}, marks=pytest.mark.postgres),
        pytest.param("mariadb", {"projectors": ("SubscriptionProjector", *EXPENSES[:2])}, marks=pytest.mark.mariadb),
    ],
    ids=["since", "aggregates"],
)
def test_a_part_is_rebuilt_while_clients_append_to_the_other_rows(
    kind: str, part: dict[str, Any], new_database: Callable[[str], sa.URL]
) -> None:
    """Three clients go on with aggregates that began before the rebuild, and add to sums that are copied."""
    engine = sa.create_engine(new_database(kind), pool_size=10)
    create_schema(engine)
    append_all(engine, purchases())
    run(engine, "fill", RunOptions())
    traffic(engine, 300, seed=1)
    before = actual_tables(engine)
    stop, failures = threading.Event(), []

    def client(seed: int) -> None:
        try:
            traffic(engine, 100_000, seed=seed, stopped=stop.is_set)
        except Exception as error:
            failures.append(error)

    clients = [threading.Thread(target=client, args=(seed,)) for seed in (2, 3, 4)]
    for each in clients:
        each.start()
    try:
        for number in range(3):
            with engine.connect() as connection:
                some = list(connection.exec_driver_sql("SELECT DISTINCT aggregate_uuid FROM stored_events LIMIT 40").scalars())
            chosen = part if "since" in part else part | {"aggregates": some, "rebuild_dependents": True}
            run(engine, f"part-{number}", RunOptions.parse({"max_count_drift_percent": 100} | chosen))
    finally:
        stop.set()
        for each in clients:
            each.join()
    assert failures == []
    assert actual_tables(engine) == expected_tables(engine) != before
