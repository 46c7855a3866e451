"""Changes of live tables during a rebuild: each kind of object and change, and how the cutover treats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One change of the shop's tables, or of ``kinds`` and ``notes`` beside them.

    :param kind: its name
    :param statements: the SQL that makes it
    :param undo: the SQL that takes it back, which is the remedy if the engine refuses the change
    :param refused: a part of the refusal's message, with the object's name; empty: the cutover carries the change over
    :param there: a query that returns a true value once the change is on the live table
    :param plan: the kind of finding by which a plan refuses it; empty: a plan allows it
    :param alone: whether it hides other refusals, so that a test must try it separately
    :param unseen: whether the last check before the swap may miss it: the object goes with the table's name, or a
        statement of the cutover fails on it
    """

    kind: str
    statements: Sequence[str]
    undo: Sequence[str] = ()
    refused: str = ""
    there: str = ""
    plan: str = ""
    alone: bool = False
    unseen: bool = False


_ON = "SELECT {catalog}.{column} = 'orders'::regclass FROM {catalog} WHERE {name} = '{of}'"


def _on(catalog: str, column: str, name: str, of: str) -> str:
    return _ON.format(catalog=catalog, column=column, name=name, of=of)


# fmt: off
POSTGRES = [
    Change("index", ["CREATE INDEX ix_new ON orders (placed_on)"], there=_on("pg_index", "indrelid", "indexrelid::regclass::text", "ix_new")),
    Change("unique index", ["CREATE UNIQUE INDEX uq_new ON orders (id, customer)"], there=_on("pg_index", "indrelid", "indexrelid::regclass::text", "uq_new")),
    Change("renamed index", ["ALTER INDEX ix_orders_status RENAME TO ix_renamed"], there=_on("pg_index", "indrelid", "indexrelid::regclass::text", "ix_renamed")),
    Change("dropped index", ["DROP INDEX ix_gone"], there="SELECT to_regclass('ix_gone') IS NULL"),
    Change("comment on an index", ["COMMENT ON INDEX orders_pkey IS 'new'"], there="SELECT obj_description('orders_pkey'::regclass) = 'new'"),
    Change("trigger", ["CREATE TRIGGER tg_new BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"], there=_on("pg_trigger", "tgrelid", "tgname", "tg_new")),
    Change("rule", ["CREATE RULE rl_new AS ON DELETE TO orders WHERE old.id = 'never' DO INSTEAD NOTHING"], there=_on("pg_rewrite", "ev_class", "rulename", "rl_new")),
    Change("policy", ["CREATE POLICY po_new ON orders USING (customer >= 0)"], there=_on("pg_policy", "polrelid", "polname", "po_new")),
    Change("publication", ["CREATE PUBLICATION pu_new FOR TABLE orders"], there="SELECT prrelid = 'orders'::regclass FROM pg_publication_rel"),
    Change("view", ["CREATE VIEW vw_new AS SELECT id FROM orders"], there="SELECT pg_get_viewdef('vw_new'::regclass) LIKE '% orders;'"),
    Change("materialized view", ["CREATE MATERIALIZED VIEW mv_new AS SELECT id FROM orders"], there="SELECT pg_get_viewdef('mv_new'::regclass) LIKE '% orders;'"),
    Change("foreign key of another table", ["ALTER TABLE notes ADD CONSTRAINT fk_new FOREIGN KEY (order_id) REFERENCES orders"], there=_on("pg_constraint", "confrelid", "convalidated::text || conname", "truefk_new")),
    Change("foreign key to another table", ["ALTER TABLE orders ADD CONSTRAINT fk_to FOREIGN KEY (note) REFERENCES kinds"], there=_on("pg_constraint", "conrelid", "convalidated::text || conname", "truefk_to")),
    Change("rule of another table", ["CREATE RULE rl_else AS ON UPDATE TO notes DO ALSO SELECT count(*) FROM orders"], there="SELECT pg_get_ruledef(oid) LIKE '% orders;' FROM pg_rewrite WHERE rulename = 'rl_else'"),
    Change("policy of another table", ["CREATE POLICY po_else ON notes USING (EXISTS (SELECT FROM orders))"], there="SELECT pg_get_expr(polqual, polrelid) LIKE '% orders))' FROM pg_policy WHERE polname = 'po_else'"),
    # What a plan refuses.
    Change("function with a body of its own", ["CREATE FUNCTION fn_atomic() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM orders; END"], ["DROP FUNCTION fn_atomic"], "the function public.fn_atomic() is bound to this very table", plan="what is bound to the table"),
    Change("function of the row type", ["CREATE FUNCTION fn_row(orders) RETURNS text LANGUAGE sql AS 'SELECT $1.id'"], ["DROP FUNCTION fn_row"], "the function public.fn_row(public.orders) uses the table's row type", plan="what is bound to the row type"),
    Change("column of the row type", ["CREATE TABLE holds (one orders)"], ["DROP TABLE holds"], "the table column public.holds.one uses the table's row type", plan="what is bound to the row type"),
    Change("function of a key", ["CREATE FUNCTION fn_key() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT status FROM customer_totals t JOIN orders o USING (customer) GROUP BY o.id; END"], ["DROP FUNCTION fn_key"], "the function public.fn_key() is bound to an index or constraint", plan="what is bound to the index"),
    Change("default by the sequence of an identity", ["ALTER TABLE kinds ADD COLUMN n bigint DEFAULT nextval('counted_n_seq')"], ["ALTER TABLE kinds DROP COLUMN n"], "uses the sequence of an identity column", plan="what is bound to the sequence"),
    Change("constraint trigger of another table", ["CREATE CONSTRAINT TRIGGER ct_new AFTER INSERT ON notes FROM orders FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"], ["DROP TRIGGER ct_new ON notes"], "the trigger ct_new on public.notes", plan="what is bound to the table"),
    Change("publication of all tables", ["CREATE PUBLICATION pu_all FOR ALL TABLES"], ["DROP PUBLICATION pu_all"], "the publication pu_all", plan="publication of all tables"),
    Change("publication of the schema", ["CREATE PUBLICATION pu_schema FOR TABLES IN SCHEMA public"], ["DROP PUBLICATION pu_schema"], "the publication pu_schema", plan="publication of all tables"),
    Change("extension", ["ALTER INDEX ix_kept DEPENDS ON EXTENSION plpgsql"], ["ALTER INDEX ix_kept NO DEPENDS ON EXTENSION plpgsql"], "the extension plpgsql", plan="extension"),
    Change("invalid index", ["CREATE UNIQUE INDEX CONCURRENTLY uq_invalid ON orders ((1 / (length(id) - length(id))))"], ["DROP INDEX uq_invalid"], "the invalid index uq_invalid", plan="invalid index"),
    Change("taken name", ["CREATE TABLE ix_kept_old (n INT)"], ["DROP TABLE ix_kept_old"], "the name ix_kept_old is needed", plan="taken name", unseen=True),
    Change("partitioned child", ["CREATE TABLE parts (id varchar(36) REFERENCES orders) PARTITION BY LIST (id)"], ["DROP TABLE parts"], "parts: it is partitioned", plan="partitioned child"),
    Change("child by inheritance", ["CREATE TABLE more_orders () INHERITS (orders)"], ["DROP TABLE more_orders"], "orders: it inherits from another table, or another from it", plan="inheritance", alone=True),
    Change("parent by inheritance", ["CREATE TABLE whole (id varchar(36) NOT NULL)", "ALTER TABLE orders INHERIT whole"], ["ALTER TABLE orders NO INHERIT whole", "DROP TABLE whole"], "orders: it inherits from another table, or another from it", plan="inheritance", alone=True),
    Change("partition", ["CREATE TABLE parted (LIKE customer_totals) PARTITION BY RANGE (customer)", "ALTER TABLE parted ATTACH PARTITION customer_totals FOR VALUES FROM (0) TO (1000)"], ["ALTER TABLE parted DETACH PARTITION customer_totals", "DROP TABLE parted"], "customer_totals: it is a partition", plan="partition", alone=True),
    Change("type of the table", ["CREATE TYPE ty_new AS (customer integer, orders integer, spent numeric(14, 2))", "ALTER TABLE customer_totals OF ty_new"], ["ALTER TABLE customer_totals NOT OF", "DROP TYPE ty_new"], "customer_totals: it is a typed table", plan="typed table", alone=True),
    # What green is compared with.
    Change("column", ["ALTER TABLE orders ADD COLUMN more INT"], ["ALTER TABLE orders DROP COLUMN more"], "column more"),
    Change("default", ["ALTER TABLE orders ALTER COLUMN note SET DEFAULT 'other'"], ["ALTER TABLE orders ALTER COLUMN note SET DEFAULT 'none'"], "column note"),
    Change("check", ["ALTER TABLE orders ADD CONSTRAINT ck_new CHECK (customer < 1000)"], ["ALTER TABLE orders DROP CONSTRAINT ck_new"], "constraint ck_new"),
    Change("unique constraint", ["ALTER TABLE orders ADD CONSTRAINT un_new UNIQUE (id, status)"], there="SELECT conrelid = 'orders'::regclass FROM pg_constraint WHERE conname = 'un_new'"),
    Change("comment", ["COMMENT ON COLUMN orders.status IS 'new'"], ["COMMENT ON COLUMN orders.status IS NULL"], "column status"),
    Change("comment on the table", ["COMMENT ON TABLE orders IS 'new'"], ["COMMENT ON TABLE orders IS NULL"], "the table's own settings"),
    Change("option", ["ALTER TABLE customer_totals SET (fillfactor = 90)"], ["ALTER TABLE customer_totals RESET (fillfactor)"], "customer_totals has been changed since"),
    Change("row security", ["ALTER TABLE customer_totals ENABLE ROW LEVEL SECURITY"], ["ALTER TABLE customer_totals DISABLE ROW LEVEL SECURITY"], "the table's own settings"),
    Change("replica identity", ["ALTER TABLE customer_totals REPLICA IDENTITY FULL"], ["ALTER TABLE customer_totals REPLICA IDENTITY DEFAULT"], "the table's own settings"),
    Change("owner", ["ALTER TABLE customer_totals OWNER TO pg_database_owner"], ["ALTER TABLE customer_totals OWNER TO CURRENT_USER"], "the table's own settings"),
    Change("privilege", ["GRANT SELECT ON orders TO PUBLIC"], ["REVOKE SELECT ON orders FROM PUBLIC"], "privilege SELECT"),
    Change("privilege on a column", ["GRANT UPDATE (note) ON orders TO PUBLIC"], ["REVOKE UPDATE (note) ON orders FROM PUBLIC"], "privilege UPDATE"),
    Change("statistics", ["CREATE STATISTICS st_new ON customer, status FROM orders"], ["DROP STATISTICS st_new"], "statistics object st_new"),
    Change("sequence", ["ALTER TABLE counted ALTER COLUMN n SET INCREMENT 5"], ["ALTER TABLE counted ALTER COLUMN n SET INCREMENT 1"], "sequence counted_n_seq"),
]

