"""The command that anybody points at a database of their own: what a rebuild would do, and the proof that the schema stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from projection_rebuild import __main__ as command
from projection_rebuild.rebuild import Rebuild
from tests.conftest import Databases
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.shop import events, tables
from tests.engine.harness.specs import SPEC, rebuild
from tests.servers.postgres import PostgresServer

NAMED = {
    "orders": ["orders_chk_1", "ix_orders_status", "placed_on"],
    "order_lines": ["fk_lines_order", "ix_lines_product", "uq_lines"],
}
"""What has a name of its own on every database that tells it; SQLite's constraints are within the columns' text."""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump(SPEC))
    return path


@pytest.fixture
def url(engine: sa.Engine, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shop whose tables are filled and seen through a view."""
    shop.fill(engine, events(200))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW open_orders AS SELECT id, status FROM orders")
    run_to(rebuild(engine, "fill"), "drop")
    if engine.dialect.name == "postgresql" and isinstance(server := databases.server("postgres"), PostgresServer):
        monkeypatch.setenv("REBUILD_PG_DUMP", str(server.programs / "bin/pg_dump"))
    return engine.url.render_as_string(hide_password=False)


@pytest.mark.parametrize(
    ("called", "told"),
    [
        ("/venv/bin/projection-rebuild", "projection-rebuild"),
        ("/lib/projection_rebuild/__main__.py", "python -m projection_rebuild"),
    ],
)
def test_the_help_tells_the_command_as_it_was_called(
    called: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [called])
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert capsys.readouterr().out.startswith(f"usage: {told} [-h]")


def test_a_plan_names_what_is_carried_over_and_touches_nothing(
    engine: sa.Engine, url: str, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tables(engine)
    assert command.main(["plan", str(spec), "--read-models", url]) == 0
    said = capsys.readouterr().out
    carried = [line for line in said.partition("SQL, in this order")[0].splitlines() if line.startswith("    ")]
    for table, names in NAMED.items():
        of_table = "\n".join(line for line in carried if line.startswith(f"    {table}: "))
        within_text = {"orders_chk_1", "fk_lines_order", "uq_lines"} if engine.dialect.name == "sqlite" else set[str]()
        assert [name for name in names if name not in of_table and name not in within_text] == []
    assert "open_orders" in "\n".join(carried)
    assert "CREATE TABLE" in said and "nothing has been touched" in said
    assert tables(engine) == before


def test_the_proof_says_that_the_schema_stays(url: str, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["prove", str(spec), "--read-models", url, "--rebuilds", "2", "--really"]) == 0
    said = capsys.readouterr().out
    assert said.count("the same, statement for statement") == 3
    assert "after a rebuild that was taken back: the same" in said


def test_the_proof_shows_what_has_changed(
    engine: sa.Engine, url: str, spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile = Rebuild.reconcile

    def careless(self: Rebuild) -> object:
        done = reconcile(self)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP VIEW IF EXISTS open_orders")
        return done

    monkeypatch.setattr(Rebuild, "reconcile", careless)
    assert command.main(["prove", str(spec), "--read-models", url, "--rebuilds", "1", "--really"]) == 1
    said = capsys.readouterr().out
    assert "open_orders" in said and "after 1 rebuilds: the same" not in said


def test_a_proof_that_fails_or_is_killed_keeps_no_tables(
    sqlite_url: sa.URL, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.metadata.create_all(engine)
    proof = ["prove", str(spec), "--read-models", sqlite_url.render_as_string(hide_password=False), "--rebuilds", "1", "--really"]
    spec.write_text(yaml.safe_dump(SPEC | {"verify": {"assertions": ["SELECT 1"]}}))
    assert command.main(proof) == 1 and "the assertion" in capsys.readouterr().out
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM projection_rebuild_claims").all() == []
    spec.write_text(yaml.safe_dump(SPEC))
    run_to(rebuild(engine, f"{command.PROVE}that was killed"), "verify")
    command.main(proof)
    said = capsys.readouterr().out
    assert "after a rebuild that was taken back" in said and "is claimed by" not in said


def test_a_refused_rebuild_is_a_line_and_no_traceback(tmp_path: Path, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["plan", str(spec), "--read-models", f"sqlite:///{tmp_path}/empty.db"]) == 1
    assert "there is no table orders" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["plan"], "name the database: --read-models URL"), (["prove", "--read-models", "sqlite://"], "add --really")],
    ids=["no database", "not really"],
)
def test_what_is_missing_is_asked_for(arguments: list[str], words: str, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([arguments[0], str(spec), *arguments[1:]])
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    ["no url, s3cret", "nothing+here://a:s3cret@b/c", "sqlite:///shop.db?mode=ro", "postgresql+psycopg://a:s3cret@b:port/c"],
)
def test_a_url_that_cannot_be_used_as_it_stands_is_refused(given: str, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["plan", str(spec), "--read-models", given]) == 1
    said = capsys.readouterr().out
    assert "REBUILD_READ_MODELS_URL is no URL" in said and "s3cret" not in said
