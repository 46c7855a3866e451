"""Databases that take no writes: a plan says so, of the read models and of the event store, before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import PlanError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.databases import marked
from tests.engine.harness.faults import until
from tests.engine.harness.shop import events
from tests.engine.harness.specs import spec
from tests.servers import OwnServer
from tests.servers.postgres import PostgresServer, _newest


class Standby(PostgresServer):
    """A hot standby of another server.

    :param primary: it; runs
    """

    def __init__(self, primary: OwnServer) -> None:
        super().__init__(_newest())
        self._primary = primary

    def prepare(self) -> None:
        """See :class:`OwnServer`."""
        copying = [
            self.programs / "bin/pg_basebackup",
            "-D",
            self.folder / "data",
            "-R",
            "-X",
            "stream",
            "--checkpoint=fast",
            "--no-sync",
        ]
        self.run(*copying, "-h", "127.0.0.1", "-p", str(self._primary.port), "-U", "tests")


def _filled(url: sa.URL) -> None:
    engine = sa.create_engine(url)
    shop.fill(engine, events(50))
    engine.dispose()


def _refused(event_store: sa.URL, read_models: sa.URL) -> str:
    engines = [sa.create_engine(each, poolclass=sa.NullPool) for each in (event_store, read_models)]
    made = Rebuild(spec(), run_id="run", event_store=engines[0], read_models=engines[1], log=lambda _: None)
    for options in (RunOptions(dry_run=True), RunOptions()):
        with pytest.raises(PlanError) as refused:
            made.plan(options)
    made.close()
    return str(refused.value)


@pytest.mark.postgres
def test_a_standby_is_refused_for_the_read_models_and_for_the_event_store() -> None:
    primary = PostgresServer(_newest())
    primary.start()
    standby = Standby(primary)
    try:
        _filled(primary.url)
        standby.start()
        until(lambda: _has_the_store(standby.url))
        assert "read-only or a standby" in _refused(primary.url, standby.url)
        said = _refused(standby.url, primary.url)
        assert "event store stored_events" in said and "standby" in said and "connect to the primary" in said
    finally:
        standby.remove()
        primary.remove()


def _has_the_store(url: sa.URL) -> bool:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return sa.inspect(connection).has_table("customer_totals")


@pytest.mark.parametrize("kind", marked("mysql", "mariadb"))
def test_a_read_only_server_is_refused_for_the_event_store(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    store, models = new_database(kind), new_database("sqlite")
    _filled(store)
    _filled(models)
    with _read_only(store):
        said = _refused(store, models)
    assert "event store stored_events" in said and "read-only" in said and "connect to the primary" in said


@contextmanager
def _read_only(url: sa.URL) -> Iterator[None]:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET GLOBAL read_only = ON")
        try:
            yield
        finally:
            connection.exec_driver_sql("SET GLOBAL read_only = OFF")


@pytest.mark.parametrize("how", ["mode=ro", "immutable=1"])
def test_a_file_that_is_read_only_is_refused_for_both(how: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    _filled(sa.make_url(f"sqlite:///{path}"))
    other = sa.make_url(f"sqlite:///{tmp_path / 'other.db'}")
    _filled(other)
    read_only = sa.make_url(f"sqlite:///file:{path}?{how}&uri=true")
    assert "write both" in _refused(other, read_only)
    said = _refused(read_only, other)
    assert "event store stored_events" in said and "read-only" in said
