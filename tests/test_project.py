"""The project's own files: what they promise each other."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools import airflow_settings, airflow_up

ROOT = Path(__file__).parents[1]


def test_requirements_are_the_locked_run_time_dependencies() -> None:
    wanted = set((ROOT / "requirements.txt").read_text().split())
    project = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    assert wanted == {each for each in project if not each.startswith("apache-airflow==")}
    locked = dict(re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==([^ ;]+)", (ROOT / "locks" / "runtime.txt").read_text(), re.MULTILINE))
    for each in wanted:
        name, _, version = re.sub(r"\[.*\]", "", each).partition("==")
        assert locked[name.lower()] == version


def test_the_engine_imports_no_airflow_and_nothing_of_the_example() -> None:
    for path in (ROOT / "include" / "projection_rebuild").rglob("*.py"):
        imported = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom)
                else []
            )
        }  # fmt: skip
        wrong = {name for name in imported if name.startswith(("airflow", "include.universal", "projection_rebuilds", "tests"))}
        assert not wrong, path


def test_everything_that_tests_use_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert [each for each in project["dependency-groups"]["dev"] if "==" not in each] == []


def test_no_airflow_of_ours_touches_a_database_of_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    env = airflow_up.environment(tmp_path, 8081)
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{tmp_path}/airflow.db"


def test_a_fast_test_does_not_import_airflow() -> None:
    script = "import sys, tests.conftest, include.projection_rebuild.rebuild; raise SystemExit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_the_settings_file_becomes_connections_pools_and_nothing_more(tmp_path: Path) -> None:
    settings = airflow_settings.read()
    made = settings.environment(tmp_path)
    assert json.loads(made["AIRFLOW_CONN_UNIVERSAL_DB"]) == {"conn_type": "sqlite", "host": f"{tmp_path}/.demo/universal.db"}
    assert json.loads(settings.pools_file())["projection_rebuilds"]["slots"] == 2


@pytest.mark.parametrize("text", ["airflow: {connection: []}", "nothing", "airflow: {pools: [{pool_name: x}]}"])
def test_a_settings_file_that_cannot_be_used_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "airflow_settings.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit, match="airflow_settings"):
        airflow_settings.read(path)


def test_no_file_carries_a_path_of_a_developers_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    home = re.compile(rf"(?<![\w/.-]){re.escape(str(ROOT))}(?![\w-])")
    for name in tracked:
        if not name.endswith(".png"):
            assert not home.search((ROOT / name).read_text(errors="replace")), name


APPLICATION = """
import sys
sys.modules |= dict.fromkeys(["airflow", "alembic", "MySQLdb", "psutil", "tenacity"])
import sqlalchemy
import include.projection_rebuild.live, include.projection_rebuild.pyeventsourcing
from include.projection_rebuild.dialects import dialect_for
dialect_for(sqlalchemy.create_engine("postgresql+psycopg://"))
"""


def test_an_application_needs_the_driver_of_its_own_database_only() -> None:
    """And no more of the packages than docs/guide-pyeventsourcing.md names."""
    done = subprocess.run([sys.executable, "-c", APPLICATION], cwd=ROOT, capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 0, done.stderr
