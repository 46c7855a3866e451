"""The import paths of version 0.1 give the modules of today."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from projection_rebuild.old_paths import OldPaths

ROOT = Path(__file__).parents[1]

# What users, specs and Airflow's records name by the paths of version 0.1.
KNOWN = [
    ("include.projection_rebuild.projector", "Projector"),
    ("include.projection_rebuild.values", "plain_type"),
    ("include.projection_rebuild.live", "project_live"),
    ("include.projection_rebuild.testing", "assert_agrees"),
    ("include.projection_rebuild.pyeventsourcing", "event_of"),
    ("include.projection_rebuild.dialects.mysql", "MySQLDialect"),
    ("projection_rebuilds.triggers.low_traffic", "LowTrafficTrigger"),
    ("projection_rebuilds.notify", "deadline_missed"),
    ("projection_rebuilds.operators.rebuild", "AtomicSwapOperator"),
    ("projection_rebuilds.operator_links", "RollbackLink"),
    ("projection_rebuilds.dag_factory", "rebuild_dags"),
]


def run(script: str, *arguments: str, path: tuple[str, ...] = ("", "include", "plugins")) -> str:
    """What a fresh Python prints that knows these folders of the project."""
    folders = os.pathsep.join(str(ROOT / each) for each in path)
    done = subprocess.run(
        [sys.executable, "-W", "default::DeprecationWarning", "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": folders},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


EACH = """
import json, sys, warnings
from importlib import import_module
warnings.simplefilter("ignore")
known, new_first = json.loads(sys.argv[1])
for old, today, name in known:
    if new_first:
        import_module(today)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        found = getattr(import_module(old), name)
    said = [str(each.message) for each in caught if f"{old} is now" in str(each.message)]
    there = sys.modules[found.__module__]
    print(json.dumps([old, name, sys.modules[old] is there and getattr(there, name) is found, len(said)]))
"""


@pytest.mark.airflow
@pytest.mark.parametrize("new_first", [False, True])
def test_an_old_path_gives_the_module_of_today_with_a_warning(new_first: bool) -> None:
    """In a process that has imported nothing of ours before."""
    renamed = {"include.projection_rebuild": "projection_rebuild", "projection_rebuilds": "projection_rebuild_airflow"}
    known = [
        (old, next(new + old.removeprefix(each) for each, new in renamed.items() if old.startswith(f"{each}.")), name)
        for old, name in KNOWN
    ]
    printed = run(EACH, json.dumps([known, new_first])).splitlines()
    found = [json.loads(line) for line in printed if line.startswith("[")]
    assert found == [[old, name, True, 1] for old, name in KNOWN]


def test_the_warning_names_the_line_that_imports() -> None:
    printed = run("import this\nfrom include.projection_rebuild import plan")
    assert "<string>:2: DeprecationWarning: include.projection_rebuild.plan is now" in printed


def test_names_of_a_package_are_those_of_today() -> None:
    with pytest.warns(DeprecationWarning, match="include.projection_rebuild.dialects is now"):
        found = import_module("include.projection_rebuild.dialects").dialect_for
    assert found is import_module("projection_rebuild.dialects").dialect_for
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        import_module("include.projection_rebuild").nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match=r"include\.projection_rebuild\.nothing"):
        import_module("include.projection_rebuild.nothing")


def test_the_command_of_version_0_1_still_works() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "default::DeprecationWarning", "-m", "include.projection_rebuild", "--help"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "--read-models" in done.stdout
    assert "include.projection_rebuild.__main__ is now projection_rebuild.__main__" in done.stderr


def test_a_project_needs_no_folder_on_its_path_beside_those_of_version_0_1() -> None:
    assert "ok" in run("from include.projection_rebuild.live import project_live; print('ok')", path=("",))


def test_project_inline_has_its_first_name_too() -> None:
    inline = import_module("projection_rebuild.replay.inline")
    assert inline.project_live is inline.project_inline


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package ``shop`` whose modules have moved since it was called ``bygone.shop``; one of today's has an old one's name."""
    files = {
        "bygone/__init__.py": "",
        "shop/__init__.py": "",
        "shop/till/__init__.py": "PLACE = 'shop.till'",
        "shop/till/money.py": "PLACE = 'shop.till.money'",
        "shop/stock.py": "PLACE = 'shop.stock'",
        "shop/rooms/__init__.py": "",
        "shop/rooms/cellar.py": "PLACE = 'shop.rooms.cellar'",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    table = {"shop.till": "shop.till.money", "shop.cellar": "shop.rooms.cellar", "shop.below.cellar": "shop.rooms.cellar"}
    before = set(sys.modules)
    sys.meta_path.insert(0, OldPaths({"bygone.shop": "shop"}, table))
    sys.meta_path.append(OldPaths({"shop": "shop"}, table))
    yield
    del sys.meta_path[0], sys.meta_path[-1]
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.usefixtures("moved")
@pytest.mark.parametrize(
    ("old", "today"),
    [
        ("bygone.shop.stock", "shop.stock"),
        ("bygone.shop.till", "shop.till.money"),
        ("bygone.shop.cellar", "shop.rooms.cellar"),
        ("bygone.shop.below.cellar", "shop.rooms.cellar"),
        ("shop.cellar", "shop.rooms.cellar"),
        ("shop.below.cellar", "shop.rooms.cellar"),
    ],
)
def test_a_module_that_has_moved_is_found_by_each_path_that_it_had(old: str, today: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is now {today};"):
        found = import_module(old)
    assert found is import_module(today) and found.PLACE == today and found.__spec__ is not None and found.__spec__.name == today


@pytest.mark.usefixtures("moved")
def test_an_old_module_does_not_hide_the_new_package_of_its_name() -> None:
    with pytest.warns(DeprecationWarning):
        old = import_module("bygone.shop.till")
    script = "from shop import till\nimport shop.till.money as money"
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(script, names)  # noqa: S102 - an import statement, as a reader writes it
    assert names["till"] is import_module("shop.till") and names["money"] is old


def test_every_module_that_has_moved_is_found_by_its_old_path() -> None:
    """In a process of its own: nothing but the tests uses an old path."""
    script = """
import json, sys, warnings
from importlib import import_module
from importlib.util import find_spec
warnings.simplefilter("ignore")
import include
moved = import_module("projection_rebuild.moved").MOVED if find_spec("projection_rebuild.moved") else {"projector": "projector"}
for old, today in moved.items():
    there = import_module(f"projection_rebuild.{today}")
    assert import_module(f"include.projection_rebuild.{old}") is there or hasattr(there, "__path__"), old
print(json.dumps(sorted(moved)))
"""
    assert json.loads(run(script).splitlines()[-1])
