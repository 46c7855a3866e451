"""docs/reference/spec.md is what the models of a spec say."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel, Field

from projection_rebuild.spec.fields import Section
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from tools import spec_reference


def test_the_page_is_what_the_models_say() -> None:
    assert spec_reference.PAGE.read_text(encoding="utf-8") == spec_reference.page(), "run python -m tools.spec_reference"


def models(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A model, and all that its keys hold."""
    found = {model}
    for field in model.model_fields.values():
        inner = spec_reference.section_of(field.annotation)
        found |= models(inner) if inner else set()
    return found


def test_every_key_of_a_spec_and_of_a_run_has_its_line() -> None:
    page = spec_reference.page()
    told = set(re.findall(r"^\* \*\*`(\w+)`\*\*: ", page, re.MULTILINE))
    keys = {
        field.alias or name for model in models(RebuildSpec) | models(RunOptions) for name, field in model.model_fields.items()
    }
    assert len(keys) > 70 and keys == told


def test_each_pointer_belongs_to_a_key() -> None:
    page = spec_reference.page()
    assert [place for place, link in spec_reference.SEE.items() if f"{link}" not in " ".join(page.split())] == []


def test_a_key_of_which_its_model_says_nothing_is_a_mistake() -> None:
    class Silent(Section):
        """One key is told.

        :param told: it is
        """

        told: int = 1
        untold: int = Field(default=2)

    with pytest.raises(KeyError, match="untold"):
        spec_reference.keys_of(Silent, "")
