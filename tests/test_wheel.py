"""The distribution: built, installed beside the oldest and the newest Airflow that it allows, and used from a project of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = ROOT / ".tools" / "uv" / "bin" / "uv"

# Locks and the Airflow that each stands for: all lower ends of the ranges, and what runs in our own image.
AIRFLOWS = {"oldest": ("locks/oldest.txt", "3.2.0"), "newest": ("locks/runtime.txt", "3.3.2")}

pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("wheel")]

DAG_FILE = """\
from projection_rebuild_airflow import rebuild_dags

globals().update(rebuild_dags())
"""

SPEC = """\
rebuild: shop
event_store: {conn_id: shop_db}
read_models: {conn_id: shop_db}
projectors: ["shop_projectors:StockProjector"]
live_writer: transactional
low_traffic: {window: "01:00-05:00"}
"""

PROJECTORS = """\
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.rows.types import Rows, row


@row("stock", key="product")
class Stock:
    product: str
    pieces: int = 0


class StockProjector(Projector):
    owns = (Stock,)

    @handles("Delivered")
    def delivered(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(Stock, event.stream).pieces += event["pieces"]
"""

DATABASE = """
CREATE TABLE stored_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, aggregate_uuid VARCHAR(36), aggregate_version INTEGER, event_version INTEGER NOT NULL DEFAULT 1,
    event_class VARCHAR(255) NOT NULL, event_properties JSON NOT NULL, meta_data JSON NOT NULL, created_at DATETIME NOT NULL
);
CREATE TABLE stock (product VARCHAR(36) PRIMARY KEY, pieces INTEGER NOT NULL);
INSERT INTO stock VALUES ('tea', 1), ('coffee', 7);
"""

LOOK_AROUND = """
import json, sys, warnings
from importlib.resources import files
from airflow import plugins_manager
plugins_manager.ensure_plugins_loaded()
from projection_rebuild_airflow.page.app import ASSETS, _templates
assets = [len(files("projection_rebuild_airflow.page").joinpath("assets", each).read_bytes()) for each in ASSETS]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from projection_rebuilds.triggers.low_traffic import LowTrafficTrigger as old
from projection_rebuild_airflow.triggers.low_traffic import LowTrafficTrigger as new
print(json.dumps({
    "plugins": [str(each["source"]) for each in plugins_manager.get_plugin_info() if each["name"] == "projection_rebuilds"],
    "errors": plugins_manager.get_import_errors(),
    "assets": all(assets),
    "templates": sorted(_templates.list_templates()),
    "old path": old is new and any("projection_rebuilds.triggers.low_traffic is now" in str(each.message) for each in caught),
    "from the repository": [each for each in sys.path if each.startswith(sys.argv[1])],
}))
"""


def run(*command: str | Path, cwd: Path | None = None, **env: str) -> str:
    """What a command prints, in an environment that knows nothing of this repository and of no other Airflow."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON", "PROJECTION_", "VIRTUAL_"))
    }
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        env=clean | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5_000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that is built from it, as ``make dist`` makes them."""
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--build-constraints", "locks/build.txt", "--require-hashes", "--out-dir", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def install(wheel: Path, extras: str, lock: str, into: Path) -> Path:
    """A fresh virtual environment with the wheel; its folder of programs."""
    run(UV, "venv", "--quiet", "--python", sys.executable, into)
    uv_pip = (UV, "pip", "install", "--quiet", "--python", into / "bin" / "python")
    run(*uv_pip, f"projection-rebuilds[{extras}] @ {wheel.as_uri()}", "--constraints", ROOT / lock)
    return into / "bin"


@dataclass(frozen=True)
class Project:
    """An Airflow project of somebody else: DAG files, a folder of specs, and an application beside it.

    :param bin: where its virtual environment has its programs
    :param airflow: the version of Airflow in it
    """

    folder: Path
    bin: Path
    airflow: str

    @property
    def database(self) -> Path:
        """Events and read models."""
        return self.folder / "shop.db"

    @property
    def env(self) -> dict[str, str]:
        """What its Airflow is told; nothing of it is about rebuilds but the connection."""
        return {
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.folder / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.folder / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_SHOP_DB": json.dumps({"conn_type": "sqlite", "host": str(self.database)}),
            "PYTHONPATH": str(self.folder / "application"),
        }

    def run(self, program: str, *words: str) -> str:
        """What one of its programs prints."""
        return run(self.bin / program, *words, cwd=self.folder, **self.env)


@pytest.fixture(scope="module", params=AIRFLOWS)
def project(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    lock, airflow = AIRFLOWS[request.param]
    folder = tmp_path_factory.mktemp(f"project_{request.param}")
    for name, text in {
        "dags/rebuilds.py": DAG_FILE,
        "dags/rebuilds/shop.yaml": SPEC,
        "application/shop_projectors.py": PROJECTORS,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "plugins").mkdir()
    made = Project(folder, install(wheel, "airflow", lock, folder / "venv"), airflow)
    with sqlite3.connect(made.database) as connection:
        connection.executescript(DATABASE)
        events = [("tea" if each % 2 else "coffee", json.dumps({"pieces": each})) for each in range(1, 11)]
        connection.executemany(
            "INSERT INTO stored_events VALUES (NULL, ?, NULL, 1, 'Delivered', ?, '{}', '2026-01-01 00:00:00')", events
        )
    connection.close()
    return made


def test_both_packages_are_in_the_wheel_with_all_their_files_and_nothing_else(wheel: Path) -> None:
    sources = [
        ROOT / "include" / "projection_rebuild",
        ROOT / "plugins" / "projection_rebuild_airflow",
        ROOT / "plugins" / "projection_rebuilds",
    ]
    expected = {
        str(path.relative_to(source.parent))
        for source in sources
        for path in source.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    assert names == expected
    assert {"projection_rebuild/py.typed", "projection_rebuild_airflow/py.typed"} <= names
    assert {name.rpartition(".")[2] for name in names} == {"py", "typed", "md", "html", "css", "js", "svg"}
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    pinned = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "==" in line.partition(";")[0]]
    assert pinned == []


def test_the_sdist_holds_what_the_wheel_is_built_from(dist: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (path,) = dist.glob("*.tar.gz")
    assert path.name == f"projection_rebuilds-{version}.tar.gz"
    with tarfile.open(path) as archive:
        top = {name.split("/")[1] for name in archive.getnames()}
    assert top == {"include", "plugins", "CHANGELOG.md", "LICENSE", "README.md", "PKG-INFO", "pyproject.toml", ".gitignore"}


def test_the_engine_alone_needs_no_airflow(wheel: Path, tmp_path: Path) -> None:
    programs = install(wheel, "postgres", "locks/runtime.txt", tmp_path / "venv")
    listed = {
        each["name"]
        for each in json.loads(run(UV, "pip", "list", "--format", "json", "--python", programs / "python", "--quiet"))
    }
    assert {"projection-rebuilds", "psycopg", "psycopg-binary"} <= listed
    assert not {each for each in listed if each.startswith("apache-airflow")} | listed & {"mysqlclient", "fastapi", "jinja2"}
    (tmp_path / "shop_projectors.py").write_text(PROJECTORS, encoding="utf-8")
    (tmp_path / "shop.yaml").write_text(SPEC, encoding="utf-8")
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.executescript(DATABASE)
    connection.close()
    words = ("plan", "shop.yaml", "--read-models", f"sqlite:///{tmp_path}/shop.db")
    printed = run(programs / "projection-rebuild", *words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "stock_rebuild" in printed
    module = run(programs / "python", "-m", "projection_rebuild", *words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert re.sub(r"\d", "", module) == re.sub(r"\d", "", printed)
    needed = "import projection_rebuild.rebuild, projection_rebuild.replay.inline, projection_rebuild.testing, projection_rebuild.dialects.postgres.dialect"
    run(programs / "python", "-W", "error", "-c", needed, cwd=tmp_path)


def test_a_rebuild_in_a_project_of_somebody_else(project: Project) -> None:
    asked = "from importlib.metadata import version; print(version('apache-airflow'))"
    assert project.run("python", "-c", asked).strip() == project.airflow
    project.run("airflow", "db", "migrate")
    conf = json.dumps({"swap_now": True, "keep_old": False, "max_count_drift_percent": 100})
    printed = project.run("airflow", "dags", "test", "rebuild_shop", "-c", conf)
    (ended,) = [line for line in printed.splitlines() if "DagRun Finished" in line]
    assert "state=success" in ended, printed[-5_000:]
    with sqlite3.connect(project.database) as connection:
        rows = connection.execute("SELECT * FROM stock ORDER BY product").fetchall()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert rows == [("coffee", 30), ("tea", 25)]
    assert not {"stock_rebuild", "stock_old"} & tables


def test_airflow_has_the_page_once(project: Project) -> None:
    """Also where the plug-in's file of an Astro project is left in the folder."""
    shutil.copy(ROOT / "plugins" / "projection_rebuilds_plugin.py", project.folder / "plugins")
    found = json.loads(project.run("python", "-c", LOOK_AROUND, str(ROOT)).splitlines()[-1])
    (source,) = found.pop("plugins")
    assert "projection-rebuilds==" in source
    templates = sorted(path.name for path in (ROOT / "plugins" / "projection_rebuild_airflow" / "page" / "templates").iterdir())
    assert found == {"errors": {}, "assets": True, "templates": templates, "old path": True, "from the repository": []}
