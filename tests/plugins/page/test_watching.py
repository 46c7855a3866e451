"""How often databases are looked at, and what becomes of readers while one hangs; no Airflow, no database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.universal.demo import SPEC
from projection_rebuild.errors import ConnectionLost
from projection_rebuild.errors.trouble import Kind, Trouble
from projection_rebuild.operations.status import Look
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.traffic.low_traffic import Traffic
from projection_rebuild_airflow.page import watching
from projection_rebuild_airflow.page.watching import Unseen, Watcher, Watchers

START = datetime(2026, 11, 25, 15, 0, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Database:
    """Stands in for a rebuild whose database answers, hangs or fails."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.looks = self.slow_looks = 0
        self.answers = threading.Event()
        self.answers.set()
        self.slow_seconds = 0.0
        self.error: Exception | None = None

    def look(self, earlier: Traffic | None = None) -> Look:
        self.looks += 1
        assert self.answers.wait(timeout=300)
        if self.error:
            raise self.error
        return Look(
            traffic=Traffic(self.looks * 10, None, START + timedelta(seconds=self.clock.now), appended=10 if earlier else None),
            runs=[],
        )

    def tables(self) -> list[Any]:
        self.slow_looks += 1
        self.clock.now += self.slow_seconds
        return []

    def history(self, limit: int) -> list[Any]:
        return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Database:
    made = Database(clock)

    @contextmanager
    def opened(spec: RebuildSpec, run_id: str) -> Iterator[Database]:
        yield made

    monkeypatch.setattr(watching, "open_spec", opened)
    monkeypatch.setattr(watching, "dag_runs_of", lambda runs: {})
    return made


@pytest.fixture
def watcher(clock: Clock, database: Database) -> Watcher:
    spec = RebuildSpec.model_validate(
        {
            "rebuild": "shop",
            "event_store": {"conn_id": "shop_db"},
            "read_models": {"conn_id": "shop_db"},
            "projectors": ["shop:Orders"],
            "live_writer": "transactional",
        }
    )
    return Watcher(spec, Path("shop.yaml"), clock)


def test_many_readers_are_one_look_a_second(watcher: Watcher, database: Database, clock: Clock) -> None:
    seen = [watcher.see() for _ in range(20)]
    assert database.looks == 1 and all(each is seen[0] for each in seen)
    clock.now += watching.LOOK_EVERY
    assert watcher.see() is not seen[0]
    assert database.looks == 2


def test_sizes_are_looked_at_more_rarely_the_longer_it_takes(watcher: Watcher, database: Database, clock: Clock) -> None:
    database.slow_seconds = 10.0
    watcher.see()
    clock.now += watching.SLOWLY + 10
    watcher.see()
    assert (database.looks, database.slow_looks) == (2, 1)
    clock.now += 20 * database.slow_seconds
    watcher.see()
    assert database.slow_looks == 2


def test_appends_are_counted_over_the_last_minute(watcher: Watcher, clock: Clock) -> None:
    assert watcher.see().earlier is None
    clock.now = 30
    assert watcher.see().earlier == Traffic(10, None, START)
    clock.now = 70
    earlier = watcher.see().earlier
    assert earlier is not None and earlier.at == START + timedelta(seconds=30)


def test_a_database_that_fails_is_named_without_what_its_driver_says(watcher: Watcher, database: Database) -> None:
    database.error = OSError("could not connect to host secret.example as admin")
    with pytest.raises(Unseen, match=r"^shop_db cannot be asked: OSError \[PR-PAGE-01\]$"):
        watcher.see()
    database.error = ConnectionLost(Trouble(Kind.LOST, "error 2003", "cannot connect to secret.example as admin"))
    with pytest.raises(Unseen) as unseen:
        watcher.see()
    assert (
        unseen.value.message
        == "shop_db cannot be asked: PR-DB-01, the database has ended the connection, or cannot be reached (error 2003)"
    )
    assert unseen.value.__cause__ is None and unseen.value.__context__ is None
    database.error = None
    assert watcher.see().look.runs == []


def test_a_database_that_hangs_holds_up_one_reader(
    watcher: Watcher, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PATIENCE", 0.05)
    database.answers.clear()
    first = threading.Thread(target=watcher.see)
    first.start()
    while not database.looks:
        pass
    with pytest.raises(Unseen, match="does not answer"):
        watcher.see()
    database.answers.set()
    first.join()
    last = watcher.see()
    # From now on the last look is shown, until it is too old to be of use.
    database.answers.clear()
    clock.now += watching.LOOK_EVERY
    monkeypatch.setattr(watching, "PATIENCE", 5.0)
    again = threading.Thread(target=watcher.see)
    again.start()
    while database.looks < 2:
        pass
    assert watcher.see() is last
    clock.now += 10
    with pytest.raises(Unseen, match="does not answer"):
        watcher.see()
    database.answers.set()
    again.join()


def test_a_spec_that_changes_is_watched_anew_and_a_broken_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROJECTION_REBUILD_SPECS", str(tmp_path))
    text = SPEC.read_text(encoding="utf-8")
    (tmp_path / "universal.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "other.yaml").write_text(text.replace("rebuild: universal", "rebuild: other"), encoding="utf-8")
    watchers = Watchers()
    before = watchers.all()
    assert set(before) == {"universal", "other"} and watchers.problems() == []
    assert watchers.all()["other"] is before["other"]
    (tmp_path / "universal.yaml").write_text(text.replace("give_up_after: 6h", "give_up_after: 5h"), encoding="utf-8")
    (tmp_path / "third.yaml").write_text("rebuild: third", encoding="utf-8")
    after = watchers.all()
    assert after["other"] is before["other"] and after["universal"] is not before["universal"]
    assert len(watchers.problems()) == 1 and "third.yaml" in watchers.problems()[0]
