"""What the documents promise to be complete about."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import include.projection_rebuild
from include.projection_rebuild.errors import RebuildError
from include.projection_rebuild.spec import NotifySection

DOCS = Path(__file__).parents[1] / "docs"


def all_errors() -> set[str]:
    for module in pkgutil.walk_packages(include.projection_rebuild.__path__, "include.projection_rebuild."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, waiting = set(), [RebuildError]
    while waiting:
        each = waiting.pop()
        # Those of the tests are nobody's on call.
        found |= {each.__name__} if each.__module__.startswith("include.") else set()
        waiting += each.__subclasses__()
    return found - {"RebuildError"}


def test_who_is_on_call_finds_every_alert_and_every_error() -> None:
    text = (DOCS / "on-call.md").read_text(encoding="utf-8")
    missing = {name for name in all_errors() | NotifySection.model_fields.keys() if f"`{name}`" not in text}
    assert not missing, f"say in docs/on-call.md what happened, what state the tables are in, and what to do: {missing}"
