"""How an application works while its read models are rebuilt: the three contracts of live writers, in small.

* ``transactional``: :func:`append_and_project`, an event and its rows in one transaction.
* ``checkpointed``: appenders only append; :func:`consume` projects what has settled and keeps its position in a table.
* ``detached``: :func:`append_and_enqueue`, an event and a job for it in one transaction; :func:`work_off` does the job.
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
    # The queue first: a worker that looks for its next job then passes no row that another one has locked.
    sa.Column("queue", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    mysql_engine="InnoDB",
)

CONSUMER = "universal"
AGAIN_AFTER = 0.05
"""Seconds before a client tries a transaction again that has failed."""

Store = Callable[[sa.Connection, NewEvent], object]


@contextmanager
def unit_of_work(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction of the application. On SQLite it takes the write lock at once, so that it never has to give way.

    It waits for it longer than seems necessary: SQLite wakes its waiting writers in no order.
    """
    if engine.dialect.name != "sqlite":
        # MySQL's own default, REPEATABLE READ, locks the gap where a missing row would be: two transactions that both
        # miss it and then add it deadlock.
        committed = engine.execution_options(isolation_level="READ COMMITTED")
        with committed.begin() as connection:
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
    """``transactional``: stores one event and brings the read models up to date, in the caller's transaction.

    :param projectors: always in this order, so that two transactions never wait for each other in a circle
    :returns: the event with its position
    """
    stored = append(connection, event)
    _project(connection, stored, projectors)
    return stored


def append_and_enqueue(connection: sa.Connection, event: NewEvent, queues: int = 1) -> Event:
    """``detached``: stores one event and a job for it, in the caller's transaction.

    :param queues: how many there are; the events of one aggregate share one, so that they are projected in their order
    """
    stored = append(connection, event)
    queue = crc32(event.stream.encode()) % queues
    connection.execute(jobs.insert().values(queue=queue, position=stored.position))
    return stored


def look_up(connection: sa.Connection, event: NewEvent) -> sa.Row[Any, Any] | None:
    """What a command looks at in the read models before it decides on its event (read, then append), in the same transaction."""
    if event.type.startswith(("Subscription", "Payment")):
        state = sa.select(subscriptions.c.status, subscriptions.c.price_cents)
        return connection.execute(state.where(subscriptions.c.id == event.stream)).one_or_none()
    user, category = event.payload["user_id"], event.payload.get("category", event.payload.get("to_category"))
    spent = sa.select(category_summaries.c.expenses, category_summaries.c.total_cents)
    of = (category_summaries.c.user_id == user, category_summaries.c.category == category)
    return connection.execute(spent.where(*of)).one_or_none()


# Projecting it later -----------------------------------------------------------------------------------------------


def add_consumer(engine: sa.Engine, name: str = CONSUMER) -> None:
    """Enters a consumer that has seen nothing yet."""
    with engine.begin() as connection:
        connection.execute(consumer_positions.insert().values(name=name, position=0))


def consume(
    engine: sa.Engine, store: EventStore, projectors: Sequence[type[Projector]] = ALL, name: str = CONSUMER, limit: int = 50
) -> int:
    """``checkpointed``: one step of a consumer; its position and its rows commit together.

    :param limit: at most so many events a transaction
    :returns: how many positions it has gone on; 0: there is nothing new that has settled
    """
    # Before anything is locked: settling waits for appends in flight.
    head = store.settled_head()
    mine = consumer_positions.c.name == name
    with unit_of_work(engine) as connection:
        position: int = connection.execute(sa.select(consumer_positions.c.position).where(mine).with_for_update()).scalar_one()
        with closing(store.pages(position, head, _types(projectors), size=limit)) as pages:
            events, place = next(pages, ([], position))
        # A consumer that has begun does not come to the beginning again.
        reached = position if place is None else place
        for event in events:
            _project(connection, event, projectors)
        if reached > position:
            connection.execute(consumer_positions.update().where(mine).values(position=reached))
    return reached - position


def work_off(engine: sa.Engine, store: EventStore, queue: int = 0, projectors: Sequence[type[Projector]] = ALL) -> bool:
    """``detached``: does the oldest job of a queue; job and rows commit together. One worker a queue.

    :returns: whether there was a job
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
    return sorted({each for projector in projectors for each in projector.stored_types()})


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
    """A client at work: up to ``count`` events of new aggregates, each in a transaction of its own.

    :param store: what it does in each transaction
    :param stopped: asked before each transaction
    :param around: entered around each transaction, to time it or to take its error; a transaction whose error was taken is
        tried again, as what follows in its aggregate would have no sense without it
    :returns: how many events it has stored
    """
    # Aggregates of their own, whatever else the same seed has made before.
    renamed: dict[str, str] = {}
    done = 0
    # Few of them at once, so that even a short visit sees them grow and end.
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
    """Whether the event has been stored before the client was stopped."""
    committed = False
    while not committed and not stopped():
        with around():
            with unit_of_work(engine) as connection:
                store(connection, event)
            committed = True
        if not committed:
            time.sleep(AGAIN_AFTER)
    return committed
