"""Defines a check, and registers the checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.model.findings import Finding, refusal
from projection_rebuild.planning.checks.input import PreflightInput


class Scope(Enum):
    """What a check examines, and so when it can run. The plan runs the scopes in this order."""

    CHOICE = "the spec and the options; queries no database"
    EVENT_STORE = "the table of the events"
    EVENTS = "the events; only if no check of EVENT_STORE has refused"
    SERVER = "the server"
    REPLAY = "how the engine will replay each projector"
    TABLES = "tables that may not exist; only if no check of SERVER has refused"
    BESIDE = "objects beside the tables; only if no check of SERVER has refused"
    EXISTING_TABLES = "the tables that exist, if any; only if no check of SERVER has refused"

    @property
    def needs(self) -> Scope | None:
        """The scope in which no check may have refused; None: the scope always runs."""
        return _NEEDS.get(self)


_NEEDS = {
    Scope.EVENTS: Scope.EVENT_STORE,
    Scope.TABLES: Scope.SERVER,
    Scope.BESIDE: Scope.SERVER,
    Scope.EXISTING_TABLES: Scope.SERVER,
}

Question = Callable[[PreflightInput], Iterable[Finding]]
"""The function of a check. It only reads, and yields nothing if it finds no problem."""


@dataclass(frozen=True)
class Check:
    """One registered check.

    :param name: its module and its function, such as ``names.taken``
    :param about: what it examines, for the finding about a missing privilege
    :param question: the function
    :param unless_refused: whether it runs only if no earlier check has refused
    """

    name: str
    scope: Scope
    about: str
    question: Question
    unless_refused: bool

    def findings(self, planned: PreflightInput) -> list[Finding]:
        """Runs the check; see :func:`answers`."""
        about = self.about.format(event_store=f"event store {planned.context.store.table}")
        return answers(planned, about, lambda: self.question(planned))


_registered: dict[str, list[Check]] = {}


def check(scope: Scope, about: str, *, unless_refused: bool = False) -> Callable[[Question], Question]:
    """Registers a function as a check. The first line of its docstring is also in ``docs/reference/preflight.md``.

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
    """The checks of a module, in the order of its source."""
    return _registered.get(subject, [])


def answers(planned: PreflightInput, about: str, question: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of a check. If the engine lacks a privilege for it, that is a finding, too.

    :param about: what the check examines
    :raises Exception: any other error; it may be transient, so it is no finding
    """
    try:
        return list(question())
    except Exception as error:
        trouble = trouble_of(error)
        if trouble is None or not planned.dialect.is_permission_error(error):
            raise
        return [refusal(about, f"it cannot be looked at: {trouble.describe()}", "correct this and what else is listed")]
