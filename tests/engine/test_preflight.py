"""What a plan finds before anything is touched: each check fires on a real server, and a healthy database has no finding."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.dialects.mariadb import preflight as mariadb_preflight
from projection_rebuild.dialects.mysql import preflight as mysql_preflight
from projection_rebuild.dialects.mysql.grants import Grants
from projection_rebuild.dialects.postgres import preflight as postgres_preflight
from projection_rebuild.dialects.sqlite import preflight as sqlite_preflight
from projection_rebuild.errors import PlanError
from projection_rebuild.model.plan import Space
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.databases import execute, marked
from tests.engine.harness.driver import run_to
from tests.engine.harness.findings import filled, findings_of, matching
from tests.engine.harness.specs import rebuild
from tests.servers import Server
from tests.servers.mariadb import MariaDBServer, mariadb_server


@pytest.fixture
def healthy(engine: sa.Engine) -> sa.Engine:
    """Each kind of database in turn."""
    filled(engine)
    return engine


def of_kind(kind: str, new_database: Callable[[str], sa.URL]) -> Iterator[sa.Engine]:
    made = sa.create_engine(new_database(kind))
    filled(made)
    yield made
    made.dispose()


@pytest.fixture
def postgres(new_database: Callable[[str], sa.URL], postgres_server: Server) -> Iterator[sa.Engine]:
    """A healthy PostgreSQL."""
    yield from of_kind("postgres", new_database)


@pytest.fixture
def mysql(new_database: Callable[[str], sa.URL], mysql_server: Server) -> Iterator[sa.Engine]:
    """A healthy MySQL."""
    yield from of_kind("mysql", new_database)


@pytest.fixture
def mariadb(new_database: Callable[[str], sa.URL], mariadb_server: Server) -> Iterator[sa.Engine]:
    """A healthy MariaDB."""
    yield from of_kind("mariadb", new_database)


@pytest.fixture
def sqlite(new_database: Callable[[str], sa.URL]) -> Iterator[sa.Engine]:
    """A healthy SQLite."""
    yield from of_kind("sqlite", new_database)


# All of it together ---------------------------------------------------------------------------------------------


def test_a_healthy_database_has_no_finding(healthy: sa.Engine) -> None:
    assert findings_of(healthy) == []
    run_to(rebuild(healthy), "drop")
    assert findings_of(healthy) == []


def test_one_plan_lists_all_that_is_wrong_and_touches_nothing(healthy: sa.Engine) -> None:
    execute(healthy, "DROP TABLE customer_totals", "CREATE TABLE orders_old (n int)", "ALTER TABLE orders DROP COLUMN placed_on")
    with healthy.begin() as connection:
        forgotten = [{"aggregate_uuid": "x", "event_class": "OrderForgotten", "event_properties": {}}]
        connection.execute(shop.stored_events.insert(), forgotten)
    before = sa.inspect(healthy).get_table_names()
    everything = ["Nobody", "OrderProjector", "OrderLineProjector", "CustomerTotalProjector"]
    with pytest.raises(PlanError) as refused:
        rebuild(healthy, event_store={"conn_id": "db", "columns": {"version": "no_such"}}).plan(RunOptions(projectors=everything))
    lines = str(refused.value).splitlines()
    for words in (
        ["Nobody is unknown", "OrderProjector"],
        ["event store", "no_such", "event_store.columns.version"],
        ["there is no table customer_totals", "create it"],
        ["orders: it has no column placed_on", "Order"],
        ["orders: there is a table orders_old", "rename or drop it"],
    ):
        assert [line for line in lines if all(word in line for word in words)], words
    assert sa.inspect(healthy).get_table_names() == before


def test_a_refusal_tells_what_only_informs_as_well(healthy: sa.Engine) -> None:
    with healthy.begin() as connection:
        connection.execute(shop.stored_events.delete().where(shop.stored_events.c.event_class == "OrderShipped"))
        forgotten = [{"aggregate_uuid": "x", "event_class": "OrderForgotten", "event_properties": {}}]
        connection.execute(shop.stored_events.insert(), forgotten)
    said = rebuild(healthy).plan(RunOptions(dry_run=True)).describe()
    execute(healthy, "CREATE TABLE orders_old (n int)")
    with pytest.raises(PlanError) as refused:
        rebuild(healthy).plan(RunOptions())
    for text in (said, str(refused.value).partition("worth knowing:")[2]):
        assert "no projector of this spec handles OrderForgotten; if one should" in text
        assert "OrderProjector handles OrderShipped, which the store does not hold; if it should" in text
    assert "  space:      about " in said
    assert "  SQL, in this order, without " in said


def test_a_dry_run_beside_a_rebuild_whose_tables_are_not_finished(healthy: sa.Engine) -> None:
    alone = rebuild(healthy, run_id="alone").plan(RunOptions(dry_run=True)).sql
    run_to(rebuild(healthy), "clone")
    beside = rebuild(healthy, run_id="beside").plan(RunOptions(dry_run=True)).sql
    assert beside and set(beside) <= set(alone)


# Projectors, tables and names -----------------------------------------------------------------------------------


@row("ring_a", key="id")
class RingA:
    id: int


@row("ring_a_old", key="id")
class RingB:
    id: int


@row("a_read_model_with_a_name_that_leaves_no_room_for_any_suffix", key="id")
class Long:
    id: int


class RingAProjector(Projector):
    owns = (RingA,)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        """Never runs."""


class RingBProjector(RingAProjector):
    owns = (RingB,)


class LongProjector(RingAProjector):
    owns = (Long,)


class FirstInCircle(RingAProjector):
    owns = (RingA,)


class SecondInCircle(RingAProjector):
    owns = (RingB,)
    depends_on = (FirstInCircle,)


def projectors(*names: str) -> list[str]:
    return [f"tests.engine.test_preflight:{name}" for name in names]


def ring(engine: sa.Engine) -> None:
    """Two tables whose foreign keys point at each other, the one named as the other's old table will be."""
    if engine.dialect.name == "sqlite":
        execute(
            engine,
            "CREATE TABLE ring_a (id int PRIMARY KEY REFERENCES ring_a_old (id))",
            "CREATE TABLE ring_a_old (id int PRIMARY KEY REFERENCES ring_a (id))",
        )
        return
    execute(
        engine,
        "CREATE TABLE ring_a (id int PRIMARY KEY)",
        "CREATE TABLE ring_a_old (id int PRIMARY KEY, FOREIGN KEY (id) REFERENCES ring_a (id))",
        "ALTER TABLE ring_a ADD FOREIGN KEY (id) REFERENCES ring_a_old (id)",
    )


