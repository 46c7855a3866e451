"""The application's own tables, as its databases really keep them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from include.universal.schema import READ_MODELS, create_schema, stored_events

NAMES = {table.name for table in READ_MODELS}


@pytest.mark.parametrize(
    ("event_store", "read_models", "made"),
    [(True, True, NAMES | {"stored_events"}), (True, False, {"stored_events"}), (False, True, NAMES)],
)
def test_either_side_can_be_made_alone(engine: sa.Engine, event_store: bool, read_models: bool, made: set[str]) -> None:
    create_schema(engine, event_store=event_store, read_models=read_models)
    assert set(sa.inspect(engine).get_table_names()) == made


def test_making_it_again_changes_nothing(engine: sa.Engine) -> None:
    create_schema(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO monthly_summaries (user_id, month, expenses) VALUES (1, '2024-01', 3)")
    create_schema(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT expenses, total_cents FROM monthly_summaries").one() == (3, 0)


def test_every_index_and_foreign_key_has_a_name_of_its_own(engine: sa.Engine) -> None:
    create_schema(engine)
    inspected = sa.inspect(engine)
    for table in (stored_events, *READ_MODELS):
        wanted = {index.name for index in table.indexes}
        assert wanted <= {index["name"] for index in inspected.get_indexes(table.name)}
        foreign = {key.name for key in table.foreign_key_constraints}
        assert foreign == {key["name"] for key in inspected.get_foreign_keys(table.name)}


def test_categories_differ_as_they_differ_in_python(engine: sa.Engine) -> None:
    create_schema(engine)
    names = ["cafe", "Cafe", "café", "CAFÉ"]
    with engine.begin() as connection:
        table = sa.table("category_summaries", sa.column("user_id"), sa.column("category"), sa.column("expenses"))
        connection.execute(table.insert(), [{"user_id": 1, "category": name, "expenses": 1} for name in names])
        assert set(connection.execute(sa.select(table.c.category)).scalars()) == set(names)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO monthly_summaries (user_id, month, expenses) VALUES (1, '2024-01', -1)",
        "INSERT INTO subscription_items (id, subscription_id) VALUES ('a', 'nobody')",
        "INSERT INTO payment_history (id, subscription_id, amount_cents, status, paid_at) "
        "VALUES ('a', 'nobody', 1, 'maybe', '2024-01-01 00:00:00')",
    ],
)
def test_what_cannot_be_is_refused(engine: sa.Engine, statement: str) -> None:
    create_schema(engine)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        # MySQL calls a violated CHECK an operational error.
        with pytest.raises((sa.exc.IntegrityError, sa.exc.OperationalError)):
            connection.exec_driver_sql(statement)
