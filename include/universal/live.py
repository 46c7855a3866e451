"""How the application itself works: it appends an event and projects it, both in one transaction (`transactional`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from uuid import uuid4

import sqlalchemy as sa

from include.projection_rebuild.events import Event
from include.projection_rebuild.live import project_live
from include.projection_rebuild.projector import Projector
from include.universal.events import NewEvent, append, generate
from include.universal.projectors import ALL


def append_and_project(connection: sa.Connection, event: NewEvent, projectors: Sequence[type[Projector]] = ALL) -> Event:
    """Stores one event and brings the read models up to date, in the caller's transaction.

    :param projectors: always in this order, so that two transactions never wait for each other in a circle
    :returns: the event with its position
    """
    stored = append(connection, event)
    for projector in projectors:
        project_live(connection, projector, stored)
    return stored


@contextmanager
def unit_of_work(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction of the application. On SQLite it takes the write lock at once, so that it never has to give way."""
    if engine.dialect.name != "sqlite":
        # MySQL's own default, REPEATABLE READ, locks the gap where a missing row would be: two transactions that both
        # miss it and then add it deadlock.
        committed = engine.execution_options(isolation_level="READ COMMITTED")
        with committed.begin() as connection:
            yield connection
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 10000")
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")


def traffic(
    engine: sa.Engine,
    count: int,
    seed: int,
    *,
    stopped: Callable[[], bool] = lambda: False,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> int:
    """A client at work: up to ``count`` events of new aggregates, each in a transaction of its own.

    :param stopped: asked before each event
    :param around: entered around each transaction, to time it or to take its error
    :returns: how many events it has tried
    """
    # Aggregates of their own, whatever else the same seed has made before.
    renamed: dict[str, str] = {}
    done = 0
    # Few of them at once, so that even a short visit sees them grow and end.
    for event in generate(count, seed=seed, at_once=5):
        if stopped():
            break
        stream = renamed.setdefault(event.stream, str(uuid4()))
        payload = {
            key: renamed.setdefault(value, str(uuid4())) if key in ("item_id", "payment_id", "expense_id") else value
            for key, value in event.payload.items()
        }
        with around(), unit_of_work(engine) as connection:
            append_and_project(connection, event._replace(stream=stream, payload=payload))
        done += 1
    return done
