"""A rebuild leaves the schema of MySQL and MariaDB as it was, to the byte, whoever uses it meanwhile; or it is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects.mariadb.fenced_rename import FencedTables
from projection_rebuild.dialects.mysql import create_table as mysql_text
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.dialects.mysql.locked_tables import LockedTables
from projection_rebuild.errors import CloneError, PlanError, VerificationFailed
from projection_rebuild.model.names import TableSet
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import fidelity, shop
from tests.engine.harness.databases import execute, marked
from tests.engine.harness.driver import run_to
from tests.engine.harness.fidelity import (
    CUSTOMERS,
    LINES,
    ORDERS,
    TOTALS,
    Application,
    LineProjector,
    assert_right,
    rebuild_once,
    run_of,
)
from tests.engine.harness.seams import instead_of_waiting_for_snapshots, without_carrying_counters_on
from tests.engine.harness.shop import events
from tests.engine.harness.specs import rebuild

LONG, LONG_CHECK = "c" * 63 + "ü", "k" * 64
KINDS = ["mariadb", "mysql"]
REBUILDS = int(os.environ.get("REBUILD_TEST_FIDELITY_REBUILDS", "3"))
KNOWN_ON_MYSQL = "(1213,"
"""The deadlock detector may end a client that holds one of the tables and wants another, never the rename."""

COMMON = [
    "CREATE TABLE countries (code CHAR(2) PRIMARY KEY, name VARCHAR(50)) ENGINE=InnoDB",
    "INSERT INTO countries VALUES ('de', 'Germany')",
    """CREATE TABLE `Customers %s` (
        `Customer Id` INT NOT NULL PRIMARY KEY COMMENT 'who; AUTO_INCREMENT is not on',
        `Orders ``placed``` INT NOT NULL DEFAULT 0, since TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
        country CHAR(2) DEFAULT 'de', CONSTRAINT `fk of %s "x"` FOREIGN KEY (country) REFERENCES countries (code) ON UPDATE CASCADE,
        CONSTRAINT `not %s negative` CHECK (`Orders ``placed``` >= 0), INDEX by_since (since DESC)
    ) ENGINE=InnoDB COMMENT='100 % ''of'' them, AUTO_INCREMENT=7' STATS_PERSISTENT=1 STATS_AUTO_RECALC=0 STATS_SAMPLE_PAGES=9""",
    f"""CREATE TABLE `order` (
        id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, customer INT NOT NULL, status VARCHAR(20) COLLATE utf8mb4_unicode_ci
        NOT NULL, placed_on DATE NOT NULL, first VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin,
        shouted VARCHAR(20) GENERATED ALWAYS AS (upper(status)) VIRTUAL, year INT AS (year(placed_on)) STORED,
        hidden INT INVISIBLE DEFAULT 3, note VARCHAR(30) DEFAULT 'it''s 50%\\\\n"', kind ENUM('a', 'b%') NOT NULL DEFAULT 'b%',
        PRIMARY KEY (id), CONSTRAINT {LONG} FOREIGN KEY (customer) REFERENCES `Customers %s` (`Customer Id`) ON DELETE CASCADE,
        FOREIGN KEY (first) REFERENCES `order` (id), CONSTRAINT {LONG_CHECK} CHECK (customer >= 0), CHECK (year > 1900),
        CONSTRAINT order_chk_7 CHECK (hidden > 0), INDEX prefix (note(5), kind DESC), UNIQUE INDEX unique_prefix (note(4), placed_on, id)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin ROW_FORMAT=COMPACT""",
    """CREATE TABLE `Bücher.Lines "x"` (
        row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, `Order.Id` VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        line INT NOT NULL, product VARCHAR(100) NOT NULL, `100 %` DECIMAL(10, 2) NOT NULL, gift BIT(1) NOT NULL DEFAULT b'1',
        place POINT NOT NULL DEFAULT (POINT(1, 2)), token CHAR(36) NOT NULL DEFAULT (uuid()), words TEXT,
        country CHAR(2) NOT NULL DEFAULT 'de', UNIQUE KEY (`Order.Id`, line), INDEX before_it (line), INDEX counted (row_id),
        INDEX after_it (product), FULLTEXT INDEX ft (words), FULLTEXT INDEX ft2 (words, product), SPATIAL INDEX at (place),
        FOREIGN KEY (`Order.Id`) REFERENCES `order` (id), CONSTRAINT `by ``country` FOREIGN KEY (country) REFERENCES countries (code)
    ) ENGINE=InnoDB AUTO_INCREMENT=1000""",
    """CREATE TABLE `T``tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt` (
        customer INT NOT NULL PRIMARY KEY, spent DECIMAL(14, 2) NOT NULL DEFAULT '1.00', INDEX (spent)
    ) ENGINE=InnoDB PARTITION BY RANGE (customer) (PARTITION p0 VALUES LESS THAN (5) COMMENT 'few %', PARTITION p1 VALUES LESS THAN MAXVALUE)""",
    "CREATE TABLE notes (id INT AUTO_INCREMENT PRIMARY KEY, about VARCHAR(36), text VARCHAR(50) DEFAULT 'n') ENGINE=InnoDB",
    """CREATE VIEW sales AS SELECT o.id AS id, o.shouted AS shouted, l.`100 %` AS price
       FROM `order` o JOIN `Bücher.Lines "x"` l ON l.`Order.Id` = o.id""",
    "CREATE SQL SECURITY INVOKER VIEW totals AS SELECT id, sum(price) AS total FROM sales GROUP BY id",
    """CREATE VIEW `to %s write` AS SELECT `Customer Id`, `Orders ``placed``` FROM `Customers %s` WHERE `Customer Id` < 0 WITH CHECK OPTION""",
    """CREATE TRIGGER noted BEFORE INSERT ON notes FOR EACH ROW
       SET NEW.text = COALESCE((SELECT shouted FROM `order` WHERE id = NEW.about), 'none')""",
]
ONLY = {
    "mysql": [
        "ALTER TABLE `order` ADD INDEX unseen (customer, year) INVISIBLE, ADD INDEX fn ((lower(status)), (length(note)))",
        "ALTER TABLE `order` ADD CONSTRAINT order_chk_99 CHECK (hidden <> 99) NOT ENFORCED",
        # Names of one's own are refused.
        f"ALTER TABLE `order` DROP CHECK {LONG_CHECK}, ADD CHECK (customer >= 0)",
        "ALTER TABLE `Customers %s` DROP CHECK `not %s negative`, ADD CHECK (`Orders ``placed``` >= 0)",
    ],
    "mariadb": [
        "CREATE SEQUENCE numbers START WITH 100 INCREMENT BY 3",
        "ALTER TABLE `order` ADD INDEX unseen (customer, year) IGNORED, ADD COLUMN number INT NOT NULL DEFAULT (NEXT VALUE FOR numbers)",
        "ALTER TABLE `order` ADD COLUMN said JSON DEFAULT '[\"%\"]', ADD COLUMN known INT DEFAULT 1 CHECK (known > 0)",
    ],
}
GRANTS = [
    "GRANT SELECT, INSERT ON `Customers %s` TO {user}",
    'GRANT SELECT (`100 %`, `line`), UPDATE (`gift`) ON `Bücher.Lines "x"` TO {user}',
    "GRANT SELECT ON `sales` TO {user}",
]
BESIDE = ["INSERT INTO notes (about) SELECT id FROM `order` ORDER BY placed_on, id LIMIT 1"]
QUERIES = [
    "SELECT count(*), sum(total) FROM totals",
    "SELECT * FROM sales LIMIT 5",
    "SELECT count(*) FROM `to %%s write`",
    'SELECT MAX(row_id), COUNT(DISTINCT token) FROM `Bücher.Lines "x"`',
]


@pytest.fixture(params=marked(*KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(kind: str, new_database: Callable[[str], sa.URL]) -> Iterator[sa.Engine]:
    made = sa.create_engine(new_database(kind))
    shop.stored_events.create(made)
    with made.begin() as connection:
        for statement in [*COMMON, *ONLY[kind]]:
            connection.exec_driver_sql(statement.replace("%", "%%"), ())
    yield made
    made.dispose()


@pytest.fixture
def application(engine: sa.Engine) -> Iterator[Application]:
    # With a pool of its own: connections that a rebuild has set up are not what an application has.
    clients = sa.create_engine(engine.url)
    made = Application(clients, BESIDE, QUERIES)
    made.fill()
    yield made
    clients.dispose()


@pytest.fixture
def user(engine: sa.Engine) -> Iterator[str]:
    """Somebody with rights on tables and columns."""
    name = f"'fidelity_{os.getpid()}'@'localhost'"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE USER {name}")
        for grant in GRANTS:
            connection.exec_driver_sql(grant.format(user=name).replace("%", "%%"), ())
    yield name
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP USER {name}")


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``").replace("%", "%%") + "`"


def schema_of(engine: sa.Engine, user: str | None = None) -> dict[str, str]:
    """What the server says about every table, view, trigger, and about somebody's rights."""
    found = {}
    with engine.connect() as connection:

        def ask(statement: str, *values: Any) -> list[Any]:
            return list(connection.exec_driver_sql(statement, values))

        for name, kind in ask("SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"):
            if not name.startswith("projection_rebuild"):
                said = ask(f"SHOW CREATE {'VIEW' if kind == 'VIEW' else 'TABLE'} {quoted(name)}")[0]
                found[name] = re.sub(r" AUTO_INCREMENT=\d+(?= DEFAULT)", "", said[1])
        for (name,) in ask("SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()"):
            found[f"trigger {name}"] = str(ask(f"SHOW CREATE TRIGGER {quoted(name)}")[0])
        if user:
            found["grants"] = "\n".join(sorted(row[0] for row in ask(f"SHOW GRANTS FOR {user}")))
    return found


def counter(engine: sa.Engine, table: str) -> int:
    with engine.connect() as connection:
        return mysql_text.Definition(connection.exec_driver_sql(f"SHOW CREATE TABLE {quoted(table)}", ()).one()[1]).counter


def harmless(failure: str, kind: str) -> bool:
    return kind == "mysql" and KNOWN_ON_MYSQL in failure


def tables_of(made: Rebuild) -> tuple[MySQLFamily, list[TableSet]]:
    dialect = made._context.dialect
    assert isinstance(dialect, MySQLFamily)
    return dialect, [TableSet.of(name, schema=None, limit=dialect.max_identifier) for name in (CUSTOMERS, ORDERS, LINES, TOTALS)]


def test_the_schema_is_the_same_to_the_byte_after_rebuilds_under_load(
    engine: sa.Engine, kind: str, application: Application, user: str
) -> None:
    before = schema_of(engine, user)
    assert "REFERENCES" in before[LINES] and "100 %" in before["grants"]
    with application:
        for number in range(REBUILDS):
            rebuild_once(engine, f"run-{number}")
            assert schema_of(engine, user) == before
    assert [each for each in application.failures if not harmless(each, kind)] == []
    assert application.appended > fidelity.FILLED and application.reads > 0
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM notes WHERE text IN ('n', 'none')").scalar_one() == 0
    assert_right(engine)


def test_a_child_alone_is_rebuilt_under_load_and_holds_nobody_up(engine: sa.Engine, kind: str, application: Application) -> None:
    """Its parents are beside the run: a foreign key of green's or old's rows must not keep the application from deleting them."""
    before = schema_of(engine)
    with application:
        for number in range(2):
            rebuild_once(engine, f"run-{number}", [LineProjector])
            assert schema_of(engine) == before
    assert [each for each in application.failures if not harmless(each, kind)] == []

    def delete_an_order() -> None:
        with engine.begin() as connection:
            doomed = connection.exec_driver_sql('SELECT min(`Order.Id`) FROM `Bücher.Lines "x"`').scalar_one()
            connection.exec_driver_sql("UPDATE `order` SET first = NULL WHERE first = %s", (doomed,))
            connection.exec_driver_sql('DELETE FROM `Bücher.Lines "x"` WHERE `Order.Id` = %s', (doomed,))
            connection.exec_driver_sql("DELETE FROM `order` WHERE id = %s", (doomed,))

    made = run_of(engine, "run")
    run_to(made, "replay", RunOptions(projectors=["LineProjector"], max_count_drift_percent=50))
    dialect, tables = tables_of(made)
    with dialect.connect() as connection:
        for statement in dialect.shadow.constrain_green(connection, tables[2], [tables[2]]):
            dialect.run(connection, statement)
    delete_an_order()
    with pytest.raises(VerificationFailed, match=r"order_ibfk_1|Lines.* to order, \d+ rows|without their parent"):
        made.verify()
    with engine.begin() as connection:
        # By hand, as no event tells of it.
        connection.exec_driver_sql('DELETE FROM `Bücher.Lines "x"_rebuild` WHERE `Order.Id` NOT IN (SELECT id FROM `order`)')
    made.verify()
    made.swap()
    delete_an_order()
    made.reconcile()
    made.drop_old()
    assert schema_of(engine) == before


def test_the_schema_is_the_same_after_a_switch_back_and_forth(engine: sa.Engine, application: Application) -> None:
    before, counted = schema_of(engine), counter(engine, LINES)
    made = run_of(engine, "run")
    run_to(made, "reconcile")
    assert {name: said for name, said in schema_of(engine).items() if name in before} == before
    dialect, tables = tables_of(made)
    for _ in range(2):
        with dialect.connect() as connection:
            renames = [f"{dialect.quote(each.old)} TO {dialect.quote(each.green)}" for each in tables]
            dialect.run(connection, f"RENAME TABLE {', '.join(renames)}")
            for table in tables:
                assert dialect.shadow.index_green(connection, table) == []
            for table in tables:
                for statement in dialect.shadow.constrain_green(connection, table, tables):
                    dialect.run(connection, statement)
                assert dialect.shadow.orphans(connection, table, tables) == []
            for statement in dialect.swap_statements(connection, tables).statements:
                dialect.run(connection, statement)
            for statement in dialect.after_swap(connection, tables):
                dialect.run(connection, statement)
            assert dialect.after_swap(connection, tables) == []
        assert {name: said for name, said in schema_of(engine).items() if name in before} == before
    with engine.begin() as connection:
        for table in reversed(tables):
            connection.exec_driver_sql(f"DROP TABLE {quoted(table.old)}", ())
    assert schema_of(engine) == before
    assert counter(engine, LINES) == counted


def test_whatever_statement_was_the_last_the_rest_is_done_later(engine: sa.Engine, application: Application) -> None:
    """DDL commits by itself: what is left to do is read from the tables. Three statements further each time."""
    before = schema_of(engine)
    cut, remaining = 0, 1
    while remaining > 0:
        made = run_of(engine, f"run-{cut}")
        run_to(made, "verify")
        dialect, tables = tables_of(made)
        with pytest.MonkeyPatch.context() as patch:
            for held in (LockedTables, FencedTables):
                patch.setattr(held, "planned_after", lambda *_: [])
            patch.setattr(MySQLFamily, "after_swap", lambda *_: [])
            made.swap()
        with dialect.connect() as connection:
            statements = dialect.after_swap(connection, tables)
            remaining = len(statements) - cut
            for statement in statements[:cut]:
                dialect.run(connection, statement)
        made.reconcile()
        with dialect.connect() as connection:
            assert dialect.after_swap(connection, tables) == []
        made.drop_old()
        assert schema_of(engine) == before
        cut += 3
    assert cut > 8


def test_generated_ids_go_on_and_nothing_but_rows_uses_them_up(engine: sa.Engine, application: Application) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE `Bücher.Lines "x"` AUTO_INCREMENT = 70000')
    rebuild_once(engine, "run")
    assert counter(engine, LINES) == 70_000


def test_ids_that_are_handed_out_until_the_switch_are_not_handed_out_again(engine: sa.Engine, application: Application) -> None:
    made = run_of(engine, "run")
    run_to(made, "verify")
    with pytest.MonkeyPatch.context() as patch:
        # As if clients had moved it after the statements of the switch were worked out.
        without_carrying_counters_on(patch)
        with engine.begin() as connection:
            connection.exec_driver_sql('ALTER TABLE `Bücher.Lines "x"` AUTO_INCREMENT = 70000')
        made.swap()
    made.reconcile()
    assert counter(engine, LINES) == 70_000


def test_a_partitioned_table_is_known_by_its_identity(engine: sa.Engine) -> None:
    dialect, tables = tables_of(run_of(engine, "run"))
    with dialect.connect() as connection:
        seen = {name: dialect.inspector.identity(connection, None, name) for name in (ORDERS, TOTALS)}
        assert None not in seen.values()
        dialect.run(connection, f"RENAME TABLE {dialect.quote(TOTALS)} TO {dialect.quote(tables[3].old)}")
        assert dialect.inspector.identity(connection, None, tables[3].old) == seen[TOTALS]


@pytest.mark.mysql
def test_histograms_follow(mysql_url: sa.URL) -> None:
    engine = filled("mysql", mysql_url)
    query = """SELECT TABLE_NAME, COLUMN_NAME, HISTOGRAM->>'$."number-of-buckets-specified"', HISTOGRAM->>'$."auto-update"'
               FROM information_schema.COLUMN_STATISTICS WHERE SCHEMA_NAME = DATABASE() ORDER BY COLUMN_NAME"""
    with engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE TABLE `order` UPDATE HISTOGRAM ON status WITH 7 BUCKETS")
        connection.exec_driver_sql("ANALYZE TABLE `order` UPDATE HISTOGRAM ON kind, customer WITH 9 BUCKETS AUTO UPDATE")
        before = connection.exec_driver_sql(query).all()
    assert len(before) == 3
    rebuild_once(engine, "run")
    with engine.connect() as connection:
        assert connection.exec_driver_sql(query).all() == before
    engine.dispose()


@pytest.mark.mariadb
def test_statistics_of_the_server_itself_follow(mariadb_url: sa.URL) -> None:
    engine = filled("mariadb", mariadb_url)
    query = "SELECT table_name, column_name FROM mysql.column_stats WHERE db_name = DATABASE() ORDER BY column_name"
    with engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE TABLE `order` PERSISTENT FOR ALL")
        before = connection.exec_driver_sql(query).all()
    assert {row[0] for row in before} == {ORDERS}
    rebuild_once(engine, "run")
    with engine.connect() as connection:
        assert connection.exec_driver_sql(query).all() == before
    engine.dispose()


def filled(kind: str, url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url)
    shop.stored_events.create(engine)
    with engine.begin() as connection:
        for statement in [*COMMON, *ONLY[kind]]:
            connection.exec_driver_sql(statement.replace("%", "%%"), ())
    Application(engine, BESIDE, QUERIES).fill()
    return engine


def test_a_server_that_quotes_names_as_the_standard_does_and_forbids_old_defaults(
    engine: sa.Engine, application: Application
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("SET SESSION sql_mode = ''")
        connection.exec_driver_sql("ALTER TABLE `order` ADD COLUMN old_days DATETIME NOT NULL DEFAULT '0000-00-00 00:00:00'")
        connection.exec_driver_sql("SET SESSION sql_mode = DEFAULT")
    before = schema_of(engine)
    mode = "SET SESSION sql_mode = 'ANSI,TRADITIONAL,NO_ZERO_DATE,NO_ZERO_IN_DATE'"
    strict = sa.create_engine(engine.url, connect_args={"init_command": mode})
    rebuild_once(strict, "run")
    strict.dispose()
    assert schema_of(engine) == before


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (
            ["CREATE TRIGGER tr BEFORE INSERT ON `order` FOR EACH ROW SET NEW.note = 'x'"],
            "order: the trigger tr cannot be moved .* make it again after",
        ),
        (
            [
                "CREATE TABLE child (o VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin, CONSTRAINT fk_child FOREIGN KEY (o) REFERENCES `order` (id)) ENGINE=InnoDB"
            ],
            "order: the foreign key fk_child of child follows a rename",
        ),
        (["CREATE VIEW order_old AS SELECT 1"], "order: the rebuild needs the name order_old, which is taken by the view"),
        (
            [
                "DROP TABLE `T``" + "t" * 62 + "`",
                "CREATE TABLE `T``" + "t" * 62 + "` (customer INT PRIMARY KEY, spent INT) ENGINE=MyISAM",
            ],
            "its storage engine MyISAM has no transactions",
        ),
    ],
    ids=["trigger", "child", "view", "engine"],
)
def test_what_cannot_be_carried_is_refused_before_anything_is_touched(
    engine: sa.Engine, statements: list[str], words: str
) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    before = schema_of(engine)
    with pytest.raises(PlanError, match=words):
        run_of(engine, "run").plan(RunOptions())
    assert schema_of(engine) == before


