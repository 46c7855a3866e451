"""Live writers that project outside the append transaction: a consumer with a checkpoint, and a queue of jobs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from include.universal.live import unit_of_work
from projection_rebuild.authoring.events import Event
from projection_rebuild.dialects import dialect_for
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.replay.inline import project_live
from projection_rebuild.spec.stores import EventStoreSection
from tests.engine.harness import shop
from tests.engine.harness.shop import events
from tests.engine.harness.specs import PROJECTORS

ALL = (shop.OrderProjector, shop.OrderLineProjector, shop.CustomerTotalProjector)


TYPES = sorted({each for projector in ALL for each in projector.event_types()})


CHECKPOINTED = {
    "contract": "checkpointed",
    "checkpoint": {
        "table": "consumers",
        "name_column": "name",
        "position_column": "position",
        "names": dict.fromkeys(PROJECTORS, "shop"),
    },
}


DETACHED = {"contract": "detached", "drain_check": "SELECT count(*) FROM jobs"}


TOLD_APART = {"contract": "detached", "jobs_left": "SELECT position FROM jobs"}


BACKLOG = 5
"""The appender waits while more events than this are not projected yet."""


class Application:
    """One appender, and one worker that projects in transactions of its own."""

    def __init__(self, engine: sa.Engine, work: Callable[[Application], int]) -> None:
        self.engine = engine
        self.store = EventStore(dialect_for(engine), EventStoreSection(conn_id="db"))
        self.stored = events(20_000)
        self.appended = self.projected = 0
        self.failures: list[str] = []
        self._work = work
        self._stop, self._finish = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._append), threading.Thread(target=self._project)]

    def __enter__(self) -> Application:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads[0].join()
        self._finish.set()
        self._threads[1].join()

    def append_next(self) -> None:
        with unit_of_work(self.engine) as connection:
            made = connection.execute(shop.stored_events.insert().values(**self.stored[self.appended]))
            if self._work is project_a_job:
                position = made.inserted_primary_key[0]  # type: ignore[index]
                connection.exec_driver_sql(f"INSERT INTO jobs (position) VALUES ({position})")
        self.appended += 1

    def _append(self) -> None:
        while not self._stop.is_set():
            self._guard(self.append_next)
            time.sleep(0.015)
            # On a busy machine the queue would only grow, and the cutover would never find it empty.
            while self.appended - self.projected > BACKLOG and not self._stop.is_set():
                time.sleep(0.005)

    def _project(self) -> None:
        while True:
            last = self._finish.is_set()
            found = self._guard(lambda: self._work(self))
            self.projected += found
            if not found and last:
                return
            if not found:
                time.sleep(random.uniform(0, 0.01))

    def _guard(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:
            self.failures.append(repr(error)[:300])
            return 1

    def read(self, after: int, upto: int) -> list[Event]:
        return [event for page, _ in self.store.pages(after, upto, TYPES, size=1_000) for event in page]


def consume(application: Application) -> int:
    """Projects events as a consumer that stores its position in the transaction of its rows.

    :returns: the number of events
    """
    lock = "" if application.engine.dialect.name == "sqlite" else " FOR UPDATE"
    with unit_of_work(application.engine) as connection:
        position = connection.exec_driver_sql(f"SELECT position FROM consumers WHERE name = 'shop'{lock}").scalar_one()
        found = application.read(position, application.store.newest())[:20]
        for event in found:
            for projector in ALL:
                project_live(connection, projector, event)
        if found:
            connection.exec_driver_sql(f"UPDATE consumers SET position = {found[-1].position} WHERE name = 'shop'")
    return len(found)


def project_a_job(application: Application) -> int:
    """Does one job as a queue worker: one event in one transaction.

    :returns: the number of jobs
    """
    with unit_of_work(application.engine) as connection:
        position = connection.exec_driver_sql("SELECT min(position) FROM jobs").scalar()
        if position is None:
            return 0
        for event in application.read(position - 1, position):
            for projector in ALL:
                project_live(connection, projector, event)
        connection.exec_driver_sql(f"DELETE FROM jobs WHERE position = {position}")
    return 1


def prepare(engine: sa.Engine) -> sa.Engine:
    """Creates the tables of the application, of its consumer and of its queue."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    shop.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE consumers (name varchar(20) PRIMARY KEY, position bigint NOT NULL)")
        connection.exec_driver_sql("INSERT INTO consumers VALUES ('shop', 0)")
        connection.exec_driver_sql("CREATE TABLE jobs (position bigint PRIMARY KEY)")
    return engine
