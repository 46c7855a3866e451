"""The contract asks each verb of each subject, and each kind of database holds it: a new verb needs a case, a new kind a class."""

from __future__ import annotations

import ast
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import pytest

from projection_rebuild.dialects.base import Dialect, Inspector
from tests.engine.conformance.contract import Contract, DatabaseContract, Feature, Reasons, Vocabulary
from tests.engine.conformance.contract import coverage as of
from tests.engine.conformance.contract.mysql_words import BITS, REFUSED, TRIGGER
from tests.engine.harness.databases import DIALECTS


class Telepathic(Inspector):
    """A subject with a verb of its own."""

    @abstractmethod
    def thoughts(self) -> list[str]:
        """What nobody has a case for."""


def test_every_verb_has_a_case() -> None:
    assert of.without_a_case(of.subjects(), of.asked_by_the_contract()) == {}


def test_a_verb_without_a_case_is_seen() -> None:
    called = of.asked_by_the_contract()
    assert of.without_a_case([*of.subjects(), Telepathic], called) == {"thoughts": "Telepathic"}
    assert of.without_a_case(of.subjects(), called - {"settle", "too_old"}) == {
        "settle": "EventLog",
        "too_old": "PreflightProbe",
        "_oldest": "PreflightProbe",
    }


def test_what_no_case_calls_counts_for_nothing() -> None:
    helpers = "def helper(dialect): dialect.inspector.columns()\n\ndef other(dialect): dialect.inspector.shapes()\n\n"
    assert of.asked([helpers + "def test_it(dialect):\n    helper(dialect)\n    dialect.dependents.parents()"]) == {
        "columns",
        "parents",
    }


def test_only_what_is_left_out_with_a_reason_is_left_out() -> None:
    modules = {each.__module__.removeprefix(of.SUBJECTS) for each in Dialect.__mro__ if each.__module__.startswith(of.SUBJECTS)}
    assert of.LEFT_OUT.keys() <= modules and all(of.LEFT_OUT.values())
    assert len(of.subjects()) >= 14 and of.WITHIN.keys() <= of.promised(of.subjects()).keys()


def test_the_contract_asks_for_nothing_private() -> None:
    promised = {*dir(Dialect), *(name for each in Dialect.__mro__ for name in vars(each).get("__annotations__", ())), "engine"}
    assert {name for name in of.asked_by_the_contract() if name.startswith("_") or name not in promised} == set()


def test_every_feature_is_asked_for() -> None:
    asked = {
        each.attr
        for source in of.sources()
        for each in ast.walk(ast.parse(source))
        if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "Feature"
    }
    assert {each.name for each in Feature} == asked


def test_every_kind_of_database_holds_the_contract() -> None:
    holding = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for each in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(each, ast.ClassDef) and "DatabaseContract" in map(ast.unparse, each.bases):
                given = {ast.unparse(said.targets[0]): said.value for said in each.body if isinstance(said, ast.Assign)}
                holding[ast.literal_eval(given["kind"])] = path.name
    assert holding == {kind: f"test_{kind}.py" for kind in DIALECTS}


SAYS = Vocabulary(lock_wait="SELECT 1", uncarried=TRIGGER, refused=REFUSED, bits=BITS)


def test_a_class_with_gaps_is_refused() -> None:
    with pytest.raises(TypeError, match="oracle is no kind of database"):
        type("Unknown", (DatabaseContract,), {"kind": "oracle", "says": SAYS})
    with pytest.raises(TypeError, match="it has no vocabulary"):
        type("Dumb", (DatabaseContract,), {"kind": "mysql"})
    with pytest.raises(TypeError, match="replaces the cases test_rows_are_counted; declare in cannot what it lacks"):
        type("Lazy", (DatabaseContract,), {"kind": "mysql", "says": SAYS, "test_rows_are_counted": None})
    with pytest.raises(TypeError, match="says no reason for CANCEL"):
        type("Silent", (DatabaseContract,), {"kind": "mysql", "says": SAYS, "cannot": {Feature.CANCEL: "no"}})


class Declared(Contract):
    """A database that lacks one feature."""

    kind = "mysql"
    says = SAYS
    cannot: ClassVar[Reasons] = {Feature.CANCEL: "it is never in a hurry"}


def test_what_is_declared_is_not_there() -> None:
    assert not Declared().can(Feature.CANCEL) and Declared().can(Feature.CUT)
    assert {mark.name for mark in Declared.pytestmark} == {"mysql", "xdist_group"}  # type: ignore[attr-defined]