def test_a_child_in_another_schema_is_refused_by_its_full_name(
    engine: sa.Engine, kind: str, new_database: Callable[[str], sa.URL]
) -> None:
    other = new_database(kind).database
    with engine.begin() as connection:
        # Called like a table of the run.
        connection.exec_driver_sql(
            f"CREATE TABLE {other}.`order` (o VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin, CONSTRAINT fk_far FOREIGN KEY (o) "
            f"REFERENCES {engine.url.database}.`order` (id)) ENGINE=InnoDB"
        )
    with pytest.raises(PlanError, match=rf"the foreign key fk_far of {other}.order follows"):
        run_of(engine, "run").plan(RunOptions())
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {other}.`order`")


CHANGED = {
    "column note": "ALTER TABLE orders MODIFY note VARCHAR(30) DEFAULT 'none'",
    "column extra": "ALTER TABLE orders ADD extra INT",
    "the order of the columns": "ALTER TABLE orders ADD first_of_all INT FIRST",
    "primary key": "ALTER TABLE customer_totals DROP PRIMARY KEY, ADD PRIMARY KEY (customer, orders)",
    "index ix_lines_product": "ALTER TABLE order_lines DROP INDEX ix_lines_product",
    "index uq_status": "ALTER TABLE orders ADD UNIQUE INDEX uq_status (status, id)",
    "constraint orders_chk_1": "ALTER TABLE orders DROP CONSTRAINT orders_chk_1, ADD CONSTRAINT orders_chk_1 CHECK (customer >= -1)",
    "foreign key fk_lines_order": "ALTER TABLE order_lines DROP FOREIGN KEY fk_lines_order",
    "the table's own settings": "ALTER TABLE customer_totals COMMENT = 'new'",
}


