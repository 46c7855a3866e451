"""Nothing about the tables changes but their contents: PostgreSQL's own dump is the same before and after, clients at work."""

from __future__ import annotations

import difflib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from include.universal.live import unit_of_work
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import CloneError, PlanError, SwapNotPossible, VerificationFailed
from projection_rebuild.model.names import TableSet
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.inline import project_live
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.options import RunOptions
from tests.conftest import Databases
from tests.engine.harness import shop
from tests.engine.harness.driver import roll_back_to, run_to
from tests.engine.harness.faults import stopped_between_statements
from tests.engine.harness.shop import events, expected
from tests.engine.harness.specs import SPEC, rebuild
from tests.servers import OwnServer, Server, postgres_server
from tests.servers.postgres import PostgresServer, dump_schema, installed_majors

REBUILDS = int(os.environ.get("REBUILD_TEST_FIDELITY_REBUILDS", "3"))
"""Rebuilds in a row; 20 where it is to be proven once more."""

SCHEMAS = Path(__file__).parent / "schemas/postgres"


@row("totals", key="customer")
class Total:
    """A customer's total through a view over its table."""

    customer: int
    orders: int = 0
    spent: Decimal = Decimal(0)


class TotalProjector(Projector):
    """The application's way to customer_totals: all of its writes go through a view."""

    owns = (Total,)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Total, event["customer"]).orders += 1

    @handles("LineAdded")
    def added(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Total, event["customer"]).spent += Decimal(event["price"])


@row('Weird "T%s. ü`x', key="id")
class Weird:
    id: str
    customer: int


@row("l" * 63, key="id")
class Long:
    id: str
    customer: int


@row("select", key="id")
class Reserved:
    id: str
    customer: int


class AwkwardProjector(Projector):
    owns = (Weird, Long, Reserved)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        for kind in (Weird, Long, Reserved):
            rows.add(kind(event.stream, event["customer"]))


PROJECTORS = (shop.OrderProjector, shop.OrderLineProjector, TotalProjector)
CHANGES: dict[str, Any] = {
    "read_models": {"conn_id": "db", "schema": "app"},
    "projectors": SPEC["projectors"],
    "swap": {"attempts": 100},
}
BUILDER = "fidelity_builder"
ROLES = ["fidelity_owner", "fidelity_reader", "fidelity % other"]
NOT_VALID = {"fk_unchecked", "ck_late"}
QUERIES = [
    'SELECT id, buyer, "State %%" FROM app.open_orders',
    "SELECT count(*) FROM app.placed",
    "SELECT sum(lines), sum(price) FROM app.lines_of_orders",
    "SELECT count(*) FROM app.over_views",
    "SELECT sum(orders) FROM app.per_customer",
    "SELECT count(*), max(status) FROM app.over_materialized",
    "SELECT app.by_name('placed')",
    "SELECT count(*) FROM other.notes WHERE order_id IN (SELECT id FROM app.orders)",
]

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture(scope="module", params=["newest", *installed_majors()])
def server(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Server]:
    """The session's server, and one of each major version that is installed."""
    if request.param == "newest":
        yield databases.server("postgres")
        return
    made = postgres_server(major=request.param)
    yield made
    if isinstance(made, OwnServer):
        made.remove()


@pytest.fixture
def database(server: Server) -> Iterator[sa.Engine]:
    """One of everything, over 150 events that are projected; all of it made, used and rebuilt by a role that is no superuser."""
    name = f"fidelity_{os.getpid()}"
    url = server.create_database(name)
    administrator = sa.create_engine(url, poolclass=sa.NullPool)
    with administrator.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        _make_what_is_common_to_all_databases(connection)
        connection.exec_driver_sql(f"GRANT ALL ON DATABASE {name} TO {BUILDER}")
        connection.exec_driver_sql(f"GRANT ALL ON SCHEMA public TO {BUILDER}")
    engine = sa.create_engine(url.set(username=BUILDER, password=BUILDER))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run_file(connection, "everything.sql")
        run_file(connection, "awkward.sql")
        if version(engine) >= 18:
            run_file(connection, "newer.sql")
    shop.stored_events.create(engine)
    project(engine, events(150))
    yield engine
    engine.dispose()
    server.drop_database(name)


