"""What a check is, and how one is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.model.findings import Finding, refusal
from projection_rebuild.planning.checks.input import PreflightInput


class Scope(Enum):
    """When a check can be asked. The scopes are gone through in this order."""

    CHOICE = "the spec and what was chosen; asks no database"
    EVENT_STORE = "the table of the events"
    EVENTS = "the events; where the scope before it refuses nothing"
    SERVER = "the server"
    REPLAY = "how each projector will be replayed"
    TABLES = "tables that may not exist; where the server is not refused"
    BESIDE = "what stands beside the tables; where the server is not refused"
    EXISTING_TABLES = "the tables that exist, if there are any; where the server is not refused"

    @property
    def needs(self) -> Scope | None:
        """The scope that must have refused nothing."""
        return _NEEDS.get(self)


_NEEDS = {
    Scope.EVENTS: Scope.EVENT_STORE,
    Scope.TABLES: Scope.SERVER,
    Scope.BESIDE: Scope.SERVER,
    Scope.EXISTING_TABLES: Scope.SERVER,
}

Question = Callable[[PreflightInput], Iterable[Finding]]
"""Looks, and touches nothing. Yields nothing if all is in order."""


@dataclass(frozen=True)
class Check:
    """One registered check.

    :param name: its module and its function: ``names.taken``
    :param about: what a person is told that it looked at, where the database denies us the look
    :param unless_refused: whether it is asked only if nothing has been refused before
    """

    name: str
    scope: Scope
    about: str
    question: Question
    unless_refused: bool

    def findings(self, planned: PreflightInput) -> list[Finding]:
        """Asks it; see :func:`answers`."""
        about = self.about.format(event_store=f"event store {planned.context.store.table}")
        return answers(planned, about, lambda: self.question(planned))


_registered: dict[str, list[Check]] = {}


def check(scope: Scope, about: str, *, unless_refused: bool = False) -> Callable[[Question], Question]:
    """Registers a function as a check; its first line of documentation stands in ``docs/reference/preflight.md``.

    :param about: see :class:`Check`; ``{event_store}`` stands for the event store with its table
    :param unless_refused: see :class:`Check`
    """

    def register(question: Question) -> Question:
        subject = question.__module__
        name = f"{subject.rpartition('.')[2]}.{question.__name__}"
        _registered.setdefault(subject, []).append(Check(name, scope, about, question, unless_refused))
        return question

    return register


def registered(subject: str) -> list[Check]:
    """The checks of a module, in the order in which they stand there."""
    return _registered.get(subject, [])


def answers(planned: PreflightInput, about: str, question: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a question finds. A look that the database denies us is a finding, too.

    :param about: what is looked at
    :raises Exception: any other error: it may pass, and is no finding
    """
    try:
        return list(question())
    except Exception as error:
        trouble = trouble_of(error)
        if trouble is None or not planned.dialect.is_permission_error(error):
            raise
        return [refusal(about, f"it cannot be looked at: {trouble.describe()}", "put this and what else is listed right")]
