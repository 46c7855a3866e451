"""A small application under each of the three contracts of live writers, which works on during a rebuild.

* ``transactional``: :func:`append_and_project` commits an event and its rows in one transaction.
* ``checkpointed``: appenders only append; :func:`consume` projects up to the high-water mark and stores its position.
* ``detached``: :func:`append_and_enqueue` commits an event and a job for it in one transaction; :func:`work_off` does
  the job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any
from uuid import uuid4
from zlib import crc32

import sqlalchemy as sa

from include.universal.events import NewEvent, append, generate
from include.universal.projectors import ALL
from include.universal.schema import category_summaries, subscriptions
from projection_rebuild.authoring import Event, Projector
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.replay.inline import project_inline

metadata = sa.MetaData()

consumer_positions = sa.Table(
    "consumer_positions",
    metadata,
    sa.Column("name", sa.String(60), primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    mysql_engine="InnoDB",
)
jobs = sa.Table(
    "jobs",
    metadata,
    # The queue comes first in the key, so that a worker looking for its next job meets no row that another worker has
    # locked.
    sa.Column("queue", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    mysql_engine="InnoDB",
)

CONSUMER = "universal"
AGAIN_AFTER = 0.05
"""Seconds before a client retries a failed transaction."""

Store = Callable[[sa.Connection, NewEvent], object]


@contextmanager
def unit_of_work(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction of the application.

    On SQLite it takes the write lock at once, so that it never fails half-way as busy. It waits for the lock longer
    than seems necessary, because SQLite wakes its waiting writers in no order.
    """
    if engine.dialect.name != "sqlite":
        # MySQL's default, REPEATABLE READ, locks the gap of a missing row. Two transactions that both look for the row
        # and then insert it would deadlock.
        read_committed = engine.execution_options(isolation_level="READ COMMITTED")
        with read_committed.begin() as connection:
            yield connection
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 60000")
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")


# Storing an event --------------------------------------------------------------------------------------------------


def append_and_project(connection: sa.Connection, event: NewEvent, projectors: Sequence[type[Projector]] = ALL) -> Event:
    """``transactional``: stores one event and projects it into the read models, in the caller's transaction.

    :param projectors: every transaction must use the same order, so that two of them never deadlock
    :returns: the event with its position
    """
    stored = append(connection, event)
    _project(connection, stored, projectors)
    return stored


def append_and_enqueue(connection: sa.Connection, event: NewEvent, queues: int = 1) -> Event:
    """``detached``: stores one event and a job for it, in the caller's transaction.

    :param queues: the number of queues; the events of one aggregate share a queue, which keeps their order
    """
    stored = append(connection, event)
    queue = crc32(event.stream.encode()) % queues
    connection.execute(jobs.insert().values(queue=queue, position=stored.position))
    return stored


def look_up(connection: sa.Connection, event: NewEvent) -> sa.Row[Any, Any] | None:
    """Reads the row that a command checks before it appends its event in the same transaction."""
    if event.type.startswith(("Subscription", "Payment")):
        state = sa.select(subscriptions.c.status, subscriptions.c.price_cents)
        return connection.execute(state.where(subscriptions.c.id == event.stream)).one_or_none()
    user, category = event.payload["user_id"], event.payload.get("category", event.payload.get("to_category"))
    spent = sa.select(category_summaries.c.expenses, category_summaries.c.total_cents)
    conditions = (category_summaries.c.user_id == user, category_summaries.c.category == category)
    return connection.execute(spent.where(*conditions)).one_or_none()


# Projecting it later -----------------------------------------------------------------------------------------------


def add_consumer(engine: sa.Engine, name: str = CONSUMER) -> None:
    """Registers a consumer that has projected nothing yet."""
    with engine.begin() as connection:
        connection.execute(consumer_positions.insert().values(name=name, position=0))


def consume(
    engine: sa.Engine, store: EventStore, projectors: Sequence[type[Projector]] = ALL, name: str = CONSUMER, limit: int = 50
) -> int:
    """``checkpointed``: runs one step of a consumer; its position and its rows commit together.

    :param limit: the most events of a transaction
    :returns: by how many positions the consumer has advanced; 0: no new event lies below the high-water mark
    """
    # Before the transaction locks anything: the store waits here for appends in flight.
    head = store.settled_head()
    is_consumer = consumer_positions.c.name == name
    with unit_of_work(engine) as connection:
        position: int = connection.execute(
            sa.select(consumer_positions.c.position).where(is_consumer).with_for_update()
        ).scalar_one()
        with closing(store.pages(position, head, _types(projectors), size=limit)) as pages:
            events, place = next(pages, ([], position))
        # A consumer never goes back to the beginning.
        reached = position if place is None else place
        for event in events:
            _project(connection, event, projectors)
        if reached > position:
            connection.execute(consumer_positions.update().where(is_consumer).values(position=reached))
    return reached - position


def work_off(engine: sa.Engine, store: EventStore, queue: int = 0, projectors: Sequence[type[Projector]] = ALL) -> bool:
    """``detached``: does the oldest job of a queue; job and rows commit together. Each queue has one worker.

    :returns: whether the queue had a job
    """
    with unit_of_work(engine) as connection:
        oldest = sa.select(jobs.c.position).where(jobs.c.queue == queue).order_by(jobs.c.position).limit(1).with_for_update()
        position = connection.execute(oldest).scalar_one_or_none()
        if position is None:
            return False
        connection.execute(jobs.delete().where(jobs.c.queue == queue, jobs.c.position == position))
        with closing(store.pages(position - 1, position, _types(projectors), size=2)) as pages:
            for event in next(pages)[0]:
                _project(connection, event, projectors)
    return True


def _project(connection: sa.Connection, event: Event, projectors: Sequence[type[Projector]]) -> None:
    for projector in projectors:
        project_inline(connection, projector, event)


def _types(projectors: Sequence[type[Projector]]) -> list[str]:
    return sorted({event_type for projector in projectors for event_type in projector.stored_types()})


# A client at work --------------------------------------------------------------------------------------------------


def traffic(
    engine: sa.Engine,
    count: int,
    seed: int,
    *,
    store: Store = append_and_project,
    stopped: Callable[[], bool] = lambda: False,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> int:
    """Runs a client: it stores up to ``count`` events of new aggregates, each in a transaction of its own.

    :param store: the work of each transaction
    :param stopped: the client checks it before each transaction
    :param around: a context around each transaction, which may time it or suppress its error. The client retries a
        transaction whose error was suppressed, because later events of the aggregate need it
    :returns: the number of stored events
    """
    # New ids, so that two clients with the same seed do not share aggregates.
    renamed: dict[str, str] = {}
    done = 0
    # Few aggregates at once, so that even a short run sees them grow and end.
    for event in generate(count, seed=seed, at_once=5):
        stream = renamed.setdefault(event.stream, str(uuid4()))
        payload = {
            key: renamed.setdefault(value, str(uuid4())) if key in ("item_id", "payment_id", "expense_id") else value
            for key, value in event.payload.items()
        }
        if not _store_one(engine, event._replace(stream=stream, payload=payload), store, stopped, around):
            break
        done += 1
    return done


def _store_one(
    engine: sa.Engine,
    event: NewEvent,
    store: Store,
    stopped: Callable[[], bool],
    around: Callable[[], AbstractContextManager[object]],
) -> bool:
    """Stores one event, with retries; returns whether it was stored before the client was stopped."""
    committed = False
    while not committed and not stopped():
        with around():
            with unit_of_work(engine) as connection:
                store(connection, event)
            committed = True
        if not committed:
            time.sleep(AGAIN_AFTER)
    return committed