def test_circles_and_names_that_two_tables_need_are_named(healthy: sa.Engine) -> None:
    ring(healthy)
    findings = findings_of(healthy, projectors=projectors("RingAProjector", "RingBProjector"))
    assert matching(findings, "circle", "ring_a -> ring_a_old", "Drop one").refuses
    assert matching(findings, "ring_a_old: ring_a and ring_a_old need this name", "rename one").refuses


def test_projectors_in_a_circle_are_one_finding_among_others(sqlite: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FirstInCircle, "depends_on", (SecondInCircle,))
    findings = findings_of(sqlite, projectors=projectors("FirstInCircle", "SecondInCircle"))
    assert matching(findings, "FirstInCircle", "SecondInCircle", "circle", "depends_on").refuses
    assert matching(findings, "there is no table ring_a;").refuses


def test_two_projectors_of_one_table_are_named(sqlite: sa.Engine) -> None:
    both = [f"tests.engine.harness.shop:{name}" for name in ("OrderProjector", "Rival")]
    assert matching(findings_of(sqlite, projectors=both), "the table orders", "OrderProjector and Rival", "one owner").refuses


@pytest.mark.parametrize("kind", marked("postgres", "mysql", "mariadb"))
def test_names_that_had_to_be_shortened_are_told(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database(kind))
    filled(engine)
    execute(engine, "CREATE TABLE a_read_model_with_a_name_that_leaves_no_room_for_any_suffix (id int PRIMARY KEY)")
    finding = matching(findings_of(engine, projectors=projectors("LongProjector")), "too long for _rebuild", "_old")
    assert not finding.refuses
    engine.dispose()


KEYLESS = """CREATE TABLE order_lines (order_id varchar(36) NOT NULL, line int NOT NULL, product varchar(100), price numeric(10, 2),
 options varchar(100), gift int, CONSTRAINT uq_lines UNIQUE (order_id, line))"""


