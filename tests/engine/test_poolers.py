"""Poolers: one that shares sessions is refused before anything is set on them, and the application behind it notices nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from include.universal.live import unit_of_work
from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import ConnectionRefused
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.clients import project
from tests.engine.harness.databases import marked
from tests.engine.harness.driver import run_to
from tests.engine.harness.faults import until
from tests.engine.harness.seams import second_session_is_waited_for
from tests.engine.harness.shop import actual, events, expected
from tests.engine.harness.specs import rebuild
from tests.servers import Server
from tests.servers.between import Between, other_number
from tests.servers.pgbouncer import PgBouncer

pytestmark = pytest.mark.postgres

AS_EVER = "SELECT current_setting('search_path'), current_setting('lock_timeout'), current_setting('TimeZone')"
LEFT = "SELECT (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_prepared_statements)"


class Application:
    """Clients that read and append through a pool, until the context ends.

    :param url: of the pool
    :ivar stored: every event that it has committed, in their order
    :ivar errors: what its clients were told
    """

    def __init__(self, url: sa.URL, stored: list[dict[str, Any]], readers: int = 3) -> None:
        self.engine = sa.create_engine(url, connect_args={"prepare_threshold": None}, pool_size=10)
        self.stored = list(stored)
        self.errors: list[Exception] = []
        self.read = self.appended = 0
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._until_stopped, args=[self._look]) for _ in range(readers)]
        self._threads.append(threading.Thread(target=self._until_stopped, args=[self._append]))
        with self.engine.connect() as connection:
            self._settings = connection.exec_driver_sql(AS_EVER).one()

    def __enter__(self) -> Application:
        for each in self._threads:
            each.start()
        self.works()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for each in self._threads:
            each.join()
        self.engine.dispose()

    def works(self) -> None:
        """Until all of it has been done once more since now."""
        read, appended = self.read + 10, self.appended + 2
        until(lambda: bool(self.errors) or (self.read >= read and self.appended >= appended))
        assert self.errors == []

    def _until_stopped(self, does: Callable[[], None]) -> None:
        while not self._stopped.is_set() and not self.errors:
            try:
                does()
            except Exception as error:
                self.errors.append(error)

    def _look(self) -> None:
        with self.engine.connect() as connection:
            # By the search path, as most applications do.
            connection.exec_driver_sql("SELECT count(*) FROM orders").scalar_one()
            connection.rollback()
            assert connection.exec_driver_sql(AS_EVER).one() == self._settings
        self.read += 1

    def _append(self) -> None:
        made = {
            "aggregate_uuid": f"visit-{self.appended}",
            "event_class": "OrderPlaced",
            "event_properties": {"customer": 3, "on": "2026-03-01"},
        }
        with unit_of_work(self.engine) as connection:
            position = connection.execute(shop.stored_events.insert().values(**made)).inserted_primary_key[0]  # type: ignore[index]
            project(connection, position, made)
        self.stored.append(made)
        self.appended += 1


@pytest.fixture
def pooled(postgres_server: Server) -> Iterator[Callable[..., PgBouncer]]:
    """Starts poolers: ``pooled(pool_mode="session")``."""
    made: list[PgBouncer] = []

    def start(**settings: str) -> PgBouncer:
        pooler = PgBouncer(postgres_server, **({"default_pool_size": "30"} | settings))
        made.append(pooler)
        pooler.start()
        return pooler

    yield start
    for each in made:
        each.remove()


@pytest.fixture
def filled(postgres_url: sa.URL) -> list[dict[str, Any]]:
    """A shop whose tables are right, and its events."""
    engine = sa.create_engine(postgres_url)
    stored = events(200)
    shop.fill(engine, stored)
    made = rebuild(engine, "first")
    run_to(made, "drop")
    made.close()
    engine.dispose()
    return stored


def _at(pooler: PgBouncer, url: sa.URL) -> sa.URL:
    return pooler.url.set(database=url.database)


@pytest.mark.parametrize("more", [{}, {"server_round_robin": "1"}], ids=["last used first", "in turn"])
def test_dry_runs_through_a_pool_in_transaction_mode_are_refused_and_the_application_notices_nothing(
    pooled: Callable[..., PgBouncer], postgres_url: sa.URL, filled: list[dict[str, Any]], more: dict[str, str]
) -> None:
    url = _at(pooled(pool_mode="transaction", **more), postgres_url)
    with Application(url, filled) as application:
        for number in range(3):
            engine = sa.create_engine(url)
            with pytest.raises(ConnectionRefused, match="transaction mode") as refused:
                rebuild(engine, f"dry {number}").plan(RunOptions(dry_run=True))
            engine.dispose()
            assert "directly" in str(refused.value) and "session mode" in str(refused.value) and not refused.value.retryable
            application.works()
        assert actual(application.engine) is not None
    assert application.errors == []


def test_a_pool_is_recognised_however_busy_it_is(
    pooled: Callable[..., PgBouncer], postgres_url: sa.URL, filled: list[dict[str, Any]]
) -> None:
    url = _at(pooled(pool_mode="transaction", default_pool_size="3"), postgres_url)
    with Application(url, filled, readers=6) as application:
        for _ in range(20):
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            with pytest.raises(ConnectionRefused), dialect_for(engine).connect():
                pytest.fail("it was taken for a session of our own")
        application.works()


def test_a_refusal_leaves_nothing_on_the_sessions_of_the_pool(pooled: Callable[..., PgBouncer], postgres_url: sa.URL) -> None:
    pooler = pooled(pool_mode="transaction", default_pool_size="2")
    for url in (_at(pooler, postgres_url), pooler.socket_url.set(database=postgres_url.database)):
        client = sa.create_engine(url, connect_args={"prepare_threshold": None})
        with client.connect() as one, client.connect() as two:
            before = [each.exec_driver_sql(AS_EVER).one() for each in (one, two)]
        for _ in range(3):
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            with pytest.raises(ConnectionRefused, match="transaction mode"), dialect_for(engine).connect():
                pass
        # Both at once, so that each session of the pool answers.
        with client.connect() as one, client.connect() as two:
            assert [each.exec_driver_sql(AS_EVER).one() for each in (one, two)] == before
            assert [tuple(each.exec_driver_sql(LEFT).one()) for each in (one, two)] == [(0, 0), (0, 0)]
        client.dispose()


def test_every_new_connection_of_a_step_is_proven_and_not_only_the_first(
    pooled: Callable[..., PgBouncer], postgres_url: sa.URL, filled: list[dict[str, Any]]
) -> None:
    direct = sa.create_engine(postgres_url)
    made = rebuild(direct, "half way")
    run_to(made, "clone")
    made.close()
    engine = sa.create_engine(_at(pooled(pool_mode="transaction"), postgres_url))
    with pytest.raises(ConnectionRefused, match="transaction mode"):
        rebuild(engine, "half way").replay("OrderProjector")
    engine.dispose()
    direct.dispose()


def test_statement_mode_is_refused_by_name(pooled: Callable[..., PgBouncer], postgres_url: sa.URL) -> None:
    engine = sa.create_engine(_at(pooled(pool_mode="statement"), postgres_url), poolclass=sa.NullPool)
    with pytest.raises(ConnectionRefused, match="statement mode") as refused, dialect_for(engine).connect():
        pass
    assert not refused.value.retryable


def test_a_whole_rebuild_through_a_pool_in_session_mode_with_the_application_behind_it(
    pooled: Callable[..., PgBouncer], postgres_url: sa.URL, filled: list[dict[str, Any]]
) -> None:
    url = _at(pooled(pool_mode="session"), postgres_url)
    with Application(url, filled) as application:
        for run in ("dry", "one", "two"):
            engine = sa.create_engine(url)
            # The application goes on while the tables are compared, the faster the slower this machine is.
            made = rebuild(engine, run, verify={"max_count_drift_percent": 100})
            run_to(made, "plan" if run == "dry" else "drop", RunOptions(dry_run=run == "dry"))
            made.close()
            engine.dispose()
            application.works()
        # Who comes to the pool now may be given a session that was ours.
        clients = sa.create_engine(url, connect_args={"prepare_threshold": None}, pool_size=20)
        held = [clients.connect() for _ in range(12)]
        assert {tuple(each.exec_driver_sql(AS_EVER).one()) for each in held} == {tuple(application._settings)}
        assert {tuple(each.exec_driver_sql(LEFT).one()) for each in held} == {(0, 0)}
        for each in held:
            each.close()
        clients.dispose()
    assert application.errors == []
    engine = sa.create_engine(postgres_url)
    assert actual(engine) == expected(application.stored)
    engine.dispose()


def test_a_pool_that_does_not_clean_its_sessions_is_refused(pooled: Callable[..., PgBouncer], postgres_url: sa.URL) -> None:
    engine = sa.create_engine(_at(pooled(pool_mode="session", server_reset_query=""), postgres_url), poolclass=sa.NullPool)
    with pytest.raises(ConnectionRefused, match="settings of its last user") as refused, dialect_for(engine).connect():
        pass
    assert "DISCARD ALL" in str(refused.value)


def test_a_pool_without_a_second_session_is_refused_and_may_work_later(
    pooled: Callable[..., PgBouncer], postgres_url: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_session_is_waited_for(monkeypatch, 0.3)
    engine = sa.create_engine(_at(pooled(pool_mode="session", default_pool_size="1"), postgres_url), poolclass=sa.NullPool)
    with pytest.raises(ConnectionRefused, match="second connection") as refused, dialect_for(engine).connect():
        pass
    assert refused.value.retryable


def test_a_translated_address_is_no_pooler(postgres_url: sa.URL) -> None:
    assert postgres_url.port is not None
    engine = sa.create_engine(postgres_url.set(port=Between(postgres_url.port).port), poolclass=sa.NullPool)
    dialect = dialect_for(engine)
    with dialect.connect() as one, dialect.connect() as two:
        assert one.exec_driver_sql("SHOW TimeZone").scalar_one() == two.exec_driver_sql("SHOW TimeZone").scalar_one() == "UTC"


@pytest.mark.parametrize("kind", marked("mysql", "mariadb"))
def test_a_proxy_with_numbers_of_its_own_is_refused_and_a_translated_address_is_not(
    kind: str, new_database: Callable[[str], sa.URL]
) -> None:
    url = new_database(kind)
    assert url.port is not None
    proxied = sa.create_engine(url.set(port=Between(url.port, other_number).port), poolclass=sa.NullPool)
    with pytest.raises(ConnectionRefused, match="proxy") as refused, dialect_for(proxied).connect():
        pass
    assert "directly" in str(refused.value)
    # Nothing was set before: the server's own sessions show what a login finds.
    forwarded = sa.create_engine(url.set(port=Between(url.port).port), poolclass=sa.NullPool)
    dialect = dialect_for(forwarded)
    with dialect.connect() as one, dialect.connect() as two:
        zones = [each.exec_driver_sql("SELECT @@SESSION.time_zone").scalar_one() for each in (one, two)]
    assert zones == ["+00:00", "+00:00"]
