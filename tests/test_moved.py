"""Each module of the engine's version 0.1 is found by its old name, is the module of today, and says where that is."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest

from projection_rebuild.moved import MOVED

ROOT = Path(__file__).parents[1]

EACH = """
import json, sys, warnings
from importlib import import_module
from projection_rebuild.moved import MOVED
found = {}
for old, today in sorted(MOVED.items()):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        module = import_module(f"projection_rebuild.{old}")
    told = any(today in str(each.message) for each in caught)
    found[old] = ["package" if hasattr(module, "__path__") else module is import_module(f"projection_rebuild.{today}"), told]
print(json.dumps(found))
"""


def test_an_old_module_is_the_module_of_today() -> None:
    """In a process of its own, which has imported nothing of the engine by other names."""
    path = {"PYTHONPATH": f"{ROOT / 'include'}"}
    done = subprocess.run([sys.executable, "-c", EACH], env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == MOVED.keys() and len(found) > 80
    modules = {old: said for old, said in found.items() if said[0] != "package"}
    assert {old for old, said in modules.items() if said != [True, True]} == set()
    # What is a package now hands on names instead.
    assert all(MOVED[old].startswith(f"{old}.") for old in found.keys() - modules.keys())


@pytest.mark.parametrize("old", sorted(old for old, today in MOVED.items() if today.startswith(f"{old}.")))
def test_a_package_with_the_name_of_an_old_module_hands_on_its_names(old: str) -> None:
    package, today = import_module(f"projection_rebuild.{old}"), import_module(f"projection_rebuild.{MOVED[old]}")
    named = [name for name, value in vars(today).items() if getattr(value, "__module__", None) == today.__name__]
    assert named
    for name in named:
        with pytest.warns(DeprecationWarning, match=f"{old}.{name} is in {today.__name__} now"):
            assert getattr(package, name) is getattr(today, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("rows", "Rows row RowType RowBuffer RowSource Changes Key Values row_type RecordingRows ProbeRows"),
        ("spec", "RebuildSpec RunOptions load_spec LiveWriter OnError PARAMETERS parse_duration"),
        ("errors", "RebuildError SpecError"),
        ("dialects", "Dialect dialect_for trouble_of"),
        ("authoring", "Projector handles row Rows Event ByAggregate ByPeriod Upcasters"),
    ],
)
def test_a_package_that_is_a_face_has_its_names_without_a_warning(module: str, names: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = import_module(f"projection_rebuild.{module}")
        assert all(hasattr(found, each) for each in names.split())
