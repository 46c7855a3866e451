"""A rebuild that wants another structure: it comes as metadata or DDL, is shown before, and is there after, with all that hangs on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from projection_rebuild.authoring import external
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import PlanError, SpecError
from projection_rebuild.planning import schema_trial
from projection_rebuild.planning.schema_change import statements
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.external.replay import ExternalReplay
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.structure import StructureSection, load_structure
from tests.conftest import Databases
from tests.engine.harness import shop
from tests.engine.harness.databases import execute, marked
from tests.engine.harness.driver import run_to
from tests.engine.harness.faults import stopped_between_statements
from tests.engine.harness.shop import actual, events, expected, tables
from tests.engine.harness.specs import SPEC, rebuild
from tests.servers.postgres import PostgresServer

metadata = sa.MetaData()
sa.Table(
    "orders",
    metadata,
    sa.Column("customer", sa.BigInteger, nullable=False),
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("status", sa.String(40), nullable=False),
    sa.Column("placed_on", sa.Date, nullable=False, comment="100 % the customer's day"),
    sa.Column("total", sa.Numeric(12, 2), nullable=False, server_default="0"),
    sa.Column("updated_at", sa.DateTime),
    sa.Index("ix_orders_placed", "placed_on", "status"),
    sa.CheckConstraint("total >= 0", name="orders_chk_1"),
    sa.UniqueConstraint("customer", "id", name="uq_orders_customer"),
    mysql_engine="InnoDB",
)
sa.Table(
    "order_lines",
    metadata,
    sa.Column("row_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True),
    sa.Column("order_id", sa.String(36), sa.ForeignKey("orders.id", name="fk_lines_order"), nullable=False),
    sa.Column("line", sa.SmallInteger, nullable=False),
    sa.Column("product", sa.String(100), nullable=False),
    sa.Column("price", sa.Numeric(10, 2), nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("gift", sa.Boolean, nullable=False),
    sa.UniqueConstraint("order_id", "line", name="uq_lines"),
    sa.Index("ix_lines_price", "price"),
    mysql_engine="InnoDB",
)
# Of another projector: not in every run.
sa.Table("customer_totals", metadata, sa.Column("customer", sa.Integer, primary_key=True), sa.Column("elsewhere", sa.Integer))
# With a foreign key, where there was none, to a table that no projector owns.
housed = sa.MetaData()
sa.Table("houses", housed, sa.Column("id", sa.Integer, primary_key=True), mysql_engine="InnoDB")
sa.Table(
    "customer_totals",
    housed,
    sa.Column("customer", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("orders", sa.Integer, nullable=False),
    sa.Column("spent", sa.Numeric(12, 2), nullable=False),
    sa.Column("house", sa.Integer, sa.ForeignKey("houses.id", name="fk_totals_house")),
    mysql_engine="InnoDB",
)
nothing = sa.MetaData()
not_metadata = "a string"


@row("orders", key="id")
class Order:
    id: str
    customer: int
    status: str
    placed_on: date
    total: Decimal = Decimal(0)


class OrderProjector(Projector):
    """The next version of the shop's: it keeps a total beside each order."""

    owns = (Order,)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        rows.add(Order(event.stream, event["customer"], "placed", date.fromisoformat(event["on"])))

    @handles("OrderShipped", "OrderCancelled")
    def moved(self, event: Event, rows: Rows) -> None:
        rows.get(Order, event.stream).status = event.type.removeprefix("Order").lower()

    @handles("LineAdded")
    def added(self, event: Event, rows: Rows) -> None:
        rows.get(Order, event.stream).total += Decimal(event["price"])


PROJECTORS = ["tests.engine.test_structure:OrderProjector", "tests.engine.harness.shop:OrderLineProjector"]
CHANGES: dict[str, Any] = {
    "projectors": ["tests.engine.test_structure:OrderProjector", "tests.engine.test_structure:OrderLineProjector"],
    "structure": {"metadata": "tests.engine.test_structure:metadata"},
}


class OrderLineProjector(shop.OrderLineProjector):
    """As it was, only that its parent is the new one."""

    depends_on = (OrderProjector,)