_LONG = "l" * 63 + "\u1abc"
_COUNT = "SELECT COUNT(*) FROM information_schema"
_OF_ORDERS = "TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'orders'"
_ON_BOTH = [
    Change("index", ["CREATE INDEX ix_new ON orders (placed_on)"], there=f"{_COUNT}.STATISTICS WHERE {_OF_ORDERS} AND INDEX_NAME = 'ix_new'"),
    Change("renamed index", ["ALTER TABLE orders RENAME INDEX ix_orders_status TO ix_renamed"], there=f"{_COUNT}.STATISTICS WHERE {_OF_ORDERS} AND INDEX_NAME = 'ix_renamed'"),
    Change("dropped index", ["DROP INDEX ix_gone ON orders"], there=f"SELECT COUNT(*) = 0 FROM information_schema.STATISTICS WHERE {_OF_ORDERS} AND INDEX_NAME = 'ix_gone'"),
    Change("changed index", ["ALTER TABLE orders DROP INDEX ix_kept, ADD INDEX ix_kept (updated_at, customer)"], there=f"{_COUNT}.STATISTICS WHERE {_OF_ORDERS} AND INDEX_NAME = 'ix_kept' AND COLUMN_NAME = 'customer'"),
    Change("view", ["CREATE VIEW vw_new AS SELECT id FROM orders"], there="SELECT COUNT(*) FROM vw_new", unseen=True),
    Change("privilege", ["CREATE USER IF NOT EXISTS changes_reader", "GRANT SELECT ON orders TO changes_reader"], there=f"{_COUNT}.TABLE_PRIVILEGES WHERE {_OF_ORDERS}", unseen=True),
    Change("foreign key to another table", ["SET foreign_key_checks = 0", "ALTER TABLE orders ADD CONSTRAINT fk_to FOREIGN KEY (note) REFERENCES kinds (id)"], there=f"{_COUNT}.KEY_COLUMN_USAGE WHERE {_OF_ORDERS} AND CONSTRAINT_NAME = 'fk_to' AND REFERENCED_TABLE_NAME = 'kinds'"),
    # What a plan refuses.
    Change("trigger", ["CREATE TRIGGER tg_new BEFORE INSERT ON orders FOR EACH ROW SET NEW.note = 'seen'"], ["DROP TRIGGER tg_new"], "the trigger tg_new", plan="trigger"),
    Change("foreign key of another table", ["ALTER TABLE notes ADD CONSTRAINT fk_new FOREIGN KEY (order_id) REFERENCES orders (id)"], ["ALTER TABLE notes DROP FOREIGN KEY fk_new"], "the foreign key fk_new of notes", plan="foreign key of another table"),
    Change("taken name", ["CREATE VIEW orders_old AS SELECT 1 AS one"], ["DROP VIEW orders_old"], "the rebuild needs the name orders_old", plan="taken name"),
    Change("storage engine", ["ALTER TABLE counted ENGINE = MyISAM"], ["ALTER TABLE counted ENGINE = InnoDB"], "its storage engine MyISAM", plan="storage engine or history"),
    Change("long constraint", ["SET foreign_key_checks = 0", f"ALTER TABLE orders ADD CONSTRAINT {_LONG} FOREIGN KEY (status) REFERENCES kinds (id)"], [f"ALTER TABLE orders DROP FOREIGN KEY {_LONG}"], "there is no name of 64 letters", plan="long constraint"),
    # What green is compared with.
    Change("unique index", ["CREATE UNIQUE INDEX uq_new ON orders (id, customer)"], ["DROP INDEX uq_new ON orders"], "index uq_new"),
    Change("column", ["ALTER TABLE orders ADD COLUMN more INT"], ["ALTER TABLE orders DROP COLUMN more"], "column more"),
    Change("default", ["ALTER TABLE orders ALTER COLUMN note SET DEFAULT 'other'"], ["ALTER TABLE orders ALTER COLUMN note SET DEFAULT 'none'"], "column note"),
    Change("comment", ["ALTER TABLE orders MODIFY status VARCHAR(20) NOT NULL COMMENT 'new'"], ["ALTER TABLE orders MODIFY status VARCHAR(20) NOT NULL"], "column status"),
    Change("comment on the table", ["ALTER TABLE orders COMMENT 'new'"], ["ALTER TABLE orders COMMENT ''"], "the table's own settings"),
    Change("option", ["ALTER TABLE notes ADD COLUMN more INT", "ALTER TABLE orders STATS_PERSISTENT = 1"], ["ALTER TABLE notes DROP COLUMN more", "ALTER TABLE orders STATS_PERSISTENT = DEFAULT"], "the table's own settings"),
    Change("partitions", ["ALTER TABLE customer_totals PARTITION BY HASH (customer) PARTITIONS 2"], ["ALTER TABLE customer_totals REMOVE PARTITIONING"], "customer_totals has been changed since", alone=True),
]