def test_a_table_without_a_primary_key_is_told(healthy: sa.Engine) -> None:
    execute(healthy, "DROP TABLE order_lines", KEYLESS)
    (finding,) = findings_of(healthy)
    assert "order_lines: it has no primary key" in str(finding)
    assert finding.remedy
    assert not finding.refuses


def test_a_server_that_makes_no_table_without_a_primary_key(mysql: sa.Engine, mariadb: sa.Engine) -> None:
    for engine in (mysql, mariadb):
        execute(engine, "DROP TABLE order_lines", KEYLESS)
    strict = sa.create_engine(mysql.url, connect_args={"init_command": "SET SESSION sql_require_primary_key = 1"})
    assert matching(findings_of(strict), "order_lines", "sql_require_primary_key", "ADD PRIMARY KEY").refuses
    strict.dispose()
    with setting(mariadb, "innodb_force_primary_key", "ON", "OFF"):
        assert matching(findings_of(mariadb), "order_lines", "innodb_force_primary_key").refuses


def test_keys_that_the_database_compares_more_loosely_than_a_handler_are_told(healthy: sa.Engine) -> None:
    loosen = {
        "sqlite": ["DROP TABLE order_lines", "DROP TABLE orders", "CREATE TABLE orders (id text COLLATE NOCASE PRIMARY KEY,"
                   " customer int, status text COLLATE RTRIM UNIQUE, placed_on date, updated_at text)"],
        "postgresql": ["DROP TABLE order_lines", "CREATE EXTENSION citext",
                       'ALTER TABLE orders ALTER id TYPE citext, ALTER status TYPE citext, ADD UNIQUE (status)'],
        "mysql": ["DROP TABLE order_lines", "ALTER TABLE orders MODIFY id varchar(36) COLLATE utf8mb4_general_ci,"
                  " MODIFY status varchar(20) COLLATE utf8mb4_bin, ADD UNIQUE (status)"],
    }[healthy.dialect.name]  # fmt: skip
    execute(healthy, *loosen)
    finding = matching(findings_of(healthy), "orders.id", "same key to the database")
    assert "spell a key in one way only" in finding.remedy
    assert not finding.refuses
    other = matching(findings_of(healthy), "orders.status", "same value of a unique key to the database")
    why = {
        "sqlite": "collation RTRIM",
        "postgresql": "type citext",
        "mysql": "collation utf8mb4_bin, texts that differ in blanks at the end only",
    }
    assert why[healthy.dialect.name] in other.problem


def test_a_server_that_is_too_old_is_refused_without_further_questions(
    healthy: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_preflight, "OLDEST", (99,))
    monkeypatch.setattr(postgres_preflight, "OLDEST", (99,))
    monkeypatch.setattr(mysql_preflight, "OLDEST", (99,))
    monkeypatch.setattr(mariadb_preflight, "OLDEST", (99, 1))
    (finding,) = findings_of(healthy)
    assert "rebuilds need 99" in str(finding)
    assert finding.refuses


# PostgreSQL -----------------------------------------------------------------------------------------------------

POSTGRES_RIGHTS = {
    "GRANT CONNECT, TEMPORARY ON DATABASE {database} TO few": "REVOKE TEMPORARY ON DATABASE {database} FROM few",
    "GRANT USAGE, CREATE ON SCHEMA public TO few": "REVOKE CREATE ON SCHEMA public FROM few",
    "GRANT SELECT ON stored_events TO few": "REVOKE SELECT ON stored_events FROM few",
    "GRANT UPDATE ON stored_events TO few": "REVOKE UPDATE ON stored_events FROM few",
    "GRANT pg_read_all_stats TO few": "REVOKE pg_read_all_stats FROM few",
}
POSTGRES_FINDINGS = {
    "REVOKE TEMPORARY ON DATABASE {database} FROM few": ["temporary tables", "GRANT TEMPORARY"],
    "REVOKE CREATE ON SCHEMA public FROM few": ["schema public: few may not create tables", "GRANT USAGE, CREATE"],
    "REVOKE USAGE ON SCHEMA public FROM few": ["search_path: few may use no schema", "GRANT USAGE, CREATE"],
    "REVOKE SELECT ON stored_events FROM few": ["event store stored_events: few may not read id", "GRANT SELECT"],
    "REVOKE UPDATE ON stored_events FROM few": ["event store stored_events: few may not lock it", "GRANT MAINTAIN"],
    "REVOKE pg_read_all_stats FROM few": ["low-traffic gate", "GRANT pg_read_all_stats"],
    "ALTER TABLE orders OWNER TO CURRENT_USER": ["orders: it belongs to", "few"],
}