@pytest.fixture
def shop_with_views(engine: sa.Engine, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """A shop with events, whose tables have the old structure, are empty, and seen through views."""
    shop.fill(engine, events(300))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW placed AS SELECT id, placed_on FROM orders WHERE status = 'placed'")
        connection.exec_driver_sql(
            "CREATE VIEW placed_lines AS SELECT l.product FROM placed p JOIN order_lines l ON l.order_id = p.id"
        )
        connection.exec_driver_sql("CREATE TABLE notes (order_id VARCHAR(36), text VARCHAR(20))")
    if engine.dialect.name == "postgresql" and isinstance(server := databases.server("postgres"), PostgresServer):
        monkeypatch.setenv("REBUILD_PG_DUMP", str(server.programs / "bin/pg_dump"))
    return engine


@pytest.fixture
def shopping(shop_with_views: sa.Engine) -> sa.Engine:
    """The same, its tables filled."""
    run_to(rebuild(shop_with_views, "fill"), "drop")
    return shop_with_views


SOME = [pytest.param("sqlite"), pytest.param("postgres", marks=pytest.mark.postgres)]
"""The databases for what is the same on all, and differs in a word or two."""


def made(engine: sa.Engine, run_id: str = "run", **changes: Any) -> Rebuild:
    return rebuild(engine, run_id, **CHANGES | changes)


def definitions(engine: sa.Engine) -> dict[str, str]:
    """The whole schema, by the database's own words."""
    dialect = dialect_for(engine)
    with dialect.connect() as connection:
        return dialect.dependents.definitions(connection, None)


GONE = ("ix_orders_status", "ix_lines_product", "_old", "_rebuild")


def kept(told: dict[str, str]) -> dict[str, str]:
    """What is said of everything that the new structure does not speak of."""
    others = ("notes", "view placed", "Name: placed;", "placed_lines", "customer_totals", "stored_events")
    return {name: said for name, said in told.items() if any(each in name for each in others)}


@pytest.fixture
def fresh(new_database: Callable[[str], sa.URL], database_kind: str) -> Iterator[sa.Engine]:
    """A database in which the new structure was made by itself."""
    engine = sa.create_engine(new_database(database_kind))
    metadata.create_all(engine, tables=[metadata.tables["orders"], metadata.tables["order_lines"]])
    yield engine
    engine.dispose()


def totals(engine: sa.Engine) -> dict[str, Decimal]:
    with engine.connect() as connection:
        return {name: Decimal(str(total)) for name, total in connection.exec_driver_sql("SELECT id, total FROM orders")}


def expected_totals() -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for each in events(300):
        said = each["event_properties"]
        found.setdefault(each["aggregate_uuid"], Decimal(0))
        if each["event_class"] == "LineAdded":
            found[each["aggregate_uuid"]] += Decimal(said["price"])
    return found


def test_the_new_structure_is_what_it_would_be_by_itself_and_readers_do_not_notice(shopping: sa.Engine, fresh: sa.Engine) -> None:
    before, wanted = definitions(shopping), definitions(fresh)
    failures: list[str] = []
    over = threading.Event()

    def read() -> None:
        with sa.create_engine(shopping.url).connect() as connection:
            while not over.is_set():
                try:
                    assert connection.exec_driver_sql("SELECT count(*) FROM placed_lines").scalar_one() > 0
                    assert connection.exec_driver_sql("SELECT id, status FROM orders").all()
                except Exception as error:
                    failures.append(repr(error))
                connection.rollback()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        run_to(made(shopping), "drop")
    finally:
        over.set()
        reader.join()
    assert failures == []
    after = definitions(shopping)
    assert {name: after.get(name) for name in wanted} == wanted
    assert kept(after) == kept(before)
    assert [name for name in after if name not in before and name not in wanted] == []
    assert [name for name in after if any(each in name for each in GONE)] == []
    assert totals(shopping) == expected_totals()
    assert actual(shopping)["order_lines"] == expected(events(300))["order_lines"]
    assert_there_already(shopping, after)


def assert_there_already(engine: sa.Engine, before: dict[str, str]) -> None:
    """From now on it is a rebuild like any other, and is taken back like any other."""
    run = made(engine, "again")
    plan = run.plan(RunOptions())
    assert (plan.forms, plan.difference) == ({}, [])
    assert "the tables have it already" in "\n".join(map(str, plan.findings))
    run_to(run, "reconcile")
    back = made(engine, "back")
    back.plan_rollback(RunOptions())
    back.bring_back()
    back.swap()
    back.reconcile()
    back.drop_old()
    assert definitions(engine) == before


def test_the_plan_shows_what_differs_and_touches_nothing(shop_with_views: sa.Engine) -> None:
    before = definitions(shop_with_views)
    plan = made(shop_with_views).plan(RunOptions(dry_run=True))
    said = "\n".join(plan.difference)
    for words in (
        "orders: add column total ",
        "(12, 2) NOT NULL DEFAULT ",
        "orders: remove column note",
        "orders: column status: type VARCHAR(20) -> VARCHAR(40)",
        "orders: add index ix_orders_placed (placed_on, status)",
        "orders: remove index ix_orders_status (status)",
        "orders: the columns are in another order: customer, id",
        "order_lines: remove index ix_lines_product (product, price)",
    ):
        assert words in said, said
    assert "add check orders_chk_1" in said and "total" in said and "customer_totals" not in said
    assert "New structure:" in plan.describe()
    assert definitions(shop_with_views) == before
    assert tables(shop_with_views) == {"notes", "stored_events", "orders", "order_lines", "customer_totals"}
    # The structure speaks of these, so that they are not carried over.
    assert not any(each.kind in ("indexes", "columns") for each in plan.carried)


def test_a_child_alone_gets_another_structure_and_its_ids_go_on(shopping: sa.Engine, fresh: sa.Engine) -> None:
    """Its parent is beside the run; the foreign key comes with the switch."""
    wanted = {name: said for name, said in definitions(fresh).items() if "lines" in name}
    changes = {"projectors": SPEC["projectors"][:2], "structure": CHANGES["structure"]}
    run_to(rebuild(shopping, **changes), "drop", RunOptions(projectors=["OrderLineProjector"]))
    after = definitions(shopping)
    assert {name: after.get(name) for name in wanted} == wanted
    with shopping.begin() as connection:
        highest = connection.exec_driver_sql("SELECT max(row_id) FROM order_lines").scalar_one()
        connection.exec_driver_sql(
            "INSERT INTO order_lines (order_id, line, product, price, options, gift) SELECT id, 999, 'x', 1, '[]', gift FROM "
            "(SELECT order_id AS id, gift FROM order_lines LIMIT 1) o"
        )
        assert connection.exec_driver_sql("SELECT row_id FROM order_lines WHERE line = 999").scalar_one() > highest
        with pytest.raises(sa.exc.IntegrityError) if shopping.dialect.name != "sqlite" else nullcontext():
            connection.exec_driver_sql("UPDATE order_lines SET order_id = 'nowhere' WHERE line = 999")


@pytest.mark.parametrize("kind", marked("postgres", "mariadb", "mysql"))
def test_a_foreign_key_to_a_table_beside_the_run_where_there_was_none(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database(kind))
    shop.fill(engine, events(100))
    housed.tables["houses"].create(engine)
    of_one = RunOptions(projectors=["CustomerTotalProjector"])
    run_to(rebuild(engine, structure={"metadata": "tests.engine.test_structure:housed"}), "drop", of_one)
    (key,) = sa.inspect(engine).get_foreign_keys("customer_totals")
    assert (key["name"], key["referred_table"], key["constrained_columns"]) == ("fk_totals_house", "houses", ["house"])
    assert actual(engine)["customer_totals"] == expected(events(100))["customer_totals"]
    engine.dispose()


@pytest.mark.parametrize("database_kind", SOME, indirect=True)
def test_only_common_columns_are_compared(shopping: sa.Engine) -> None:
    execute(shopping, "UPDATE orders SET status = 'lost' WHERE customer = 3")
    run = made(shopping)
    run_to(run, "verify")
    found = {each.table: each for each in run.verify().tables}
    assert found["orders"].not_compared == ["total"] and found["orders"].identical > found["orders"].differing > 0
    assert (found["orders"].only_blue, found["orders"].only_green, found["order_lines"].differing) == (0, 0, 0)
    assert "new and not compared: total" in found["orders"].describe()
    report = run.report().as_markdown()
    assert "- orders: remove column note" in report and "- orders: new and not compared: total" in report


@pytest.mark.parametrize("database_kind", SOME, indirect=True)
def test_a_new_structure_is_not_taken_back_and_the_refusal_says_what_to_do(shopping: sa.Engine) -> None:
    run_to(made(shopping), "reconcile")
    with pytest.raises(PlanError, match=r"orders, order_lines another structure.*name the earlier structure in the spec"):
        made(shopping, "back").plan_rollback(RunOptions())
    back = {"structure": {"metadata": "tests.engine.harness.shop:metadata"}, "projectors": SPEC["projectors"][:2]}
    run_to(rebuild(shopping, "forward again", **back), "drop")
    assert "note" in {each["name"] for each in sa.inspect(shopping).get_columns("orders")}
    assert actual(shopping)["orders"] == expected(events(300))["orders"]


BROKEN = "CREATE VIEW notes_of_orders AS SELECT id, note AS said FROM orders"
ANEW = {"notes_of_orders": "SELECT id, CAST(status AS VARCHAR(20)) AS said FROM orders"}


def test_a_view_is_redefined_with_the_switch_or_refused(shop_with_views: sa.Engine) -> None:
    execute(shop_with_views, BROKEN)
    with pytest.raises(PlanError, match="view notes_of_orders: it would not work with the new structure"):
        made(shop_with_views).plan(RunOptions())
    run = made(shop_with_views, structure=CHANGES["structure"] | {"views": ANEW})
    if shop_with_views.dialect.name == "mysql":
        with pytest.raises(PlanError, match="no statement changes a table and a view at once"):
            run.plan(RunOptions())
        return
    run_to(run, "drop")
    with shop_with_views.connect() as connection:
        assert set(connection.exec_driver_sql("SELECT said FROM notes_of_orders").scalars()) == {"placed", "shipped", "cancelled"}


TAKEN = {
    "sqlite": "CREATE INDEX ix_orders_placed ON notes (text)",
    "postgresql": "CREATE INDEX ix_orders_placed ON notes (text)",
    "mysql": "CREATE TABLE more (id INT PRIMARY KEY, up INT, CONSTRAINT fk_elsewhere FOREIGN KEY (up) REFERENCES more (id)) ENGINE=InnoDB",
}


def test_a_name_that_something_else_has_is_refused(shop_with_views: sa.Engine, tmp_path: Path) -> None:
    changes: dict[str, Any] = {}
    kind = shop_with_views.dialect.name
    execute(shop_with_views, TAKEN[kind])
    if kind == "mysql":
        path = tmp_path / "orders.sql"
        path.write_text(DDL["mysql"].replace("of the first", "fk_elsewhere"))
        changes = {"structure": {"ddl": str(path)}, "projectors": PROJECTORS[:1]}
    with pytest.raises(PlanError, match=r"the (rebuild|new structure) needs the name (ix_orders_placed|fk_elsewhere)"):
        made(shop_with_views, **changes).plan(RunOptions())


REFUSED = {
    "structure.metadata: it has none of the tables": {"metadata": "tests.engine.test_structure:nothing"},
    "there is no view nowhere": {"metadata": "tests.engine.test_structure:metadata", "views": {"nowhere": "SELECT 1"}},
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused(sqlite_url: sa.URL, words: str) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.metadata.create_all(engine)
    with pytest.raises(PlanError, match=words):
        made(engine, structure=REFUSED[words]).plan(RunOptions())
    engine.dispose()


def test_a_part_of_a_table_that_changes_is_refused(sqlite_url: sa.URL) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.fill(engine, events(20))
    options = RunOptions(projectors=["OrderProjector"], aggregates=["order-0"])
    with pytest.raises(PlanError, match=r"the structure of orders changes, so that no rows can be copied"):
        made(engine).plan(options)
    engine.dispose()


def test_a_structure_without_a_column_that_is_written_is_refused(sqlite_url: sa.URL) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.metadata.create_all(engine)
    with pytest.raises(PlanError, match=r"orders: it has no column total.*correct the row class"):
        made(engine, structure={"metadata": "tests.engine.harness.shop:metadata"}).plan(RunOptions())
    engine.dispose()


DDL = {
    "sqlite": """-- the next orders; with a comment
        CREATE TABLE orders (id TEXT PRIMARY KEY, customer INT NOT NULL, status TEXT NOT NULL DEFAULT ';', placed_on TEXT NOT NULL,
          total NUMERIC NOT NULL DEFAULT 0) WITHOUT ROWID, STRICT;""".replace("INT ", "INTEGER ").replace("NUMERIC", "REAL"),
    "postgres": """/* the next orders; */ CREATE TABLE orders (
          id varchar(36) CONSTRAINT "Orders %" PRIMARY KEY, customer integer NOT NULL, status text NOT NULL DEFAULT ';', placed_on date NOT NULL,
          total numeric(12, 2) NOT NULL DEFAULT 0, doubled numeric GENERATED ALWAYS AS (total * 2) STORED,
          number bigint GENERATED ALWAYS AS IDENTITY, at serial, first varchar(36) REFERENCES orders
        ) WITH (fillfactor = 70);
        CREATE INDEX "orders ix" ON orders USING brin (placed_on) WHERE status <> ';';
        CREATE STATISTICS st_orders ON customer, status FROM orders;
        COMMENT ON TABLE orders IS 'the ''next''; orders %';""",
    "mysql": """CREATE TABLE `orders` (id VARCHAR(36) PRIMARY KEY, customer INT NOT NULL, status VARCHAR(40) NOT NULL DEFAULT ';\\'',
          placed_on DATE NOT NULL, total DECIMAL(12, 2) NOT NULL DEFAULT 0, first VARCHAR(36), INDEX (placed_on DESC), FULLTEXT (status),
          CONSTRAINT `of the first` FOREIGN KEY (first) REFERENCES orders (id), CHECK (total >= 0), CONSTRAINT orders_chk_9 CHECK (customer >= 0)
        ) ENGINE=InnoDB COMMENT 'next;' # the end
        ;""".replace("# the end", "-- the end"),
}
DDL["mariadb"] = DDL["mysql"]


def test_a_file_of_ddl_is_taken_as_it_stands(
    shop_with_views: sa.Engine, database_kind: str, new_database: Callable[[str], sa.URL], tmp_path: Path
) -> None:
    execute(shop_with_views, "DROP TABLE notes")
    path = tmp_path / "orders.sql"
    path.write_text(DDL[database_kind])
    fresh = sa.create_engine(new_database(database_kind))
    with fresh.begin() as connection:
        for each in statements(StructureSection(ddl=path), ["orders"], fresh.dialect):
            connection.exec_driver_sql(each.replace("%", "%%") if database_kind != "sqlite" else each)
    wanted = definitions(fresh)
    changes = {"structure": {"ddl": str(path)}, "projectors": PROJECTORS[:1]}
    if database_kind == "mysql" or database_kind == "mariadb":
        execute(shop_with_views, "ALTER TABLE order_lines DROP FOREIGN KEY fk_lines_order")
    run_to(rebuild(shop_with_views, **changes), "drop")
    after = definitions(shop_with_views)
    assert {name: after.get(name) for name in wanted} == wanted
    assert rebuild(shop_with_views, "again", **changes).plan(RunOptions(dry_run=True)).forms == {}
    assert totals(shop_with_views) == expected_totals()
    fresh.dispose()


@pytest.mark.postgres
def test_a_parent_in_another_schema_can_be_written_while_a_structure_is_looked_at(
    postgres_url: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool)
    shop.create(engine, "stored_events", "orders")
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), events(100))
    execute(
        engine,
        'CREATE SCHEMA "Other"',
        'CREATE TABLE "Other".regions (id integer PRIMARY KEY)',
        'ALTER TABLE orders ADD region integer CONSTRAINT of_region REFERENCES "Other".regions',
    )
    path = tmp_path / "orders.sql"
    references = """, -- REFERENCES "Other".regions
        region integer CONSTRAINT of_region REFERENCES "Other" . Regions (id), said text DEFAULT 'REFERENCES "Other".regions') WITH (fillfactor"""
    path.write_text(DDL["postgres"].replace(") WITH (fillfactor", references))
    told = schema_trial.difference

    def told_meanwhile(*arguments: Any) -> list[str]:
        execute(engine, "SET lock_timeout = '1s'", 'INSERT INTO "Other".regions VALUES (1)')
        return told(*arguments)

    changes = {"structure": {"ddl": str(path)}, "projectors": PROJECTORS[:1]}
    with monkeypatch.context() as patch:
        patch.setattr(schema_trial, "difference", told_meanwhile)
        plan = rebuild(engine, **changes).plan(RunOptions(dry_run=True))
    assert not any("of_region" in each for each in plan.difference)
    run_to(rebuild(engine, **changes), "drop")
    (key,) = [each for each in sa.inspect(engine).get_foreign_keys("orders") if each["name"] == "of_region"]
    assert (key["referred_schema"], key["referred_table"]) == ("Other", "regions")
    assert rebuild(engine, "again", **changes).plan(RunOptions(dry_run=True)).forms == {}
    assert not [each for each in sa.inspect(engine).get_schema_names() if "projection_rebuild" in each]
    engine.dispose()