@pytest.fixture
def small_shop(kind: str, new_database: Callable[[str], sa.URL]) -> Iterator[sa.Engine]:
    made = sa.create_engine(new_database(kind))
    shop.fill(made, events(100))
    yield made
    made.dispose()


def test_a_change_of_blue_is_not_taken_back_by_the_switch(small_shop: sa.Engine) -> None:
    made = rebuild(small_shop)
    run_to(made, "verify")
    with pytest.MonkeyPatch.context() as patch:
        # In the very last moment, and before a retry.
        instead_of_waiting_for_snapshots(patch, lambda: execute(small_shop, CHANGED["column extra"]))
        for _ in range(2):
            with pytest.raises(CloneError, match="column extra"):
                made.swap()
    run_to(made, "reconcile")
    assert "extra" in schema_of(small_shop)["orders"]
    back = Rebuild(made._context.spec, run_id="back", event_store=small_shop, read_models=small_shop, log=lambda _: None)
    back.plan_rollback(RunOptions())
    back.bring_back()
    execute(small_shop, "ALTER TABLE orders DROP COLUMN extra")
    with pytest.raises(CloneError, match="column extra"):
        back.swap()


def test_every_change_of_blue_is_told_by_name(small_shop: sa.Engine) -> None:
    made = rebuild(small_shop)
    run_to(made, "verify")
    execute(small_shop, *CHANGED.values())
    with made._context.dialect.connect() as connection:
        told = []
        for table in made._context.switched_sets(made._context.plan_of(made._context.ledger.over(connection, "run").runs.get())):
            with pytest.raises(CloneError) as refused:
                made._context.dialect.swap_statements(connection, [table])
            told.append(str(refused.value))
    assert [each for each in CHANGED if each not in "\n".join(told)] == []


