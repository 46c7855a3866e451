"""Checks what a file or a form gives, and says in one message what is wrong with it."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from projection_rebuild.errors import SpecError
from projection_rebuild.model import limits
from projection_rebuild.model.limits import shown
from projection_rebuild.spec.fields import Section

S = TypeVar("S", bound=Section)


def validate(model: type[S], given: object, where: str) -> S:
    limits.check(given, where)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        # Without the input values: a spec may hold SQL, and a form may hold anything.
        found = error.errors(include_input=False, include_context=False, include_url=False)
        problems = [f"{limits.at(each['loc'])}: {shown(_readable(each['msg']), 300)}" for each in found[: limits.MOST_PROBLEMS]]
        more = [f"and {len(found) - len(problems)} more"] if len(found) > len(problems) else []
        raise SpecError(f"{where} cannot be used. " + " | ".join(problems + more)) from None


def _readable(message: str) -> str:
    return (
        message.removeprefix("Value error, ")
        .replace("Extra inputs are not permitted", "there is no such key; check its spelling and its place")
        .replace("Field required", "this key is required")
    )