@pytest.fixture
def few(postgres: sa.Engine) -> Iterator[sa.Engine]:
    """As a role that has just the rights that a rebuild needs."""
    execute(
        postgres,
        "CREATE ROLE few LOGIN",
        f"REVOKE ALL ON DATABASE {postgres.url.database} FROM PUBLIC",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        *(each.format(database=postgres.url.database) for each in POSTGRES_RIGHTS),
        *(f"ALTER TABLE {name} OWNER TO few" for name in ("orders", "order_lines", "customer_totals")),
    )
    made = sa.create_engine(postgres.url.set(username="few"), poolclass=sa.NullPool)
    yield made
    execute(postgres, "DROP OWNED BY few CASCADE", "DROP ROLE few")


def test_the_rights_that_are_written_down_are_enough_on_postgresql(few: sa.Engine) -> None:
    assert findings_of(few) == []
    run_to(rebuild(few), "drop")


@pytest.mark.parametrize("change", POSTGRES_FINDINGS)
def test_a_right_that_is_missing_on_postgresql_is_named(postgres: sa.Engine, few: sa.Engine, change: str) -> None:
    execute(postgres, change.format(database=postgres.url.database))
    finding = matching(findings_of(few), *POSTGRES_FINDINGS[change])
    assert finding.refuses == ("low-traffic" not in finding.problem)


def test_a_ledger_of_another_role_is_refused(postgres: sa.Engine, few: sa.Engine) -> None:
    rebuild(postgres).plan(RunOptions())
    findings = findings_of(few)
    for name in ("projection_rebuild_runs", "projection_rebuild_claims"):
        assert matching(findings, f"{name}: it is a table of the ledger", "GRANT SELECT").refuses


@pytest.mark.parametrize(
    ("options", "words", "refuses"),
    [
        ("-c deadlock_timeout=100ms", ["deadlock_timeout", "100 ms", "set it to 1s"], False),
        ("-c default_transaction_read_only=on", ["read-only or a standby", "primary"], True),
    ],
)
def test_settings_of_postgresql(postgres: sa.Engine, options: str, words: list[str], refuses: bool) -> None:
    engine = sa.create_engine(postgres.url, connect_args={"options": options}, poolclass=sa.NullPool)
    assert matching(findings_of(engine), *words).refuses is refuses


def test_an_event_store_without_statistics_is_told(postgres: sa.Engine) -> None:
    def told() -> list[str]:
        return [str(each) for each in findings_of(postgres) if "statistics" in str(each)]

    execute(postgres, "ALTER TABLE stored_events SET (autovacuum_enabled = off)")
    # Few events are read soon without them.
    assert told() == []
    execute(
        postgres,
        "INSERT INTO stored_events (aggregate_uuid, event_class, event_properties, created_at) "
        "SELECT 'many', 'Noted', json_build_object('text', repeat('x', 200)), now() FROM generate_series(1, 20000)",
    )
    (note,) = told()
    assert "event store stored_events: it has no statistics" in note and "ANALYZE stored_events" in note
    execute(postgres, "ANALYZE stored_events")
    assert told() == []


def test_replication_slots_are_told(postgres: sa.Engine) -> None:
    execute(postgres, "SELECT pg_create_physical_replication_slot('far_away')")
    try:
        assert not matching(findings_of(postgres), "0 replicas", "slots: far_away", "write-ahead log").refuses
    finally:
        execute(postgres, "SELECT pg_drop_replication_slot('far_away')")


# MySQL and MariaDB ----------------------------------------------------------------------------------------------

SCHEMA_RIGHTS = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "ALTER",
    "DROP",
    "INDEX",
    "TRIGGER",
    "LOCK TABLES",
    "REFERENCES",
]
INFORMING = ("PROCESS", "performance_schema")


@contextmanager
def setting(engine: sa.Engine, name: str, value: str, usual: str) -> Iterator[None]:
    execute(engine, f"SET GLOBAL {name} = {value}")
    try:
        yield
    finally:
        execute(engine, f"SET GLOBAL {name} = {usual}")