LIVE = {
    "postgres": [
        "ALTER TABLE customer_totals ADD extra int",
        "COMMENT ON TABLE public.notes IS 'x'",
        "CREATE TABLE public.more (id int)",
    ],
    "mysql": [
        "ALTER TABLE {live}.notes ADD extra int",
        "CREATE TABLE `{live}` . `more` (id int)",
        "CREATE INDEX i ON {live}.notes (text)",
    ],
}


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("kind", marked(*LIVE))
def test_a_file_that_would_change_what_is_live_is_refused_and_changes_nothing(
    kind: str, which: int, new_database: Callable[[str], sa.URL], tmp_path: Path
) -> None:
    engine = sa.create_engine(new_database(kind))
    shop.metadata.create_all(engine)
    execute(engine, "CREATE TABLE notes (order_id VARCHAR(36), text VARCHAR(20))")
    path = tmp_path / "orders.sql"
    path.write_text(DDL[kind] + LIVE[kind][which].format(live=engine.url.database) + ";")
    before = {name: sa.inspect(engine).get_columns(name) for name in sa.inspect(engine).get_table_names()}
    with pytest.raises(PlanError, match=r"it (changes .*, which is not one of its own|names the database)"):
        rebuild(engine, structure={"ddl": str(path)}, projectors=PROJECTORS[:1]).plan(RunOptions())
    after = {name: sa.inspect(engine).get_columns(name) for name in sa.inspect(engine).get_table_names()}
    assert {name: len(columns) for name, columns in after.items()} == {name: len(columns) for name, columns in before.items()}
    engine.dispose()


