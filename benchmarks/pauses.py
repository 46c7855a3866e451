"""For how long writers wait at a switch of many tables, part by part. The tables are small: what is measured is the renaming.

Each has a key, an index, a counter of its own, and a foreign key to a table that is not rebuilt.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import sqlalchemy as sa

from benchmarks.ours import SUFFIX, Setup, rebuild_of
from benchmarks.store import Database
from include.universal.schema import stored_events
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.options import RunOptions

TABLES = (1, 10, 100)
"""Tables of one switch."""
SWITCHES = 3
EVENTS = 30
CPU = "CPU of the step"


def _row(number: int) -> type:
    fields: dict[str, Any] = {"__annotations__": {"id": str, "seen": int}, "seen": 0}
    return row(f"read_model_{number}", key="id")(type(f"ReadModel{number}", (), fields))


def _projector(count: int) -> type[Projector]:
    kinds = [_row(number) for number in range(count)]

    class Counting(Projector):
        owns = tuple(kinds)

        @handles("Counted")
        def counted(self, event: Event, rows: Rows) -> None:
            for kind in kinds:
                made: Any = rows.get_or_add(kind, event.stream)
                made.seen += 1

    return Counting


One, Ten, Hundred = (_projector(count) for count in TABLES)
_NAMES = dict(zip(TABLES, ("One", "Ten", "Hundred"), strict=True))


@dataclass(frozen=True)
class Pause:
    """One switch.

    :param parts: seconds by part; see :data:`projection_rebuild.model.results.PARTS`
    :param cpu: seconds of this process while its step was at work, what comes before the pause included
    """

    seconds: float
    parts: dict[str, float]
    cpu: float


def run(server: Database, count: int) -> Pause:
    """Rebuilds so many tables, several times.

    :returns: medians
    """
    engine = server.create(f"pause{count}")
    _fill(engine, count)
    url = engine.url.render_as_string(hide_password=False)
    pauses = [_switch(url, count, number) for number in range(SWITCHES)]
    engine.dispose()
    return Pause(
        median(each.seconds for each in pauses),
        {name: median(each.parts[name] for each in pauses) for name in pauses[0].parts},
        median(each.cpu for each in pauses),
    )


def _fill(engine: sa.Engine, count: int) -> None:
    metadata = sa.MetaData()
    kinds = sa.Table("kinds", metadata, sa.Column("id", sa.Integer, primary_key=True), mysql_engine="InnoDB")
    for number in range(count):
        sa.Table(
            f"read_model_{number}",
            metadata,
            sa.Column("number", sa.Integer, primary_key=True),
            sa.Column("id", sa.String(36), nullable=False, unique=True),
            sa.Column("seen", sa.Integer, nullable=False, index=True),
            sa.Column("kind", sa.Integer, sa.ForeignKey(kinds.c.id, name=f"fk_kind_{number}"), index=True),
            mysql_engine="InnoDB",
            sqlite_autoincrement=True,
        )
    stored_events.create(engine)
    metadata.create_all(engine)
    event = {"event_class": "Counted", "event_properties": {}, "meta_data": {}, "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
    rows = [event | {"aggregate_uuid": f"{number % 10:036}", "aggregate_version": number} for number in range(EVENTS)]
    with engine.begin() as connection:
        connection.execute(stored_events.insert(), rows)


def _switch(url: str, count: int, number: int) -> Pause:
    # The switch is measured, not refused: a slow machine is to show how slow it is.
    spec = Setup().spec() | {
        "projectors": [f"{__name__}:{_NAMES[count]}"],
        "swap": {"max_pause": "10m"},
        "retention": {"keep_old": False},
    }
    rebuild = rebuild_of(url, spec, f"{SUFFIX}{number}")
    try:
        rebuild.plan(RunOptions())
        rebuild.clone_tables()
        for name in rebuild.chosen():
            rebuild.replay(name)
        rebuild.verify()
        began = time.process_time()
        done = rebuild.swap()
        cpu = time.process_time() - began
        rebuild.reconcile()
        rebuild.drop_old()
    finally:
        rebuild.close()
    return Pause(done.pause_seconds, done.pause_parts, cpu)


def described(pause: Pause) -> str:
    """``12.3 ms (lock 1.2, drain 0.4, ...), CPU of the step 40 ms``."""
    parts = ", ".join(f"{name} {seconds * 1000:.1f}" for name, seconds in pause.parts.items())
    return f"{pause.seconds * 1000:.1f} ms ({parts}), {CPU} {pause.cpu * 1000:.0f} ms"
