"""Errors by themselves: what is shown of a driver's words, and where drivers' errors become ours."""

from __future__ import annotations

import inspect
import os
import sqlite3
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from projection_rebuild.__main__ import main
from projection_rebuild.authoring.events import Event
from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import ConnectionLost, DatabaseTrouble, PlanError, ProjectorError, boundary
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.trouble import Kind, Trouble
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.inline import project_live
from projection_rebuild.spec.projectors import load_projector
from projection_rebuild.spec.stores import EventStoreSection
from tests.engine.harness import marked, shop
from tests.engine.harness.marked import MARK, leaks
from tests.engine.harness.seams import command_does
from tests.engine.harness.specs import rebuild


def test_every_verb_of_a_rebuild_ends_in_errors_of_ours() -> None:
    verbs = {name: each for name, each in vars(Rebuild).items() if inspect.isfunction(each) and not name.startswith("_")}
    assert [name for name, each in verbs.items() if not hasattr(each, "step")] == []
    assert hasattr(Rebuild.__init__, "step")


# What is shown of a database's words -------------------------------------------------------------------------------

SHOWN: dict[str, dict[str, str]] = {
    "postgresql": {
        "INSERT INTO things SELECT * FROM things": 'duplicate key value violates unique constraint "things_pkey"',
        "INSERT INTO things (id) VALUES ('%')": 'null value in column "keeper" of relation "things" violates not-null constraint',
        "UPDATE things SET note = repeat(note, 9)": "value too long for type character varying(60)",
        "UPDATE things SET amount = -1": 'new row for relation "things" violates check constraint "things_chk_1"',
        "UPDATE things SET keeper = 'x%'": 'insert or update on table "things" violates foreign key constraint "things_keeper"',
        "DELETE FROM keepers": 'update or delete on table "keepers" violates foreign key constraint "things_keeper" on table "things"',
        "UPDATE things SET amount = CAST(note AS integer)": "",
        "UPDATE things SET amount = amount / 0": "division by zero",
        "SELECT * FROM nowhere": 'relation "nowhere" does not exist',
        "SELECT nowhat FROM things": 'column "nowhat" does not exist',
        "SELECT '%' FROM FROM": "",
        "DO $$ BEGIN RAISE unique_violation USING MESSAGE = '%', TABLE = '%', COLUMN = '%', CONSTRAINT = '%'; END $$": "",
        "DO $$ BEGIN RAISE undefined_table USING MESSAGE = '%'; END $$": "",
        "DO $$ BEGIN RAISE EXCEPTION '%', 'x'; END $$": "",
    },
    "mysql": {
        "INSERT INTO things SELECT * FROM things": "for key '",
        "INSERT INTO things (id, keeper, note, code, amount) VALUES ('%', '%', '%', '%', 1)": "'details' doesn't have a default value",
        "UPDATE things SET note = repeat(note, 9)": "Data too long for column 'note' at row 1",
        "UPDATE things SET amount = -1": "things_chk_1",
        "UPDATE things SET keeper = 'x%'": "things_keeper",
        "DELETE FROM keepers": "things_keeper",
        "UPDATE things SET amount = note": "for column ",
        "UPDATE things SET code = 'a'' for key ''%', id = '%'": "for key '",
        "SELECT * FROM nowhere": "nowhere",
        "SELECT nowhat FROM things": "nowhat",
        "SELECT '%' FROM FROM": "",
        "SELECT EXTRACTVALUE(1, CONCAT(0x7e, note)) FROM things": "",
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '%'": "",
        "SIGNAL SQLSTATE '23000' SET MYSQL_ERRNO = 1406, MESSAGE_TEXT = '%'": "",
    },
    "sqlite": {
        "INSERT INTO things SELECT * FROM things": "UNIQUE constraint failed: things.",
        "INSERT INTO things (id) VALUES ('%')": "NOT NULL constraint failed: things.keeper",
        "UPDATE things SET amount = -1": "CHECK constraint failed: things_chk_1",
        "SELECT json(note) FROM things": "",
        "SELECT * FROM nowhere": "no such table: nowhere",
        "SELECT nowhat FROM things": "no such column: nowhat",
        "SELECT '%' FROM FROM": "",
        "INSERT INTO refused VALUES ('%')": "",
    },
}
"""By the statement (``%`` stands for the mark), a part of what is shown; empty: nothing at all."""


def test_what_is_shown_of_a_databases_words(engine: sa.Engine) -> None:
    marked.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO keepers VALUES ('{MARK}')")
        connection.execute(marked.things.insert(), [marked.thing(number, keeper=MARK) for number in (1, 2)])
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("CREATE TABLE refused (id)")
            connection.exec_driver_sql(
                "CREATE TRIGGER r BEFORE INSERT ON refused BEGIN SELECT RAISE(ABORT, 'PAYLOAD-MARK-7f3a'); END"
            )
    for statement, shown in SHOWN[engine.url.get_backend_name()].items():
        trouble = None
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(statement.replace("%", MARK), execution_options={"no_parameters": True})
        except sa.exc.DBAPIError as error:
            trouble = trouble_of(error)
        assert trouble is not None and trouble.code, statement
        assert MARK not in trouble.describe(), statement
        assert shown in trouble.text if shown else not trouble.text, (statement, trouble)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sa.exc.TimeoutError(MARK), Kind.FULL),
        (sa.exc.ResourceClosedError(MARK), Kind.LOST),
        (sa.exc.StatementError(MARK, MARK, {}, ValueError(MARK)), Kind.VALUE),
        (sa.exc.ArgumentError(MARK), Kind.UNKNOWN),
        (sa.exc.InvalidRequestError(MARK), Kind.UNKNOWN),
        (psycopg.ProgrammingError(MARK), Kind.VALUE),
        (psycopg.InterfaceError(MARK), Kind.LOST),
        (psycopg.errors.UniqueViolation(MARK), Kind.VALUE),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), Kind.LOST),
        (sqlite3.InterfaceError(MARK), Kind.VALUE),
    ],
)
def test_errors_that_no_server_has_raised(error: Exception, kind: Kind) -> None:
    trouble = trouble_of(error)
    assert trouble is not None and trouble.kind is kind
    assert MARK not in trouble.describe()


