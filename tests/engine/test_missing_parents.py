"""Foreign keys to what is not there, and views over it: named in the plan, before anything is touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import PlanError
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.databases import execute, marked
from tests.engine.harness.driver import run_to
from tests.engine.harness.findings import filled, findings_of, matching
from tests.engine.harness.shop import actual, expected
from tests.engine.harness.specs import rebuild

MYSQL_FAMILY = marked("mysql", "mariadb")


@pytest.fixture
def of_a_kind(request: pytest.FixtureRequest, new_database: Callable[[str], sa.URL]) -> sa.Engine:
    """A shop on the database that the test names."""
    made = sa.create_engine(new_database(request.param))
    filled(made)
    request.addfinalizer(made.dispose)
    return made


def unchecked(engine: sa.Engine, *statements: str) -> None:
    execute(engine, "SET SESSION foreign_key_checks = 0", *statements, "SET SESSION foreign_key_checks = 1")


def refused(engine: sa.Engine, *words: str) -> None:
    """The plan is, and has touched nothing."""
    before = set(sa.inspect(engine).get_table_names())
    assert matching(findings_of(engine), *words).refuses
    with pytest.raises(PlanError) as caught:
        rebuild(engine).plan(RunOptions())
    for word in words:
        assert word in str(caught.value)
    assert set(sa.inspect(engine).get_table_names()) == before


@pytest.mark.parametrize("of_a_kind", MYSQL_FAMILY, indirect=True)
def test_a_foreign_key_to_a_table_that_is_not_there_is_named(of_a_kind: sa.Engine) -> None:
    unchecked(of_a_kind, "ALTER TABLE orders ADD CONSTRAINT fk_gone FOREIGN KEY (customer) REFERENCES customers_gone (id)")
    refused(of_a_kind, "orders: the foreign key fk_gone", "customers_gone", "no such table")


@pytest.mark.parametrize("of_a_kind", MYSQL_FAMILY, indirect=True)
def test_a_foreign_key_whose_parent_was_dropped_is_named(of_a_kind: sa.Engine) -> None:
    execute(of_a_kind, "CREATE TABLE customers (id INT PRIMARY KEY)")
    unchecked(
        of_a_kind,
        "ALTER TABLE orders ADD CONSTRAINT fk_gone FOREIGN KEY (customer) REFERENCES customers (id)",
        "DROP TABLE customers",
    )
    refused(of_a_kind, "orders: the foreign key fk_gone", "customers", "no such table")


@pytest.mark.parametrize("of_a_kind", MYSQL_FAMILY, indirect=True)
def test_a_foreign_key_into_another_schema_that_is_not_there_is_named(of_a_kind: sa.Engine) -> None:
    unchecked(
        of_a_kind, "ALTER TABLE orders ADD CONSTRAINT fk_far FOREIGN KEY (customer) REFERENCES nowhere_at_all.customers (id)"
    )
    refused(of_a_kind, "orders: the foreign key fk_far", "nowhere_at_all.customers", "no such table")


@pytest.mark.parametrize("of_a_kind", MYSQL_FAMILY, indirect=True)
def test_all_missing_parents_are_named_at_once(of_a_kind: sa.Engine) -> None:
    unchecked(
        of_a_kind,
        "ALTER TABLE orders ADD CONSTRAINT fk_one FOREIGN KEY (customer) REFERENCES gone_one (id)",
        "ALTER TABLE customer_totals ADD CONSTRAINT fk_two FOREIGN KEY (orders) REFERENCES gone_two (id)",
    )
    findings = [each for each in findings_of(of_a_kind) if each.refuses]
    assert {each.about for each in findings} == {"orders", "customer_totals"}


@pytest.mark.parametrize("of_a_kind", MYSQL_FAMILY, indirect=True)
def test_a_foreign_key_to_a_table_outside_that_is_there_is_none(of_a_kind: sa.Engine) -> None:
    execute(
        of_a_kind,
        "CREATE TABLE customers (id INT PRIMARY KEY)",
        "INSERT INTO customers SELECT DISTINCT json_unquote(json_extract(event_properties, '$.customer')) FROM stored_events "
        "WHERE event_class = 'OrderPlaced'",
        "ALTER TABLE orders ADD CONSTRAINT fk_there FOREIGN KEY (customer) REFERENCES customers (id)",
    )
    assert not [each for each in findings_of(of_a_kind) if each.refuses]
    run_to(rebuild(of_a_kind), "reconcile")


# SQLite lets a definition speak of anything ----------------------------------------------------------------------------


def on_sqlite(engine: sa.Engine, key: str, *before: str) -> None:
    """The table of totals with a foreign key that nobody has checked."""
    execute(
        engine,
        *before,
        "DROP TABLE customer_totals",
        f"CREATE TABLE customer_totals (customer INTEGER PRIMARY KEY, orders INTEGER NOT NULL, spent NUMERIC(14, 2) NOT NULL, {key})",
    )


@pytest.mark.parametrize("of_a_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("key", "before", "words"),
    [
        ("FOREIGN KEY (customer) REFERENCES people (no_such)", ["CREATE TABLE people (id INTEGER PRIMARY KEY)"], ["people", "no_such"]),
        ("FOREIGN KEY (customer) REFERENCES people", ["CREATE TABLE people (id INTEGER)"], ["people", "primary key"]),
        ("FOREIGN KEY (customer, orders) REFERENCES people", ["CREATE TABLE people (id INTEGER PRIMARY KEY)"], ["people", "primary key"]),
    ],
)  # fmt: skip
def test_a_foreign_key_that_sqlite_cannot_follow_is_named(
    of_a_kind: sa.Engine, key: str, before: list[str], words: list[str]
) -> None:
    on_sqlite(of_a_kind, key, *before)
    refused(of_a_kind, "customer_totals: its foreign key", *words)


@pytest.mark.parametrize("of_a_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("key", ["gone (id)", "gone"])
def test_a_foreign_key_that_nobody_checks_on_sqlite_is_told_and_stays(of_a_kind: sa.Engine, key: str) -> None:
    on_sqlite(of_a_kind, f"FOREIGN KEY (customer) REFERENCES {key}")
    told = matching(findings_of(of_a_kind), "customer_totals: its foreign key (customer)", "gone", "no such table")
    assert not told.refuses
    run_to(rebuild(of_a_kind), "drop")
    assert [each["referred_table"] for each in sa.inspect(of_a_kind).get_foreign_keys("customer_totals")] == ["gone"]


@pytest.mark.parametrize("of_a_kind", ["sqlite"], indirect=True)
def test_a_key_to_columns_that_are_not_unique_is_told(of_a_kind: sa.Engine) -> None:
    on_sqlite(of_a_kind, "FOREIGN KEY (customer) REFERENCES people (id)", "CREATE TABLE people (id INTEGER)")
    assert not matching(findings_of(of_a_kind), "customer_totals: its foreign key", "people", "unique").refuses


@pytest.mark.parametrize("of_a_kind", ["sqlite"], indirect=True)
def test_a_strangers_key_that_cannot_be_followed_stands_in_nobodys_way(of_a_kind: sa.Engine) -> None:
    execute(
        of_a_kind,
        "CREATE TABLE keyless (id INTEGER)",
        "CREATE TABLE stranger (id INTEGER PRIMARY KEY, k INTEGER REFERENCES keyless)",
    )
    run_to(rebuild(of_a_kind), "drop")
    on_sqlite(of_a_kind, "CHECK (orders >= 0)")
    execute(
        of_a_kind,
        "DROP TABLE stranger",
        "CREATE TABLE stranger (id INTEGER PRIMARY KEY, a INT, b INT, FOREIGN KEY (a, b) REFERENCES customer_totals)",
    )
    run_to(rebuild(of_a_kind, run_id="next"), "drop")


@pytest.mark.parametrize("of_a_kind", ["sqlite"], indirect=True)
def test_a_foreign_key_that_sqlite_can_follow_is_none(of_a_kind: sa.Engine) -> None:
    on_sqlite(
        of_a_kind,
        "FOREIGN KEY (customer) REFERENCES PEOPLE, FOREIGN KEY (customer) REFERENCES people (Number), FOREIGN KEY (orders) REFERENCES customer_totals",
        "CREATE TABLE people (id INTEGER PRIMARY KEY, number INTEGER UNIQUE)",
    )
    assert not [each for each in findings_of(of_a_kind) if each.refuses]


# Views ------------------------------------------------------------------------------------------------------------------


def test_a_view_over_a_table_that_is_gone_stands_in_nobodys_way(engine: sa.Engine) -> None:
    filled(engine)
    if engine.dialect.name != "postgresql":
        # PostgreSQL drops no table from under a view.
        execute(
            engine,
            "CREATE TABLE short_lived (id INT)",
            "CREATE VIEW broken AS SELECT orders.id FROM orders JOIN short_lived ON short_lived.id = orders.customer",
            "DROP TABLE short_lived",
        )
    with engine.connect() as connection:
        stored = [dict(each._mapping) for each in connection.execute(sa.select(shop.stored_events))]
    made = rebuild(engine)
    run_to(made, "reconcile")
    assert actual(engine) == expected(stored)
    made.drop_old()
