"""Whatever fails beneath a verb, its caller meets an error of ours: a library's, an author's, and those that the engine tells itself by."""

from __future__ import annotations

import ast
import decimal
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn

import msgspec
import psycopg
import pytest
import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByPeriod
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.authoring.upcasting import Upcasters
from projection_rebuild.dialects import dialect_for
from projection_rebuild.dialects.base import FenceDied, TablesBusy
from projection_rebuild.errors import (
    CodeError,
    ConnectionLost,
    DatabaseTrouble,
    EngineFault,
    LockNotHad,
    MachineTrouble,
    PlanError,
    ProjectorError,
    RebuildError,
    SettleTimeout,
    SpecError,
    boundary,
)
from projection_rebuild.eventstore.contract import Contract
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.rows.types import Rows
from projection_rebuild.shadow import clone, retire
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.projectors import load_projector
from projection_rebuild.spec.stores import EventStoreSection
from projection_rebuild.spec.structure import StructureSection, load_structure
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.marked import MARK, leaks
from tests.engine.harness.seams import old_tables_are_dropped_by
from tests.engine.harness.shop import events
from tests.engine.harness.specs import rebuild


class Elsewhere(Exception):
    """Of a library that nobody knows."""


class Twisted(Exception):
    """Has a text of its own, and a name in no module."""

    __module__ = ""


STRANGE: list[Exception] = [
    decimal.InvalidOperation(MARK),
    msgspec.DecodeError(MARK),
    json.JSONDecodeError(MARK, MARK, 0),
    AssertionError(MARK),
    Elsewhere(MARK),
    Twisted(MARK),
    KeyError(MARK),
    ExceptionGroup(MARK, [ValueError(MARK)]),
]


def fresh(error: Exception) -> Exception:
    """The error as if it had never been raised."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def raising(error: Exception) -> NoReturn:
    try:
        raise sa.exc.IntegrityError(MARK, {MARK: MARK}, psycopg.errors.UniqueViolation(MARK))
    except sa.exc.IntegrityError:
        raise error  # noqa: B904 - the chain is what this is about


def within_the_engine(error: Exception) -> Callable[..., NoReturn]:
    """A function that fails, as if it were one of the engine's."""
    source = "def fail(*_, **__):\n    try:\n        raise wrong\n    except Exception:\n        raise error\n"
    known: dict[str, Any] = {
        "__name__": "projection_rebuild.failing",
        "error": error,
        "wrong": psycopg.errors.UniqueViolation(MARK),
    }
    exec(compile(source, "/nowhere/failing.py", "exec"), known)  # noqa: S102
    found: Callable[..., NoReturn] = known["fail"]
    return found


def told(verb: Callable[[], object]) -> RebuildError:
    """The error that a verb ends with: one of ours, that says nothing that nobody may see."""
    with pytest.raises(Exception) as raised:
        verb()
    assert isinstance(raised.value, RebuildError), repr(raised.value)
    assert not leaks(raised.value)
    came_from = raised.value.__cause__ or (None if raised.value.__suppress_context__ else raised.value.__context__)
    assert came_from is None or isinstance(came_from, RebuildError)
    assert str(raised.value).count("[PR-") == 1 and str(raised.value).endswith("]")
    return raised.value


@pytest.mark.parametrize("error", STRANGE, ids=lambda each: type(each).__name__)
def test_a_strangers_error_in_the_engine_is_a_fault_of_it(error: Exception) -> None:
    fail = within_the_engine(fresh(error))
    found = told(lambda: boundary.step("plan", boundary.UNTOUCHED)(fail)(None))
    assert isinstance(found, EngineFault) and found.retryable
    assert found.message.startswith(f"plan: unexpected {type(error).__name__} at failing.py:5, in fail. {boundary.UNTOUCHED}")


@pytest.mark.parametrize("error", STRANGE, ids=lambda each: type(each).__name__)
def test_a_strangers_error_in_an_authors_code_names_that_code(error: Exception) -> None:
    found = told(lambda: boundary.step("plan", boundary.UNTOUCHED)(lambda _: raising(fresh(error)))(None))
    assert isinstance(found, CodeError) and not found.retryable
    place = r"plan: raising \(test_error_boundary\.py:\d+\) failed with "
    with pytest.raises(CodeError, match=place + type(error).__name__):
        raise found


def test_an_error_that_nobody_has_raised_has_no_place() -> None:
    assert "at an unknown place" in str(boundary.named(Elsewhere(MARK), "plan", boundary.UNTOUCHED))


def test_a_cause_of_ours_takes_no_other_context_along() -> None:
    def verb(_: object) -> None:
        try:
            raise psycopg.errors.UniqueViolation(MARK)
        except psycopg.Error:
            raise PlanError("it cannot be") from SpecError("a key is wrong")

    found = told(lambda: boundary.step("plan", boundary.UNTOUCHED)(verb)(None))
    assert isinstance(found.__cause__, SpecError) and found.__context__ is None