def test_what_is_no_drivers_error_is_none() -> None:
    assert trouble_of(ValueError(MARK)) is None
    assert trouble_of(ConnectionLost(Trouble(Kind.LOST, "x"))) == Trouble(Kind.LOST, "x")


# The boundary ------------------------------------------------------------------------------------------------------


def test_what_an_error_of_ours_came_from_is_not_printed() -> None:
    def verb(_: object) -> None:
        try:
            raise psycopg.errors.UniqueViolation(MARK)
        except psycopg.Error as error:
            raise PlanError("it cannot be") from error

    with pytest.raises(PlanError) as raised:
        boundary.step("plan", boundary.UNTOUCHED)(verb)(None)
    assert not leaks(raised.value)


def test_an_error_says_what_was_done_to_which_table(sqlite_url: sa.URL) -> None:
    engine = sa.create_engine(sqlite_url)
    shop.metadata.create_all(engine)
    made = rebuild(engine)
    error = sa.exc.OperationalError(f"INSERT INTO orders_rebuild VALUES ('{MARK}')", {}, sqlite3.OperationalError(MARK))
    told = boundary.named(error, "replay", boundary.GREEN_KEPT, boundary._tables(made))
    assert ", at INSERT of orders_rebuild. " in str(told) and MARK not in str(told)
    made.close()
    engine.dispose()


def test_reading_the_event_store_by_itself(engine: sa.Engine) -> None:
    """As a consumer of the application does."""
    shop.stored_events.create(engine)
    store = EventStore(dialect_for(engine), EventStoreSection(conn_id="db"))
    shop.stored_events.drop(engine)
    for read in (store.newest, store.settled_head, lambda: list(store.pages(0, 10, ["x"], size=1))):
        with pytest.raises(DatabaseTrouble, match="stored_events") as raised:
            read()  # type: ignore[operator]
        assert not leaks(raised.value)
    store.dialect.engine.dispose()


def test_live_the_application_sees_its_drivers_error(engine: sa.Engine) -> None:
    """By its class it knows a transaction that may be tried again."""
    marked.metadata.create_all(engine)
    said = marked.thing(1, keeper="nobody")
    event = Event(position=1, stream="s", type="ThingAdded", payload=said)
    if engine.dialect.name == "sqlite":
        marked.things.drop(engine)
    with pytest.raises(sa.exc.DBAPIError), engine.begin() as connection:
        project_live(connection, marked.ThingProjector, event)


def test_the_command_line_prints_one_of_ours(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("rebuild: x\n")
    assert main(["plan", str(spec), "--read-models", f"no url {MARK}"]) == 1
    said = capsys.readouterr().out
    assert "PR-CONNECTION-01" in said and MARK not in said
    url = f"sqlite:///{tmp_path}/{MARK}/none.db"
    assert main(["plan", "include/rebuilds/universal.yaml", "--read-models", url]) == 1
    said = capsys.readouterr().out
    assert "PR-CONNECTION-01" in said and "OperationalError" not in said

    def strange(_: object) -> None:
        raise LookupError(MARK) from sqlite3.IntegrityError(MARK)

    command_does(monkeypatch, strange)
    assert main(["plan", str(spec), "--read-models", url]) == 1
    said = capsys.readouterr().out
    assert "plan: " in said and "LookupError" in said and "[PR-" in said and MARK not in said


def test_a_projector_that_a_sick_machine_cannot_import(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "sick_one.py").write_text(f"raise MemoryError('{MARK}')\n")
    (tmp_path / "missing_one.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(boundary.MachineTrouble, match="importing sick_one") as raised:
        load_projector("sick_one:P")
    assert raised.value.retryable and not leaks(raised.value)
    with pytest.raises(ProjectorError, match="ModuleNotFoundError of no_such_module_anywhere") as imports:
        load_projector("missing_one:P")
    assert "Python's path" not in str(imports.value)


@pytest.mark.parametrize("path", ["no_such_package.projectors:P", "projection_rebuild.no_such_module:P"])
def test_a_projector_that_python_does_not_find_is_told_with_a_remedy(path: str) -> None:
    with pytest.raises(
        ProjectorError, match=r"ModuleNotFoundError of .*no_such_\w+; correct its name, or put the folder that holds it"
    ):
        load_projector(path)


def test_what_decompression_says_of_bytes_is_about_the_bytes() -> None:
    import bz2
    import gzip

    for damaged in (lambda: gzip.decompress(b"no gzip"), lambda: bz2.decompress(b"no bz2")):
        with pytest.raises(OSError) as raised:
            damaged()
        assert not boundary.is_of_the_machine(raised.value)
    assert boundary.is_of_the_machine(OSError("anything else"))


def test_words_of_the_machine_are_the_systems_own() -> None:
    assert boundary.machine_words(OSError(28, MARK, MARK)) == f"OSError (ENOSPC: {os.strerror(28)})"
    assert boundary.machine_words(OSError(MARK)) == "OSError"
    assert boundary.machine_words(MemoryError(MARK)) == "MemoryError"