MYSQL = [
    *_ON_BOTH,
    Change("histogram", ["ANALYZE TABLE orders UPDATE HISTOGRAM ON status WITH 4 BUCKETS"], there=f"{_COUNT}.COLUMN_STATISTICS WHERE SCHEMA_NAME = DATABASE() AND TABLE_NAME = 'orders'"),
    Change("check", ["ALTER TABLE orders ADD CONSTRAINT ck_new CHECK (customer < 1000)"], ["ALTER TABLE orders DROP CHECK ck_new"], "the constraint ck_new", plan="named check"),
    Change("check that follows a rename", ["ALTER TABLE customer_totals ADD CONSTRAINT customer_totals_chk_1 CHECK (customer < 1000)"], ["ALTER TABLE customer_totals DROP CHECK customer_totals_chk_1"], "constraint customer_totals_chk_1"),
]

MARIADB = [
    *_ON_BOTH,
    Change("histogram", ["ANALYZE TABLE orders PERSISTENT FOR ALL"], there="SELECT COUNT(*) FROM mysql.column_stats WHERE db_name = DATABASE() AND table_name = 'orders'"),
    Change("check", ["ALTER TABLE orders ADD CONSTRAINT ck_new CHECK (customer < 1000)"], ["ALTER TABLE orders DROP CONSTRAINT ck_new"], "constraint ck_new"),
    Change("history", ["ALTER TABLE customer_totals ADD SYSTEM VERSIONING"], ["ALTER TABLE customer_totals DROP SYSTEM VERSIONING"], "the history of its rows", plan="storage engine or history", alone=True),
]

