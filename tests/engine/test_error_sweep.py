"""Whatever a driver says at whatever step, a person reads one of our errors, and no value of an event or a row.

Every error at one statement of each step; with REBUILD_TEST_EVERY_STATEMENT=1 an error at every statement of each step, in turn.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import HandlerError, RebuildError, Troubled
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.traffic.low_traffic import Waiting
from projection_rebuild.verification import verify
from tests.conftest import EVERY_STATEMENT
from tests.engine.harness import marked
from tests.engine.harness.faults import Fault, Strike, cut
from tests.engine.harness.marked import MARK, Listener, Marked, ThingProjector, added, event, leaks, strangers

STEPS: dict[str, Callable[[Rebuild], object]] = {
    "plan": lambda made: made.plan(RunOptions()),
    "clone_tables": Rebuild.clone_tables,
    "pause": lambda made: made.pause(by="somebody"),
    "resume": lambda made: made.resume(by="somebody"),
    "replay_shard": lambda made: [made.replay_shard(name, number) for name, number in made.shards()],
    # It joins the shards.
    "replay": lambda made: [made.replay(name) for name in made.chosen()],
    "verify_counts": Rebuild.verify,
    "look_at_traffic": lambda made: made.look_at_traffic(Waiting(datetime.now(UTC))),
    "decide": lambda made: made.decide(True, by="somebody"),
    "atomic_swap": Rebuild.swap,
    "reconcile": Rebuild.reconcile,
    "report": Rebuild.report,
    "keep_house": lambda made: made.keep_house(is_over=lambda _: True, rebuilds=["marked"]),
    "drop_old_tables": Rebuild.drop_old,
    "plan_rollback": lambda made: made.plan_rollback(RunOptions()),
    "bring_back": Rebuild.bring_back,
    "plan_part": lambda made: made.plan(RunOptions(projectors=("ThingProjector",), aggregates=("plain",))),
}

SHORT = {"pause", "resume", "look_at_traffic", "decide", "report", "plan_rollback"}
"""Steps of so few statements that they are struck at the first ones only."""

REBUILD = ("plan", "clone_tables", "replay", "verify_counts", "atomic_swap", "reconcile")


@dataclass(frozen=True)
class Walk:
    """A way through the steps.

    :param steps: of one run, in their order
    :param struck: the steps that errors are raised in
    :param before: the steps of another run, each time before it
    :param changes: of the spec
    """

    steps: Sequence[str]
    struck: Collection[str]
    before: Sequence[str] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


_FORWARD = [name for name in STEPS if name not in ("plan_rollback", "bring_back", "plan_part")]
WALKS = {
    "a rebuild": Walk(_FORWARD, _FORWARD, changes={"replay": {"batch_events": 100, "shards": 2}}),
    "a rollback": Walk(
        ("plan_rollback", "bring_back", "atomic_swap", "reconcile", "drop_old_tables"),
        ("plan_rollback", "bring_back", "atomic_swap", "reconcile"),
        before=REBUILD,
    ),
    "a part": Walk(("plan_part", *REBUILD[1:], "drop_old_tables"), ("plan_part", "clone_tables", "replay", "verify_counts")),
}


def test_every_step_is_struck_in_some_walk() -> None:
    assert {name for walk in WALKS.values() for name in walk.struck} == set(STEPS)


RAISED = {
    "postgresql": (
        *("08006", "0A000", "22P02", "23505", "23514", "25006", "40001", "42501", "42601", "42P01", "53100", "55P03", "57014"),
        *("58030", "P0001", "XX000"),
    ),
    # Those that quote values; the others cannot be told from the server's own words.
    "mysql": (1048, 1062, 1064, 1105, 1292, 1366, 1406, 1452, 1644, 3140, 3819, 4025),
    "sqlite": ("SQLITE_CONSTRAINT_TRIGGER", "SQLITE_ERROR", ""),
}
"""Errors that quote the mark, by their codes."""

PLAIN = {
    "postgresql": (),
    "mysql": (1021, 1142, 1146, 1205, 1290, 1317, 1792, 2013),
    "sqlite": ("SQLITE_BUSY", "SQLITE_FULL", "SQLITE_READONLY"),
}
"""Errors whose texts hold no value."""


def struck_with(backend: str, code: object, text: str) -> Strike:
    """An error of the driver's, raised by the server where there is one."""

    def strike(driver: Any) -> None:
        if backend == "sqlite":
            if driver.in_transaction:
                driver.rollback()
            error = (sqlite3.OperationalError if code else sqlite3.ProgrammingError)(text)
            if code:
                error.sqlite_errorname = str(code)
            raise error
        if backend == "postgresql":
            using = f"USING ERRCODE = '{code}', DETAIL = 'Failing row contains ({text})', HINT = '{text}'"
            driver.cursor().execute(f"DO $$ BEGIN RAISE EXCEPTION '{text}' {using}; END $$")
        else:
            driver.cursor().execute(f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = '{text}'")
        raise AssertionError("the server refused nothing")

    return strike


@pytest.fixture
def heard() -> Iterator[Listener]:
    """What is logged while a test runs."""
    yield from marked.listening()


@pytest.fixture
def application(database_url: sa.URL, heard: Listener, monkeypatch: pytest.MonkeyPatch) -> Iterator[Marked]:
    """The application, and afterwards nothing of the mark in any log or record."""
    # A report has a few keys of rows that differ, for whoever approves the switch. All else must have none.
    monkeypatch.setattr(verify, "SAMPLES", 0)
    made = Marked(database_url)
    yield made
    found = strangers("\n".join([*made.log, *heard.heard]))
    assert not found, [each for each in [*made.log, *heard.heard] if strangers(each)]
    assert not strangers(made.records())
    made.engine.dispose()


def failure(step: Callable[[], object]) -> RebuildError:
    """The error that a step ends with. It is one of ours, and says nothing that nobody may see."""
    with pytest.raises(Exception) as caught:
        step()
    assert isinstance(caught.value, RebuildError), repr(caught.value)
    assert not leaks(caught.value), caught.value
    return caught.value


@pytest.mark.parametrize("name", WALKS)
def test_every_error_at_every_step_is_ours_and_quotes_nothing(application: Marked, name: str) -> None:
    backend = application.url.get_backend_name()
    strikes = [struck_with(backend, code, f"told {MARK}") for code in RAISED[backend]]
    strikes += [struck_with(backend, code, "told") for code in PLAIN[backend]]
    strikes += [cut(application.url)] if backend != "sqlite" else []
    application.store({**added(9, id="plain-1", code="plain-1"), "aggregate_uuid": "plain"})
    told = struck(application, WALKS[name], strikes)
    assert min(map(len, told.values())) >= 3, told
    assert {code for codes in told.values() for code in codes} >= {
        "PR-DB-06" if backend == "sqlite" else "PR-DB-00",
        "PR-DB-08",
    }, told


def struck(application: Marked, walk: Walk, strikes: Sequence[Strike]) -> dict[str, set[str]]:
    """Strikes each step by everything, over as many runs as that takes; after the last strike each step ends well.

    :returns: the codes of each step's errors
    """
    told: dict[str, set[str]] = {name: set() for name in walk.struck}
    left = {name: _places(name, len(strikes)) for name in walk.struck}
    for number in count():
        if not any(left.values()):
            return told
        for name in walk.before:
            _undisturbed(application, walk, f"before-{number}", name)
        for name in walk.steps:
            done = False
            while left.get(name) and not done:
                which, at = left[name].pop()
                made, fault = application.open_run(f"run-{number}", **walk.changes), Fault(at, strikes[which % len(strikes)])
                with fault.on(made):
                    error = _error_of(lambda: STEPS[name](made))  # noqa: B023
                made.close()
                done = error is None
                if EVERY_STATEMENT and fault.struck:
                    left[name].append((which + 1, at + 1))
                if error is not None:
                    assert not isinstance(error, Troubled) or (error.step and error.state and error.remedy), error
                    told[name].add(error.code)
            if not done:
                _undisturbed(application, walk, f"run-{number}", name)
    raise AssertionError("there are always more runs")


def _places(name: str, strikes: int) -> list[tuple[int, int]]:
    """Which error, and at which statement of a step."""
    if EVERY_STATEMENT:
        return [(0, 1)]
    return [(number, 1 + number % 2 if name in SHORT else 1 + 3 * (number % 4)) for number in range(strikes)]


def _undisturbed(application: Marked, walk: Walk, run_id: str, name: str) -> None:
    made = application.open_run(run_id, **walk.changes)
    STEPS[name](made)
    made.close()


def _error_of(step: Callable[[], object]) -> RebuildError | None:
    try:
        step()
    except Exception as error:
        assert isinstance(error, RebuildError), repr(error)
        assert not leaks(error), (leaks(error), str(error))
        return error
    return None


# What events and rows may do ---------------------------------------------------------------------------------------

WRONG: dict[str, dict[str, Any]] = {
    "a key twice": {"id": f"{MARK}-1"},
    "what is unique twice": {"code": f"{MARK}-code-1"},
    "too long": {"note": MARK * 9},
    "a check": {"amount": -1},
    "no number": {"amount": MARK},
    "too large a number": {"amount": 2**70},
    "null": {"note": None},
    "a lone surrogate": {"note": f"\ud800{MARK}"},
    "an object for a text": {"note": {MARK: MARK}},
    "NUL": {"note": f"{MARK}\x00"},
    "no text that is JSON": {"details": {MARK: float("nan")}},
    "no keeper": {"keeper": f"{MARK}-ghost"},
}
TAKEN = {"sqlite": {"too long", "NUL"}, "mysql": {"NUL"}, "postgresql": set()}
"""What a database takes as it is."""


def test_what_a_row_may_not_hold(application: Marked) -> None:
    backend, told = application.url.get_backend_name(), {}
    for number, (what, wrong) in enumerate(WRONG.items()):
        made = application.begin(f"wrong-{number}")
        # Afterwards: what a plan looks at would end there.
        application.store(added(100, **wrong))
        error = _error_of(lambda: STEPS["replay"](made)) or _error_of(made.verify)  # noqa: B023
        made.close()
        application.forget()
        told[what] = "" if error is None else error.code
    # A number of any size is a real number to SQLite.
    assert {what for what, code in told.items() if not code} - {"too large a number"} == TAKEN[backend], told
    assert {*told.values()} <= {"", "PR-WRITE-01", "PR-EVENT-01", "PR-EVENT-02", "PR-VERIFY-01"}, told


NO_PAYLOAD = [f"{{{MARK}", f'"{MARK}"', f"[{MARK!r}]", ""]


def test_what_is_no_payload(application: Marked) -> None:
    for number, payload in enumerate(NO_PAYLOAD):
        made = application.begin(f"wrong-{number}")
        application.store(event("ThingAdded", payload))
        error = failure(lambda: STEPS["replay"](made))  # noqa: B023
        assert error.code == "PR-EVENT-02" and "event ThingAdded at position " in str(error)
        made.close()
        application.forget()


@pytest.mark.parametrize("wrong", [*NO_PAYLOAD, {"details": {MARK: float("nan")}}, {"note": f"\ud800{MARK}"}], ids=str)
def test_a_plan_that_finds_an_event_that_cannot_be_read(application: Marked, wrong: str | dict[str, Any]) -> None:
    application.store(event("ThingAdded", wrong) if isinstance(wrong, str) else added(100, **wrong))
    made = application.open_run("wrong")
    error = failure(lambda: STEPS["plan"](made))
    assert error.code == "PR-PLAN-01" and "the event ThingAdded at position 1" in str(error)
    assert str(error).count("[PR-") == 1
    made.close()


def test_sql_of_a_projector(application: Marked) -> None:
    application.store(event("ThingCounted", {"id": MARK}))
    made = application.begin("both", projectors=["tests.engine.harness.marked:CountByBoth"])
    STEPS["replay"](made)
    made.close()
    (said,) = [each for each in application.log if "its SQL fails on the events above " in each]
    assert " and up to " in said and "[PR-" not in said
    if application.engine.dialect.name == "mysql" and not getattr(application.engine.dialect, "is_mariadb", False):
        # It takes no projector without handlers.
        return
    made = application.begin("alone", projectors=["tests.engine.harness.marked:CountProjector"])
    error = failure(lambda: STEPS["replay"](made))
    assert error.code == "PR-SET-01"
    made.close()


QUOTING = {
    "postgresql": "SELECT CAST(note AS integer) FROM {table}",
    "mysql": "SELECT EXTRACTVALUE(1, CONCAT(0x7e, note)) FROM {table}",
    "sqlite": "SELECT json(note) FROM {table}",
}
"""SQL that fails, and then quotes a row."""


def test_sql_of_an_assertion(application: Marked) -> None:
    sql = QUOTING[application.url.get_backend_name()].replace("{table}", "{things}")
    made = application.open_run("wrong", verify={"assertions": [sql]})
    for name in ("plan", "clone_tables", "replay"):
        STEPS[name](made)
    error = failure(made.verify)
    assert error.code == "PR-SQL-01" and not error.retryable
    made.close()


@pytest.mark.parametrize("key", ["drain_check", "jobs_left", "replica_lag"])
def test_other_sql_of_the_spec(application: Marked, key: str) -> None:
    sql = QUOTING[application.url.get_backend_name()].replace("{table}", "things")
    changes: dict[str, Any] = (
        {"live_writer": {"contract": "detached", key: sql}}
        if key != "replica_lag"
        else {"throttle": {"replica_lag": sql, "max_replica_lag": "1s"}}
    )
    made = application.open_run("wrong", **changes)

    def run() -> None:
        for name in ("plan", "clone_tables", "replay", "verify_counts", "atomic_swap"):
            STEPS[name](made)

    failure(run)
    made.close()


# What machines may do ----------------------------------------------------------------------------------------------


def _too_deep(event: Any) -> Exception:
    return _too_deep(event)


OF_MACHINES: dict[str, Callable[[Any], Exception]] = {
    "disk": lambda event: OSError(errno.ENOSPC, MARK, MARK),
    "files": lambda event: FileNotFoundError(errno.ENOENT, MARK, MARK),
    "no words": lambda event: OSError(MARK),
    "memory": lambda event: MemoryError(MARK),
    "modules": lambda event: ImportError(MARK),
    "network": lambda event: ConnectionResetError(errno.ECONNRESET, MARK),
    "time": lambda event: TimeoutError(MARK),
    "system": lambda event: SystemError(MARK),
    "threads": lambda event: RuntimeError("can't start new thread"),
    "a database elsewhere": lambda event: _lost(),
    "depth": _too_deep,
}


def _lost() -> Exception:
    return sa.exc.OperationalError(MARK, {MARK: MARK}, sqlite3.OperationalError(MARK), connection_invalidated=True)


def failing(with_error: Callable[[Any], Exception]) -> Any:
    """A handler that fails."""

    def fail(event: Any) -> None:
        raise with_error(event)

    return staticmethod(fail)


@pytest.mark.parametrize("on_error", ["fail", "dead_letter"])
def test_a_machine_that_fails_is_never_an_events_fault(
    application: Marked, on_error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.store(event("ThingBroken", {"id": MARK}))
    made = application.begin("sick", replay={"on_error": on_error})
    for what, error_of in OF_MACHINES.items():
        monkeypatch.setattr(ThingProjector, "fails", failing(error_of))
        error = failure(lambda: STEPS["replay"](made))
        code = "PR-DB-01" if what == "a database elsewhere" else "PR-MACHINE-01"
        assert error.retryable and error.code == code, error
        assert "event ThingBroken at position 10" in str(error) and "ThingProjector" in str(error)
    # On a worker that is well, it simply goes on.
    monkeypatch.setattr(ThingProjector, "fails", staticmethod(lambda event: None))
    for name in ("replay", "verify_counts", "atomic_swap"):
        STEPS[name](made)
    made.close()


@pytest.mark.parametrize("error", [ValueError, KeyError, TypeError, AssertionError, StopIteration])
def test_an_event_that_is_at_fault_is_called_so(
    sqlite_url: sa.URL, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    application = Marked(sqlite_url)
    application.store(event("ThingBroken", {"id": MARK}))
    monkeypatch.setattr(ThingProjector, "fails", failing(lambda event: error(MARK)))
    made = application.begin("wrong")
    assert isinstance(failure(lambda: STEPS["replay"](made)), HandlerError)
    made.close()
    application.engine.dispose()


# What administrators may do ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "what"), [("clone_tables", "dropped"), ("replay", "dropped"), ("replay", "renamed"), ("atomic_swap", "dropped")]
)
def test_a_table_that_somebody_takes_away(application: Marked, at: str, what: str) -> None:
    made = application.open_run("taken")
    for name, step in STEPS.items():
        if name == at:
            break
        step(made)
    # The live one, or the column of one; what rows refer to goes with it.
    suffix = " CASCADE" if application.url.get_backend_name() == "postgresql" else ""
    green = "things_rebuild" if at != "clone_tables" else "things"
    application.execute(
        f"DROP TABLE {green}{suffix}" if what == "dropped" else f"ALTER TABLE {green} RENAME COLUMN note TO remark"
    )
    error = failure(lambda: STEPS[at](made))
    assert "things" in str(error), error
    made.close()


def test_a_server_that_takes_no_writes(application: Marked, tmp_path: Any) -> None:
    read_only: dict[str, dict[str, Any]] = {
        "postgresql": {"connect_args": {"options": "-c default_transaction_read_only=on"}},
        "mysql": {"connect_args": {"init_command": "SET SESSION TRANSACTION READ ONLY"}},
        "sqlite": {},
    }
    backend = application.url.get_backend_name()
    engine = sa.create_engine(application.url, **read_only[backend])
    if backend == "sqlite":
        sa.event.listen(engine, "connect", lambda driver, _: driver.execute("PRAGMA query_only = 1"))
    made = application.open_run("read only", engine)
    error = failure(lambda: STEPS["plan"](made))
    assert "read-only" in str(error) or "transaction_read_only" in str(error), error
    made.close()
    engine.dispose()


def test_a_user_without_the_privilege(application: Marked) -> None:
    backend = application.url.get_backend_name()
    if backend == "sqlite":
        engine = sa.create_engine(application.url)

        @sa.event.listens_for(engine, "connect")
        def _(driver: sqlite3.Connection, __: object) -> None:
            driver.set_authorizer(lambda what, table, *_: sqlite3.SQLITE_DENY if table == "stored_events" else sqlite3.SQLITE_OK)
    else:
        password, database = "secret-of-nobody", application.url.database
        if backend == "postgresql":
            application.execute("DROP ROLE IF EXISTS marked_nobody")
            application.execute(f"CREATE ROLE marked_nobody LOGIN PASSWORD '{password}'")
        else:
            application.execute("DROP USER IF EXISTS marked_nobody")
            application.execute(f"CREATE USER marked_nobody IDENTIFIED BY '{password}'")
            application.execute(f"GRANT SELECT, CREATE ON `{database}`.* TO marked_nobody")
        engine = sa.create_engine(application.url.set(username="marked_nobody", password=password))
    made: Rebuild | None = None

    def run() -> None:
        nonlocal made
        made = application.open_run("denied", engine)
        STEPS["plan"](made)

    error = failure(run)
    assert not error.retryable and "secret-of-nobody" not in str(error), error
    if made is not None:
        made.close()
    engine.dispose()
    if backend == "mysql":
        application.execute("DROP USER marked_nobody")
    elif backend == "postgresql":
        application.execute("DROP ROLE marked_nobody")
