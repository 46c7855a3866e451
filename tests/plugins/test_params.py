"""The trigger form, and what the server makes of a run's params."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import include
from include.projection_rebuild.errors import SpecError
from include.projection_rebuild.spec import RebuildSpec, load_spec
from projection_rebuilds.params import form, options_from


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
    for name, param in form(spec).items():
        param.resolve()
        assert param.schema["title"] and param.schema["section"] and param.schema["description_md"], name


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


@pytest.mark.parametrize("emptied", [None, []])
def test_an_emptied_selection_is_refused(spec: RebuildSpec, emptied: object) -> None:
    with pytest.raises(SpecError, match="projectors: none is chosen"):
        options_from(defaults(spec) | {"projectors": emptied})
