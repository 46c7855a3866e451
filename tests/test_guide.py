"""The guide for pyeventsourcing's users, done block by block as a new user does it."""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import closing
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.airflow_home import AirflowHome, connection

GUIDE = Path(__file__).parents[1] / "docs" / "getting-started" / "pyeventsourcing.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def bank(tmp_path: Path, postgres_url: sa.URL, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's files, and a database with the tables."""
    for block in blocks("python") + blocks("yaml"):
        if named := re.match(r"# (\S+)\n", block):
            path = tmp_path / named[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block)
    engine = sa.create_engine(postgres_url)
    with engine.begin() as database:
        for block in blocks("sql"):
            database.exec_driver_sql(block)
    engine.dispose()
    settings = {
        "DBNAME": postgres_url.database,
        "HOST": postgres_url.host,
        "PORT": postgres_url.port,
        "USER": postgres_url.username,
    }
    monkeypatch.setenv("PERSISTENCE_MODULE", "eventsourcing.postgres")
    for name, value in (settings | {"PASSWORD": "none"}).items():
        monkeypatch.setenv(f"POSTGRES_{name}", str(value))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [each for each in sys.modules if each.partition(".")[0] == "bank"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def accounts(engine: sa.Engine) -> dict[str, tuple[Decimal, int]]:
    with engine.connect() as database:
        return {row[0]: tuple(row[1:]) for row in database.exec_driver_sql("SELECT owner, balance, movements FROM accounts")}


def test_a_new_user_gets_to_the_first_rebuild(bank: Path, postgres_url: sa.URL, airflow_home: AirflowHome) -> None:
    engine = sa.create_engine(postgres_url)
    with closing(import_module("bank.domain").BankAccounts()) as application:
        ids = {owner: application.open(owner) for owner in ("Ada", "Grace", "Edsger")}
        moves = [("Ada", "10"), ("Grace", "7.50"), ("Ada", "-2.25"), ("Edsger", "1"), ("Ada", "-1")]
        for owner, amount in moves:
            application.move(ids[owner], Decimal(amount))
        import_module("bank.old_worker").follow(engine, application)
        assert accounts(engine)["Ada"] == (Decimal("6.75"), 1)

        for block in blocks("python"):
            if not block.startswith("# "):
                exec(compile(block, GUIDE.name, "exec"), {})  # noqa: S102

        worker = import_module("bank.worker")
        application.move(ids["Grace"], Decimal(-7))
        worker.follow(engine, application)
        assert accounts(engine)["Grace"] == (Decimal("0.50"), 2)

        dry, real = [shlex.split(block) for block in blocks("sh")]
        assert "Dry run" in airflow(airflow_home, bank, postgres_url, dry)
        assert accounts(engine)["Ada"] == (Decimal("6.75"), 1)
        printed = airflow(airflow_home, bank, postgres_url, real)
        assert "1 differ" in printed
        right = {"Ada": (Decimal("6.75"), 3), "Grace": (Decimal("0.50"), 2), "Edsger": (Decimal(1), 1)}
        assert accounts(engine) == right

        # And it goes on.
        application.move(ids["Edsger"], Decimal(4))
        worker.follow(engine, application)
        assert accounts(engine) == right | {"Edsger": (Decimal(5), 2)}
    engine.dispose()


def airflow(home: AirflowHome, bank: Path, url: sa.URL, command: list[str]) -> str:
    """One of the guide's commands; what it printed."""
    env: dict[str, Any] = {
        "AIRFLOW_CONN_BANK_DB": connection(url),
        "PROJECTION_REBUILD_SPECS": str(bank),
        "PYTHONPATH": f"{home.env['PYTHONPATH']}:{bank}",
    }
    done = home.started_airflow(*command[1:], **env)
    assert done.returncode == 0 and "state=success" in done.stdout, done.stdout[-5_000:]
    return done.stdout
