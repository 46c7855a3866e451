"""The routes of the page without a browser: what they refuse, and who sees specs that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api import security
from airflow.models.dag import DagModel
from airflow.sdk import Connection
from starlette.testclient import TestClient

from projection_rebuild.spec.load import load_spec
from projection_rebuild_airflow import runs, specs
from projection_rebuild_airflow.page import app as page
from projection_rebuild_airflow.page.watching import Watchers
from tests.engine.harness import shop
from tests.engine.harness.specs import PLAIN

HEADERS = {"X-Projection-Rebuilds": "page"}


class Manager:
    """Allows what a test lets it."""

    def __init__(self) -> None:
        self.dags: set[str | None] = {None, "rebuild_shop", "rollback_shop"}
        self.import_errors = True

    def is_authorized_dag(self, *, details: Any = None, **_: Any) -> bool:
        return (details.id if details else None) in self.dags

    def is_authorized_view(self, *, access_view: AccessView, **_: Any) -> bool:
        return self.import_errors and access_view is AccessView.IMPORT_ERRORS


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Manager:
    made = Manager()
    for module in (page, security):
        monkeypatch.setattr(module, "get_auth_manager", lambda: made)
    monkeypatch.setattr(DagModel, "get_team_name", lambda *_: None)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one usable spec, and one whose text is nobody's business."""
    found = tmp_path / "specs"
    found.mkdir()
    (found / "shop.yaml").write_text(PLAIN)
    (found / "broken.yaml").write_text("rebuild: secret_project\n")
    monkeypatch.setenv(specs.FOLDERS_VARIABLE, str(found))
    monkeypatch.setattr(page, "WATCHERS", Watchers())
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    shop.metadata.create_all(engine)
    engine.dispose()
    connection = Connection(conn_id="shop_db", conn_type="sqlite", host=f"{tmp_path}/shop.db")
    monkeypatch.setattr(runs.BaseHook, "get_connection", lambda _: connection)
    return found


@pytest.fixture
def client(manager: Manager, folder: Path) -> Iterator[TestClient]:
    page.app.dependency_overrides[page.get_user] = lambda: SimpleNamespace(get_name=lambda: "operator")
    with TestClient(page.app, raise_server_exceptions=True) as made:
        yield made
    page.app.dependency_overrides.clear()


def test_specs_that_cannot_be_used_are_shown_to_who_sees_import_errors_and_dags(client: TestClient, manager: Manager) -> None:
    assert "broken.yaml" in client.get("/").text
    manager.import_errors = False
    assert "broken.yaml" not in client.get("/").text
    assert "shop" in client.get("/").text


def test_who_sees_no_dag_sees_no_broken_spec(client: TestClient, manager: Manager) -> None:
    manager.dags = set()
    said = client.get("/")
    assert said.status_code == 200
    assert "broken.yaml" not in said.text and "secret" not in said.text and "Rebuild shop" not in said.text
    assert "There is no rebuild that you may see." in said.text


def test_who_sees_one_dag_only_sees_no_broken_spec(client: TestClient, manager: Manager) -> None:
    manager.dags = {"rebuild_shop"}
    said = client.get("/").text
    assert "Rebuild shop" in said and "broken.yaml" not in said


BODIES = [
    b'{"run_id": "a\\u0000b"}',
    b'{"run_id": "\\ud800"}',
    b'{"run_id": "a\\nb"}',
    b'{"run_id": "' + b"x" * 10_000_000 + b'"}',
    b'{"run_id": "' + b"x" * 511 + b'"}',
    b'{"run_id": 1}',
    b'{"run_id": true}',
    b'{"run_id": NaN}',
    b'{"run_id": ["x"]}',
    b'{"run_id": "x", "\\ud800": 1}',
    b'{"run_id": "x", "more": "' + b"y" * 1_000_000 + b'"}',
    b"[" * 20_000,
    b'{"run_id":' * 5_000,
    b"\xff\xfe",
    b"",
]


@pytest.mark.parametrize("route", ["pause", "resume", "swap-now", "approve", "reject"])
@pytest.mark.parametrize("body", BODIES, ids=lambda each: repr(each[:24]))
def test_a_hostile_body_is_refused_shortly(client: TestClient, route: str, body: bytes) -> None:
    said = client.post(f"/dags/rebuild_shop/{route}", content=body, headers=HEADERS | {"Content-Type": "application/json"})
    assert said.status_code in (400, 422), said.text[:300]
    detail = json.loads(said.text)["detail"]
    assert isinstance(detail, str) and len(detail) < 1_000 and detail.isprintable()


def test_a_hostile_name_of_a_run_has_no_report(client: TestClient) -> None:
    for name in ("a%00b", "x" * 5_000, "a%0ab", "%ed%a0%80%00"):
        said = client.get(f"/dags/rebuild_shop/report?run_id={name}")
        assert said.status_code == 422 and len(said.text) < 1_000, said.text[:300]


def test_a_link_that_leads_nowhere_does_not_take_the_page_away(client: TestClient, folder: Path) -> None:
    (folder / "dangling.yaml").symlink_to(folder / "gone")
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    said = client.get("/")
    assert said.status_code == 200
    assert "dangling.yaml" in said.text and "loop.yaml" in said.text and "Rebuild shop" in said.text


def test_a_folder_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(specs.FOLDERS_VARIABLE, f"{folder}:{folder / 'gone'}:{folder / 'shop.yaml'}")
    found = specs.read_specs()
    assert {path.name for path in found.broken} == {"broken.yaml", "gone", "shop.yaml"}
    assert [spec.rebuild for spec in found.usable.values()] == ["shop"]
    assert load_spec(folder / "shop.yaml").rebuild == "shop"
