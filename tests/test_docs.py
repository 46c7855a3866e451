"""What the documents promise to be complete about."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import projection_rebuild
from projection_rebuild.errors import PlanError, RebuildError
from projection_rebuild.spec.notify import NotifySection

ROOT = Path(__file__).parents[1]
ON_CALL = ROOT / "docs" / "on-call"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


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
    "UnknownRun": "PR-ORDER-02",
    "RunGivenUp": "PR-ORDER-03",
    "StoppedAtCutover": "PR-ORDER-04",
    "CutoverBegun": "PR-ORDER-05",
    "NotReplayed": "PR-ORDER-06",
    "ProgramCutShort": "PR-ORDER-07",
    "ForeignOldTable": "PR-ORDER-08",
    "OldTableGone": "PR-ORDER-09",
    "StoreEmpty": "PR-ORDER-10",
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


def sections_by_code() -> list[tuple[str, str]]:
    """Each code that has a heading, which is its anchor, and what stands below it."""
    text = (ON_CALL / "errors.md").read_text(encoding="utf-8")
    return re.findall(r"^### (PR-[A-Z]+-\d\d)\n(.*?)(?=^###? |\Z)", text, re.MULTILINE | re.DOTALL)


def test_who_is_on_call_finds_every_code_once() -> None:
    assert sorted(code for code, _ in sections_by_code()) == sorted(CODES.values())


def test_a_code_is_said_with_the_name_of_its_error() -> None:
    names = {code: name for name, code in CODES.items()}
    assert [code for code, text in sections_by_code() if not text.startswith(f"\n`{names[code]}`: ")] == []


@pytest.mark.parametrize(("code", "text"), [pytest.param(*each, id=each[0]) for each in sections_by_code()])
def test_a_code_says_what_happened_the_state_of_the_tables_and_what_to_do(code: str, text: str) -> None:
    _, *cases = re.split(r"^\*\*What happened\.\*\* ", text, flags=re.MULTILINE)
    assert cases, f"{code} does not say what happened"
    for case in cases:
        assert re.search(r"^\*\*State of the tables\.\*\* \S.*^\*\*Do this\.\*\* \S", case, re.MULTILINE | re.DOTALL), (
            code,
            case,
        )


def test_an_error_ends_in_its_code() -> None:
    assert str(PlanError("it cannot be")) == "it cannot be [PR-PLAN-01]"
    assert PlanError("it cannot be").message == "it cannot be"


def test_who_is_on_call_finds_every_alert_and_every_error() -> None:
    errors, alerts = ((ON_CALL / name).read_text(encoding="utf-8") for name in ("errors.md", "index.md"))
    missing = {each.__name__ for each in all_errors() if f"`{each.__name__}`" not in errors}
    missing |= {name for name in NotifySection.model_fields if f"### `{name}`\n" not in alerts}
    assert not missing, f"say in docs/on-call what happened, what state the tables are in, and what to do: {missing}"


def slugs(page: Path) -> set[str]:
    """The anchors of a page: one for each heading."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    text = re.sub(r"^ *```.*?^ *```$|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http:", "https:", "mailto:"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_of_a_page_is_broken(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: there is no {target.resolve().relative_to(ROOT)}"
        assert not anchor or anchor in slugs(target), f"{link}: {path or page.name} has no heading for it"


def test_pages_that_code_and_tests_name_are_there() -> None:
    folders = ("benchmarks", "dags", "include", "plugins", "tests", "tools")
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".yaml", ".js"}):
        for named in re.findall(r"(?<![\w/.])docs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / named).exists(), f"{path.relative_to(ROOT)} names {named}"
