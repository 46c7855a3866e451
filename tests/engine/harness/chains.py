"""Six, twelve or thirty tables in chains of foreign keys.

They have no events, because tests look at their schema only.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.dialects import dialect_for
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.rows.types import Rows, row
from projection_rebuild.spec.rebuild import RebuildSpec
from tests.engine.harness import shop


def _row(number: int) -> type:
    fields: dict[str, Any] = {"__annotations__": {"id": str, "seen": int}, "seen": 0}
    return row(f"part {number}", key="id")(type(f"Part{number}", (), fields))


def _projector(count: int) -> type[Projector]:
    kinds = [_row(number) for number in range(count)]

    class Parts(Projector):
        owns = tuple(kinds)

        @handles("Counted")
        def counted(self, event: Event, rows: Rows) -> None:
            """Never runs: the event store is empty."""

    return Parts


Six, Dozen, Thirty = (_projector(count) for count in (6, 12, 30))


def create(engine: sa.Engine, count: int) -> None:
    """Creates tables in chains of three. They refer to tables outside the run and to themselves.

    On SQLite and PostgreSQL, other tables refer to them as well.
    """
    shop.stored_events.create(engine)
    metadata = sa.MetaData()
    options: Any = {"mysql_engine": "InnoDB", "sqlite_autoincrement": True}
    sa.Table("kinds", metadata, sa.Column("id", sa.Integer, primary_key=True), mysql_engine="InnoDB")
    for number in range(count):
        keys = [sa.ForeignKey("kinds.id", name=f"fk kind {number}")]
        before = [sa.Column("before", sa.Integer, sa.ForeignKey(f"part {number - 1}.number", ondelete="CASCADE"))]
        sa.Table(
            f"part {number}",
            metadata,
            sa.Column("number", sa.Integer, primary_key=True),
            sa.Column("id", sa.String(36), nullable=False, unique=True),
            sa.Column("seen", sa.Integer, nullable=False, server_default="0"),
            sa.Column("kind", sa.Integer, *keys),
            sa.Column("other", sa.Integer, sa.ForeignKey("kinds.id", name=f"fk other {number}")),
            sa.Column("within", sa.Integer, sa.ForeignKey(f"part {number}.number", name=f"fk within {number}")),
            *(before if number % 3 else []),
            sa.CheckConstraint("seen >= 0", name=f"part {number}_chk_1"),
            sa.Index(f"ix seen {number}", "seen", "kind"),
            **options,
        )
    metadata.create_all(engine)
    if engine.dialect.name in ("sqlite", "postgresql"):
        _hang(engine)


def _hang(engine: sa.Engine) -> None:
    """Creates dependent objects of the tables: a table outside the run, a view, and on SQLite a trigger."""
    statements = [
        'CREATE TABLE notes (id INTEGER PRIMARY KEY, part INTEGER REFERENCES "part 1" (number))',
        'CREATE VIEW seen AS SELECT a.id, b.seen FROM "part 0" a JOIN "part 1" b ON b.before = a.number',
    ]
    if engine.dialect.name == "sqlite":
        statements += [
            'CREATE TRIGGER told AFTER INSERT ON "part 2" BEGIN INSERT INTO notes (part) VALUES (new.before); END',
            "ANALYZE",
        ]
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def run_of(engine: sa.Engine, name: str, run_id: str, max_pause: str = "60s") -> Rebuild:
    body = {
        "rebuild": "parts",
        "event_store": {"conn_id": "db"},
        "read_models": {"conn_id": "db"},
        "projectors": [f"{__name__}:{name}"],
        "live_writer": "transactional",
        # By default the pause is long enough for all work of a cutover, even on a slow machine.
        "swap": {"max_pause": max_pause},
    }
    return Rebuild(RebuildSpec.model_validate(body), run_id=run_id, event_store=engine, read_models=engine)


def schema_of(engine: sa.Engine) -> dict[str, str]:
    dialect = dialect_for(engine)
    with dialect.connect() as connection:
        definitions = dialect.dependents.definitions(connection, dialect.inspector.default_schema(connection))
    return {name: definition for name, definition in definitions.items() if "sqlite_sequence" not in name}
