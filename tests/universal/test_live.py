"""The application at work: an event and its rows are written together or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
import sqlalchemy as sa

from include.projection_rebuild.events import Event
from include.projection_rebuild.projector import Projector, handles
from include.projection_rebuild.rows import Rows
from include.universal.cdnow import purchases
from include.universal.independent import actual_tables, expected_tables
from include.universal.live import append_and_project, traffic, unit_of_work
from include.universal.projectors import ExpenseProjector
from include.universal.rows import Expense
from include.universal.schema import create_schema, stored_events


class Broken(Projector):
    owns = (Expense,)

    @handles("ExpenseRecorded")
    def recorded(self, event: Event, rows: Rows) -> None:
        raise RuntimeError("a bug")


def stored(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(stored_events)).scalar_one())


def test_an_event_is_stored_with_its_rows(engine: sa.Engine) -> None:
    create_schema(engine)
    with unit_of_work(engine) as connection:
        event = append_and_project(connection, next(purchases()))
    assert event.position == 1
    assert actual_tables(engine) == expected_tables(engine)


def test_only_the_given_projectors_run(engine: sa.Engine) -> None:
    create_schema(engine)
    with unit_of_work(engine) as connection:
        append_and_project(connection, next(purchases()), [ExpenseProjector])
    assert [table for table, rows in actual_tables(engine).items() if rows] == ["expenses"]


def test_a_failing_projector_takes_the_event_back(engine: sa.Engine) -> None:
    create_schema(engine)
    with pytest.raises(RuntimeError, match="a bug"), unit_of_work(engine) as connection:
        append_and_project(connection, next(purchases()), [ExpenseProjector, Broken])
    assert stored(engine) == 0
    assert not any(actual_tables(engine).values())


def test_traffic_of_the_same_seed_never_meets_itself(engine: sa.Engine) -> None:
    create_schema(engine)
    assert [traffic(engine, 40, seed=1), traffic(engine, 40, seed=1)] == [40, 40]
    assert actual_tables(engine) == expected_tables(engine)


def test_traffic_stops_between_two_transactions(engine: sa.Engine) -> None:
    create_schema(engine)
    asked = count()
    assert traffic(engine, 1_000, seed=1, stopped=lambda: next(asked) == 7) == 7
    assert stored(engine) == 7


def test_clients_at_the_same_time_lose_nothing(engine: sa.Engine) -> None:
    create_schema(engine)
    with ThreadPoolExecutor(4) as clients:
        assert list(clients.map(lambda seed: traffic(engine, 60, seed=seed), range(4))) == [60] * 4
    assert stored(engine) == 240
    assert actual_tables(engine) == expected_tables(engine)
