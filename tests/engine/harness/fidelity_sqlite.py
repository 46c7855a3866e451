"""The application of :mod:`.fidelity` on SQLite, with dependent objects of every kind on its tables."""

from __future__ import annotations

import sqlalchemy as sa

from tests.engine.harness import shop
from tests.engine.harness.fidelity import TOTALS

LONG = "i" * 64


SCHEMA = [
    "CREATE TABLE countries (code TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID",
    "INSERT INTO countries VALUES ('de', 'Germany')",
    """CREATE TABLE IF NOT EXISTS main."Customers %s" ( -- who buys; REFERENCES nothing
    "Customer Id" INTEGER NOT NULL PRIMARY KEY /* not 'AUTOINCREMENT' */,
    [Orders `placed`] INTEGER NOT NULL DEFAULT (0) CONSTRAINT "not %s negative" CHECK ("Orders `placed`" >= 0),
    since TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, country TEXT DEFAULT 'de' REFERENCES countries (code)
    ) STRICT""",
    """CREATE TABLE `order` (
      id TEXT PRIMARY KEY, customer INT NOT NULL
          CONSTRAINT fk_customer REFERENCES [Customers %s] ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
      status TEXT COLLATE NOCASE NOT NULL, placed_on TEXT NOT NULL, first TEXT REFERENCES "order"(id),
      shouted TEXT GENERATED ALWAYS AS (upper(status)) VIRTUAL, year INT AS (CAST(substr(placed_on, 1, 4) AS INT)) STORED,
      note TEXT DEFAULT 'it''s; REFERENCES x'
    ) WITHOUT ROWID""",
    """CREATE TABLE "Bücher.Lines ""x\"""(row_id INTEGER PRIMARY KEY AUTOINCREMENT, "Order.Id" TEXT NOT NULL,
      line INTEGER NOT NULL, product TEXT NOT NULL, "100 %" NUMERIC NOT NULL, gift INT DEFAULT 0,
      UNIQUE ("Order.Id", line), FOREIGN KEY ("Order.Id") REFERENCES `order`)""",
    f"CREATE TABLE [{TOTALS}] (customer INTEGER PRIMARY KEY DESC, spent NUMERIC CHECK (typeof(spent) <> 'blob'), UNIQUE (spent, customer))",
    f'CREATE UNIQUE INDEX {LONG} ON "Customers %s" ("Customer Id") WHERE country IS NOT NULL',
    'CREATE INDEX "Ix of ""%s""" ON "order"(lower(status) DESC, placed_on COLLATE RTRIM)',
    "CREATE INDEX IF NOT EXISTS ix_year on 'order' /* ON what */ (year) WHERE status <> 'ON'",
    'CREATE INDEX ix_product ON "Bücher.Lines ""x""" (product, "100 %")',
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, of TEXT REFERENCES `order` (id), text TEXT DEFAULT 'n')",
    "CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)",
    'CREATE VIEW sales AS SELECT o.id, o.shouted, l."100 %" AS price FROM "order" o JOIN "Bücher.Lines ""x""" l ON l."Order.Id" = o.id',
    "CREATE VIEW totals AS SELECT id, sum(price) AS total FROM sales GROUP BY id",
    """CREATE TRIGGER lines_in AFTER INSERT ON [Bücher.Lines "x"] BEGIN INSERT INTO audit (what) VALUES ('line ' || new.row_id); END""",
    """CREATE TRIGGER IF NOT EXISTS "lines %s out" BEFORE DELETE ON 'Bücher.Lines "x"' FOR EACH ROW WHEN old.line > 0
       BEGIN INSERT INTO audit (what) SELECT 'gone ' || count(*) FROM "order" WHERE id = old."Order.Id"; END""",
    "CREATE TRIGGER noted AFTER INSERT ON notes BEGIN UPDATE notes SET text = (SELECT status FROM `order` WHERE id = new.of) "
    "WHERE id = new.id; END",
    "CREATE TRIGGER sell INSTEAD OF INSERT ON sales BEGIN INSERT INTO notes (of) VALUES (new.id); END",
]


BESIDE = [
    'INSERT INTO notes (of) SELECT id FROM "order" ORDER BY placed_on, id LIMIT 1',
    "INSERT INTO sales (id) SELECT min(id) FROM totals",
]


QUERIES = ["SELECT count(*), sum(total) FROM totals", "SELECT * FROM sales LIMIT 5", 'SELECT count(*) FROM "Customers %s"']


def enforcing(connection: object, _record: object) -> None:
    """Configures a connection as a careful application does: it enforces foreign keys and waits for locks."""
    connection.execute("PRAGMA foreign_keys = 1")  # type: ignore[attr-defined]
    connection.execute("PRAGMA busy_timeout = 10000")  # type: ignore[attr-defined]


def schema_of(engine: sa.Engine) -> list[tuple[str, ...]]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name, tbl_name")
        return [tuple(row) for row in rows if not row.tbl_name.startswith("projection_rebuild")]


def create(engine: sa.Engine) -> None:
    """Creates the event store and the tables with their dependent objects."""
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    shop.stored_events.create(engine)
    with engine.begin() as connection:
        for statement in SCHEMA:
            connection.exec_driver_sql(statement)
