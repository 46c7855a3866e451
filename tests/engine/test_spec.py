"""Specs and run options: what is accepted, and how a mistake is named."""

from __future__ import annotations

from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from projection_rebuild.errors import SpecError
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.registry import ProjectorRegistry
from projection_rebuild.spec.windows import Window

MINIMAL: dict[str, Any] = {
    "rebuild": "shop",
    "event_store": {"conn_id": "db"},
    "read_models": {"conn_id": "db"},
    "projectors": ["tests.engine.harness.shop:OrderProjector"],
    "live_writer": "transactional",
}


def _write(tmp_path: Path, **changes: Any) -> Path:
    given = {key: value for key, value in (MINIMAL | changes).items() if value is not ...}
    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump(given), encoding="utf-8")
    return path


def test_a_minimal_spec_has_sensible_defaults(tmp_path: Path) -> None:
    spec = load_spec(_write(tmp_path))
    assert load_spec(str(_write(tmp_path))) == spec
    assert spec.event_store.table == "stored_events"
    assert spec.event_store.columns.type == "event_class"
    assert spec.verify.max_count_drift_percent == 5
    assert spec.retention.drop_after == timedelta(hours=72)
    assert list(ProjectorRegistry.load(spec)) == ["OrderProjector"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shedule": "0 2 * * *"}, ["shop.yaml", "shedule", "no such key"]),
        ({"schedule": "at night"}, ["schedule", "cron"]),
        ({"timezone": "Mars/Olympus"}, ["timezone", "Europe/Amsterdam"]),
        ({"live_writer": "somehow"}, ["live_writer", "transactional"]),
        ({"live_writer": ...}, ["live_writer", "required"]),
        ({"live_writer": "checkpointed"}, ["live_writer", "name_column"]),
        ({"live_writer": "detached"}, ["live_writer", "drain_check", "jobs_left"]),
        (
            {"live_writer": {"contract": "detached", "drain_check": "SELECT 0", "jobs_left": "SELECT 1"}},
            ["live_writer", "either"],
        ),
        ({"live_writer": {"contract": "transactional", "drain_check": "SELECT 0"}}, ["live_writer", "detached"]),
        ({"projectors": []}, ["projectors"]),
        ({"projectors": ["nowhere.to:Find"]}, ["nowhere", "importing"]),
        ({"projectors": ["tests.engine.harness.shop:Order"]}, ["tests.engine.harness.shop", "no projector class"]),
        (
            {"projectors": ["tests.engine.harness.shop:OrderProjector", "tests.engine.harness.shop:Rival"]},
            ["orders", "OrderProjector", "Rival"],
        ),
        ({"swap": {"max_pause": "soon"}}, ["swap.max_pause", "2s"]),
        ({"swap": {"max_pause": 2}}, ["swap.max_pause", "unit"]),
        ({"low_traffic": {"window": "night"}}, ["low_traffic.window", "01:00-05:00"]),
        ({"verify": {"max_count_drift_percent": 101}}, ["verify.max_count_drift_percent", "100"]),
        ({"event_store": {"conn_id": "db", "columns": {"pos": "id"}}}, ["event_store.columns.pos"]),
    ],
)
def test_a_mistake_is_named_by_file_key_and_remedy(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(_write(tmp_path, **changes))
    for word in ["shop.yaml", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "{", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"shop\.yaml"):
        load_spec(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("2s", timedelta(seconds=2)),
        ("1.5h", timedelta(minutes=90)),
        ("3 d", timedelta(days=3)),
    ],
)
def test_durations(tmp_path: Path, text: str, expected: timedelta) -> None:
    assert load_spec(_write(tmp_path, retention={"drop_after": text})).retention.drop_after == expected


def test_options_survive_the_ledger() -> None:
    options = RunOptions.parse({"projectors": ["A"], "drop_after": "90m", "reason": "why"})
    assert RunOptions.model_validate(options.model_dump(mode="json")) == options


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"projectors": []}, "projectors"),
        ({"projectors": "A"}, "projectors"),
        ({"max_count_drift_percent": -1}, "max_count_drift_percent"),
        ({"drop_after": "later"}, "drop_after"),
        ({"dryrun": True}, "dryrun"),
    ],
)
def test_a_wrong_option_names_its_field(given: dict[str, Any], word: str) -> None:
    with pytest.raises(SpecError, match=word):
        RunOptions.parse(given)


def test_windows_reach_across_midnight() -> None:
    night = Window(start=time(23), end=time(5))
    assert night.contains(time(23))
    assert night.contains(time(4, 59))
    assert not night.contains(time(5))
    assert not night.contains(time(12))
