"""Validates the content of a file or a form, and reports all its errors in one message."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from projection_rebuild.errors import SpecError
from projection_rebuild.model import limits
from projection_rebuild.model.limits import shown
from projection_rebuild.spec.fields import Section

S = TypeVar("S", bound=Section)


def validate(model: type[S], given: object, where: str) -> S:
    """A section from unchecked data.

    :param where: the name of the file or form, for messages
    :raises SpecError: the data cannot be used; the message lists up to :data:`limits.MOST_PROBLEMS` errors
    """
    limits.check(given, where)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        # Without the input values: a spec may hold SQL, and a form may hold anything.
        errors = error.errors(include_input=False, include_context=False, include_url=False)
        problems = [
            f"{limits.at(problem['loc'])}: {shown(_readable(problem['msg']), 300)}" for problem in errors[: limits.MOST_PROBLEMS]
        ]
        more = [f"and {len(errors) - len(problems)} more"] if len(errors) > len(problems) else []
        raise SpecError(f"{where} cannot be used. " + " | ".join(problems + more)) from None


def _readable(message: str) -> str:
    return (
        message.removeprefix("Value error, ")
        .replace("Extra inputs are not permitted", "there is no such key; check its spelling and its place")
        .replace("Field required", "this key is required")
    )
