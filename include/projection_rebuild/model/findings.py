"""What a plan has to say before anything is touched: what is in the way, each with its remedy, and what will be carried over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from projection_rebuild.errors import PlanError


class Finding(BaseModel):
    """One thing that a person should know.

    :param about: the object: a table, a setting, a key of the spec
    :param problem: what is wrong with it
    :param remedy: what to do; empty where the problem's own words say it
    :param refuses: whether nothing can begin before that is done; otherwise it only informs
    """

    model_config = ConfigDict(frozen=True)

    about: str
    problem: str
    remedy: str = ""
    refuses: bool = False

    @classmethod
    def refusal(cls, sentence: str) -> Finding:
        """One that refuses, from a sentence ``object: problem and remedy``."""
        about, separator, problem = sentence.partition(": ")
        return cls(about=about, problem=problem, refuses=True) if separator else cls(about="", problem=sentence, refuses=True)

    def __str__(self) -> str:
        said = f"{self.about}: {self.problem}" if self.about else self.problem
        return f"{said}; {self.remedy}" if self.remedy else said


class Carried(BaseModel):
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


def named(table: str, kinds: Mapping[str, Iterable[str]]) -> Iterator[Carried]:
    """What hangs on a table, without the kinds that it has nothing of."""
    for kind, names in kinds.items():
        if found := tuple(dict.fromkeys(names)):
            yield Carried(table=table, kind=kind, names=found)


def refuse(findings: Sequence[Finding]) -> None:
    """Ends a plan if any finding refuses it.

    :raises PlanError: all findings in one list
    """
    refusing = _lines(each for each in findings if each.refuses)
    if not refusing:
        return
    informing = _lines(each for each in findings if not each.refuses)
    also = ["besides, worth knowing:", *informing] if informing else []
    raise PlanError("\n".join(["nothing has been touched; this rebuild is refused:", *refusing, *also]))


def _lines(findings: Iterable[Finding]) -> list[str]:
    return [f"- {each}" for each in dict.fromkeys(findings)]
