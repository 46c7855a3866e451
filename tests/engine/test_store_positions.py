"""Positions of any kind: every event counts wherever its store begins, and what is no unique whole number is refused in the plan."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import PlanError
from projection_rebuild.ledger import Ledger
from projection_rebuild.model.positions import HIGHEST, LOWEST
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.set_based import SetBasedReplay
from projection_rebuild.spec.options import RunOptions
from tests.conftest import EVERY_STATEMENT
from tests.engine.harness.databases import flavour
from tests.engine.harness.driver import roll_back_to, run_to
from tests.engine.harness.tally import SetProjector, Store, StreamProjector, TallyProjector

FAR_APART = sorted(
    [
        LOWEST,
        *(
            number * 2**57 + pick
            for number, pick in zip(range(-29, 29), random.Random(5).choices(range(2**40), k=58), strict=True)
        ),
        HIGHEST,
    ]
)
STARTS = {
    "from 0": range(60),
    "from -700": range(-700, -640),
    "across 0": range(-30, 30),
    "from 2^62": range(2**62, 2**62 + 60),
    "far apart": FAR_APART,
}


def events(positions: Sequence[int]) -> list[dict[str, Any]]:
    return [{"id": position, "stream": f"s{number % 7}"} for number, position in enumerate(positions)]


def tallies(positions: Sequence[int]) -> list[tuple[str, int, int]]:
    """By code of its own: the events of each stream, and its last position."""
    found: dict[str, list[int]] = {}
    for number, position in enumerate(positions):
        found.setdefault(f"s{number % 7}", []).append(position)
    return sorted((stream, len(each), max(each)) for stream, each in found.items())


HOW = ["handlers", "small batches", "shards", "sets", "rollback", "part"]
FEW = [
    ("from 0", "handlers"), ("from -700", "handlers"), ("far apart", "small batches"), ("across 0", "shards"), ("far apart", "sets"),
    ("from 0", "rollback"), ("far apart", "rollback"), ("across 0", "part"), ("from 2^62", "part"),
]  # fmt: skip


@pytest.mark.parametrize(("start", "how"), [*product(STARTS, HOW)] if EVERY_STATEMENT else FEW)
def test_every_event_counts_wherever_its_position_lies(engine: sa.Engine, start: str, how: str) -> None:
    positions = STARTS[start]
    store = Store(engine)
    store.add(events(positions[:50]))
    projector = SetProjector if how == "sets" else StreamProjector
    replay = {"small batches": {"batch_events": 1}, "shards": {"shards": 3}, "sets": {"batch_events": 9}}.get(how, {})
    run_to(store.rebuild(projector, replay=replay), "drop")
    assert store.rows() == tallies(positions[:50])
    if how == "rollback":
        run_to(store.rebuild(projector, run_id="second"), "reconcile")
        store.add(events(positions)[50:])
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM tallies")
        roll_back_to(store.rebuild(projector, run_id="back"), "reconcile")
        assert store.rows() == tallies(positions)
    if how == "part":
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM tallies WHERE stream = 's3'")
        run_to(store.rebuild(projector, run_id="part"), "drop", RunOptions(aggregates=("s3",), max_count_drift_percent=100))
        assert store.rows() == tallies(positions[:50])


def test_nothing_is_an_error_of_an_empty_store(engine: sa.Engine) -> None:
    store = Store(engine)
    made = store.rebuild(StreamProjector, replay={"shards": 2})
    run_to(made, "reconcile")
    assert store.rows() == [] and made.report().replays[0].position is None
    store.add(events([0]))
    roll_back_to(store.rebuild(StreamProjector, run_id="back"), "reconcile")
    assert store.rows() == [("s0", 1, 0)]


def test_the_event_at_the_smallest_position_can_be_set_aside_and_driven_again(engine: sa.Engine) -> None:
    store = Store(engine)
    store.add([{"id": 0, "stream": "a", "data": '"no object"'}, {"id": 1, "stream": "b"}])
    made = store.rebuild(StreamProjector, replay={"on_error": "dead_letter"}, verify={"max_dead_letters": 1})
    run_to(made, "replay")
    assert store.rows(suffix="_rebuild") == [("b", 1, 1)]
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE stored_events SET data = '{}' WHERE id = 0")
    made.replay("StreamProjector")
    run_to_end = [made.verify, made.swap, made.reconcile]
    for step in run_to_end:
        step()
    assert store.rows() == [("a", 1, 0), ("b", 1, 1)]


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many events each range of SQL was given."""
    found: list[int] = []
    next_range = SetBasedReplay.next_range

    def watched(self: SetBasedReplay, *given: Any) -> tuple[Any, int]:
        bound, count = next_range(self, *given)
        found.append(count)
        return bound, count

    monkeypatch.setattr(SetBasedReplay, "next_range", watched)
    return found


