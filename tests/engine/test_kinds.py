"""The kinds of databases that the tests are run on, and by what they are chosen."""

from __future__ import annotations

from projection_rebuild.dialects import Dialect
from tests.conftest import DATABASES
from tests.engine.harness.databases import DIALECTS, having


def test_each_kind_has_the_dialect_by_which_its_tests_are_chosen(dialect: Dialect, database_kind: str) -> None:
    assert type(dialect) is DIALECTS[database_kind]


def test_every_kind_is_in_every_choice_or_its_opposite() -> None:
    assert [*DIALECTS] == DATABASES
    for name in ("one_writer", "ddl_commits", "reads_offsets"):
        chosen = [each.values[0] for value in (True, False) for each in having(**{name: value})]
        assert sorted(chosen) == sorted(DATABASES) and having(**{name: True}) and having(**{name: False})