_STORED = "SELECT count(*) FROM sqlite_master WHERE tbl_name = 'orders'"
SQLITE = [
    Change("index", ["CREATE INDEX ix_new ON orders (placed_on)"], there=f"{_STORED} AND name = 'ix_new'"),
    Change("unique index", ["CREATE UNIQUE INDEX uq_new ON orders (id, customer)"], there=f"{_STORED} AND name = 'uq_new'"),
    Change("renamed index", ["DROP INDEX ix_orders_status", "CREATE INDEX ix_renamed ON orders (status)"], there=f"{_STORED} AND name = 'ix_renamed'"),
    Change("changed index", ["DROP INDEX ix_kept", "CREATE INDEX ix_kept ON orders (updated_at, customer)"], there=f"{_STORED} AND sql LIKE '%(updated_at, customer)'"),
    Change("dropped index", ["DROP INDEX ix_gone"], there="SELECT count(*) = 0 FROM sqlite_master WHERE name = 'ix_gone'"),
    Change("trigger", ["CREATE TRIGGER tg_new AFTER UPDATE ON orders BEGIN SELECT 1; END"], there=f"{_STORED} AND name = 'tg_new'"),
    Change("trigger of another table", ["CREATE TRIGGER tg_else AFTER INSERT ON notes BEGIN SELECT count(*) FROM orders; END"], there="SELECT sql LIKE '%FROM orders; END' FROM sqlite_master WHERE name = 'tg_else'"),
    Change("view", ["CREATE VIEW vw_new AS SELECT id FROM orders"], there="SELECT count(*) FROM vw_new"),
    Change("statistics", ["ANALYZE orders"], there="SELECT count(*) FROM sqlite_stat1 WHERE tbl = 'orders'"),
    Change("foreign key of another table", ["CREATE TABLE later (order_id TEXT REFERENCES orders (id))"], there="SELECT sql LIKE '%REFERENCES orders (id))' FROM sqlite_master WHERE name = 'later'"),
    # What a plan refuses.
    Change("taken name", ["CREATE VIEW orders_old AS SELECT 1"], ["DROP VIEW orders_old"], "the rebuild needs the name orders_old", plan="taken name"),
    Change("taken name of an index", ["CREATE INDEX ix_kept_old ON notes (order_id)"], ["DROP INDEX ix_kept_old"], "the rebuild needs the name ix_kept_old", plan="taken name"),
    # What green is compared with.
    Change("column", ["ALTER TABLE orders ADD COLUMN more INT"], ["ALTER TABLE orders DROP COLUMN more"], "its columns or constraints"),
]
# fmt: on

CHANGES = {"postgres": POSTGRES, "mysql": MYSQL, "mariadb": MARIADB, "sqlite": SQLITE}

UNTRIED = {
    # A live table cannot become these: it would be another table, which the engine recognises by its identity.
    *("partitioned table", "foreign table", "virtual table"),
    # These need a provider, another server, or a separate role; they are no objects of a table.
    *("security label", "subscription", "forced row security", "grantor", "publication's owner", "owner without CREATE", "owner"),
    *("temporary view", "parent that we may not lock", "defensive mode"),
    # The plan checks this only if the structure changes.
    "taken name of a new foreign key",
}
"""Kinds that the plan refuses, but that the tests cannot bring about during a run."""