@contextmanager
def account(engine: sa.Engine, *, via_role: bool = False) -> Iterator[sa.Engine]:
    """As an account that has just the rights that a rebuild needs, of its own or by a role."""
    mariadb = getattr(engine.dialect, "is_mariadb", False)
    holder = "few_role" if via_role else "'few'@'%%'"
    execute(
        engine,
        "CREATE USER 'few'@'%%'",
        *(["CREATE ROLE few_role", "GRANT few_role TO 'few'@'%%'"] if via_role else []),
        f"GRANT {', '.join(SCHEMA_RIGHTS)} ON {engine.url.database}.* TO {holder}",
        f"GRANT {'RELOAD' if mariadb else 'FLUSH_TABLES'} ON *.* TO {holder}",
        f"GRANT PROCESS ON *.* TO {holder}",
        *([] if mariadb else [f"GRANT SELECT ON performance_schema.* TO {holder}"]),
        *([f"SET DEFAULT ROLE few_role {'FOR' if mariadb else 'TO'} 'few'@'%%'"] if via_role else []),
    )
    made = sa.create_engine(engine.url.set(username="few", password=None), poolclass=sa.NullPool)
    try:
        yield made
    finally:
        execute(engine, "DROP USER 'few'@'%%'", *(["DROP ROLE few_role"] if via_role else []))


@pytest.mark.parametrize("kind", marked("mysql", "mariadb"))
@pytest.mark.parametrize("via_role", [False, True])
def test_the_rights_that_are_written_down_are_enough_on_mysql(
    kind: str, via_role: bool, new_database: Callable[[str], sa.URL]
) -> None:
    engine = sa.create_engine(new_database(kind), poolclass=sa.NullPool)
    filled(engine)
    with account(engine, via_role=via_role) as few:
        assert findings_of(few) == []
        run_to(rebuild(few), "drop")


@pytest.mark.parametrize("kind", marked("mysql", "mariadb"))
def test_a_right_that_is_missing_on_mysql_is_named(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database(kind), poolclass=sa.NullPool)
    filled(engine)
    database = f"{engine.url.database}.*"
    taken = dict.fromkeys(SCHEMA_RIGHTS, database) | {"RELOAD" if kind == "mariadb" else "FLUSH_TABLES": "*.*", "PROCESS": "*.*"}
    with account(engine) as few:
        for right, where in taken.items():
            execute(engine, f"REVOKE {right} ON {where} FROM 'few'@'%%'")
            named = [each for each in findings_of(few) if right in each.remedy and "GRANT" in each.remedy]
            assert named, right
            assert [each.refuses for each in named] == [right not in INFORMING] * len(named)
            execute(engine, f"GRANT {right} ON {where} TO 'few'@'%%'")
        assert findings_of(few) == []


def test_locks_that_cannot_be_seen_are_told(mysql: sa.Engine) -> None:
    with account(mysql) as few:
        execute(mysql, "REVOKE SELECT ON performance_schema.* FROM 'few'@'%%'")
        assert not matching(findings_of(few), "metadata_locks", "deadlock", "GRANT SELECT").refuses
    instrument = "UPDATE performance_schema.setup_instruments SET ENABLED = '{}' WHERE NAME = 'wait/lock/metadata/sql/mdl'"
    execute(mysql, instrument.format("NO"))
    try:
        assert not matching(findings_of(mysql), "metadata_locks", "mdl on").refuses
    finally:
        execute(mysql, instrument.format("YES"))


def test_settings_of_mysql(mysql: sa.Engine, mariadb: sa.Engine) -> None:
    for engine in (mysql, mariadb):
        with setting(engine, "innodb_file_per_table", "OFF", "ON"):
            assert not matching(findings_of(engine), "innodb_file_per_table", "SET GLOBAL").refuses
        with account(engine) as few, setting(engine, "read_only", "ON", "OFF"):
            assert matching(findings_of(few), "read_only", "primary").refuses


class PeculiarServer(MariaDBServer):
    """One with statements in its binary log, and with all table names in small letters."""

    def command(self) -> list[str]:
        """See :class:`MariaDBServer`."""
        plain = [word for word in super().command() if word != "--skip-log-bin"]
        return [*plain, "--log-bin=log", "--binlog-format=STATEMENT", "--server-id=1", "--lower-case-table-names=1"]


@row("Orders", key="id")
class CapitalOrder:
    id: str


class CapitalProjector(RingAProjector):
    owns = (CapitalOrder,)