def _make_what_is_common_to_all_databases(connection: sa.Connection) -> None:
    if not connection.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname = %s", (BUILDER,)).first():
        connection.exec_driver_sql(f"CREATE ROLE {BUILDER} LOGIN PASSWORD '{BUILDER}'")
    if not connection.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname = 'fidelity_stranger'").first():
        connection.exec_driver_sql("CREATE ROLE fidelity_stranger")
    for role in ROLES:
        if not connection.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).first():
            connection.exec_driver_sql(f'CREATE ROLE "{role.replace("%", "%%")}"')
            connection.exec_driver_sql(f'GRANT "{role.replace("%", "%%")}" TO {BUILDER}')
    if not connection.exec_driver_sql("SELECT 1 FROM pg_tablespace WHERE spcname = 'fidelity_space'").first():
        connection.exec_driver_sql("SET allow_in_place_tablespaces = on")
        connection.exec_driver_sql("CREATE TABLESPACE fidelity_space LOCATION ''")
        connection.exec_driver_sql("GRANT CREATE ON TABLESPACE fidelity_space TO PUBLIC")


def version(engine: sa.Engine) -> int:
    """The server's major version."""
    return (engine.dialect.server_version_info or (0,))[0]


def run_file(connection: sa.Connection, name: str) -> None:
    connection.exec_driver_sql((SCHEMAS / name).read_text(), execution_options={"no_parameters": True})


def made(engine: sa.Engine, run_id: str = "run", **changes: Any) -> Rebuild:
    return rebuild(engine, run_id, **CHANGES | changes)


