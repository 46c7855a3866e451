"""What the documents promise to be complete about."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import projection_rebuild
from projection_rebuild.errors import PlanError, RebuildError
from projection_rebuild.spec import NotifySection

DOCS = Path(__file__).parents[1] / "docs"


CODES = {
    "ClaimRefused": "PR-CLAIM-01",
    "HeldByRollback": "PR-CLAIM-02",
    "CloneError": "PR-CLONE-01",
    "CodeError": "PR-CODE-01",
    "ConnectionRefused": "PR-CONNECTION-01",
    "DatabaseTrouble": "PR-DB-00",
    "ConnectionLost": "PR-DB-01",
    "PrivilegeMissing": "PR-DB-02",
    "DatabaseReadOnly": "PR-DB-03",
    "ObjectMissing": "PR-DB-04",
    "OutOfRoom": "PR-DB-05",
    "LockNotHad": "PR-DB-06",
    "StatementCancelled": "PR-DB-07",
    "ValueRefused": "PR-DB-08",
    "StatementRefused": "PR-DB-09",
    "UnsupportedDatabase": "PR-DB-20",
    "EngineFault": "PR-ENGINE-01",
    "RebuildError": "PR-ERROR-00",
    "PoisonEvent": "PR-EVENT-00",
    "HandlerError": "PR-EVENT-01",
    "UndecodableEvent": "PR-EVENT-02",
    "UpcastError": "PR-EVENT-03",
    "TooManyDeadLetters": "PR-EVENT-04",
    "FencedOut": "PR-FENCE-01",
    "FenceLost": "PR-FENCE-02",
    "ChangedSince": "PR-CLONE-02",
    "LeftOnOld": "PR-SWAP-02",
    "MachineTrouble": "PR-MACHINE-01",
    "StepOrderError": "PR-ORDER-01",
    "Unseen": "PR-PAGE-01",
    "PartError": "PR-PART-01",
    "PlanError": "PR-PLAN-01",
    "PositionError": "PR-POSITION-01",
    "ProgramFailed": "PR-PROGRAM-01",
    "ProjectorError": "PR-PROJECTOR-01",
    "ProofFailed": "PR-PROVE-01",
    "FallingBehind": "PR-REPLAY-01",
    "RowError": "PR-ROW-01",
    "UnfitValue": "PR-ROW-02",
    "SessionError": "PR-SESSION-01",
    "SetError": "PR-SET-01",
    "SettleTimeout": "PR-SETTLE-01",
    "ShardError": "PR-SHARD-01",
    "SpecError": "PR-SPEC-01",
    "SpecSqlError": "PR-SQL-01",
    "Interrupted": "PR-STOP-01",
    "SwapNotPossible": "PR-SWAP-01",
    "Troubled": "PR-TROUBLE-00",
    "VerificationFailed": "PR-VERIFY-01",
    "Diverged": "PR-VERIFY-02",
    "WriteError": "PR-WRITE-01",
    "LostRows": "PR-WRITE-02",
}
"""What alerts and runbooks elsewhere may know. Add to it; neither change a code, nor give one that is gone to another error."""


def all_errors() -> set[type[RebuildError]]:
    for module in pkgutil.walk_packages(projection_rebuild.__path__, "projection_rebuild."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("projection_rebuild_airflow.page.watching")
    found: set[type[RebuildError]] = set()
    waiting = [RebuildError]
    while waiting:
        each = waiting.pop()
        # Those of the tests are nobody's on call.
        found |= {each} if not each.__module__.startswith("tests.") else set()
        waiting += each.__subclasses__()
    return found


def test_every_error_has_a_code_of_its_own_that_stays() -> None:
    own = {each.__name__: each.__dict__.get("code") for each in all_errors()}
    assert own == CODES
    assert len({*CODES.values()}) == len(CODES)


def test_who_is_on_call_finds_every_code_once() -> None:
    text = (DOCS / "on-call.md").read_text(encoding="utf-8")
    anchors = re.findall(r'<a id="(pr-[a-z]+-\d\d)"></a>`(PR-[A-Z]+-\d\d)`', text)
    assert sorted(code for _, code in anchors) == sorted(CODES.values())
    assert all(anchor == code.lower() for anchor, code in anchors)


def test_an_error_ends_in_its_code() -> None:
    assert str(PlanError("it cannot be")) == "it cannot be [PR-PLAN-01]"
    assert PlanError("it cannot be").message == "it cannot be"


def test_who_is_on_call_finds_every_alert_and_every_error() -> None:
    text = (DOCS / "on-call.md").read_text(encoding="utf-8")
    names = {each.__name__ for each in all_errors()}
    missing = {name for name in names | NotifySection.model_fields.keys() if f"`{name}`" not in text}
    assert not missing, f"say in docs/on-call.md what happened, what state the tables are in, and what to do: {missing}"