@pytest.mark.mariadb
def test_binary_logs_replicas_and_small_letters_on_mariadb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.servers.mariadb.MariaDBServer", PeculiarServer)
    server = mariadb_server()
    assert isinstance(server, PeculiarServer)
    engine = sa.create_engine(server.create_database("peculiar"), poolclass=sa.NullPool)
    program = shutil.which("mariadb-binlog")
    assert program is not None
    # What a replica does: it asks for the log from its beginning, and for all that is to come.
    replica = subprocess.Popen(
        [program, "--read-from-remote-server", "--stop-never", f"--port={server.port}", "--host=127.0.0.1", "--user=tests", "--raw",
         f"--result-file={server.folder}/copy-", "log.000001"],
    )  # fmt: skip
    try:
        filled(engine)
        deadline = time.monotonic() + 60
        while not any("replicas" in each.problem for each in findings_of(engine)) and time.monotonic() < deadline:
            time.sleep(0.1)
        findings = findings_of(engine)
        assert matching(findings, "binlog_format", "READ COMMITTED", "SET GLOBAL binlog_format = ROW").refuses
        assert not matching(findings, "1 replicas are attached", "binary log").refuses
        findings = findings_of(engine, projectors=projectors("CapitalProjector"))
        assert matching(findings, "Orders", "lower_case_table_names = 1", "calls the table orders", "row class").refuses
    finally:
        replica.terminate()
        replica.wait()
        server.remove()


@pytest.mark.parametrize(
    ("lines", "allowed", "denied"),
    [
        (["GRANT ALL PRIVILEGES ON `app\\_%`.* TO `a`@`%`"], [("DROP", "app_one", None)], [("DROP", "apple", None)]),
        (["GRANT SELECT, INSERT (`a`, `b`) ON `app`.`t` TO `a`@`%`"], [("SELECT", "app", "t")], [("INSERT", "app", "t"), ("SELECT", "app", None)]),
        (
            ["GRANT SELECT, DROP ON *.* TO `a`@`%`", "REVOKE DROP ON `app`.* FROM `a`@`%`"],
            [("SELECT", "app", "t"), ("DROP", "other", None)],
            [("DROP", "app", "t")],
        ),
        (["GRANT USAGE ON *.* TO `a`@`%`", "GRANT `role`@`%` TO `a`@`%`"], [], [("SELECT", "app", "t")]),
        (["GRANT SELECT ON `back``tick`.* TO `a`@`%`"], [("SELECT", "back`tick", "t")], []),
    ],
)  # fmt: skip
def test_grants_are_read_as_the_server_means_them(lines: list[str], allowed: list[Any], denied: list[Any]) -> None:
    grants = Grants(lines)
    assert all(grants.allow(*each) for each in allowed)
    assert not any(grants.allow(*each) for each in denied)


# SQLite ---------------------------------------------------------------------------------------------------------


def test_a_file_that_is_read_only_is_refused(sqlite: sa.Engine) -> None:
    execute(sqlite, "PRAGMA journal_mode = DELETE")
    read_only = sa.create_engine(f"sqlite:///file:{sqlite.url.database}?mode=ro&uri=true", poolclass=sa.NullPool)
    findings = findings_of(read_only)
    # Of the event store, and of the tables.
    assert [each.refuses for each in findings if "read-only" in str(each) and "write both" in str(each)] == [True, True]
    assert not matching(findings, "journal_mode", "PRAGMA journal_mode = WAL").refuses


def test_a_disk_without_room_is_refused(sqlite: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr("projection_rebuild.dialects.sqlite.preflight.os.statvfs", lambda _: disk)
    finding = matching(findings_of(sqlite), "disk", "for the doubles", "4 KiB are free", "make room")
    assert finding.refuses


def test_the_space_is_that_of_the_tables_and_their_indexes(healthy: sa.Engine) -> None:
    run_to(rebuild(healthy), "swap")
    made = rebuild(healthy, "again").plan(RunOptions(dry_run=True, projectors=["OrderLineProjector"]))
    all_of_it = rebuild(healthy, "again").plan(RunOptions(dry_run=True))
    assert made.space is not None
    assert all_of_it.space is not None
    assert 0 < made.space.needed < all_of_it.space.needed
    assert (made.space.free is not None) == (healthy.dialect.name == "sqlite")
    assert "does not tell" in Space(needed=1, free=None).describe()