def test_all_packages_that_the_engine_calls_are_known() -> None:
    """Or an error in one would be called an author's."""
    found: set[str] = set()
    for path in Path(boundary.__file__).parents[1].rglob("*.py"):
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(each, ast.Import):
                found |= {name.name.partition(".")[0] for name in each.names}
            elif isinstance(each, ast.ImportFrom):
                found.add(str(each.module).partition(".")[0])
    assert len(found) > 10 and found - sys.stdlib_module_names - {"projection_rebuild"} <= boundary.LIBRARIES


# Real places -------------------------------------------------------------------------------------------------------


class BadSql(Projector):
    """Cannot say its SQL."""

    owns = (shop.CustomerTotal,)
    reads_events: ClassVar[tuple[str, ...]] = ("OrderPlaced",)

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        raising(decimal.InvalidOperation(MARK))


def of(event: Event) -> object:
    return event["on"]


def at(moment: object) -> object:
    raising(Elsewhere(MARK))


class BadPeriod(Projector):
    """Cannot say its periods."""

    owns = (shop.CustomerTotal,)
    part = ByPeriod({shop.CustomerTotal: "customer"}, of=of, at=at)

    @handles("OrderPlaced")
    def placed(self, event: Event, rows: Rows) -> None:
        """Nothing comes of it."""


@pytest.mark.parametrize(("projector", "kind"), [(BadSql, "InvalidOperation"), (BadPeriod, "Elsewhere")])
def test_what_an_author_says_of_a_projector_fails(sqlite_url: sa.URL, projector: type[Projector], kind: str) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.fill(engine, events(5))
    made = rebuild(engine, projectors=[f"{__name__}:{projector.__name__}"])
    given: dict[str, Any] = {"since": "2026-01-01"} if projector is BadPeriod else {}
    found = told(lambda: made.plan(RunOptions.parse(given)))
    assert isinstance(found, CodeError) and kind in found.message and "test_error_boundary.py:" in found.message
    assert found.message.startswith("plan: ") and boundary.UNTOUCHED in found.message
    made.close()
    engine.dispose()


# What the engine tells itself by -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (TablesBusy(), LockNotHad, "other sessions use the tables"),
        (FenceDied(), ConnectionLost, "the connection that held appends back was cut"),
    ],
)
def test_signals_of_the_engine_have_a_text_and_a_code(error: Exception, kind: type[RebuildError], words: str) -> None:
    found = told(lambda: boundary.step("atomic_swap", boundary.ONE_SIDE)(within_the_engine(error))(None))
    assert isinstance(found, kind) and found.retryable and words in found.message


@pytest.fixture
def switched(sqlite_url: sa.URL) -> Iterator[sa.Engine]:
    """A database whose run has switched."""
    made = sa.create_engine(sqlite_url)
    shop.fill(made, events(20))
    run_to(rebuild(made), "swap")
    yield made
    made.dispose()


def busy(*_: object, **__: object) -> NoReturn:
    raise TablesBusy


def locked(*_: object, **__: object) -> NoReturn:
    error = sqlite3.OperationalError(MARK)
    error.sqlite_errorname = "SQLITE_BUSY"
    raise sa.exc.OperationalError(MARK, {MARK: MARK}, error)


