"""Sessions are ours: whatever a server's defaults are, a rebuild gives the same rows; and live code gives those of a rebuild."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from include.universal.live import unit_of_work
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.dialects import dialect_for
from projection_rebuild.dialects.mysql import session as mysql_session
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.dialects.postgres import session as postgres_session
from projection_rebuild.dialects.sqlite import session as sqlite_session
from projection_rebuild.errors import PlanError, SessionError
from projection_rebuild.model.names import TableSet
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.inline import project_live
from projection_rebuild.rows.types import Rows
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import values_shop
from tests.engine.harness.databases import execute, marked
from tests.engine.harness.driver import run_to
from tests.engine.harness.findings import findings_of, matching
from tests.engine.harness.shop import actual, events, expected
from tests.engine.harness.values_shop import (
    BOTH,
    KEPT,
    MANY,
    filled,
    fresh,
    kept_events,
    project_all,
    rebuild_of,
    table,
    usual,
    wanted,
)
from tests.servers import OwnServer, Server, mariadb_server, mysql_server


def rebuilt(engine: sa.Engine, run_id: str = "run", **changes: Any) -> None:
    """Both shops, from the plan to the drop."""
    run_to(rebuild_of(engine, run_id, projectors=BOTH, **changes), "drop", RunOptions(max_count_drift_percent=100))


def assert_right(url: sa.URL, *, kept: int = KEPT, empty: str | None = "") -> None:
    """Every row of both shops is what other code makes of the events."""
    assert table(url) == wanted(url.get_backend_name(), kept, empty=empty)
    assert actual(usual(url)) == expected(events(MANY))


# PostgreSQL -------------------------------------------------------------------------------------------------------

POSTGRES = {
    "client_encoding": "LATIN1",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Singapore",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "xmloption": "document",
    "xmlbinary": "hex",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "gin_fuzzy_search_limit": "1",
    "row_security": "on",
    "check_function_bodies": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "5s",
    "lock_timeout": "5s",
    "transaction_timeout": "5s",
    "idle_in_transaction_session_timeout": "5s",
    "idle_session_timeout": "5s",
    "exit_on_error": "on",
    "session_replication_role": "replica",
    "zero_damaged_pages": "on",
    "ignore_checksum_failure": "on",
}
"""What a database may have been told, each unlike what a rebuild needs."""


@contextmanager
def told(url: sa.URL, settings: Mapping[str, str]) -> Iterator[sa.Engine]:
    """An engine on a PostgreSQL database that tells each new session these settings."""
    plain = usual(url)
    with plain.connect() as connection:
        there = set(connection.exec_driver_sql("SELECT name FROM pg_settings").scalars())
    settings = {name: value for name, value in settings.items() if name in there}
    execute(plain, *(f"ALTER DATABASE {url.database} SET {name} = '{value}'" for name, value in settings.items()))
    engine = fresh(url)
    yield engine
    engine.dispose()
    execute(plain, *(f"ALTER DATABASE {url.database} RESET {name}" for name in settings))


@pytest.mark.postgres
def test_every_setting_of_postgresql_is_made(postgres_url: sa.URL) -> None:
    declared = {each.name: each.value for each in postgres_session.SETTINGS}
    with told(postgres_url, POSTGRES) as engine, dialect_for(engine).connect() as connection:
        query = "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s)"
        there = {name: value for name, value in connection.exec_driver_sql(query, (list(declared),))}
    # Of DateStyle the order of day and month stays as the database has it.
    assert there.pop("DateStyle") == "ISO, DMY"
    del declared["DateStyle"]
    assert there == {name: value for name, value in declared.items() if name in there}
    assert declared.keys() - there.keys() <= {each.name for each in postgres_session.SETTINGS if each.since}
    assert declared.keys() >= POSTGRES.keys() - {"DateStyle"}


@pytest.mark.postgres
@pytest.mark.parametrize(
    "hostile",
    [
        POSTGRES,
        {"DateStyle": "SQL, DMY"},
        {"standard_conforming_strings": "off"},
        {"bytea_output": "escape"},
        {"TimeZone": "Asia/Singapore"},
    ],
    ids=["all", "DateStyle", "standard_conforming_strings", "bytea_output", "TimeZone"],
)
def test_a_rebuild_under_hostile_settings_of_postgresql(postgres_url: sa.URL, hostile: dict[str, str]) -> None:
    filled(postgres_url)
    with told(postgres_url, hostile) as engine:
        rebuilt(engine)
    assert_right(postgres_url)


@pytest.mark.postgres
def test_the_server_ends_no_session_of_ours_for_its_silence(postgres_url: sa.URL) -> None:
    with (
        told(postgres_url, {"idle_session_timeout": "1s", "idle_in_transaction_session_timeout": "1s"}) as engine,
        dialect_for(engine).connect() as connection,
    ):
        for begin, end in (("SELECT 1", "SELECT 1"), ("BEGIN", "ROLLBACK")):
            connection.exec_driver_sql(begin)
            time.sleep(1.5)
            connection.exec_driver_sql(end)


@pytest.mark.postgres
def test_a_database_in_sql_ascii(postgres_server: Server, postgres_url: sa.URL) -> None:
    name = f"{postgres_url.database}_ascii"
    admin = usual(postgres_server.url)
    execute(admin, f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    url = postgres_server.url.set(database=name)
    try:
        filled(url.set(query={"client_encoding": "utf8"}))
        engine = fresh(url)
        rebuilt(engine)
        assert_right(url.set(query={"client_encoding": "utf8"}))
    finally:
        postgres_server.drop_database(name)


REFUSING = """
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_user = 'tests' THEN RAISE EXCEPTION 'nobody alters tables here'; END IF;
END $$;
CREATE EVENT TRIGGER guard_of_tables ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION refuse()"""
WATCHING = """
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE EVENT TRIGGER watcher ON ddl_command_end EXECUTE FUNCTION watch()"""


@pytest.mark.postgres
def test_event_triggers_are_found_by_the_plan(postgres_url: sa.URL) -> None:
    filled(postgres_url)
    engine = fresh(postgres_url)
    execute(engine, WATCHING)
    finding = matching(findings_of(engine), "event trigger watcher", "let pass")
    assert not finding.refuses
    execute(engine, REFUSING)
    with pytest.raises(PlanError, match=r"event trigger guard_of_tables, watcher: it refuses ALTER TABLE .*P0001.*DISABLE"):
        rebuild_of(engine).plan(RunOptions())
    assert not [name for name in sa.inspect(engine).get_table_names() if "trial" in name or name.startswith("projection")]
    execute(engine, "ALTER EVENT TRIGGER guard_of_tables DISABLE")
    rebuilt(engine)
    assert_right(postgres_url)


@pytest.mark.postgres
def test_a_setting_that_we_may_not_change_is_found_by_the_plan(postgres_url: sa.URL) -> None:
    filled(postgres_url)
    execute(usual(postgres_url), "CREATE ROLE sessions_few LOGIN", "GRANT ALL ON SCHEMA public TO sessions_few")
    try:
        with told(postgres_url, {"session_replication_role": "replica"}):
            few = fresh(postgres_url.set(username="sessions_few"))
            assert matching(findings_of(few), "session_replication_role", "it is replica", "= origin", "GRANT SET").refuses
    finally:
        execute(usual(postgres_url), "DROP OWNED BY sessions_few", "DROP ROLE sessions_few")


@pytest.mark.postgres
@pytest.mark.parametrize("name", ["track_activities", "track_counts"])
def test_a_server_that_does_not_tell_what_sessions_do(postgres_url: sa.URL, name: str) -> None:
    filled(postgres_url)
    with told(postgres_url, {name: "off"}) as engine:
        assert not matching(findings_of(engine), name, "low-traffic gate", f"ALTER SYSTEM SET {name} = on").refuses


@pytest.mark.postgres
def test_policies_hide_no_events(postgres_url: sa.URL) -> None:
    filled(postgres_url)
    execute(
        usual(postgres_url),
        "CREATE ROLE sessions_few LOGIN",
        "GRANT ALL ON SCHEMA public TO sessions_few",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO sessions_few",
        "ALTER TABLE stored_events ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY half ON stored_events USING (id %% 2 = 0)",
    )
    try:
        few = fresh(postgres_url.set(username="sessions_few"))
        assert matching(
            findings_of(few), "stored_events: row-level security would hide rows from sessions_few", "BYPASSRLS"
        ).refuses
    finally:
        execute(usual(postgres_url), "DROP OWNED BY sessions_few", "DROP ROLE sessions_few")


# MySQL and MariaDB ------------------------------------------------------------------------------------------------

FAMILY = {
    "sql_mode": "'ANSI,PAD_CHAR_TO_FULL_LENGTH,HIGH_NOT_PRECEDENCE,NO_BACKSLASH_ESCAPES,NO_ZERO_DATE,NO_UNSIGNED_SUBTRACTION'",
    "time_zone": "'+08:00'",
    "completion_type": "'CHAIN'",
    "autocommit": "0",
    "foreign_key_checks": "0",
    "unique_checks": "0",
    "sql_safe_updates": "1",
    "sql_select_limit": "5",
    "max_join_size": "10",
    "sql_auto_is_null": "1",
    "sql_quote_show_create": "0",
    "sql_notes": "0",
    "sql_warnings": "1",
    "explicit_defaults_for_timestamp": "0",
    "default_storage_engine": "MyISAM",
    "default_tmp_storage_engine": "MyISAM",
    "wait_timeout": "3",
    "net_read_timeout": "2",
    "net_write_timeout": "2",
    "lock_wait_timeout": "2",
    "innodb_lock_wait_timeout": "2",
    "group_concat_max_len": "4",
    "max_sort_length": "64",
    "max_error_count": "0",
    "div_precision_increment": "0",
    "default_week_format": "3",
    "lc_time_names": "'de_DE'",
    "innodb_default_row_format": "'compact'",
    "character_set_server": "'latin1'",
}
ONLY = {
    "mysql": {
        "transaction_isolation": "'SERIALIZABLE'",
        "max_execution_time": "5000",
        "information_schema_stats_expiry": "86400",
        "show_create_table_verbosity": "1",
        "windowing_use_high_precision": "0",
        "cte_max_recursion_depth": "1",
        "old_alter_table": "1",
        "show_gipk_in_create_table_and_information_schema": "0",
        "default_collation_for_utf8mb4": "'utf8mb4_general_ci'",
    },
    "mariadb": {
        "tx_isolation": "'SERIALIZABLE'",
        "max_statement_time": "5",
        "idle_transaction_timeout": "2",
        "idle_readonly_transaction_timeout": "2",
        "idle_write_transaction_timeout": "2",
        "check_constraint_checks": "0",
        "old_mode": "'ZERO_DATE_TIME_CAST'",
        "sql_if_exists": "1",
        "alter_algorithm": "'INSTANT'",
        "innodb_compression_default": "1",
        "default_regex_flags": "'DOTALL'",
        "standard_compliant_cte": "0",
        "max_recursive_iterations": "1",
    },
}


@contextmanager
def globally(url: sa.URL, settings: Mapping[str, str]) -> Iterator[sa.Engine]:
    """An engine on a server of the MySQL family that gives each new session these settings; they are set back."""
    plain = usual(url)
    with plain.connect() as connection:
        before = {name: connection.exec_driver_sql(f"SELECT @@GLOBAL.{name}").scalar() for name in settings}
        connection.exec_driver_sql("SET " + ", ".join(f"GLOBAL {name} = {value}" for name, value in settings.items()))
    try:
        engine = fresh(url)
        yield engine
        engine.dispose()
    finally:
        with plain.connect() as connection:
            for name, value in before.items():
                shown = f"'{value}'" if isinstance(value, str) else "NULL" if value is None else value
                connection.exec_driver_sql(f"SET GLOBAL {name} = {shown}")


@pytest.fixture
def family_url(family: str, new_database: Callable[[str], sa.URL]) -> sa.URL:
    """An empty database of either."""
    return new_database(family)


def test_every_setting_of_the_mysql_family_is_made(family: str, family_url: sa.URL) -> None:
    hostile = FAMILY | ONLY[family]
    with globally(family_url, hostile) as engine, dialect_for(engine).connect() as connection:
        shown = {str(name): str(value) for name, value in connection.exec_driver_sql("SHOW SESSION VARIABLES")}
        version = tuple(each for each in connection.dialect.server_version_info or () if isinstance(each, int))
    declared = mysql_session.settings(mysql_session.MARIADB if family == "mariadb" else mysql_session.MYSQL, version)
    given = {each.name: each.value for each in declared if each.name not in ("sql_mode", "timestamp")}
    assert {name: shown[name] for name in given} == given
    kept = {"ANSI_QUOTES", "PIPES_AS_CONCAT", "IGNORE_SPACE", "ONLY_FULL_GROUP_BY", "REAL_AS_FLOAT"}
    kept |= {"HIGH_NOT_PRECEDENCE", "NO_BACKSLASH_ESCAPES", "NO_UNSIGNED_SUBTRACTION"}
    assert set(shown["sql_mode"].split(",")) - {""} == kept - ({"ONLY_FULL_GROUP_BY"} if family == "mariadb" else set()) | {
        *mysql_session.MODES
    }
    isolation = shown.get("transaction_isolation") or shown["tx_isolation"]
    assert (isolation, shown["autocommit"]) == ("READ-COMMITTED", "ON")
    assert {shown[f"character_set_{each}"] for each in ("client", "connection", "results")} == {"utf8mb4"}


def test_a_rebuild_under_hostile_settings_of_the_mysql_family(family: str, family_url: sa.URL) -> None:
    filled(family_url)
    with globally(family_url, FAMILY | ONLY[family]) as engine:
        rebuilt(engine)
    assert_right(family_url)


SINGLE = {
    "sql_safe_updates": "1",
    "sql_quote_show_create": "0",
    "sql_select_limit": "5",
    "default_storage_engine": "'MyISAM'",
    "sql_auto_is_null": "1",
    "completion_type": "'CHAIN'",
    "innodb_default_row_format": "'compact'",
    "time_zone": "'+08:00'",
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_rebuild_under_one_hostile_setting_of_the_mysql_family(family_url: sa.URL, name: str) -> None:
    filled(family_url)
    with globally(family_url, {name: SINGLE[name]}) as engine:
        rebuilt(engine)
    assert_right(family_url)


def test_statements_may_take_their_time(family: str, family_url: sa.URL) -> None:
    filled(family_url)
    name, value = {"mysql": ("max_execution_time", "1000"), "mariadb": ("max_statement_time", "1")}[family]
    # What is ended early gives 1.
    with globally(family_url, {name: value}) as engine:
        rebuilt(engine, verify={"assertions": ["SELECT SLEEP(1.5)"]})
    assert_right(family_url)


def test_the_row_format_of_a_table_stays(family_url: sa.URL) -> None:
    filled(family_url)

    def formats() -> dict[str, str]:
        query = """SELECT LOWER(TABLE_NAME), ROW_FORMAT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()
                   AND TABLE_NAME NOT LIKE 'projection%%'"""
        with usual(family_url).connect() as connection:
            return {name: row_format for name, row_format in connection.exec_driver_sql(query)}

    before = formats()
    assert set(before.values()) == {"Dynamic"}
    with globally(family_url, {"innodb_default_row_format": "'redundant'"}) as engine:
        for number in range(2):
            rebuilt(engine, f"run-{number}")
            assert formats() == before
    rebuilt(usual(family_url), "after")
    assert formats() == before


def test_our_tables_are_the_same_whatever_the_database_is_like(family_url: sa.URL) -> None:
    filled(family_url)
    execute(usual(family_url), f"ALTER DATABASE {family_url.database} CHARACTER SET latin1 COLLATE latin1_swedish_ci")
    rebuild_of(usual(family_url)).plan(RunOptions())
    query = """SELECT DISTINCT ENGINE, ROW_FORMAT, TABLE_COLLATION FROM information_schema.TABLES
               WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'projection%%'"""
    with usual(family_url).connect() as connection:
        assert [tuple(each) for each in connection.exec_driver_sql(query)] == [("InnoDB", "Dynamic", "utf8mb4_bin")]


def test_a_ledger_without_transactions_is_refused(family_url: sa.URL) -> None:
    filled(family_url)
    rebuild_of(usual(family_url)).plan(RunOptions())
    execute(usual(family_url), "ALTER TABLE projection_rebuild_claims ROW_FORMAT = DEFAULT, ENGINE = MyISAM")
    finding = matching(
        findings_of(fresh(family_url)), "projection_rebuild_claims: it is a table of the ledger", "MyISAM", "ENGINE = InnoDB"
    )
    assert finding.refuses
    execute(usual(family_url), finding.remedy)
    assert "MyISAM" not in str(findings_of(fresh(family_url)))


def test_a_server_whose_transactions_do_not_write_is_refused(family: str, family_url: sa.URL) -> None:
    filled(family_url)
    name = {"mysql": "transaction_read_only", "mariadb": "tx_read_only"}[family]
    with (
        globally(family_url, {name: "1"}) as engine,
        pytest.raises(PlanError, match=r"transaction_read_only.*keeps clients from writing"),
    ):
        rebuild_of(engine).plan(RunOptions())


@pytest.mark.mysql
def test_a_key_that_the_server_would_make_is_refused(mysql_url: sa.URL) -> None:
    filled(mysql_url)
    execute(usual(mysql_url), "ALTER TABLE kept_values DROP PRIMARY KEY, ADD UNIQUE KEY (id)")
    with (
        globally(mysql_url, {"sql_generate_invisible_primary_key": "1"}) as engine,
        pytest.raises(
            PlanError, match=r"kept_values: it has no primary key.*sql_generate_invisible_primary_key.*ADD PRIMARY KEY"
        ),
    ):
        rebuild_of(engine).plan(RunOptions())


@pytest.mark.mariadb
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("enforce_storage_engine", "'MyISAM'", ["enforce_storage_engine", "made as MyISAM", "SET GLOBAL"]),
        ("system_versioning_asof", "'2020-01-01 00:00:00'", ["system_versioning_asof", "earlier time", "DEFAULT"]),
    ],
)
def test_what_cannot_be_set_on_mariadb_is_found_by_the_plan(mariadb_url: sa.URL, name: str, value: str, words: list[str]) -> None:
    filled(mariadb_url)
    execute(usual(mariadb_url), f"SET GLOBAL {name} = {value}")
    try:
        assert matching(findings_of(fresh(mariadb_url)), *words).refuses
    finally:
        execute(usual(mariadb_url), f"SET GLOBAL {name} = DEFAULT")


def test_a_small_packet_is_told(family_url: sa.URL) -> None:
    filled(family_url)
    with globally(family_url, {"max_allowed_packet": "65536"}) as engine:
        assert not matching(findings_of(engine), "max_allowed_packet", "65,536 bytes").refuses


@pytest.mark.mariadb
def test_an_empty_text_is_what_the_server_makes_of_it(mariadb_url: sa.URL) -> None:
    filled(mariadb_url, kept=0)
    with globally(mariadb_url, {"sql_mode": "'STRICT_TRANS_TABLES,EMPTY_STRING_IS_NULL'"}) as engine:
        execute(engine, "ALTER TABLE kept_values MODIFY seen VARCHAR(400)")
        project_all(engine, KEPT)
        live = table(mariadb_url)
        assert live[0][2] is None
        rebuilt(engine)
    assert table(mariadb_url) == live
    assert_right(mariadb_url, empty=None)


@pytest.mark.mariadb
@pytest.mark.parametrize(
    "mode", ["ORACLE", "MSSQL", "TRADITIONAL,NO_TABLE_OPTIONS", "TIME_ROUND_FRACTIONAL,SIMULTANEOUS_ASSIGNMENT", ""]
)
def test_modes_of_mariadb(mariadb_url: sa.URL, mode: str) -> None:
    filled(mariadb_url)
    with globally(mariadb_url, {"sql_mode": f"'{mode}'"}) as engine:
        rebuilt(engine)
    assert_right(mariadb_url)


def test_a_switch_gives_its_connection_back_as_it_was(family_url: sa.URL) -> None:
    with globally(family_url, {"wait_timeout": "7", "lock_wait_timeout": "7"}) as engine:
        dialect = dialect_for(engine)
        assert isinstance(dialect, MySQLFamily)
        with dialect.connect() as connection:
            query = "SELECT @@SESSION.wait_timeout"
            dialect.limit_silence(connection, timedelta(seconds=2))
            assert connection.exec_driver_sql(query).scalar() == 3
            dialect.limit_silence(connection, None)
            assert connection.exec_driver_sql(query).scalar() == 28800


def test_how_old_a_transaction_is_where_the_server_itself_is_far_away(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Singapore")
    server = {"mysql": mysql_server, "mariadb": mariadb_server}[family]()
    assert isinstance(server, OwnServer)
    try:
        url = server.create_database("far_away")
        filled(url)
        with fresh(url).begin() as writer:
            writer.exec_driver_sql("UPDATE kept_values SET text = 'x'")
            dialect = dialect_for(fresh(url))
            with dialect.connect() as connection:
                age = dialect.traffic.transaction_age(connection, [TableSet.of("kept_values", schema=None, limit=64)])
        # Eight hours lie between its clock and ours.
        assert age is not None
        assert abs(age) < 3600
    finally:
        server.remove()


# SQLite -----------------------------------------------------------------------------------------------------------

PRAGMAS = {
    "case_sensitive_like": "1",
    "recursive_triggers": "1",
    "foreign_keys": "1",
    "legacy_alter_table": "0",
    "reverse_unordered_selects": "1",
    "ignore_check_constraints": "1",
    "trusted_schema": "0",
    "cell_size_check": "1",
    "locking_mode": "exclusive",
    "synchronous": "0",
    "busy_timeout": "0",
    "temp_store": "2",
    "count_changes": "1",
    "full_column_names": "1",
    "short_column_names": "0",
    "read_uncommitted": "1",
    "secure_delete": "1",
    "automatic_index": "0",
    "cache_size": "1",
}


def pragmatic(url: sa.URL) -> sa.Engine:
    """An engine of an application that tells each of its connections all of this, and wants bytes."""
    engine = sa.create_engine(url)

    @sa.event.listens_for(engine, "connect")
    def tell(driver: Any, _: object) -> None:
        driver.text_factory = bytes
        for name, value in PRAGMAS.items():
            driver.execute(f"PRAGMA {name} = {value}").close()

    return engine


def test_every_setting_of_sqlite_is_made(sqlite_url: sa.URL) -> None:
    engine = pragmatic(sqlite_url)
    with dialect_for(engine).connect() as connection:
        there = {}
        for each in sqlite_session.SETTINGS:
            found = connection.exec_driver_sql(f"PRAGMA {each.name}")
            there[each.name] = str(found.scalar()) if found.returns_rows else None
        like = connection.exec_driver_sql("SELECT 'a' LIKE 'A'").scalar()
    assert like == 1
    declared = {each.name: each.value for each in sqlite_session.SETTINGS}
    assert {name: value for name, value in there.items() if value is not None} == {
        name: declared[name] for name, value in there.items() if value is not None
    }
    assert [name for name, value in there.items() if value is None] == ["case_sensitive_like"]
    engine.dispose()


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_a_rebuild_under_hostile_pragmas(sqlite_url: sa.URL, encoding: str) -> None:
    execute(usual(sqlite_url), f"PRAGMA encoding = '{encoding}'", "CREATE TABLE first (n int)", "DROP TABLE first")
    filled(sqlite_url)
    engine = pragmatic(sqlite_url)
    rebuilt(engine)
    engine.dispose()
    assert_right(sqlite_url)


# The event store's own server -------------------------------------------------------------------------------------


@pytest.mark.postgres
@pytest.mark.mariadb
def test_the_event_stores_own_sessions_are_ours_too(new_database: Callable[[str], sa.URL]) -> None:
    store, models = new_database("postgres"), new_database("mariadb")
    filled(store)
    filled(models, kept=0)
    execute(usual(models), "DELETE FROM stored_events")
    with told(store, POSTGRES) as events_of, globally(models, FAMILY | ONLY["mariadb"]) as tables_of:
        spec = rebuild_of(
            tables_of, projectors=BOTH, live_writer={"contract": "detached", "drain_check": "SELECT 0"}
        )._context.spec
        made = Rebuild(spec, run_id="apart", event_store=events_of, read_models=tables_of, log=lambda _: None)
        run_to(made, "drop", RunOptions(max_count_drift_percent=100))
    assert_right(models)


# Live -------------------------------------------------------------------------------------------------------------

FAR_AWAY: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"options": "-c TimeZone=Asia/Singapore"},
    "mysql": {"init_command": "SET time_zone = '+08:00'"},
}


def test_live_rows_are_those_of_a_rebuild_in_any_time_zone(database_url: sa.URL) -> None:
    backend = database_url.get_backend_name()
    engine = fresh(database_url, connect_args=FAR_AWAY[backend])
    filled(database_url, kept=0)
    project_all(engine, KEPT)
    assert table(database_url) == wanted(backend, KEPT)
    made = rebuild_of(engine, projectors=BOTH)
    run_to(made, "replay", RunOptions(max_count_drift_percent=100))
    kept = next(each for each in made.verify().tables if each.table == "kept_values")
    assert (kept.differing, kept.only_blue, kept.only_green) == (0, 0, 0)
    made.swap()
    made.reconcile()
    assert_right(database_url)


@pytest.mark.postgres
def test_live_rows_are_those_of_a_rebuild_in_any_style(postgres_url: sa.URL) -> None:
    engine = fresh(
        postgres_url, connect_args={"options": "-c TimeZone=Asia/Singapore -c DateStyle=SQL,DMY -c IntervalStyle=iso_8601"}
    )
    filled(postgres_url, kept=0)
    project_all(engine, KEPT)
    assert table(postgres_url) == wanted("postgresql", KEPT)
    with engine.connect() as connection:
        project_live(connection, Quiet, kept_event())
        shown = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in ("TimeZone", "DateStyle", "IntervalStyle")]
    assert shown == ["Asia/Singapore", "SQL, DMY", "iso_8601"]


ZONE = {"postgresql": "SHOW TimeZone", "mysql": "SELECT @@SESSION.time_zone"}
HERE = {"postgresql": "Asia/Singapore", "mysql": "+08:00"}


class Clumsy(Projector):
    """Fails in its handler."""

    owns = (values_shop.Kept,)

    @handles("ValueKept")
    def kept(self, event: Event, rows: Rows) -> None:
        raise ZeroDivisionError


@pytest.fixture(params=marked("postgres", "mysql", "mariadb"))
def far_away(request: pytest.FixtureRequest, new_database: Callable[[str], sa.URL]) -> sa.Engine:
    """An application whose sessions are in another time zone."""
    url = new_database(request.param)
    values_shop.create(usual(url))
    return fresh(url, connect_args=FAR_AWAY[url.get_backend_name()])


def zone(connection: sa.Connection) -> Any:
    return connection.exec_driver_sql(ZONE[connection.dialect.name]).scalar()


def kept_event(position: int = 1) -> Event:
    (first, *_) = kept_events(1)
    return Event(position=position, stream=first["aggregate_uuid"], type="ValueKept", payload=first["event_properties"])


def test_the_applications_session_is_as_before_however_a_call_ends(far_away: sa.Engine) -> None:
    here = HERE[far_away.dialect.name]
    with far_away.connect() as connection:
        with connection.begin():
            project_live(connection, values_shop.KeptProjector, kept_event())
            assert zone(connection) == here
        assert zone(connection) == here
        connection.rollback()
        with connection.begin() as transaction:
            with pytest.raises(ZeroDivisionError):
                project_live(connection, Clumsy, kept_event())
            assert zone(connection) == here
            transaction.rollback()
        assert zone(connection) == here


def test_the_applications_session_is_as_before_when_the_database_refuses_rows(far_away: sa.Engine) -> None:
    here = HERE[far_away.dialect.name]
    execute(far_away, "ALTER TABLE kept_values ADD CONSTRAINT never CHECK (amount > 1000)")
    with far_away.connect() as connection:
        with connection.begin() as transaction:
            nested = connection.begin_nested()
            with pytest.raises(sa.exc.DBAPIError):
                project_live(connection, values_shop.KeptProjector, kept_event())
            nested.rollback()
            assert zone(connection) == here
            with pytest.raises(sa.exc.DBAPIError):
                project_live(connection, values_shop.KeptProjector, kept_event())
            transaction.rollback()
        assert zone(connection) == here


@pytest.mark.postgres
def test_a_time_zone_of_the_callers_transaction_ends_with_it(postgres_url: sa.URL) -> None:
    values_shop.create(usual(postgres_url))
    engine = fresh(postgres_url, connect_args=FAR_AWAY["postgresql"])
    with engine.connect() as connection:
        with connection.begin():
            connection.exec_driver_sql("SET LOCAL TimeZone = 'Europe/Berlin'")
            project_live(connection, values_shop.KeptProjector, kept_event())
            assert zone(connection) == "Europe/Berlin"
        assert zone(connection) == "Asia/Singapore"
    each = engine.execution_options(isolation_level="AUTOCOMMIT")
    with each.connect() as connection:
        connection.exec_driver_sql("DELETE FROM kept_values")
        project_live(connection, values_shop.KeptProjector, kept_event())
        assert zone(connection) == "Asia/Singapore"
    assert table(postgres_url)[0][:-1] == wanted("postgresql", 1)[0][:-1]


LIVE_REFUSED: dict[str, list[tuple[dict[str, Any], str]]] = {
    "postgres": [
        ({"options": "-c standard_conforming_strings=off"}, "standard_conforming_strings is off .* a rebuild has on"),
        ({"client_encoding": "latin1"}, "client_encoding is LATIN1"),
        ({"options": "-c extra_float_digits=-3"}, "extra_float_digits is -3"),
    ],
    "mysql": [
        ({"init_command": "SET sql_mode = ''"}, "sql_mode has no STRICT_TRANS_TABLES"),
        ({"init_command": "SET sql_mode = CONCAT(@@sql_mode, ',PAD_CHAR_TO_FULL_LENGTH')"}, "PAD_CHAR_TO_FULL_LENGTH"),
        (
            {"init_command": "SET sql_mode = CONCAT(@@sql_mode, ',TIME_TRUNCATE_FRACTIONAL')"},
            "sql_mode has TIME_TRUNCATE_FRACTIONAL",
        ),
        ({"init_command": "SET sql_select_limit = 5"}, "sql_select_limit is 5"),
        ({"charset": "latin1"}, "its character set is latin1"),
    ],
    "mariadb": [
        ({"init_command": "SET sql_mode = ''"}, "sql_mode has no STRICT_TRANS_TABLES"),
        ({"init_command": "SET sql_mode = CONCAT(@@sql_mode, ',EMPTY_STRING_IS_NULL')"}, "sql_mode has EMPTY_STRING_IS_NULL"),
        ({"charset": "latin1"}, "its character set is latin1"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        pytest.param(kind, arguments, words, marks=getattr(pytest.mark, kind), id=f"{kind}-{words[:30]}")
        for kind, cases in LIVE_REFUSED.items()
        for arguments, words in cases
    ],
)
def test_live_code_says_what_its_session_lacks(
    new_database: Callable[[str], sa.URL], kind: str, arguments: dict[str, Any], words: str
) -> None:
    url = new_database(kind)
    values_shop.create(usual(url))
    with unit_of_work(fresh(url.set(query={}), connect_args=arguments)) as connection:
        for _ in range(2):
            with pytest.raises(SessionError, match=f"project_live: .*{words}.*connect with"):
                project_live(connection, values_shop.KeptProjector, kept_event())
    assert table(url) == []


def test_a_session_is_looked_at_once(far_away: sa.Engine) -> None:
    said: list[str] = []
    pooled = sa.create_engine(far_away.url, pool_size=1, max_overflow=0)

    @sa.event.listens_for(pooled, "before_cursor_execute")
    def note(*seen: Any) -> None:
        said.append(seen[2])

    for _ in range(3):
        with pooled.connect() as connection:
            project_live(connection, Quiet, kept_event())
            connection.rollback()
    pooled.dispose()
    assert sum("extra_float_digits" in each or "@@GLOBAL.sql_mode" in each for each in said) == 1


class Quiet(Projector):
    """Does nothing."""

    owns = (values_shop.Kept,)

    @handles("ValueKept")
    def kept(self, event: Event, rows: Rows) -> None:
        """Writes nothing."""