def test_what_makes_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "more.sql"
    path.write_text("CREATE TABLE orders (id int); -- first; \n DROP TABLE customers;")
    with pytest.raises(PlanError, match="DROP TABLE customers"):
        statements(StructureSection(ddl=path), ["orders"], sa.create_engine("sqlite://").dialect)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"metadata": "tests.engine.nowhere:metadata"}, "importing tests.engine.nowhere failed"),
        ({"metadata": "tests.engine.test_structure:not_metadata"}, "is no MetaData"),
        ({"ddl": "nowhere.sql"}, "nowhere.sql cannot be read"),
    ],
)
def test_a_structure_that_cannot_be_read_is_named(section: dict[str, str], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        load_structure(StructureSection.model_validate(section))


def test_the_file_is_looked_for_beside_the_spec(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump(SPEC | {"structure": {"ddl": "next.sql"}}))
    with pytest.raises(SpecError, match=r"shop.yaml, structure.ddl: next.sql cannot be read"):
        load_spec(path)
    (tmp_path / "next.sql").write_text("CREATE TABLE orders (id int)")
    section = load_spec(path).structure
    assert section is not None and load_structure(section) == "CREATE TABLE orders (id int)"


def test_a_program_that_begins_anew_gets_tables_of_the_new_structure(sqlite_url: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.metadata.create_all(engine)
    run = made(engine)
    run_to(run, "clone")
    monkeypatch.setattr(external, "take_over", lambda: 0)
    context = run._context
    program: Any = SimpleNamespace(name=OrderProjector.name, tables=OrderProjector.tables, on_retry=external.OnRetry.RESTART)
    with context.dialect.connect() as connection:
        context.ledger.over(connection, "run").external_calls.begin("OrderProjector", 0, 10)
        checkpoint = context.ledger.over(connection, "run").checkpoints.of_projectors()["OrderProjector"]
        # As after a kill between the two statements that put an empty table in its place.
        context.dialect.run(connection, "DROP TABLE orders_rebuild")
        ExternalReplay(context, program, checkpoint, connection).begin()
        assert context.dialect.inspector.columns(connection, None, "orders_rebuild") == [
            column.name for column in metadata.tables["orders"].columns
        ]
    engine.dispose()


def test_a_step_that_stops_after_any_statement_is_completed_by_the_next(
    shop_with_views: sa.Engine, fresh: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = definitions(fresh)
    assert stopped_between_statements(made(shop_with_views), monkeypatch, every=2) >= 3
    after = definitions(shop_with_views)
    assert {name: after.get(name) for name in wanted} == wanted
