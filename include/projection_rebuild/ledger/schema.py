"""The tables of the ledger and their creation. Names, columns and types stay as they are: runs outlive a version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.model.limits import RUN_ID as RUN_ID_LENGTH

_OPTIONS = {
    f"{family}_{option}": value
    for family in ("mysql", "mariadb")
    for option, value in {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin", "row_format": "DYNAMIC"}.items()
}
"""Options of the tables on MySQL and MariaDB: with other defaults of a server or database their keys may not fit."""

_NAME, _RUN_ID, _MOMENT, _TOKEN = sa.String(190), sa.String(RUN_ID_LENGTH), sa.String(32), sa.String(32)
_LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
# The database has to compare these texts with those in the tables as Python does.
_EXACT = sa.String(RUN_ID_LENGTH).with_variant(mysql.VARCHAR(RUN_ID_LENGTH, collation="utf8mb4_bin"), "mysql", "mariadb")


@dataclass(frozen=True)
class Schema:
    """The ledger's tables in one schema of a database."""

    metadata: sa.MetaData
    runs: sa.Table
    claims: sa.Table
    checkpoints: sa.Table
    retired: sa.Table
    greens: sa.Table
    notes: sa.Table
    code: sa.Table
    reports: sa.Table
    dead_letters: sa.Table
    asked: sa.Table
    waits: sa.Table
    parts: sa.Table
    part_keys: sa.Table
    calls: sa.Table

    @property
    def tables(self) -> list[sa.Table]:
        """All tables, in an order in which the engine can create them."""
        return self.metadata.sorted_tables


@cache
def tables_in(schema: str | None) -> Schema:
    """The ledger's tables in one schema of a database; None: the default schema."""
    metadata = sa.MetaData(schema=schema)

    def table(name: str, *columns: sa.Column[Any]) -> sa.Table:
        ledger_table = sa.Table(f"projection_rebuild_{name}", metadata, *columns)
        ledger_table.kwargs.update(_OPTIONS)
        return ledger_table

    return Schema(
        metadata=metadata,
        runs=table(
            "runs",
            sa.Column("run_id", _RUN_ID, primary_key=True),
            sa.Column("rebuild", _NAME, nullable=False),
            sa.Column("state", sa.String(20), nullable=False),
            sa.Column("record", _LONG_TEXT, nullable=False),
            sa.Column("started_at", _MOMENT, nullable=False),
            sa.Column("updated_at", _MOMENT, nullable=False),
        ),
        claims=table(
            "claims",
            sa.Column("table_name", _NAME, primary_key=True),
            sa.Column("run_id", _RUN_ID, nullable=False),
            sa.Column("claimed_at", _MOMENT, nullable=False),
        ),
        checkpoints=table(
            "checkpoints",
            sa.Column("run_id", _RUN_ID, primary_key=True),
            sa.Column("projector", _NAME, primary_key=True),
            # NULL stands for the beginning, since any number may be the position of an event.
            sa.Column("position", sa.BigInteger),
            sa.Column("head", sa.BigInteger),
            sa.Column("events", sa.BigInteger, nullable=False),
            sa.Column("seconds", sa.Float, nullable=False),
            sa.Column("token", _TOKEN, nullable=False),
            sa.Column("updated_at", _MOMENT, nullable=False),
        ),
        retired=table(
            "retired",
            sa.Column("old_name", _NAME, primary_key=True),
            sa.Column("table_name", _NAME, nullable=False),
            sa.Column("run_id", _RUN_ID, nullable=False),
            sa.Column("identity", sa.String(64)),
            sa.Column("retired_at", _MOMENT, nullable=False),
            sa.Column("drop_after", _MOMENT, nullable=False),
        ),
        greens=table(
            "greens",
            sa.Column("green_name", _NAME, primary_key=True),
            sa.Column("run_id", _RUN_ID, nullable=False),
        ),
        notes=table(
            "notes",
            sa.Column("run_id", _RUN_ID, primary_key=True),
            sa.Column("name", sa.String(20), primary_key=True),
            sa.Column("value", _LONG_TEXT, nullable=False),
            sa.Column("said_by", _NAME, nullable=False),
            sa.Column("said_at", _MOMENT, nullable=False),
        ),
        code=table(
            "code",
            sa.Column("run_id", _RUN_ID, primary_key=True),
            sa.Column("projector", _NAME, primary_key=True),
            sa.Column("source", sa.String(16), primary_key=True),
            sa.Column("version", _NAME, nullable=False),
            sa.Column("seen_at", _MOMENT, nullable=False),
        ),
        reports=table(
            "reports",
            sa.Column("run_id", _RUN_ID, primary_key=True),
            sa.Column("started_at", _MOMENT, primary_key=True),
            sa.Column("rebuild", _NAME, nullable=False),
            sa.Column("json", _LONG_TEXT, nullable=False),
            sa.Column("markdown", _LONG_TEXT, nullable=False),
            sa.Column("made_at", _MOMENT, nullable=False),
        ),
        dead_letters=table(
            "dead_letters",
            sa.Column("run_id", _RUN_ID, primary_key=True),
            sa.Column("projector", _NAME, primary_key=True),
            sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("event_type", sa.Text, nullable=False),
            sa.Column("error", sa.String(190), nullable=False),
            sa.Column("recorded_at", _MOMENT, nullable=False),
        ),
        asked=table(
            "asked",
            sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
            sa.Column("run_id", _RUN_ID, nullable=False),
            sa.Column("projector", _NAME, nullable=False),
            sa.Column("shard", sa.Integer, nullable=False),
            sa.Column("table_name", _NAME, nullable=False),
            sa.Column("column_name", _NAME),
            sa.Column("asked", _LONG_TEXT, nullable=False),
        ),
        waits=table(
            "waits",
            sa.Column("run_id", _RUN_ID, primary_key=True),
            sa.Column("worker", _NAME, primary_key=True),
            sa.Column("why", sa.String(1000), nullable=False),
            sa.Column("since", _MOMENT, nullable=False),
            sa.Column("looked_at", _MOMENT, nullable=False),
        ),
        parts=table(
            "parts",
            sa.Column("run_id", _RUN_ID, primary_key=True),
            sa.Column("projector", _NAME, primary_key=True),
            sa.Column("part_id", sa.String(32), nullable=False),
            sa.Column("token", _TOKEN, nullable=False),
            sa.Column("settled", sa.BigInteger),
            sa.Column("updated_at", _MOMENT, nullable=False),
        ),
        part_keys=table(
            "part_keys",
            sa.Column("part_id", sa.String(32), primary_key=True),
            sa.Column("part_key", _EXACT, primary_key=True),
        ),
        calls=table(
            "calls",
            sa.Column("run_id", _RUN_ID, primary_key=True),
            sa.Column("projector", _NAME, primary_key=True),
            sa.Column("after_position", sa.BigInteger),
            sa.Column("upto_position", sa.BigInteger, nullable=False),
            sa.Column("began_at", _MOMENT, nullable=False),
        ),
    )


