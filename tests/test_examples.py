"""The code of pages for authors, block by block as it stands on the page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from include.universal import events, independent
from include.universal.schema import create_schema
from projection_rebuild.authoring import Event, Projector
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.rows import RowBuffer

DOCS = Path(__file__).parents[1] / "docs"


def executed(page: str, **given: Any) -> dict[str, Any]:
    """What a page's Python has made, all blocks in one module.

    :param given: what the reader brings along
    """
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    made = {"__name__": __name__} | given
    for block in blocks:
        exec(compile(block, page, "exec"), made)  # noqa: S102
    return made


def append(connection: sa.Connection, stream: str, kind: str, payload: Mapping[str, Any]) -> Event:
    """Appends to a store that is not there."""
    return Event(position=1, stream=stream, type=kind, payload=payload)


def test_the_first_projector_is_complete() -> None:
    made = executed("getting-started/first-rebuild.md")
    projector, rows = made["SubscriptionProjector"](), RowBuffer()
    assert isinstance(projector, Projector)
    projector.project(Event(position=1, stream="s", type="SubscriptionCreated", payload={"plan": "basic"}), rows)
    projector.project(Event(position=2, stream="s", type="SubscriptionCancelled", payload={}), rows)
    assert rows.get(made["Subscription"], "s") == made["Subscription"](id="s", plan="basic", status="cancelled")


def test_the_tutorial_on_projectors_runs_to_its_end(sqlite_url: sa.URL) -> None:
    engine = sa.create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE subscriptions (id TEXT PRIMARY KEY, plan TEXT NOT NULL, status TEXT NOT NULL)")
    executed("how-to/write-a-projector.md", engine=engine, append=append)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM subscriptions").all() == [("s-1", "basic", "active")]
    engine.dispose()


def test_a_run_by_the_class_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "include").symlink_to(DOCS.parent / "include")
    (tmp_path / ".demo").mkdir()
    monkeypatch.chdir(tmp_path)
    database = sa.create_engine("sqlite:///.demo/universal.db")
    create_schema(database)
    events.append_all(database, events.generate(200))
    executed("reference/command-line.md")
    assert independent.actual_tables(database) == independent.expected_tables(database)
    assert not [name for name in sa.inspect(database).get_table_names() if name.endswith(("_old", "_rebuild"))]
    database.dispose()


def test_the_reference_names_each_verb() -> None:
    page = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    verbs = [name for name in vars(Rebuild) if not name.startswith("_")]
    assert len(verbs) > 30 and [name for name in verbs if f"`{name}(" not in page] == []


@pytest.mark.parametrize(
    "name", [name for name, hint in Projector.__annotations__.items() if "ClassVar" in str(hint) and name[0] != "_"]
)
def test_the_reference_names_each_attribute_of_a_projector(name: str) -> None:
    page = (DOCS / "reference" / "projector-api.md").read_text(encoding="utf-8")
    assert f"\n| `{name}` | " in page.partition("\n## Projector classes\n")[2]