@pytest.mark.parametrize("use", [busy, locked])
def test_tables_that_are_never_free_are_named(
    switched: sa.Engine, use: Callable[..., NoReturn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retire, "PATIENCE", timedelta(0))
    made = rebuild(switched)
    dialect, cutover = type(made._context.dialect), type(made._context.dialect.cutover)
    with monkeypatch.context() as patched:
        patched.setattr(dialect, "after_swap", lambda *_: ["ALTER TABLE"])
        patched.setattr(cutover, "run_at_work", use)
        found = told(made.reconcile)
    assert isinstance(found, LockNotHad) and found.retryable and found.code == "PR-DB-06"
    assert "reconcile: " in found.message and "somebody has used " in found.message and "orders" in found.message
    assert ("SQLITE_BUSY" in found.message) is (use is locked)
    made.reconcile()
    with monkeypatch.context() as patched:
        old_tables_are_dropped_by(patched, use)
        found = told(made.drop_old)
    assert isinstance(found, LockNotHad) and "_old for " in found.message
    made.drop_old()
    made.close()


@pytest.mark.parametrize("use", [busy, locked])
def test_a_program_that_still_writes_is_waited_for(
    switched: sa.Engine, use: Callable[..., NoReturn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clone, "PATIENCE", timedelta(0))
    made = rebuild(switched)
    monkeypatch.setattr(type(dialect_for(switched)), "fence", use)
    with pytest.raises(SettleTimeout, match="somebody still writes orders_rebuild"):
        clone._wait_for_writers(made._context, made._context.table_set("orders"))
    made.close()


# Texts of authors ---------------------------------------------------------------------------------------------------

MODULES = {
    "a URL": (f"\nint('postgresql://{MARK}')\n", r"ValueError at \S+\.py:2"),
    "no Python": (f"x = 1\nif '{MARK}'\n", r"SyntaxError at \S+\.py:2"),
    "a name": ("\n\nnothing\n", r"NameError at \S+\.py:3"),
    "no module": ("import no_such_module_anywhere\n", r"ModuleNotFoundError of no_such_module_anywhere at \S+\.py:1"),
    "a name that is none": (f"raise ModuleNotFoundError('{MARK}', name='{MARK}')\n", r"ModuleNotFoundError at \S+\.py:1"),
    "the end": (f"raise SystemExit('{MARK}')\n", r"SystemExit at \S+\.py:1"),
    "an error of its own": (f"class Own(Exception): ...\nraise Own('{MARK}')\n", r"Own at \S+\.py:2"),
}


def imported(module: str, by: str) -> object:
    """What a spec names in a module of the author's, as a projector or as a new structure."""
    if by == "projector":
        return load_projector(f"{module}:P")
    return load_structure(StructureSection(metadata=f"{module}:metadata"))


@pytest.mark.parametrize("what", MODULES)
@pytest.mark.parametrize("by", ["projector", "structure"])
def test_a_module_that_fails_is_told_by_kind_and_line(
    what: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, words = MODULES[what]
    name = f"authors_{by}_{list(MODULES).index(what)}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises((ProjectorError, SpecError), match=f"importing {name} failed with {words}") as raised:
        imported(name, by)
    assert not leaks(raised.value) and str(raised.value).count("[PR-") == 1


@pytest.mark.parametrize("by", ["projector", "structure"])
def test_a_module_that_asks_a_database_that_is_away_may_be_imported_later(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"authors_{by}_asks"
    (tmp_path / f"{name}.py").write_text(f"import sqlite3\nraise sqlite3.OperationalError('{MARK}')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = told(lambda: imported(name, by))
    assert isinstance(found, MachineTrouble) and f"importing {name}" in found.message


def test_an_event_of_a_version_that_nobody_knows_is_told_with_one_code(
    sqlite_url: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.fill(engine, events(5))
    monkeypatch.setattr(shop.OrderProjector, "upcasters", Upcasters(current={"OrderPlaced": 2}))
    made = rebuild(engine)
    found = told(lambda: made.plan(RunOptions()))
    assert "its version is unknown" in found.message and "; the replay would end there" in found.message
    made.close()
    engine.dispose()


# The event store by itself -----------------------------------------------------------------------------------------


def refused(*_: object, **__: object) -> NoReturn:
    raise sa.exc.OperationalError(MARK, {MARK: MARK}, sqlite3.OperationalError(MARK))


def test_opening_and_asking_the_event_store_raises_errors_of_ours(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.stored_events.create(engine)
    section = EventStoreSection(conn_id="db")
    store = EventStore(dialect_for(engine), section)
    kind = type(store.dialect)
    monkeypatch.setattr(Contract, "findings", refused)
    monkeypatch.setattr(Contract, "without_times", refused)
    for ask in (store.preflight, store.without_times):
        found = told(ask)
        assert isinstance(found, DatabaseTrouble) and "stored_events" in found.message
    monkeypatch.setattr(kind, "column_types", refused)
    found = told(lambda: EventStore(dialect_for(engine), section))
    assert isinstance(found, DatabaseTrouble) and "stored_events" in found.message
    store.dialect.engine.dispose()


def held(store: EventStore, meanwhile: Callable[[], object] = lambda: None) -> None:
    with store.fence(timedelta(seconds=1), timedelta(seconds=1)):
        meanwhile()


def test_a_fence_that_fails_is_told_of_the_store_and_what_is_done_behind_it_is_not(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.stored_events.create(engine)
    store = EventStore(dialect_for(engine), EventStoreSection(conn_id="db"))
    # Errors of what is done meanwhile are its own: by them the switch decides.
    for signal in (TablesBusy, FenceDied, sa.exc.IntegrityError):
        error = signal() if signal is not sa.exc.IntegrityError else signal(MARK, {}, sqlite3.IntegrityError(MARK))
        with pytest.raises(signal) as raised:
            held(store, lambda error=error: within_the_engine(error)())  # type: ignore[misc]
        assert raised.value is error
    held(store)

    @contextmanager
    def at_its_end(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace()
        refused()

    for fence in (refused, at_its_end):
        monkeypatch.setattr(type(store.dialect), "fence", fence)
        found = told(lambda: held(store))
        assert isinstance(found, DatabaseTrouble) and "stored_events" in found.message
        assert store.dialect.kind_of(found) is not None
    store.dialect.engine.dispose()
