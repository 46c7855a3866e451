"""The project's own files: what they promise each other."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tools import airflow_settings, airflow_up

ROOT = Path(__file__).parents[1]


def pinned(lock: str) -> dict[str, str]:
    """The versions of a lock, by package."""
    text = (ROOT / "locks" / f"{lock}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==([^ ;]+)", text, re.MULTILINE))


def of_project() -> tuple[list[Requirement], list[Requirement]]:
    """What the distribution needs, with all extras, and what an Astro project pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    needed = [*project["project"]["dependencies"], *(each for extra in extras for each in extra)]
    pins = project["dependency-groups"]["deployment"]
    return [Requirement(each) for each in needed], [Requirement(each) for each in pins]


def test_requirements_are_the_locked_run_time_dependencies() -> None:
    wanted = set((ROOT / "requirements.txt").read_text().split())
    pins = of_project()[1]
    assert wanted == {str(each) for each in pins if each.name != "apache-airflow"}
    assert all(re.fullmatch(r"==[\w.]+", str(each.specifier)) for each in pins)
    for lock in ("runtime", "development"):
        locked = pinned(lock)
        assert {str(each.specifier) for each in pins if f"=={locked[each.name.lower()]}" != str(each.specifier)} == set()


def test_the_distribution_needs_ranges_whose_ends_are_locked_for_tests() -> None:
    """Lower ends as the oldest lock, upper ends above the newest; each of them is pinned in an Astro project, too."""
    oldest, newest = pinned("oldest"), pinned("runtime")
    needed, pins = of_project()
    for each in needed:
        operators = {part.operator: part.version for part in each.specifier}
        assert operators.keys() >= {">=", "<"} and "==" not in operators, each
        assert Version(oldest[each.name.lower()]) == Version(operators[">="]), each
        assert newest[each.name.lower()] in each.specifier, each
    # The standard provider comes with Airflow.
    assert {each.name for each in needed} - {each.name for each in pins} == {"apache-airflow-providers-standard"}


def test_the_folders_of_the_packages_are_on_the_path_wherever_the_project_runs() -> None:
    image = re.search(r"^ENV .*PYTHONPATH=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    make = re.search(r"^export PYTHONPATH := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    astro = re.search(r"^PYTHONPATH=(\S+)$", (ROOT / ".env").read_text(), re.MULTILINE)
    assert image and make and astro
    folders = ["", "/include", "/plugins"]
    assert image[1].split(":") == [f"/usr/local/airflow{each}" for each in folders]
    assert make[1].split(":") == [f"$(CURDIR){each}" for each in folders]
    # The CLI's file replaces what the image says; without containers, Airflow runs in the project's folder.
    assert astro[1] == f"{image[1]}:.:include:plugins"
    assert airflow_up.environment(ROOT, 8080)["PYTHONPATH"] == ":".join(f"{ROOT}{each}" for each in folders)


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
        wrong = {
            name
            for name in imported
            if name.startswith(("airflow", "include.universal", "projection_rebuild_airflow", "projection_rebuilds", "tests"))
        }
        assert not wrong, path


def test_everything_that_tests_use_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    assert [each for name in groups for each in groups[name] if "==" not in each] == []


def test_no_airflow_of_ours_touches_a_database_of_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    env = airflow_up.environment(tmp_path, 8081)
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{tmp_path}/airflow.db"


def test_airflow_listens_on_this_machine_alone_and_serves_no_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__HOST", "0.0.0.0")  # noqa: S104 - what it must not take over
    env = airflow_up.environment(tmp_path, 8081)
    assert {each for key, each in env.items() if key.startswith("AIRFLOW__") and key.endswith("HOST")} == {"127.0.0.1"}
    # These two would serve log files on every network; no setting keeps them from it.
    assert all("--skip-serve-logs" in part for part in airflow_up.PARTS if part[0] in ("scheduler", "triggerer"))
    assert {part[0] for part in airflow_up.PARTS} == {"scheduler", "triggerer", "dag-processor", "api-server"}


def test_the_password_is_made_up_once_and_is_its_owners(tmp_path: Path) -> None:
    path = airflow_up.made_password(tmp_path)
    first = path.read_text()
    assert len(json.loads(first)["admin"]) >= 12 and path.stat().st_mode & 0o077 == 0
    assert airflow_up.made_password(tmp_path).read_text() == first
    (tmp_path / "other").mkdir()
    assert airflow_up.made_password(tmp_path / "other").read_text() != first
    said = airflow_up.how_to_open(8081, path)
    assert json.loads(first)["admin"] not in said and path.name in said
    assert "http://localhost:8081" in said and "ssh -L 8081:localhost:8081" in said


def test_when_one_part_ends_the_others_are_ended(tmp_path: Path) -> None:
    sleeps = "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).touch(), sys.exit()))"
    waits = [
        sys.executable,
        "-c",
        f"{sleeps}; pathlib.Path(sys.argv[2]).touch(); time.sleep(600)",
        *(str(tmp_path / each) for each in ("ended", "ready")),
    ]
    ends = [
        sys.executable,
        "-c",
        "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)\nsys.exit(3)",
    ]
    assert airflow_up.run_parts(dict(os.environ), [waits, [*ends, str(tmp_path / "ready")]]) == 3
    assert (tmp_path / "ended").exists()


def test_the_image_is_installed_from_the_lock_with_hashes() -> None:
    image, lock = (ROOT / "Dockerfile").read_text(), (ROOT / "locks" / "runtime.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (installed,) = re.findall(r"^RUN pip install .*$", image, re.MULTILINE)
    assert "--require-hashes -r locks/runtime.txt" in installed
    airflow, python = re.findall(r"^ARG BASE=apache/airflow:([\d.]+)-python([\d.]+)$", image, re.MULTILINE)[0]
    assert f"apache-airflow=={airflow}" in {str(each) for each in of_project()[1]}
    assert f"\napache-airflow=={airflow} " in lock
    assert project["requires-python"].startswith(f">={python}")
    packages = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9]|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert len(packages) > 100 and all("--hash=sha256:" in each for each in packages)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert "locks" not in ignored and "requirements.txt" not in ignored


def test_a_fast_test_does_not_import_airflow() -> None:
    script = "import sys, tests.conftest, projection_rebuild.rebuild; raise SystemExit('airflow' in sys.modules)"
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
import projection_rebuild.live, projection_rebuild.pyeventsourcing
from projection_rebuild.dialects import dialect_for
dialect_for(sqlalchemy.create_engine("postgresql+psycopg://"))
"""


def test_an_application_needs_the_driver_of_its_own_database_only() -> None:
    """And no more of the packages than docs/guide-pyeventsourcing.md names."""
    alone = {"PYTHONPATH": str(ROOT / "include")}
    done = subprocess.run([sys.executable, "-c", APPLICATION], cwd=ROOT, capture_output=True, text=True, env=alone, check=False)
    assert done.returncode == 0, done.stderr
