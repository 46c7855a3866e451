"""What a database says of itself to the contract: its words, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

import pytest

from projection_rebuild.model.column_kinds import ColumnKind
from tests.conftest import SERVERS
from tests.engine.harness.databases import DIALECTS


class Feature(Enum):
    """What a database may lack, in words that follow "it"."""

    CUT = "lets others end a session"
    CANCEL = "lets others end a statement"
    TIME_ZONE = "has a time zone for each session"
    UNFIT_SESSIONS = "has settings with which a session writes other rows than a rebuild"
    MEMORY = "lets a transaction take more memory"
    COUNT_SESSIONS = "counts the sessions at work"
    COUNT_READS = "counts the reads of a table"
    TRANSACTION_AGE = "tells how old a transaction is"
    REPLICA_LAG = "tells how far its replicas are behind"
    FREE_BYTES = "tells how much room is left"
    PARTIAL_INDEX = "has indexes over some of the rows"
    TWO_WRITERS = "lets two transactions write at the same time"
    ROW_LOCKS = "locks single rows"
    DEFERRED_KEYS = "checks a foreign key at the commit where that is wanted"
    NO_OFFSETS = "keeps a time without its offset"
    FENCE_ENDS = "ends a fence by itself if its holder hangs"
    NUMBERS_AHEAD = "hands out numbers to a session in advance"
    LIVE_SCHEMA_BESIDE = "has the live tables in reach of a place apart"


Reasons = Mapping[Feature, str]
"""What a database cannot do, and why."""


@dataclass(frozen=True)
class Uncarried:
    """An object that a rebuild would lose or break.

    :param kind: as :attr:`DependentObjects.refuses` has it
    :param make: the statement that makes it; ``{table}`` stands for the table on which it hangs
    :param undo: the statement that takes it away
    :param named: what the refusal calls it
    """

    kind: str
    make: str
    undo: str
    named: str


@dataclass(frozen=True)
class Vocabulary:
    """How a database says what the contract needs.

    :param lock_wait: a query for how long this session waits for a lock on a table
    :param uncarried: an object that it cannot carry over
    :param refused: statements that it refuses for a value, by what is wrong; ``{table}`` stands for a table of values
    :param bits: a type for bits, and how its column ``good`` becomes a whole number
    :param json: of which kind a column of JSON is
    :param slow: a query that takes a minute (:attr:`Feature.CANCEL`)
    :param zone: a query for the session's time zone (:attr:`Feature.TIME_ZONE`)
    :param far_away: the driver's arguments for a session in another time zone
    :param unfit: the driver's arguments for a session that would write other rows (:attr:`Feature.UNFIT_SESSIONS`)
    :param memory: a query for how much memory a sort may take (:attr:`Feature.MEMORY`)
    :param ahead: a statement after which numbers of ``{table}`` are handed out in advance (:attr:`Feature.NUMBERS_AHEAD`)
    :param patient: a statement after which a transaction waits five seconds for a lock on a table (:attr:`Feature.FENCE_ENDS`)
    """

    lock_wait: str
    uncarried: Uncarried
    refused: Mapping[str, str]
    bits: tuple[str, str]
    json: ColumnKind = ColumnKind.JSON
    slow: str = ""
    zone: str = ""
    far_away: Mapping[str, Any] = field(default_factory=dict)
    unfit: Mapping[str, Any] = field(default_factory=dict)
    memory: str = ""
    ahead: str = ""
    patient: str = ""


class Contract:
    """Cases that a database inherits.

    :cvar kind: the database's, as ``tests.engine.harness.databases.DIALECTS`` has it
    :cvar says: its words
    :cvar cannot: what it cannot do, each with the reason; the cases then hold that the dialect says so
    """

    kind: ClassVar[str]
    says: ClassVar[Vocabulary]
    cannot: ClassVar[Reasons] = {}

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if "kind" not in vars(cls):
            return
        _refuse_gaps(cls)
        # One process runs all cases of a class, so that they share a database.
        marks = [pytest.mark.xdist_group(f"conformance-{cls.kind}")]
        cls.pytestmark = marks + ([getattr(pytest.mark, cls.kind)] if cls.kind in SERVERS else [])  # type: ignore[attr-defined]

    def can(self, feature: Feature) -> bool:
        """Whether the database has it. A case asks once, and holds either answer."""
        return feature not in self.cannot


def _refuse_gaps(database: type[Contract]) -> None:
    """Whoever adds a database leaves out no case without a reason.

    :raises TypeError: a case is replaced, a reason is missing, or the kind is unknown
    """
    if database.kind not in DIALECTS:
        raise TypeError(f"{database.__name__}: {database.kind} is no kind of database that tests know")
    if not isinstance(getattr(database, "says", None), Vocabulary):
        raise TypeError(f"{database.__name__}: it has no vocabulary")
    if replaced := [name for name in vars(database) if name.startswith("test_") and hasattr(super(database, database), name)]:
        raise TypeError(f"{database.__name__}: it replaces the cases {', '.join(replaced)}; declare in cannot what it lacks")
    if bare := [feature.name for feature, reason in database.cannot.items() if len(reason.split()) < 3]:
        raise TypeError(f"{database.__name__}: it says no reason for {', '.join(bare)}")
