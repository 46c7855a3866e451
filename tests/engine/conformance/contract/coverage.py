"""Which verbs of the dialects the cases call: a look at their source, so that a new verb needs a case."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

from projection_rebuild.dialects.base import Dialect

SUBJECTS = "projection_rebuild.dialects.base."

LEFT_OUT = {"swap_statements": "each database's swap is tried within whole runs: tests/engine/test_swap.py and its neighbours"}
"""Modules of ``dialects.base`` whose verbs have no case yet, each with the reason."""

WITHIN = {"_oldest": "too_old", "_stored_columns": "copy_others"}
"""Verbs that a database has to write and nobody calls from outside, and the public verb through which a case reaches each."""

DIALECTS = ("dialect", "scratch.dialect")
"""What a dialect is called in the cases; ``engine.dialect`` is SQLAlchemy's."""

VIEWS = frozenset(name for name, value in vars(Dialect).items() if isinstance(value, property))
"""The attributes of a dialect that lead to one of its subjects."""

OURS = (*DIALECTS, *(f"{dialect}.{view}" for dialect in DIALECTS for view in sorted(VIEWS)))
"""Whose attributes are verbs."""


def subjects(database: type = Dialect) -> list[type]:
    """The classes of which a dialect is made, without those that are left out."""
    left_out = {SUBJECTS + name for name in LEFT_OUT}
    return [each for each in database.__mro__ if each.__module__.startswith(SUBJECTS) and each.__module__ not in left_out]


def promised(classes: Iterable[type]) -> dict[str, str]:
    """By verb, the class that promises it: all public methods, and what is abstract besides."""
    return {name: each.__name__ for each in classes for name, value in vars(each).items() if _is_verb(name, value)}


def _is_verb(name: str, value: object) -> bool:
    is_method = callable(value) or isinstance(value, property | staticmethod)
    return is_method and not name.startswith("__") and (not name.startswith("_") or getattr(value, "__isabstractmethod__", False))


def asked(sources: Iterable[str]) -> set[str]:
    """What the cases ask of ``dialect`` and of ``scratch.dialect``; not what stands in helpers that no case calls."""
    found: set[str] = set()
    for source in sources:
        tree = ast.parse(source)
        functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
        reached = [each for each in functions if each.name.startswith("test_")]
        for function in reached:
            reached += [each for each in functions if each.name in _names(function) and each not in reached]
        found |= {name for function in reached for name in _attributes(function)}
    return found


def _names(function: ast.FunctionDef) -> set[str]:
    """The functions and own methods that it mentions."""
    names = {each.id for each in ast.walk(function) if isinstance(each, ast.Name)}
    return names | {
        each.attr for each in ast.walk(function) if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self"
    }


def _attributes(function: ast.FunctionDef) -> set[str]:
    """What it takes from a dialect."""
    taken = {each.attr for each in ast.walk(function) if isinstance(each, ast.Attribute) and ast.unparse(each.value) in OURS}
    return taken - VIEWS


@cache
def sources() -> tuple[str, ...]:
    """The modules of the contract."""
    return tuple(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py")))


@cache
def asked_by_the_contract() -> frozenset[str]:
    """What all cases ask."""
    return frozenset(asked(sources()))


def without_a_case(classes: Iterable[type], called: Collection[str]) -> dict[str, str]:
    """Verbs that no case calls, each with its class."""
    reached = {*called, *(verb for verb, through in WITHIN.items() if through in called and _calls(through, verb))}
    return {verb: subject for verb, subject in promised(classes).items() if verb not in reached}


def _calls(through: str, verb: str) -> bool:
    """Whether a verb's own implementation in the base class calls the other one."""
    return f"self.{verb}(" in inspect.getsource(getattr(Dialect, through))
