"""The findings of a plan, each with its remedy, and the dependent objects that a rebuild carries over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from projection_rebuild.errors import PlanError, RebuildError


class Finding(BaseModel):
    """One fact that an operator should know.

    :param about: the object: a table, a setting, a key of the spec; empty if ``problem`` names it
    :param problem: the problem; a sentence with a full stop if the remedy is a sentence, too
    :param remedy: what to do; empty if ``problem`` includes it
    :param refuses: whether the engine refuses to begin before the remedy is done; if not, the finding only informs
    """

    model_config = ConfigDict(frozen=True)

    about: str
    problem: str
    remedy: str = ""
    refuses: bool = False

    def __str__(self) -> str:
        text = f"{self.about}: {self.problem}" if self.about else self.problem
        if not self.remedy:
            return text
        return f"{text} {self.remedy}" if text.endswith(".") else f"{text}; {self.remedy}"


def refusal(about: str, problem: str, remedy: str = "") -> Finding:
    """A finding that refuses; see :class:`Finding`."""
    return Finding(about=about, problem=problem, remedy=remedy, refuses=True)


def refusal_of(error: RebuildError) -> Finding:
    """A finding that refuses with the message of an error, which names object, problem and remedy itself."""
    return refusal("", error.message)


class Dependents(BaseModel):
    """The dependent objects of one kind on one table, which a rebuild carries over unchanged.

    :param kind: the kind in the plural: ``columns``, ``triggers``
    :param names: the names of the objects; an object without a name has its definition from the database
    """

    model_config = ConfigDict(frozen=True)

    table: str
    kind: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.table}: {self.kind} {', '.join(self.names)}"


def named(table: str, kinds: Mapping[str, Iterable[str]]) -> Iterator[Dependents]:
    """Yields the dependent objects of a table, kind by kind, without empty kinds."""
    for kind, names in kinds.items():
        if unique := tuple(dict.fromkeys(names)):
            yield Dependents(table=table, kind=kind, names=unique)


def refuse(findings: Sequence[Finding], what: str = "this rebuild is refused") -> None:
    """Ends a plan if any finding refuses it.

    :param what: the refused action, as the head of the list
    :raises PlanError: a finding refuses; the message lists all findings
    """
    refusing = lines(finding for finding in findings if finding.refuses)
    if not refusing:
        return
    informing = lines(finding for finding in findings if not finding.refuses)
    also = ["besides, worth knowing:", *informing] if informing else []
    raise PlanError("\n".join([f"nothing has been touched; {what}:", *refusing, *also]))


def lines(findings: Iterable[Finding]) -> list[str]:
    """The findings as lines of a list, without duplicates."""
    return [f"- {finding}" for finding in dict.fromkeys(findings)]
