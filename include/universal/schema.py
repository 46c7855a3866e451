"""The application's tables for all four databases: an event store with Spatie's columns, and six read models."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

metadata = sa.MetaData()

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
# Whole seconds everywhere: SQLAlchemy would write microseconds on SQLite.
_TIME = sa.DateTime().with_variant(sqlite.DATETIME(truncate_microseconds=True), "sqlite")  # type: ignore[no-untyped-call]
_ID = sa.String(36)
# It is part of a key, so the database must compare it as Python does: by MySQL's default collation, "cafe" equals
# "Café".
_CATEGORY = sa.String(60).with_variant(mysql.VARCHAR(60, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
_ENGINE: dict[str, Any] = {
    f"{family}_{option}": value
    for family in ("mysql", "mariadb")
    for option, value in {"engine": "InnoDB", "default_charset": "utf8mb4"}.items()
}

stored_events = sa.Table(
    "stored_events",
    metadata,
    sa.Column("id", _BIG, primary_key=True, autoincrement=True),
    sa.Column("aggregate_uuid", _ID),
    sa.Column("aggregate_version", sa.BigInteger),
    sa.Column("event_version", sa.Integer, nullable=False, server_default="1"),
    sa.Column("event_class", sa.String(255), nullable=False),
    sa.Column("event_properties", _JSON, nullable=False),
    sa.Column("meta_data", _JSON, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.UniqueConstraint("aggregate_uuid", "aggregate_version", name="stored_events_aggregate_uuid_aggregate_version_unique"),
    sa.Index("stored_events_aggregate_uuid_index", "aggregate_uuid"),
    sa.Index("stored_events_event_class_index", "event_class"),
    # The database must never reuse a position.
    sqlite_autoincrement=True,
    **_ENGINE,
)

subscriptions = sa.Table(
    "subscriptions",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("user_id", sa.Integer, nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("category", _CATEGORY, nullable=False),
    sa.Column("price_cents", sa.BigInteger, nullable=False),
    sa.Column("status", sa.String(20), nullable=False, server_default="active"),
    sa.Column("started_on", sa.Date, nullable=False),
    sa.Column("renews_on", sa.Date),
    sa.Column("cancelled_on", sa.Date),
    sa.Column("renewals", sa.Integer, nullable=False, server_default="0"),
    sa.CheckConstraint("price_cents >= 0", name="subscriptions_chk_1"),
    sa.CheckConstraint("status IN ('active', 'cancelled')", name="subscriptions_chk_2"),
    sa.Index("subscriptions_user_id_status_index", "user_id", "status"),
    sa.Index("subscriptions_renews_on_index", "renews_on"),
    **_ENGINE,
)

subscription_items = sa.Table(
    "subscription_items",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("subscription_id", _ID, nullable=False),
    sa.Column("description", sa.String(200)),
    sa.Column("quantity", sa.Integer, nullable=False, server_default="1"),
    sa.ForeignKeyConstraint(["subscription_id"], ["subscriptions.id"], name="subscription_items_subscription_id_foreign"),
    sa.CheckConstraint("quantity > 0", name="subscription_items_chk_1"),
    sa.Index("subscription_items_subscription_id_index", "subscription_id"),
    **_ENGINE,
)

payment_history = sa.Table(
    "payment_history",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("subscription_id", _ID, nullable=False),
    sa.Column("amount_cents", sa.BigInteger, nullable=False),
    sa.Column("status", sa.String(20), nullable=False, server_default="received"),
    sa.Column("reason", sa.String(200)),
    sa.Column("paid_at", _TIME, nullable=False),
    sa.ForeignKeyConstraint(["subscription_id"], ["subscriptions.id"], name="payment_history_subscription_id_foreign"),
    sa.CheckConstraint("status IN ('received', 'failed')", name="payment_history_chk_1"),
    sa.Index("payment_history_subscription_id_paid_at_index", "subscription_id", "paid_at"),
    **_ENGINE,
)

expenses = sa.Table(
    "expenses",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("user_id", sa.Integer, nullable=False),
    sa.Column("category", _CATEGORY, nullable=False),
    sa.Column("amount_cents", sa.BigInteger, nullable=False),
    sa.Column("quantity", sa.Integer, nullable=False, server_default="1"),
    sa.Column("note", sa.String(200)),
    sa.Column("spent_on", sa.Date, nullable=False),
    sa.CheckConstraint("amount_cents >= 0", name="expenses_chk_1"),
    sa.Index("expenses_user_id_spent_on_index", "user_id", "spent_on"),
    sa.Index("expenses_category_index", "category"),
    **_ENGINE,
)

category_summaries = sa.Table(
    "category_summaries",
    metadata,
    sa.Column("user_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("category", _CATEGORY, primary_key=True),
    sa.Column("expenses", sa.Integer, nullable=False, server_default="0"),
    sa.Column("total_cents", sa.BigInteger, nullable=False, server_default="0"),
    sa.CheckConstraint("expenses >= 0", name="category_summaries_chk_1"),
    sa.Index("category_summaries_category_index", "category"),
    **_ENGINE,
)

monthly_summaries = sa.Table(
    "monthly_summaries",
    metadata,
    sa.Column("user_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("month", sa.CHAR(7), primary_key=True),
    sa.Column("expenses", sa.Integer, nullable=False, server_default="0"),
    sa.Column("total_cents", sa.BigInteger, nullable=False, server_default="0"),
    sa.CheckConstraint("expenses >= 0", name="monthly_summaries_chk_1"),
    **_ENGINE,
)

READ_MODELS = (subscriptions, subscription_items, payment_history, expenses, category_summaries, monthly_summaries)


def create_schema(engine: sa.Engine, *, event_store: bool = True, read_models: bool = True) -> None:
    """Creates the application's missing tables: all of them, or one side if they are in two databases."""
    tables = [stored_events] if event_store else []
    tables += READ_MODELS if read_models else ()
    metadata.create_all(engine, tables=tables)