def test_ranges_of_sql_cost_by_their_events_and_not_by_their_positions(engine: sa.Engine, ranges: list[int]) -> None:
    store = Store(engine)
    positions = [2**53 + number * 10**12 for number in range(300)]
    store.add(events(positions))
    run_to(store.rebuild(SetProjector, replay={"batch_events": 50}), "reconcile")
    assert store.rows() == tallies(positions)
    assert len(ranges) <= 300 // 50 + 2


# Refused -----------------------------------------------------------------------------------------------------------

ULIDS = ["01ARZ3NDEKTSV4RRFFQ69G5FA0", "01ARZ3NDEKTSV4RRFFQ69G5FA1"]
UUIDS = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]
REFUSED: dict[str, tuple[str, list[Any]]] = {
    "numeric": ("numeric(20,1) NOT NULL", [0.5, 1.5]),
    "whole numeric": ("numeric(20,0) NOT NULL", [1, 2]),
    "real": ("real NOT NULL", [0.5, 1.5]),
    "text": ("varchar(26) NOT NULL", ULIDS),
}


def problem(made: Rebuild) -> str:
    with pytest.raises(PlanError) as refused:
        made.plan(RunOptions())
    return str(refused.value)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_position_that_is_no_whole_number_is_refused_by_its_type(engine: sa.Engine, kind: str) -> None:
    sql, positions = REFUSED[kind]
    store = Store(engine, {"id": sql})
    store.add({"id": each, "stream": "s"} for each in positions)
    said = problem(store.rebuild())
    assert "its position column id is of the type" in said and "event_store.columns.position" in said


def test_a_uuid_is_no_position(postgres_url: sa.URL) -> None:
    store = Store(sa.create_engine(postgres_url), {"id": "uuid NOT NULL"})
    store.add({"id": each, "stream": "s"} for each in UUIDS)
    assert "its position column id is of the type uuid" in problem(store.rebuild())


def test_a_domain_over_a_whole_number_is_a_position(postgres_url: sa.URL) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE DOMAIN place AS bigint CHECK (VALUE > -10)")
    store = Store(engine, {"id": "place NOT NULL"})
    store.add(events(range(-5, 5)))
    run_to(store.rebuild(StreamProjector), "reconcile")
    assert store.rows() == tallies(range(-5, 5))


@pytest.mark.parametrize("sql", ["smallint NOT NULL", "integer NOT NULL"])
def test_smaller_whole_numbers_are_positions(engine: sa.Engine, sql: str) -> None:
    store = Store(engine, {"id": sql})
    store.add(events(range(-5, 5)))
    run_to(store.rebuild(StreamProjector), "reconcile")
    assert store.rows() == tallies(range(-5, 5))


def test_positions_that_are_shared_are_refused(engine: sa.Engine) -> None:
    store = Store(engine, key="")
    store.add([*events(range(5)), {"id": 4, "stream": "s"}])
    assert "its position column id is not unique: 2 events are at position 4" in problem(store.rebuild())


def test_positions_that_no_key_keeps_unique_are_told(engine: sa.Engine) -> None:
    store = Store(engine, key="")
    store.add(events(range(5)))
    found = [each.problem for each in store.rebuild().plan(RunOptions()).findings]
    assert any(each.startswith("no key of the table keeps id unique") for each in found)