def execute(engine: sa.Engine, *statements: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for each in statements:
            connection.exec_driver_sql(each.replace("%", "%%"))


def project(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    """The application: an event and its rows in one transaction."""
    for each in stored:
        append(engine, each)


def append(engine: sa.Engine, new: dict[str, Any]) -> tuple[str, int] | None:
    """Appends and projects one event.

    :returns: the kind and the generated number of the row that it has made
    """
    with unit_of_work(engine) as connection:
        made = connection.execute(shop.stored_events.insert().values(**new))
        position = made.inserted_primary_key[0]  # type: ignore[index]
        event = Event(position=position, stream=new["aggregate_uuid"], type=new["event_class"], payload=new["event_properties"])
        for projector in PROJECTORS:
            project_live(connection, projector, event, schema="app")
        if event.type == "OrderPlaced":
            query, values = "SELECT -countdown FROM app.orders WHERE id = %s", (event.stream,)
        elif event.type == "LineAdded":
            query, values = "SELECT row_id FROM app.order_lines WHERE order_id = %s AND line = %s", (event.stream, event["line"])
        else:
            return None
        return event.type, connection.exec_driver_sql(query, values).scalar_one()


def dump(server: Server, engine: sa.Engine) -> list[str]:
    """The schema as sorted entries, each with its owner and tablespace; grants of one entry in no order."""
    text = dump_schema(server, engine.url, "--exclude-table=app.projection_rebuild_*")
    entries = []
    for entry in re.split(r"\n--\n-- Name: ", text)[1:]:
        # What it sets holds for the entries that follow as well, and stands in their headings.
        lines = [line for line in entry.splitlines() if line and not re.match(r"SET default_|\\|--", line)]
        entries.append("\n".join(sorted(lines) if "Type: ACL" in lines[0] else lines))
    return sorted(entries)


def refuse_differences(before: list[str], after: list[str]) -> None:
    """Fails with what has changed."""
    changed = list(difflib.unified_diff(before, after, "before", "after", n=0))
    if changed:
        pytest.fail("\n".join(changed), pytrace=False)


class Application:
    """Clients that write, and clients that read whatever there is to be read, as long as the context lasts."""

    def __init__(self, engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
        self.appended: list[dict[str, Any]] = []
        self.numbers: list[tuple[str, int]] = []
        self.reads = 0
        self.failures: list[str] = []
        self._engine = engine
        self._ahead = iter(stored)
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(action,)) for action in (self._write, self._read, self._note)
        ]

    def __enter__(self) -> Application:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join()

    def _repeat(self, action: Callable[[], None]) -> None:
        while not self._over.is_set():
            try:
                action()
            except Exception as error:
                self.failures.append(repr(error)[:500])
            time.sleep(0.003)

    def _write(self) -> None:
        new = next(self._ahead)
        numbered = append(self._engine, new)
        self.appended.append(new)
        if numbered:
            self.numbers.append(numbered)

    def _read(self) -> None:
        # By themselves, and two in one transaction.
        for queries in [[query] for query in QUERIES] + [QUERIES[:2], QUERIES[3:5], QUERIES[6:]]:
            with self._engine.begin() as connection:
                for query in queries:
                    connection.exec_driver_sql(query)
                    self.reads += 1

    def _note(self) -> None:
        with self._engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO other.notes (order_id) SELECT id FROM app.orders LIMIT 1")


def test_the_schema_is_the_same_after_rebuilds_and_nobody_notices(server: Server, database: sa.Engine) -> None:
    stored = events(100_000)
    before = dump(server, database)
    fired = count(database, "other.fired")
    with Application(database, stored[150:]) as application:
        for number in range(REBUILDS):
            run_to(made(database, f"run-{number}"), "drop", RunOptions(max_count_drift_percent=100))
            refuse_differences(before, dump(server, database))
    assert application.failures == []
    assert application.reads > len(QUERIES)
    assert contents(database) == expected(stored[:150] + application.appended)
    for kind in ("OrderPlaced", "LineAdded"):
        numbers = [number for made, number in application.numbers if made == kind]
        assert len(numbers) > 5 and numbers == sorted(set(numbers))
    assert count(database, "other.fired") - fired == firings(application.appended)


def test_awkward_names_do_not_drift(server: Server, database: sa.Engine) -> None:
    before = dump(server, database)
    for number in range(REBUILDS):
        run = made(database, f"run-{number}", projectors=["tests.engine.test_fidelity_postgres:AwkwardProjector"])
        run_to(run, "drop")
        refuse_differences(before, dump(server, database))
    assert count(database, 'app."View. ""%s"') > 10


def test_the_sql_of_a_dry_run_is_what_it_takes(server: Server, database: sa.Engine) -> None:
    before = dump(server, database)
    projectors = [*CHANGES["projectors"], "tests.engine.test_fidelity_postgres:AwkwardProjector"]
    plan = made(database, projectors=projectors).plan(RunOptions(dry_run=True))
    assert dump(server, database) == before
    carried = "\n".join(map(str, plan.carried))
    assert [name for name in hanging_on(before, ["orders", "order_lines", "customer_totals"]) if name not in carried] == []
    execute(database, *plan.sql)
    refuse_differences(before, dump(server, database))


def test_a_newer_pg_dump_tells_the_same_before_and_after(
    server: Server, database: sa.Engine, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = databases.server("postgres")
    assert isinstance(newest, PostgresServer)
    monkeypatch.setenv("REBUILD_PG_DUMP", str(newest.programs / "bin/pg_dump"))
    dialect = dialect_for(database)

    def told() -> dict[str, str]:
        with dialect.connect() as connection:
            return dialect.dependents.definitions(connection, "app")

    before = told()
    # What the application has set for a column itself is among it.
    assert "n_distinct" in str(before) and "pg_attver" not in str(before)
    run = made(database)
    run_to(run, "drop")
    assert told() == before
    run.close()


def hanging_on(dumped: list[str], tables: list[str]) -> set[str]:
    """The names, in a dump's headings, of what hangs on tables of the schema app."""
    own = re.compile(rf"({'|'.join(tables)}) (.*); Type: (?:FK |CHECK )?(?:CONSTRAINT|TRIGGER|RULE|POLICY)")
    made_on = re.compile(rf"(.*); Type: (?:INDEX|STATISTICS);(?s:.*) (?:ON|FROM) app\.(?:{'|'.join(tables)})\b")
    names = {found[2] for entry in dumped if (found := own.match(entry))}
    names |= {found[1] for entry in dumped if (found := made_on.match(entry))}
    assert {"fk_region", "tr_always", "po all", "ru_never", "uq_both", "ix_gin", "st_orders"} <= names
    return names


SPEAKS_OF_ORDERS = re.compile(
    r"(CREATE TABLE app\.orders |ALTER TABLE app\.orders (?!OWNER|ENABLE|DISABLE)|CREATE (UNIQUE )?INDEX .* ON app\.orders |ALTER INDEX app|"
    r"CREATE STATISTICS app|ALTER STATISTICS|COMMENT ON (TABLE app\.orders|COLUMN app\.orders|CONSTRAINT .* ON app\.orders|STATISTICS|"
    r"INDEX app\.(ix|uq_n)|SEQUENCE app\.\"))",
    re.DOTALL,
)


def structure_of_orders(engine: sa.Engine) -> str:
    """The statements that have made the orders, without their schema."""
    files = ["everything.sql", *(["newer.sql"] if version(engine) >= 18 else [])]
    said = [each.strip() for name in files for each in re.sub(r"(?m)^--.*$", "", (SCHEMAS / name).read_text()).split(";\n")]
    of_orders = [each for each in said if SPEAKS_OF_ORDERS.match(each)]
    return "".join(re.sub(r"\bapp\.(?!mood|short|plain|doubled)", "", each) + ";\n" for each in of_orders)


def test_another_structure_changes_what_it_speaks_of_and_nothing_else(
    server: Server, database: sa.Engine, tmp_path: Path
) -> None:
    execute(database, 'DROP STATISTICS other."St, %s FROM"')
    before = dump(server, database)
    path = tmp_path / "orders.sql"
    path.write_text(structure_of_orders(database) + "ALTER TABLE orders ADD COLUMN extra integer DEFAULT 7;")
    stored = events(100_000)
    with Application(database, stored[150:]) as application:
        run = made(database, structure={"ddl": str(path)})
        plan = run.plan(RunOptions(max_count_drift_percent=100))
        assert plan.difference == ["orders: add column extra INTEGER DEFAULT 7"]
        run_to(run, "drop", RunOptions(max_count_drift_percent=100))
    lines = ("\n".join(each).splitlines() for each in (before, dump(server, database)))
    changed = [line for line in difflib.unified_diff(*lines, n=0) if not line.startswith(("---", "+++", "@@"))]
    assert changed == ["+    extra integer DEFAULT 7,"]
    assert application.failures == []
    assert contents(database) == expected(stored[:150] + application.appended)


def drop_old(engine: sa.Engine, tables: list[str]) -> None:
    """What comes in the end."""
    with (dialect := made(engine)._context.dialect).connect() as connection:
        for table in [TableSet.of(table, schema="app", limit=63) for table in reversed(tables)]:
            for statement in dialect.shadow.drop_table(connection, table, table.old):
                dialect.run(connection, statement)


def test_the_schema_is_the_same_after_a_rollback_and_the_way_forward_again(server: Server, database: sa.Engine) -> None:
    stored = events(100_000)
    before = dump(server, database)
    with Application(database, stored[150:]) as application:
        run_to(made(database), "reconcile", RunOptions(max_count_drift_percent=100))
        roll_back(database, "back")
        roll_back(database, "forward").drop_old()
        refuse_differences(before, dump(server, database))
        run_to(made(database, "again"), "reconcile", RunOptions(max_count_drift_percent=100))
        roll_back(database, "back again").drop_old()
        refuse_differences(before, dump(server, database))
    assert application.failures == []
    assert contents(database) == expected(stored[:150] + application.appended)


def roll_back(engine: sa.Engine, run_id: str) -> Rebuild:
    run = made(engine, run_id)
    roll_back_to(run, "reconcile")
    return run


def test_the_sql_of_a_rollbacks_dry_run_is_what_it_takes(server: Server, database: sa.Engine) -> None:
    before = dump(server, database)
    run = made(database)
    run_to(run, "reconcile")
    execute(database, *made(database, "back").plan_rollback(RunOptions(dry_run=True)).sql)
    drop_old(database, ["orders", "customer_totals", "order_lines"])
    refuse_differences(before, dump(server, database))


def firings(appended: list[dict[str, Any]]) -> int:
    """How often the triggers fire for live writes; a replay must not add to it."""
    times = {"OrderPlaced": 2, "LineAdded": 1, "OrderShipped": 1, "OrderCancelled": 1}
    return sum(times[each["event_class"]] for each in appended)


def count(engine: sa.Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}".replace("%", "%%")).scalar_one())


def contents(engine: sa.Engine) -> dict[str, Any]:
    with engine.connect() as connection:

        def rows(query: str) -> list[Any]:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

        return {
            "orders": {row[0]: row[1:] for row in rows("SELECT id, customer, status FROM app.orders")},
            "order_lines": {row[:2]: row[2:] for row in rows("SELECT order_id, line, product, price FROM app.order_lines")},
            "customer_totals": {row[0]: row[1:] for row in rows("SELECT customer, orders, spent FROM app.customer_totals")},
        }


def test_a_retired_table_holds_the_application_back_in_nothing(database: sa.Engine) -> None:
    run_to(made(database), "reconcile")
    assert count(database, "app.orders_old WHERE region = 1") > 0
    execute(database, "UPDATE app.orders SET region = 0", "DELETE FROM other.regions WHERE id = 1", "DELETE FROM app.orders")
    assert count(database, "app.orders_old") > 0


def test_a_green_table_holds_the_application_back_in_nothing(database: sa.Engine) -> None:
    run_to(made(database), "verify")
    execute(database, "UPDATE app.orders SET region = 0", "DELETE FROM other.regions WHERE id = 1")


def test_foreign_keys_are_valid_after_the_switch_or_as_they_were(database: sa.Engine) -> None:
    run_to(made(database), "reconcile")
    with database.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT conname FROM pg_constraint WHERE pg_get_constraintdef(oid) LIKE '%% NOT VALID'"
        )
        assert set(found.scalars()) == NOT_VALID | ({"nn_wanted"} if version(database) >= 18 else set())


def test_rows_outside_the_run_that_would_lose_their_parent_are_found_before_the_switch(database: sa.Engine) -> None:
    execute(
        database,
        "INSERT INTO app.orders (id, customer, status, placed_on) VALUES ('nobody''s', 1, 'placed', now())",
        "INSERT INTO other.notes (order_id) VALUES ('nobody''s')",
    )
    with pytest.raises(VerificationFailed, match="fk_notes"):
        run_to(made(database), "verify")


CHANGED = {
    "column customer": "ALTER TABLE app.orders ALTER customer SET STATISTICS 99",
    "column extra": "ALTER TABLE app.orders ADD extra integer",
    "the columns or their order": "ALTER TABLE app.orders ADD another integer",
    "index uq_number": "ALTER TABLE app.orders DROP CONSTRAINT uq_number",
    "constraint ck_new": "ALTER TABLE app.orders ADD CONSTRAINT ck_new CHECK (customer < 9999)",
    "privilege DELETE": "GRANT DELETE ON app.orders TO fidelity_reader",
    "the table's own settings": "ALTER TABLE app.orders SET (fillfactor = 71)",
    "sequence orders_countdown_seq": "ALTER SEQUENCE app.orders_countdown_seq CACHE 7",
    "statistics object st_orders": "ALTER STATISTICS app.st_orders SET STATISTICS 7",
    "foreign key fk previous": 'ALTER TABLE app.orders DROP CONSTRAINT "fk previous"',
}


def test_a_change_of_blue_is_not_taken_back_by_the_switch(database: sa.Engine) -> None:
    run = made(database)
    run_to(run, "verify")
    execute(database, *CHANGED.values())
    with pytest.raises(CloneError) as refused:
        run.swap()
    assert [named for named in CHANGED if named not in str(refused.value)] == []
    assert count(database, "app.orders") > 0


def test_an_index_that_blue_gets_meanwhile_is_made_on_green(server: Server, database: sa.Engine) -> None:
    index = ["CREATE INDEX ix_new ON app.orders (feeling)", "COMMENT ON INDEX app.ix_new IS 'new'"]
    execute(database, *index)
    before = dump(server, database)
    execute(database, "DROP INDEX app.ix_new")
    run = made(database)
    run_to(run, "verify")
    execute(database, *index)
    run.swap()
    run.reconcile()
    run.drop_old()
    refuse_differences(before, dump(server, database))


REFUSED = {
    "CREATE FUNCTION app.name(app.orders) RETURNS text LANGUAGE sql AS 'SELECT $1.id'": r"function app.name\(app.orders\).*row type",
    "CREATE FUNCTION app.atomic() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM app.orders; END": r"function app.atomic\(\)",
    "CREATE TABLE other.whole (o app.orders)": "table column other.whole.o.*row type",
    "CREATE TABLE other.child () INHERITS (app.order_lines)": "order_lines: it inherits",
    "CREATE VIEW other.rows AS SELECT o FROM app.orders o": "other.rows.*row type",
    "CREATE VIEW other.counting AS SELECT last_value FROM app.orders_countdown_seq": "sequence of an identity column",
    "CREATE TABLE app.ix_partial_rebuild (n int)": "the name ix_partial_rebuild",
    "CREATE TABLE app.per_customer_old (n int)": "the name per_customer_old",
    "CREATE CONSTRAINT TRIGGER tr_from AFTER INSERT ON other.notes FROM app.orders FOR EACH ROW EXECUTE FUNCTION app.touch()": (
        "trigger tr_from on other.notes"
    ),
    "REVOKE CREATE ON SCHEMA app FROM fidelity_owner": "owner fidelity_owner",
}


def test_what_cannot_be_carried_over_is_refused_by_name(database: sa.Engine) -> None:
    execute(database, *REFUSED)
    before = count(database, "pg_class")
    with pytest.raises(PlanError) as refused:
        made(database).plan(RunOptions())
    lines = str(refused.value).splitlines()
    assert [named for named in REFUSED.values() if not any(re.search(named, line) for line in lines)] == []
    assert count(database, "pg_class") == before


REFUSED_TO_US = {
    "CREATE PUBLICATION pub_all FOR ALL TABLES": "publication pub_all",
    "CREATE PUBLICATION pub_app FOR TABLES IN SCHEMA app": "publication pub_app",
    "ALTER VIEW app.placed OWNER TO fidelity_stranger": "placed: it belongs to fidelity_stranger",
    "ALTER TABLE other.notes OWNER TO fidelity_stranger": "notes: it belongs to fidelity_stranger",
    "ALTER TABLE other.regions OWNER TO fidelity_stranger": "other.regions: a foreign key points to it",
    "ALTER TABLE app.customer_totals FORCE ROW LEVEL SECURITY, ENABLE ROW LEVEL SECURITY": "customer_totals: .*BYPASSRLS",
    "ALTER INDEX app.ix_gin DEPENDS ON EXTENSION plpgsql": "extension plpgsql",
}


def test_what_our_role_may_not_do_is_refused_by_name(server: Server, database: sa.Engine) -> None:
    administrator = sa.create_engine(server.url.set(database=database.url.database), poolclass=sa.NullPool)
    execute(administrator, *REFUSED_TO_US)
    with pytest.raises(PlanError) as refused:
        made(database).plan(RunOptions())
    lines = str(refused.value).splitlines()
    assert [named for named in REFUSED_TO_US.values() if not any(re.search(named, line) for line in lines)] == []


def test_a_step_that_stops_after_any_statement_is_completed_by_the_next(
    server: Server, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(server, database)
    run = made(database)
    assert stopped_between_statements(run, monkeypatch, every=3) > 30
    refuse_differences(before, dump(server, database))


def test_a_switch_that_was_not_possible_leaves_nothing_in_the_way(server: Server, database: sa.Engine) -> None:
    before = dump(server, database)
    run = made(database, swap={"attempts": 1, "lock_timeout": "50ms"})
    run_to(run, "verify")
    with database.connect() as busy:
        # The materialized views over green need the tables of the run for a moment, the switch needs this one too.
        busy.exec_driver_sql("LOCK TABLE other.regions IN ACCESS SHARE MODE")
        with pytest.raises(SwapNotPossible):
            run.swap()
    assert count(database, "app.per_customer_rebuild") > 0
    run.clone_tables()
    run_to(made(database), "drop")
    refuse_differences(before, dump(server, database))


def test_a_partitioned_table_is_refused(database: sa.Engine) -> None:
    execute(
        database,
        "DROP TABLE app.order_lines CASCADE",
        "CREATE TABLE app.order_lines (order_id varchar(36), line int, product text, price numeric, options json, gift boolean, "
        "PRIMARY KEY (order_id, line)) PARTITION BY HASH (order_id)",
        "CREATE TABLE app.lines_0 PARTITION OF app.order_lines FOR VALUES WITH (modulus 1, remainder 0)",
    )
    with pytest.raises(PlanError, match="order_lines: it is partitioned"):
        made(database).plan(RunOptions())


def test_a_view_of_another_session_is_refused(database: sa.Engine) -> None:
    with database.connect() as connection:
        connection.exec_driver_sql("CREATE TEMPORARY VIEW mine AS SELECT * FROM app.orders")
        connection.commit()
        with pytest.raises(PlanError, match=r"mine.*temporary view"):
            made(database).plan(RunOptions())
