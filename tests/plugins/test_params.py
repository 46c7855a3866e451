"""The trigger form, and what the server makes of a run's params."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import include
from projection_rebuild.errors import SpecError
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.windows import StageSection
from projection_rebuild_airflow.params import form, options_from, rollback_form, rollback_options_from


@pytest.fixture(scope="module")
def spec() -> RebuildSpec:
    return load_spec(Path(include.__path__[0]) / "rebuilds" / "universal.yaml")


def defaults(spec: RebuildSpec) -> dict[str, Any]:
    return {name: param.value for name, param in form(spec).items()}


def test_the_defaults_rebuild_everything_as_the_spec_says(spec: RebuildSpec) -> None:
    options = options_from(defaults(spec))
    assert options.projectors is not None and set(options.projectors) == set(spec.load_projectors())
    assert (options.drop_after, options.max_count_drift_percent, options.keep_old) == (None, None, True)
    assert not (options.dry_run or options.swap_now or options.rebuild_dependents)


def test_every_param_has_a_valid_default_a_title_and_a_section(spec: RebuildSpec) -> None:
    for name, param in [*form(spec).items(), *rollback_form(spec).items()]:
        param.resolve()
        assert param.schema["title"] and param.schema["section"] and param.schema["description_md"], name


def test_the_page_names_each_field_of_the_form(spec: RebuildSpec) -> None:
    staged = spec.model_copy(update={"stages": (StageSection(name="first", projectors=("ExpenseProjector",)),)})
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "trigger.md").read_text(encoding="utf-8")
    fields = form(staged)
    assert "replay_now" in fields
    assert [name for name, param in fields.items() if f"| {param.schema['title']} | `{name}` | " not in page] == []


def test_the_choices_are_labelled_with_their_tables(spec: RebuildSpec) -> None:
    labels = form(spec)["projectors"].schema["values_display"]
    assert labels["ExpenseProjector"] == "ExpenseProjector: expenses"


def test_what_the_form_sends_becomes_options(spec: RebuildSpec) -> None:
    given = defaults(spec) | {
        "projectors": ["ExpenseProjector"],
        "drop_after": "90m",
        "reason": "why",
        "max_count_drift_percent": 0,
    }
    options = options_from(given)
    assert options.projectors == ("ExpenseProjector",)
    assert options.drop_after == timedelta(minutes=90)
    assert options.max_count_drift_percent == 0


def test_a_part_as_the_form_sends_it(spec: RebuildSpec) -> None:
    given = defaults(spec) | {"since": "2026-01-31T23:00:00.000Z", "aggregates": ["a", "b", "a"]}
    part = options_from(given).part(spec.zone)
    assert part is not None
    assert (part.since, part.until, part.aggregates) == (datetime(2026, 1, 31, 23, tzinfo=UTC), None, ["a", "b"])
    assert options_from(defaults(spec) | {"until": "", "aggregates": []}).part(spec.zone) is None


@pytest.mark.parametrize(
    ("name", "value"), [("since", "last week"), ("until", "2026-13-01"), ("aggregates", [1]), ("aggregates", "a, b")]
)
def test_a_part_that_the_server_lets_through_is_refused_by_name(spec: RebuildSpec, name: str, value: object) -> None:
    with pytest.raises(SpecError, match=name):
        options_from(defaults(spec) | {name: value})


@pytest.mark.parametrize(
    ("given", "words"), [({"drop_after": "soon"}, "drop_after"), ({"projector": ["A"]}, "projector: there is no such key")]
)
def test_what_cannot_be_used_is_refused_by_name(spec: RebuildSpec, given: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        options_from(defaults(spec) | given)


@pytest.mark.parametrize("emptied", [None, []])
def test_an_emptied_selection_is_refused(spec: RebuildSpec, emptied: object) -> None:
    with pytest.raises(SpecError, match="projectors: none is chosen"):
        options_from(defaults(spec) | {"projectors": emptied})


def test_a_plain_rollback_takes_the_last_switch_back_at_once(spec: RebuildSpec) -> None:
    options, of = rollback_options_from({name: param.value for name, param in rollback_form(spec).items()})
    assert (of, options.swap_now, options.keep_old, options.projectors) == (None, True, True, None)


def test_a_rollback_of_a_run_by_name(spec: RebuildSpec) -> None:
    given = {"run": "rebuild_universal/manual__1", "reason": "wrong totals", "swap_now": False, "dry_run": True}
    options, of = rollback_options_from(given)
    assert (of, options.reason, options.swap_now, options.dry_run) == ("rebuild_universal/manual__1", "wrong totals", False, True)