def test_positions_may_be_unique_among_the_rows_that_are_events(engine: sa.Engine) -> None:
    store = Store(engine, {"stream": "varchar(60) NOT NULL"}, key="PRIMARY KEY (stream, id)")
    store.add([{"id": at, "stream": stream} for stream in ("a", "b") for at in range(5)])
    made = store.rebuild(store={"only": {"stream": "a"}})
    assert not any("unique" in each.problem for each in made.plan(RunOptions()).findings)
    run_to(made, "reconcile")
    assert store.rows() == [("<a>", 5, 4)]


def test_an_event_without_a_position_is_refused(engine: sa.Engine) -> None:
    store = Store(engine, {"id": "bigint"}, key="UNIQUE (id)")
    store.add([*events(range(5)), {"id": None, "stream": "s"}])
    assert "its position column id holds NULL" in problem(store.rebuild())


@pytest.mark.parametrize(
    "kind", [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def test_unsigned_positions_are_read_up_to_what_the_ledger_keeps(new_database: Callable[[str], sa.URL], kind: str) -> None:
    store = Store(sa.create_engine(new_database(kind)), {"id": "bigint unsigned NOT NULL"})
    positions = [0, 1, HIGHEST - 1, HIGHEST]
    store.add(events(positions))
    run_to(store.rebuild(StreamProjector), "reconcile")
    assert store.rows() == tallies(positions)
    store.add([{"id": HIGHEST + 1, "stream": "s"}])
    assert f"an event at position {HIGHEST + 1:,}" in problem(store.rebuild(StreamProjector, run_id="next"))


def test_a_value_that_sqlite_lets_pass_for_a_whole_number_is_refused(sqlite_url: sa.URL) -> None:
    store = Store(sa.create_engine(sqlite_url))
    store.add([*events(range(5)), {"id": 7.5, "stream": "s"}])
    assert "its position column id is of the type bigint and holds numbers with a fraction and whole numbers" in problem(
        store.rebuild()
    )


# A ledger of an earlier version -----------------------------------------------------------------------------------


def as_it_was(engine: sa.Engine) -> None:
    """The tables of a ledger that kept the beginning as 0."""
    statements = {
        "postgresql": "ALTER TABLE {0} ALTER {1} SET NOT NULL",
        "mysql": "ALTER TABLE {0} MODIFY {1} bigint NOT NULL",
        "mariadb": "ALTER TABLE {0} MODIFY {1} bigint NOT NULL",
    }
    columns = [("checkpoints", "position"), ("checkpoints", "head"), ("calls", "after_position")]
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE projection_rebuild_checkpoints SET position = 0, head = 0 WHERE position IS NULL")
        for table, column in columns:
            name = f"projection_rebuild_{table}"
            if engine.dialect.name != "sqlite":
                connection.exec_driver_sql(statements[flavour(engine)].format(name, column))
                continue
            sql = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).scalar_one()
            connection.exec_driver_sql(f"ALTER TABLE {name} RENAME TO before")
            connection.exec_driver_sql(
                sql.replace(f"{column} BIGINT,", f"{column} BIGINT NOT NULL,").replace(
                    f'"{column}" BIGINT,', f'"{column}" BIGINT NOT NULL,'
                )
            )
            connection.exec_driver_sql(f"INSERT INTO {name} SELECT * FROM before")
            connection.exec_driver_sql("DROP TABLE before")


def refuses_null(engine: sa.Engine) -> list[str]:
    columns = sa.inspect(engine).get_columns("projection_rebuild_checkpoints")
    return [each["name"] for each in columns if each["name"] in ("position", "head") and not each["nullable"]]


def test_a_run_of_an_earlier_version_is_finished(engine: sa.Engine) -> None:
    store = Store(engine)
    store.add(events(range(1, 40)))
    made = store.rebuild(StreamProjector)
    run_to(made, "clone")
    as_it_was(engine)
    assert refuses_null(engine) == ["position", "head"]
    for step in (lambda: made.replay("StreamProjector"), made.verify, made.swap, made.reconcile, made.drop_old):
        step()
    assert store.rows() == tallies(range(1, 40)) and refuses_null(engine) == []
    assert isinstance(made._context.ledger, Ledger)
    run_to(store.rebuild(TallyProjector, run_id="next"), "reconcile")