def create(dialect: Dialect, connection: sa.Connection, schema: Schema) -> None:
    """Creates missing tables, and widens columns of an earlier version. Two runs may call this at once."""
    # One query for all tables, since each step calls this.
    existing = {*sa.inspect(connection).get_table_names(schema=schema.metadata.schema)}
    for table, columns in ((schema.checkpoints, ("position", "head")), (schema.calls, ("after_position",))):
        if table.name in existing:
            _allow_null(dialect, connection, table, columns)
    for table in schema.tables:
        if table.name in existing:
            continue
        try:
            table.create(connection, checkfirst=True)
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated or not exists(dialect, connection, table):
                raise


def exists(dialect: Dialect, connection: sa.Connection, table: sa.Table) -> bool:
    """Whether a table exists; a ledger of an earlier version may lack it until its next run."""
    return dialect.inspector.table_exists(connection, table.schema, table.name)


def _allow_null(dialect: Dialect, connection: sa.Connection, table: sa.Table, columns: Sequence[str]) -> None:
    """Makes columns nullable, so that they can store the beginning, which earlier versions stored as 0.

    A stored 0 may stay: for the earlier version it was the beginning, and that version read no event at or below it.
    """
    if not _refusing_null(connection, table, columns):
        return
    # Import Alembic only here: an application that projects live imports this module, but does not need Alembic.
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    # On SQLite, Alembic creates the table again, so this needs a transaction.
    with dialect.ddl_transaction(connection):
        operations = Operations(MigrationContext.configure(connection))
        for name in _refusing_null(connection, table, columns):
            with operations.batch_alter_table(table.name, schema=table.schema) as batch:
                batch.alter_column(name, existing_type=table.c[name].type, nullable=True)


def _refusing_null(connection: sa.Connection, table: sa.Table, columns: Sequence[str]) -> list[str]:
    described = sa.inspect(connection).get_columns(table.name, schema=table.schema)
    return [column["name"] for column in described if column["name"] in columns and not column["nullable"]]
