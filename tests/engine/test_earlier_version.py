"""What is stored outlives a version: tables, states, records and keys stay as they are, and a run of the version before is finished.

The files in ``earlier_version`` were written by version 0.1.0: the statements that make its ledger's tables, the records of runs in each of
their states, and the contents of a database of each kind in which a run is planned and half replayed. The README there says how.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.schema import CreateTable

from projection_rebuild.ledger import Run, RunRecord, RunState
from projection_rebuild.ledger.schema import tables_in
from projection_rebuild.model.names import TableSet
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay import stages
from projection_rebuild.run import signals
from projection_rebuild.run.context import Context
from projection_rebuild.run.report import Report
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.verification import fresh_proof
from tests.engine.harness import shop

FOLDER = Path(__file__).parent / "earlier_version"


def stored(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


# Names, columns and keys --------------------------------------------------------------------------------------------

DRIVERS = {
    "sqlite": "sqlite://",
    "postgres": "postgresql+psycopg://",
    "mysql": "mysql+pymysql://",
    "mariadb": "mariadb+pymysql://",
}


@pytest.mark.parametrize("kind", DRIVERS)
def test_the_tables_of_the_ledger_are_as_they_were(kind: str) -> None:
    dialect = sa.create_engine(DRIVERS[kind]).dialect
    tables = tables_in("public" if kind == "postgres" else None).tables
    made = {table.name: " ".join(str(CreateTable(table).compile(dialect=dialect)).split()) for table in tables}
    assert made == stored("ledger_tables")[kind]


def test_the_tables_of_another_schema_have_the_same_columns() -> None:
    here, there = tables_in(None), tables_in("models")
    assert {table.schema for table in there.tables} == {"models"}
    assert [(table.name, table.columns.keys()) for table in there.tables] == [
        (table.name, table.columns.keys()) for table in here.tables
    ]


def test_the_states_of_runs_are_as_they_were() -> None:
    states = ["planned", "cloned", "verified", "switching", "switched", "reconciled", "finished", "abandoned"]
    assert [state.value for state in RunState] == states


def test_the_keys_of_a_record_are_as_they_were() -> None:
    assert [field.alias or name for name, field in RunRecord.model_fields.items()] == [
        *("options", "by", "agreed", "moved", "live_tables", "replaced_tables", "verification"),
        *("swap", "left_behind", "reconciliation", "dropped", "rolled_back_by"),
    ]


def test_the_choices_of_a_run_and_the_names_of_notes_are_as_they_were() -> None:
    assert [*RunOptions.model_fields] == [
        *("projectors", "rebuild_dependents", "since", "until", "aggregates", "max_count_drift_percent", "shards"),
        *("keep_old", "drop_after", "approval", "replay_now", "swap_now", "dry_run", "reason"),
    ]
    notes = [signals.SWAP_NOW, signals.APPROVAL, signals.TRAFFIC, signals.STOOD_DOWN, signals.PAUSE, signals.THROTTLE]
    assert notes == ["swap_now", "approval", "traffic", "stood_down", "pause", "throttle"]
    assert (fresh_proof.PROOF, stages.DONE) == ("proof", "stages")


def test_the_keys_of_a_spec_are_as_they_were() -> None:
    schema = RebuildSpec.model_json_schema()
    assert sorted({*spec_keys(schema, schema)}) == stored("spec_keys")


def spec_keys(part: Mapping[str, Any], schema: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """The keys of a spec with their places, such as ``replay.shards``."""
    if "$ref" in part:
        yield from spec_keys(schema["$defs"][part["$ref"].rpartition("/")[2]], schema, at)
    for choice in [*part.get("anyOf", []), *part.get("allOf", []), *part.get("oneOf", [])]:
        yield from spec_keys(choice, schema, at)
    for within, sign in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(part.get(within), dict):
            yield from spec_keys(part[within], schema, at + sign)
    for name, value in part.get("properties", {}).items():
        yield (place := f"{at}.{name}".lstrip("."))
        yield from spec_keys(value, schema, place)


# Records ------------------------------------------------------------------------------------------------------------

ROWS = [(kind, step) for kind, rows in stored("run_records").items() for step in rows]


def stored_run(kind: str, step: str) -> Run:
    row = stored("run_records")[kind][step]
    began = datetime.fromisoformat(f"{row['started_at']}+00:00")
    return Run(row["run_id"], row["rebuild"], RunState(row["state"]), row["record"], began)


def test_there_is_a_record_of_every_state() -> None:
    assert {row["state"] for rows in stored("run_records").values() for row in rows.values()} == {*RunState}
    keys = {key for rows in stored("run_records").values() for row in rows.values() for key in row["record"]}
    # A step reads the plan apart from the others.
    assert keys - {"plan"} == {field.alias or name for name, field in RunRecord.model_fields.items()} - {"rolled_back_by"}


@pytest.mark.parametrize(("kind", "step"), ROWS)
def test_a_record_of_the_version_before_is_read_and_would_be_written_as_it_was(kind: str, step: str) -> None:
    run = stored_run(kind, step)
    now = run.record.model_dump(mode="json", by_alias=True) | {"plan": run.plan.model_dump(mode="json")}
    before = dict(run.stored)
    moved = {state.value: f"{at:%Y-%m-%dT%H:%M:%S.%f}" for state, at in run.record.moved.items()}
    assert moved == before.pop("moved", {})
    assert {key: now[key] for key in before} == before
    assert run.record.options.model_dump(mode="json") == before["options"]
    assert run.record.verification_id == (before.get("verification") or {}).get("at")


@pytest.mark.parametrize(("kind", "step"), ROWS)
def test_a_report_is_made_of_a_record_of_the_version_before(kind: str, step: str) -> None:
    run = stored_run(kind, step)
    report = Report.of(run, {})
    record = run.stored
    assert (report.reason, report.by, report.dropped) == (record["options"]["reason"], record["by"], record.get("dropped", []))
    assert report.as_json()["plan"] == record["plan"]
    for key in ("verification", "swap", "reconciliation"):
        assert report.as_json()[key] == record.get(key)
    assert [*report.moved] == [*record.get("moved", {})]


def test_a_record_of_the_versions_before_that_had_fewer_keys_is_read() -> None:
    run = stored_run("sqlite", "plan")
    record = replace(run, stored={key: run.stored[key] for key in ("options", "plan")}).record
    assert (record.by, record.agreed, record.live_tables, record.replaced_tables, record.moved) == ("", None, None, {}, {})
    assert (record.verification, record.verification_id, record.swap, record.dropped) == (None, None, None, [])


def test_options_that_no_step_could_use_any_more_do_not_keep_a_run_from_being_shown() -> None:
    run = stored_run("sqlite", "drop")
    options = run.stored["options"] | {"reason": "r" * 10_000, "shards": 1_000_000, "of_another_version": True}
    assert Report.of(replace(run, stored={**run.stored, "options": options}), {}).reason == "r" * 10_000


# A run that is half replayed ----------------------------------------------------------------------------------------

SPEC: dict[str, Any] = {
    "rebuild": "shop",
    "event_store": {"conn_id": "db"},
    "read_models": {"conn_id": "db"},
    "projectors": [f"{shop.__name__}:{name}" for name in ("OrderProjector", "OrderLineProjector", "CustomerTotalProjector")],
    "live_writer": "transactional",
    "replay": {"batch_events": 20},
}
GIVEN = {"order_lines": {"row_id"}, "stored_events": {"id"}}
"""Columns that the database gives a value; the rows come in the order of these."""


def rebuild(engine: sa.Engine, run_id: str) -> Rebuild:
    return Rebuild(RebuildSpec.model_validate(SPEC), run_id=run_id, event_store=engine, read_models=engine)


class HalfReplayed:
    """A database as the version before has left it; what is put into it was written by that version, identities excepted."""

    def __init__(self, engine: sa.Engine, kind: str) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = stored(f"half_replayed_{kind}")
        self._engine = engine
        self._context: Context = rebuild(engine, "half")._context
        shop.metadata.create_all(engine)
        with engine.begin() as connection:
            for statement in stored("ledger_tables")[kind].values():
                connection.exec_driver_sql(statement)
        with self._context.dialect.connect() as connection:
            for blue in ("orders", "customer_totals", "order_lines"):
                self._make_beside(connection, self._context.table_set(blue))
            # Parents first.
            for name in sorted(self.rows, key=lambda name: not name.startswith("orders")):
                self._insert(connection, name, self.rows[name])
            self._tell_identities(connection)

    def _make_beside(self, connection: sa.Connection, table: TableSet) -> None:
        dialect = self._context.dialect
        # An old table is only dropped: what keys and indexes it has is all the same.
        connection.exec_driver_sql(f"CREATE TABLE {table.old} AS SELECT * FROM {table.blue} WHERE 1 = 0")
        for statements in (dialect.shadow.create_green, dialect.shadow.index_green):
            for statement in statements(connection, table):
                dialect.run(connection, statement)

    def _insert(self, connection: sa.Connection, name: str, rows: list[dict[str, Any]]) -> None:
        given = GIVEN.get(name.removesuffix("_rebuild"), set())
        for row in rows:
            values = {column: _as_text(value) for column, value in row.items() if column not in given}
            marks = ", ".join(f":{column}" for column in values)
            connection.execute(sa.text(f"INSERT INTO {name} ({', '.join(values)}) VALUES ({marks})"), values)

    def _tell_identities(self, connection: sa.Connection) -> None:
        """The database has numbered its tables by itself; the ledger knows those of the database that it was written in."""
        dialect, schema = self._context.dialect, self._context.schema
        runs = connection.execute(sa.text("SELECT run_id, record FROM projection_rebuild_runs")).all()
        for run_id, text in runs:
            record = json.loads(text)
            live = {table: dialect.inspector.identities(connection, schema, [table])[table] for table in record["live_tables"]}
            _assert_of_one_form(live, record["live_tables"])
            connection.execute(
                sa.text("UPDATE projection_rebuild_runs SET record = :record WHERE run_id = :run_id"),
                {"record": json.dumps(record | {"live_tables": live}), "run_id": run_id},
            )
        retired = {row["old_name"]: row["identity"] for row in self.rows["projection_rebuild_retired"]}
        found = {old: dialect.inspector.identity(connection, schema, old) for old in retired}
        _assert_of_one_form(found, retired)
        for old, identity in found.items():
            connection.execute(
                sa.text("UPDATE projection_rebuild_retired SET identity = :identity WHERE old_name = :old"),
                {"identity": identity, "old": old},
            )

    def live(self, name: str) -> list[dict[str, Any]]:
        """The rows of a live table, without what the database gives by itself."""
        table = shop.metadata.tables[name]
        columns = [column for column in table.columns if column.name not in GIVEN.get(name, set())]
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(sa.select(*columns).order_by(*table.primary_key.columns))]

    def expected(self, name: str) -> list[dict[str, Any]]:
        """The rows of a live table as the version before had made them."""
        table = shop.metadata.tables[name]
        given = GIVEN.get(name, set())
        return [
            {column: _of_json(table.c[column], value) for column, value in row.items() if column not in given}
            for row in self.rows[name]
        ]


def _assert_of_one_form(found: Mapping[str, str | None], before: Mapping[str, str]) -> None:
    """This version would know the table by the identity that the version before has stored, but for its numbers."""
    assert {table: _form(identity) for table, identity in found.items()} == {table: _form(before[table]) for table in before}


def _form(identity: str | None) -> str:
    return re.sub(r"\b([0-9a-f]{16}|\d+)\b", "#", str(identity))


def _as_text(value: Any) -> Any:
    """As a replay writes it: JSON, and moments with a blank between their two halves."""
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return value.replace("T", " ") if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+", value) else value


def _of_json(column: sa.Column[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column.type, sa.DateTime):
        return datetime.fromisoformat(value)
    if isinstance(column.type, sa.Date):
        return date.fromisoformat(value)
    return Decimal(value) if isinstance(column.type, sa.Numeric) else value


def test_a_run_that_the_version_before_has_planned_and_half_replayed_is_finished(engine: sa.Engine, database_kind: str) -> None:
    before = HalfReplayed(engine, database_kind)
    made = rebuild(engine, "half")
    assert made.report().state == RunState.CLONED and made.notes()["swap_now"].by == "bob"

    results = [made.replay(name) for name in made.chosen()]
    # One was done, one goes on from its checkpoint, and one begins.
    assert [(each.projector, each.events, each.resumed_from) for each in results] == [
        ("OrderProjector", 0, 121),
        ("CustomerTotalProjector", 103, None),
        ("OrderLineProjector", 38, 61),
    ]
    assert made.verify().passed
    made.swap()
    assert made.reconcile().findings == []
    made.drop_old()

    report = made.report()
    assert (report.state, report.reason, report.by) == (RunState.FINISHED, "totals were wrong", "alice")
    assert [*report.moved] == ["planned", "cloned", "verified", "switching", "switched", "reconciled", "finished"]
    assert {each.run_id for each in made.history()} == {"first", "half"}
    # The one event that came after the first run's switch was projected by nobody but this run.
    later = {"id": "order-later", "customer": 3, "status": "placed", "placed_on": date(2026, 1, 3), "updated_at": None}
    assert by_key(before.live("orders"), "id") == by_key([*before.expected("orders"), later | {"note": "none"}], "id")
    totals = by_key(before.expected("customer_totals"), "customer")
    totals[3,]["orders"] += 1
    assert by_key(before.live("customer_totals"), "customer") == totals
    assert by_key(before.live("order_lines"), "order_id", "line") == by_key(before.expected("order_lines"), "order_id", "line")


def by_key(rows: list[dict[str, Any]], *key: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    found = {tuple(row[column] for column in key): row for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_plan_is_readable_beside_a_part_that_is_not() -> None:
    """Steps of other runs read no more than the plan."""
    run = stored_run("sqlite", "verify")
    broken = replace(run, stored={**run.stored, "verification": "no verification"})
    assert broken.plan == run.plan
    with pytest.raises(ValidationError):
        _ = broken.record
