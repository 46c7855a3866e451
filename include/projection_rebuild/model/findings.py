"""What a plan has to say before anything is touched: what is in the way, each with its remedy, and what will be carried over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from projection_rebuild.errors import PlanError, RebuildError


class Finding(BaseModel):
    """One thing that a person should know.

    :param about: the object: a table, a setting, a key of the spec; empty where the problem's own words name it
    :param problem: what is wrong with it; a sentence with a full stop where the remedy is a sentence, too
    :param remedy: what to do; empty where the problem's own words say it
    :param refuses: whether nothing can begin before that is done; otherwise it only informs
    """

    model_config = ConfigDict(frozen=True)

    about: str
    problem: str
    remedy: str = ""
    refuses: bool = False

    def __str__(self) -> str:
        said = f"{self.about}: {self.problem}" if self.about else self.problem
        if not self.remedy:
            return said
        return f"{said} {self.remedy}" if said.endswith(".") else f"{said}; {self.remedy}"


def refusal(about: str, problem: str, remedy: str = "") -> Finding:
    """A finding that refuses; see :class:`Finding`."""
    return Finding(about=about, problem=problem, remedy=remedy, refuses=True)


def refusal_of(error: RebuildError) -> Finding:
    """A finding that refuses in the words of an error, which name object, problem and remedy themselves."""
    return refusal("", error.message)


class Dependents(BaseModel):
    """What hangs on one table, of one kind, and will be there after a rebuild as it was before.

    :param kind: in the plural: ``columns``, ``triggers``
    :param names: of the objects; what has no name of its own, in the words of the database
    """

    model_config = ConfigDict(frozen=True)

    table: str
    kind: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.table}: {self.kind} {', '.join(self.names)}"


def named(table: str, kinds: Mapping[str, Iterable[str]]) -> Iterator[Dependents]:
    """What hangs on a table, without the kinds that it has nothing of."""
    for kind, names in kinds.items():
        if found := tuple(dict.fromkeys(names)):
            yield Dependents(table=table, kind=kind, names=found)


def refuse(findings: Sequence[Finding], what: str = "this rebuild is refused") -> None:
    """Ends a plan if any finding refuses it.

    :param what: what cannot be done, as the head of the list
    :raises PlanError: all findings in one list
    """
    refusing = lines(finding for finding in findings if finding.refuses)
    if not refusing:
        return
    informing = lines(finding for finding in findings if not finding.refuses)
    also = ["besides, worth knowing:", *informing] if informing else []
    raise PlanError("\n".join([f"nothing has been touched; {what}:", *refusing, *also]))


def lines(findings: Iterable[Finding]) -> list[str]:
    """The findings as a list for a person, each once."""
    return [f"- {finding}" for finding in dict.fromkeys(findings)]
