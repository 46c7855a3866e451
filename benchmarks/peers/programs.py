"""Running the peers' programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from benchmarks import tables
from benchmarks.store import Store
from include.universal.projectors import SubscriptionProjector
from tests.emmett import library, node

HERE = Path(__file__).parent
EMMETT = HERE / "emmett.mjs"
TABLE = "subscriptions"
PROJECTORS = (SubscriptionProjector,)


class PeerFailed(Exception):
    """A peer's program ended with an error; with what it said."""


def pyeventsourcing(store: Store, suffix: str, upto: int) -> float:
    """Seconds in which its ProjectionRunner fills ``subscriptions_<suffix>`` from the first events."""
    _make(store, suffix)
    return _run(sys.executable, "-m", "benchmarks.peers.pyeventsourcing", store.url, str(upto), f"{TABLE}_{suffix}")


def emmett(store: Store, suffix: str, upto: int, batch: int) -> float:
    """Seconds in which its rebuild fills ``subscriptions_<suffix>`` from the first events.

    :param batch: events at a time; 100 is its default
    """
    program = library(EMMETT)
    with store.engine.connect() as connection:
        filled = sa.inspect(connection).has_table("emt_messages")
    url = store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    if not filled:
        _start(node(), program, "fill", url, str(upto))
    _make(store, suffix)
    return _run(node(), program, "rebuild", url, f"{TABLE}_{suffix}", str(batch))


def _make(store: Store, suffix: str) -> None:
    """The table with all of its indexes, as a library finds it that follows an event store live."""
    with store.engine.begin() as connection:
        tables.make(connection, suffix, PROJECTORS)
        tables.finish(connection, suffix, TABLE)
    store.settle()


def _run(*command: str | Path) -> float:
    said: dict[str, Any] = orjson.loads(_start(*command))
    return float(said["seconds"])


def _start(*command: str | Path) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerFailed(f"{Path(command[0]).name} {command[1]} failed:\n{done.stderr[-2000:]}")
    return done.stdout
