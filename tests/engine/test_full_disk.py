"""The disk of the read models is full: the replay says so, the application works on, and with room again a retry finishes."""

from __future__ import annotations

import random

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.errors import OutOfRoom
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.clients import LiveShop
from tests.engine.harness.specs import SPEC
from tests.engine.harness.sweep import STEPS, Worker, error_of, sweep
from tests.servers import OwnServer, Server

MEBIBYTE = 1024 * 1024
ROOM = {"postgres": 16 * MEBIBYTE, "mariadb": 24 * MEBIBYTE, "mysql": 40 * MEBIBYTE}
"""What the files of a new server take (logs, undo and catalogs), and a little more."""

ORDERS = 16_000
PICTURE = 3_000
"""Bytes, which all together have no room on any of the servers. Less than a page: MariaDB ends itself when it has no room to take
back larger rows."""

FILLING = ("plan", "clone_tables", "OrderLineProjector")
"""Steps before the switch that surely need another page."""

pytestmark = pytest.mark.slow


@row("pictures", key="id")
class Picture:
    id: str
    content: str


class PictureProjector(Projector):
    """Makes large rows of small events, so that it is green that fills the disk and not the event store."""

    owns = (Picture,)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.add(Picture(event.stream, picture(event.stream)))


def picture(order: str) -> str:
    """Something that no server can compress."""
    return random.Random(order).randbytes(PICTURE // 2).hex()


PICTURES = sa.Table(
    "pictures",
    sa.MetaData(),
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("content", sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb"), nullable=False),
    mysql_engine="InnoDB",
)


def test_a_replay_onto_a_full_disk(server_kind: str, breakable_server: Server) -> None:
    kind, made = server_kind, breakable_server
    live = LiveShop(made.create_database("full_disk"))
    placed = [
        {
            "aggregate_uuid": f"large-{number}",
            "event_class": "OrderPlaced",
            "event_properties": {"customer": 1, "on": "2026-03-01"},
        }
        for number in range(ORDERS)
    ]
    with live.engine.begin() as connection:
        PICTURES.create(connection)
        connection.execute(shop.stored_events.insert(), placed)
    run = live.open_run(
        "large",
        projectors=[*SPEC["projectors"], "tests.engine.test_full_disk:PictureProjector"],
        replay={"batch_events": 1_000, "max_rows_in_memory": 20},
    )
    run.plan(RunOptions(projectors=("PictureProjector",)))
    run.clone_tables()

    if isinstance(made, OwnServer):
        with made.files_limited_to(ROOM[kind]):
            run.close()
            for _ in range(2):
                error = error_of(lambda: run.replay("PictureProjector"))
                assert isinstance(error, OutOfRoom)
                assert "File too large" in str(error) or "is full" in str(error)
                # It quotes no rows.
                assert len(str(error)) < 1_000
                live.visit()
        run.close()
        assert live.value("SELECT position FROM projection_rebuild_checkpoints WHERE run_id = 'large'") > 0
        assert live.value("SELECT count(*) FROM pictures") == 0

    run.replay("PictureProjector")
    run.verify()
    run.swap()
    run.reconcile()
    run.drop_old()
    run.close()
    with live.engine.connect() as connection:
        found = {each.id: each.content for each in connection.execute(sa.select(PICTURES))}
        orders = connection.exec_driver_sql(
            "SELECT aggregate_uuid FROM stored_events WHERE event_class = 'OrderPlaced'"
        ).scalars()
        assert found == {each: picture(each) for each in orders}


def use_up_what_is_free(engine: sa.Engine) -> None:
    """What earlier runs have freed is room, too. VACUUM would give it back, and make another table of each live one."""
    with engine.connect() as connection:
        while free := connection.exec_driver_sql("PRAGMA freelist_count").scalar_one():
            noted = {"event_class": "Noted", "event_properties": {"text": "." * 1_000 * free}}
            connection.execute(shop.stored_events.insert(), noted)
            connection.commit()


def test_a_sqlite_file_that_cannot_grow(sqlite_url: sa.URL) -> None:
    """Every step with room for 0, 1, 3, 7 ... more pages, until it ends well."""
    live = LiveShop(sqlite_url)

    def attempt(run_id: str, step: str, at: int) -> bool:
        if step in FILLING:
            use_up_what_is_free(live.engine)
        pages = live.value("PRAGMA page_count") + 2 ** (at - 1) - 1
        small = sa.create_engine(sqlite_url, poolclass=sa.NullPool)
        sa.event.listen(small, "connect", lambda driver, _: driver.execute(f"PRAGMA max_page_count = {pages}"))
        made = live.open_run(run_id, small)
        error = error_of(lambda: STEPS[step](made))
        if error is not None:
            assert "database or disk is full" in str(error)
        return error is not None

    worker = Worker(live)
    failures = sweep(live, attempt, worker.retry)
    assert all(failures[step] for step in FILLING), failures
    worker.close()
