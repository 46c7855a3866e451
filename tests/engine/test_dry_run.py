"""The SQL that a dry run prints, executed from the shell of each database, leaves the schema that a run leaves."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import dialect_for
from projection_rebuild.events import Event
from projection_rebuild.projector import Projector, handles
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.rows import Rows, row
from projection_rebuild.spec import RebuildSpec, RunOptions
from tests.engine import shop
from tests.engine.test_rebuild import run_to
from tests.servers.postgres import PostgresServer


def _row(number: int) -> type:
    fields: dict[str, Any] = {"__annotations__": {"id": str, "seen": int}, "seen": 0}
    return row(f"part {number}", key="id")(type(f"Part{number}", (), fields))


def _projector(count: int) -> type[Projector]:
    kinds = [_row(number) for number in range(count)]

    class Parts(Projector):
        owns = tuple(kinds)

        @handles("Counted")
        def counted(self, event: Event, rows: Rows) -> None:
            """There are no events: what is looked at is the schema."""

    return Parts


Six, Dozen, Thirty = (_projector(count) for count in (6, 12, 30))
CHOSEN = {"mysql": ("Dozen", 12), "sqlite": ("Thirty", 30)}
SIX = ("Six", 6)


def create(engine: sa.Engine, count: int) -> None:
    """Tables in chains of three, that refer to tables beside the run, and to themselves; others refer to them where that can be done."""
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
    """What may hang on the tables there: a table beside the run, a view, and a trigger on SQLite."""
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
        # By default all that a run does at its switch is done while writers wait, on a slow machine too.
        "swap": {"max_pause": max_pause},
    }
    return Rebuild(RebuildSpec.model_validate(body), run_id=run_id, event_store=engine, read_models=engine)


def schema_of(engine: sa.Engine) -> dict[str, str]:
    dialect = dialect_for(engine)
    with dialect.connect() as connection:
        found = dialect.definitions(connection, dialect.default_schema(connection))
    return {name: said for name, said in found.items() if "sqlite_sequence" not in name}


def _printed(description: str) -> str:
    """What stands in a plan's text, for somebody who copies it."""
    sql = description.partition("  SQL, in this order")[2].partition("\n")[2]
    return sql.rpartition("  Dry run:")[0]


@pytest.fixture
def programs(request: pytest.FixtureRequest, database_kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients of the server's own version, where it brings them along."""
    server = request.getfixturevalue("postgres_server") if database_kind == "postgres" else None
    if isinstance(server, PostgresServer):
        monkeypatch.setenv("PATH", str(server.programs / "bin"), prepend=os.pathsep)
        monkeypatch.setenv("REBUILD_PG_DUMP", str(server.programs / "bin/pg_dump"))


@pytest.fixture
def engines(programs: None, database_kind: str, new_database: Callable[[str], sa.URL]) -> Iterator[list[sa.Engine]]:
    """Two databases with the same tables: for a run, and to be done by hand."""
    made = [sa.create_engine(new_database(database_kind)) for _ in range(2)]
    for engine in made:
        create(engine, CHOSEN.get(database_kind, SIX)[1])
    yield made
    for engine in made:
        engine.dispose()


def _shell(url: sa.URL) -> list[str]:
    """The program that comes with the database, told to end at the first error."""
    where = ["--host", str(url.host), "--port", str(url.port)]
    match url.get_backend_name():
        case "sqlite":
            return ["sqlite3", "-batch", "-bail", str(url.database)]
        case "postgresql":
            return ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *where, "--username", str(url.username), str(url.database)]
    return ["mysql", "--no-defaults", "--default-character-set=utf8mb4", *where, "--user", str(url.username), str(url.database)]


def _by_hand(engine: sa.Engine, sql: str) -> None:
    secret = engine.url.password or ""
    env = os.environ | {"PGPASSWORD": secret, "MYSQL_PWD": secret}
    done = subprocess.run(_shell(engine.url), input=sql, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_printed_sql_leaves_what_a_run_leaves(engines: list[sa.Engine], database_kind: str) -> None:
    one, other = engines
    before = schema_of(one)
    assert schema_of(other) == before
    name = CHOSEN.get(database_kind, SIX)[0]
    planned = run_of(other, name, "dry")
    printed = _printed(planned.plan(RunOptions(dry_run=True)).describe())
    planned.close()
    run = run_of(one, name, "run")
    run_to(run, "reconcile")
    kept = schema_of(one)
    run.drop_old()
    run.close()
    assert schema_of(one) == before
    # As far as the drops, the retired tables are the same, too.
    renamed, dropped = re.split(r"(?m)^(?=    DROP TABLE .*_old)", printed, maxsplit=1)
    _by_hand(other, renamed)
    assert schema_of(other) == kept
    _by_hand(other, dropped)
    assert schema_of(other) == before


def test_the_printed_sql_of_a_rollback_leaves_what_a_rollback_leaves(engines: list[sa.Engine]) -> None:
    one, other = engines
    name, _ = SIX
    for engine in engines:
        run = run_of(engine, name, "run")
        run_to(run, "reconcile")
        run.close()
    planned = run_of(other, name, "dry")
    printed = _printed(planned.plan_rollback(RunOptions(dry_run=True)).describe())
    planned.close()
    back = run_of(one, name, "back")
    back.plan_rollback(RunOptions())
    back.bring_back()
    back.swap()
    back.reconcile()
    back.close()
    _by_hand(other, printed)
    assert schema_of(other) == schema_of(one)