def test_what_blue_gets_meanwhile_and_green_can_get_as_well(small_shop: sa.Engine) -> None:
    made = rebuild(small_shop)
    run_to(made, "verify")
    execute(
        small_shop,
        "CREATE INDEX ix_new ON orders (placed_on, status)",
        "ALTER TABLE order_lines ADD CONSTRAINT fk_new FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE",
        "CREATE TABLE customers (id INT PRIMARY KEY) ENGINE=InnoDB",
        "INSERT INTO customers VALUES " + ", ".join(f"({number})" for number in range(17)),
        "ALTER TABLE orders ADD CONSTRAINT fk_customer FOREIGN KEY (customer) REFERENCES customers (id)",
    )
    before = schema_of(small_shop)
    # An ALTER that copies the rows makes another table of it.
    with pytest.raises(CloneError, match="is another one than when green was made like it"):
        made.swap()
    made.verify()
    made.swap()
    made.reconcile()
    made.drop_old()
    assert schema_of(small_shop) == {each: said for each, said in before.items() if not each.endswith("_rebuild")}


@pytest.mark.mariadb
def test_a_history_is_refused(mariadb_url: sa.URL) -> None:
    engine = filled("mariadb", mariadb_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {quoted(CUSTOMERS)} ADD SYSTEM VERSIONING", ())
    with pytest.raises(PlanError, match="the history of its rows"):
        run_of(engine, "run").plan(RunOptions())
    engine.dispose()


@pytest.mark.mysql
def test_a_check_that_only_a_copy_could_carry_is_refused(mysql_url: sa.URL) -> None:
    engine = filled("mysql", mysql_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE `order` ADD CONSTRAINT {LONG_CHECK} CHECK (customer < 1000000)")
    before = schema_of(engine)
    with pytest.raises(PlanError) as caught:
        run_of(engine, "run").plan(RunOptions())
    found = str(caught.value)
    assert f"order: the name of the constraint {LONG_CHECK} is the schema's" in found and "like order_chk_1" in found
    # A name of the server's own kind follows the table.
    assert "constraint order_chk" not in found
    assert schema_of(engine) == before
    engine.dispose()


def test_names_of_the_servers_own_that_would_grow_too_long_are_refused(engine: sa.Engine, kind: str) -> None:
    name = "n" * (57 if kind == "mysql" else 55)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, up INT) ENGINE=InnoDB")
        connection.exec_driver_sql(f"ALTER TABLE {name} ADD CONSTRAINT {name}_ibfk_1 FOREIGN KEY (up) REFERENCES {name} (id)")
    dialect, _ = tables_of(run_of(engine, "run"))
    with dialect.connect() as connection:
        found = dialect.dependents.unsupported_objects(connection, [TableSet.of(name, schema=None, limit=64)])
    assert len(found) == 1 and "too long a name" in str(found[0])


@pytest.mark.parametrize("name", ["fk", "f" * 63, "f" * 64, "Ü" * 64, "日" * 63])
def test_a_name_for_meanwhile_leads_back_to_the_final_one(name: str) -> None:
    meanwhile = mysql_text.meanwhile(name)
    assert meanwhile is not None and meanwhile != name and len(meanwhile) <= 64
    assert mysql_text.final(meanwhile) == name and mysql_text.final(name) == name
    twice = mysql_text.meanwhile(meanwhile)
    assert twice is None or mysql_text.final(twice) == name


def test_there_is_not_always_a_name_for_meanwhile() -> None:
    assert mysql_text.meanwhile("日" * 64) is None


def test_a_definition_is_read_clause_by_clause() -> None:
    read = mysql_text.Definition(
        "CREATE TABLE `t` (\n  `a` int NOT NULL AUTO_INCREMENT COMMENT 'x',\n  `b` int COMMENT ' AUTO_INCREMENT',\n"
        "  UNIQUE KEY `u` (`b`,`a`),\n  KEY `one` (`b`),\n  KEY `two` (`a`,`b`),\n  KEY `th``ree` (`b`),\n  FULLTEXT KEY `four` (`b`),\n"
        "  CONSTRAINT `c` CHECK (`b` <> ' FOREIGN KEY '),\n  CONSTRAINT `f``k` FOREIGN KEY (`b`, `x)`) REFERENCES `s`.`p` (`i`, `j`) ON DELETE CASCADE\n"
        ") ENGINE=InnoDB AUTO_INCREMENT=77 DEFAULT CHARSET=utf8mb4 COMMENT='ENGINE=x AUTO_INCREMENT=5'\n/*!50100 PARTITION BY KEY (`a`)\n  PARTITIONS 2 */"
    )
    assert [index.name for index in read.late_indexes()] == ["th`ree", "four"]
    assert read.counter == 77
    assert read.options_from_one().startswith(") ENGINE=InnoDB DEFAULT") and read.options_from_one().endswith(
        "AUTO_INCREMENT=5'\n/*!50100 PARTITION BY KEY (`a`)\n  PARTITIONS 2 */"
    )
    (key,) = read.foreign_keys()
    assert (key.name, key.parent_schema, key.parent, key.actions) == ("f`k", "s", "p", " ON DELETE CASCADE")
    assert key.pairs() == [("b", "i"), ("x)", "j")]
    assert [check.name for check in read.checks()] == ["c"]
