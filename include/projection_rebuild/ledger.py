"""The ledger: our own tables beside the read models, saying which run works on what and how far it has come.

Small records over SQLAlchemy Core; knows nothing of dialects beyond what SQLAlchemy renders. Writes that belong to a
batch or a switch are made on the caller's connection, inside its transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from projection_rebuild.dialects.base import Inspector
from projection_rebuild.errors import ClaimRefused, FencedOut, StepOrderError
from projection_rebuild.limits import RUN_ID as RUN_ID_LENGTH
from projection_rebuild.positions import BEGINNING, Place, is_before, said

_OPTIONS = {
    f"{family}_{option}": value
    for family in ("mysql", "mariadb")
    for option, value in {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin", "row_format": "DYNAMIC"}.items()
}
"""Of our tables on MySQL and MariaDB, where the server's and the database's defaults may be others, in which their keys do not fit."""

SHARD = "#"
"""Between a projector's name and a shard's number; no class has it in its name."""


class RunState(StrEnum):
    """How far a run has come; the steps move it forward in this order."""

    PLANNED = "planned"
    CLONED = "cloned"
    VERIFIED = "verified"
    SWITCHING = "switching"
    SWITCHED = "switched"
    RECONCILED = "reconciled"
    FINISHED = "finished"
    ABANDONED = "abandoned"

    def at_least(self, other: RunState) -> bool:
        """Whether this state stands at or after another."""
        order = list(RunState)
        return order.index(self) >= order.index(other)


IN_PIECES = {
    RunState.SWITCHING: "it was stopped within its switch: retry its atomic_swap",
    RunState.SWITCHED: "it has switched and was not reconciled: clear its reconcile",
}
"""States of a dead run in which nobody else may begin with its tables, and what brings it to its end."""


@dataclass(frozen=True)
class Run:
    """One rebuild in the ledger; ``options``, ``plan`` and ``findings`` are what the steps stored, by step."""

    run_id: str
    rebuild: str
    state: RunState
    record: dict[str, Any]
    started_at: datetime


@dataclass(frozen=True)
class Note:
    """What was said about a run while it went on: by a person (swap now, a decision) or by a step that waits (its last look).

    :param by: the person; empty: a step
    """

    name: str
    value: dict[str, Any]
    by: str
    at: datetime


@dataclass(frozen=True)
class Wait:
    """A worker of a run that rests or waits: by the wish of a person, or for the sake of the database.

    :param worker: a projector, or one of its shards
    :param looked_at: when it last looked whether it may go on
    """

    worker: str
    why: str
    since: datetime
    looked_at: datetime


@dataclass(frozen=True)
class Code:
    """Code that has replayed a projector in a run.

    :param version: what its author calls it; may be empty
    :param source: a hash of its source
    """

    projector: str
    version: str
    source: str
    seen_at: datetime


@dataclass(frozen=True)
class Checkpoint:
    """How far one projector's replay has come in one run.

    :param position: green holds every event of the projector up to here; None: the replay is at the beginning
    :param head: the settled position that the replay is heading for; None: the store was empty, or the replay has not looked
    :param events: events handled so far
    :param token: made anew with each clone; a worker of an earlier clone is fenced out by it
    """

    projector: str
    position: Place
    head: Place
    events: int
    seconds: float
    token: str

    @property
    def is_behind(self) -> bool:
        """Whether the replay has not come to its head."""
        return is_before(self.position, self.head)


@dataclass(frozen=True)
class PartState:
    """What a partial rebuild has done for one projector.

    :param part_id: under which its keys are kept; a worker that begins it again has another one
    :param token: that of the checkpoint for which it was begun
    :param settled: the rows of others are copied, as of this position, and the part's own are being replayed up to it; None: not yet
    """

    part_id: str
    token: str
    settled: int | None


@dataclass(frozen=True)
class Asked:
    """What a shard has asked for and not found; no other shard may have made it when all are done.

    :param column: by which rows were looked up; None: ``values`` is a key
    """

    shard: int
    table: str
    column: str | None
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Retired:
    """A table that a run retired: where it is and what it was, so that a drop hits this one and no other."""

    table: str
    old: str
    run_id: str
    identity: str | None
    retired_at: datetime
    drop_after: datetime


@dataclass(frozen=True)
class DeadLetter:
    """An event that a projector could not project, and that was set aside.

    :param error: the kind of the error; never its text, which may quote the payload
    """

    projector: str
    position: int
    event_type: str
    error: str


def refuse_within_switch(run: Run) -> None:
    """Green holds events above its checkpoints until the switch has found on which side it is.

    :raises StepOrderError: it has not
    """
    if run.state is RunState.SWITCHING:
        raise StepOrderError(f"the run {run.run_id} was stopped within its switch; retry atomic_swap before anything else")


class Ledger:
    """The ``projection_rebuild_*`` tables of one read-model database.

    :param dialect: the database
    :param schema: where the tables are; the same schema as the read models
    """

    def __init__(self, dialect: Inspector, schema: str | None) -> None:
        self._dialect = dialect
        metadata = sa.MetaData(schema=schema)
        name, run_name, moment = sa.String(190), sa.String(RUN_ID_LENGTH), sa.String(32)
        self._runs = sa.Table(
            "projection_rebuild_runs",
            metadata,
            sa.Column("run_id", run_name, primary_key=True),
            sa.Column("rebuild", name, nullable=False),
            sa.Column("state", sa.String(20), nullable=False),
            sa.Column("record", _long_text(), nullable=False),
            sa.Column("started_at", moment, nullable=False),
            sa.Column("updated_at", moment, nullable=False),
        )
        self._claims = sa.Table(
            "projection_rebuild_claims",
            metadata,
            sa.Column("table_name", name, primary_key=True),
            sa.Column("run_id", run_name, nullable=False),
            sa.Column("claimed_at", moment, nullable=False),
        )
        self._checkpoints = sa.Table(
            "projection_rebuild_checkpoints",
            metadata,
            sa.Column("run_id", run_name, primary_key=True),
            sa.Column("projector", name, primary_key=True),
            # NULL is the beginning: any number may be the position of an event.
            sa.Column("position", sa.BigInteger),
            sa.Column("head", sa.BigInteger),
            sa.Column("events", sa.BigInteger, nullable=False),
            sa.Column("seconds", sa.Float, nullable=False),
            sa.Column("token", sa.String(32), nullable=False),
            sa.Column("updated_at", moment, nullable=False),
        )
        self._retired = sa.Table(
            "projection_rebuild_retired",
            metadata,
            sa.Column("old_name", name, primary_key=True),
            sa.Column("table_name", name, nullable=False),
            sa.Column("run_id", run_name, nullable=False),
            sa.Column("identity", sa.String(64)),
            sa.Column("retired_at", moment, nullable=False),
            sa.Column("drop_after", moment, nullable=False),
        )
        self._greens = sa.Table(
            "projection_rebuild_greens",
            metadata,
            sa.Column("green_name", name, primary_key=True),
            sa.Column("run_id", run_name, nullable=False),
        )
        self._notes = sa.Table(
            "projection_rebuild_notes",
            metadata,
            sa.Column("run_id", run_name, primary_key=True),
            sa.Column("name", sa.String(20), primary_key=True),
            sa.Column("value", _long_text(), nullable=False),
            sa.Column("said_by", name, nullable=False),
            sa.Column("said_at", moment, nullable=False),
        )
        self._code = sa.Table(
            "projection_rebuild_code",
            metadata,
            sa.Column("run_id", run_name, primary_key=True),
            sa.Column("projector", name, primary_key=True),
            sa.Column("source", sa.String(16), primary_key=True),
            sa.Column("version", name, nullable=False),
            sa.Column("seen_at", moment, nullable=False),
        )
        self._reports = sa.Table(
            "projection_rebuild_reports",
            metadata,
            sa.Column("run_id", run_name, primary_key=True),
            sa.Column("started_at", moment, primary_key=True),
            sa.Column("rebuild", name, nullable=False),
            sa.Column("json", _long_text(), nullable=False),
            sa.Column("markdown", _long_text(), nullable=False),
            sa.Column("made_at", moment, nullable=False),
        )
        self._dead_letters = sa.Table(
            "projection_rebuild_dead_letters",
            metadata,
            sa.Column("run_id", run_name, primary_key=True),
            sa.Column("projector", name, primary_key=True),
            sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("event_type", sa.Text, nullable=False),
            sa.Column("error", sa.String(190), nullable=False),
            sa.Column("recorded_at", moment, nullable=False),
        )
        self._asked = sa.Table(
            "projection_rebuild_asked",
            metadata,
            sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
            sa.Column("run_id", run_name, nullable=False),
            sa.Column("projector", name, nullable=False),
            sa.Column("shard", sa.Integer, nullable=False),
            sa.Column("table_name", name, nullable=False),
            sa.Column("column_name", name),
            sa.Column("asked", _long_text(), nullable=False),
        )
        self._waits = sa.Table(
            "projection_rebuild_waits",
            metadata,
            sa.Column("run_id", run_name, primary_key=True),
            sa.Column("worker", name, primary_key=True),
            sa.Column("why", sa.String(1000), nullable=False),
            sa.Column("since", moment, nullable=False),
            sa.Column("looked_at", moment, nullable=False),
        )
        self._parts = sa.Table(
            "projection_rebuild_parts",
            metadata,
            sa.Column("run_id", run_name, primary_key=True),
            sa.Column("projector", name, primary_key=True),
            sa.Column("part_id", sa.String(32), nullable=False),
            sa.Column("token", sa.String(32), nullable=False),
            sa.Column("settled", sa.BigInteger),
            sa.Column("updated_at", moment, nullable=False),
        )
        # Compared with what stands in the tables as Python compares text.
        exact = sa.String(RUN_ID_LENGTH).with_variant(mysql.VARCHAR(RUN_ID_LENGTH, collation="utf8mb4_bin"), "mysql", "mariadb")
        self._part_keys = sa.Table(
            "projection_rebuild_part_keys",
            metadata,
            sa.Column("part_id", sa.String(32), primary_key=True),
            sa.Column("part_key", exact, primary_key=True),
        )
        self._calls = sa.Table(
            "projection_rebuild_calls",
            metadata,
            sa.Column("run_id", run_name, primary_key=True),
            sa.Column("projector", name, primary_key=True),
            sa.Column("after_position", sa.BigInteger),
            sa.Column("upto_position", sa.BigInteger, nullable=False),
            sa.Column("began_at", moment, nullable=False),
        )
        for table in metadata.tables.values():
            table.kwargs.update(_OPTIONS)
        self._metadata = metadata

    @property
    def tables(self) -> list[str]:
        """The names of its tables."""
        return [table.name for table in self._metadata.sorted_tables]

    # Where it lives ---------------------------------------------------------------------------------------------

    def create(self, connection: sa.Connection) -> None:
        """Makes the tables that are missing, all or those that an earlier version did not have. Two runs that begin at once both succeed."""
        # Each step asks, so in one query.
        there = {*sa.inspect(connection).get_table_names(schema=self._runs.schema)}
        for table, columns in ((self._checkpoints, ("position", "head")), (self._calls, ("after_position",))):
            if table.name in there:
                self._allow_null(connection, table, columns)
        for table in self._metadata.sorted_tables:
            if table.name in there:
                continue
            try:
                table.create(connection, checkfirst=True)
            except sa.exc.DBAPIError as error:
                if error.connection_invalidated or not self._dialect.table_exists(connection, table.schema, table.name):
                    raise

    def _allow_null(self, connection: sa.Connection, table: sa.Table, columns: Sequence[str]) -> None:
        """Lets columns keep the beginning, which the ledger of an earlier version kept as 0.

        Such a 0 may stay: for that version it stood for the beginning, and it had read nothing at or below it.
        """
        if not self._refusing_null(connection, table, columns):
            return
        # Only here: an application that projects live imports this module, and has no need of Alembic.
        from alembic.migration import MigrationContext
        from alembic.operations import Operations

        # SQLite makes the table anew, so it is a matter of all or nothing there.
        with nullcontext() if self._dialect.ddl_commits else self._dialect.transaction(connection):
            operations = Operations(MigrationContext.configure(connection))
            for name in self._refusing_null(connection, table, columns):
                with operations.batch_alter_table(table.name, schema=table.schema) as batch:
                    batch.alter_column(name, existing_type=table.c[name].type, nullable=True)

    def _refusing_null(self, connection: sa.Connection, table: sa.Table, columns: Sequence[str]) -> list[str]:
        found = sa.inspect(connection).get_columns(table.name, schema=table.schema)
        return [each["name"] for each in found if each["name"] in columns and not each["nullable"]]

    def exists(self, connection: sa.Connection) -> bool:
        """Whether any run has ever been planned here."""
        return self._dialect.table_exists(connection, self._runs.schema, self._retired.name)

    # Runs -------------------------------------------------------------------------------------------------------

    def begin(self, connection: sa.Connection, run_id: str, rebuild: str, record: dict[str, Any]) -> None:
        """Records a run as planned; one of the same id begins anew."""
        for table in (self._runs, self._notes, self._code, self._waits):
            connection.execute(table.delete().where(table.c.run_id == run_id))
        connection.execute(
            self._runs.insert().values(
                run_id=run_id, rebuild=rebuild, state=RunState.PLANNED, record=_dump(record), started_at=_now(), updated_at=_now()
            )
        )

    def run(self, connection: sa.Connection, run_id: str, *, at_least: RunState = RunState.PLANNED) -> Run:
        """A run's record.

        :raises StepOrderError: there is none, it was given up, or it has not come as far as ``at_least``
        """
        found = self.find_run(connection, run_id)
        if found is None:
            raise StepOrderError(f"the ledger has no run {run_id}; run the step `plan` first")
        if found.state == RunState.ABANDONED:
            raise StepOrderError(
                f"the run {run_id} was given up, or another run has taken over its tables; clear its `plan` task to begin it anew"
            )
        if not found.state.at_least(at_least):
            raise StepOrderError(f"the run {run_id} is {found.state}, not yet {at_least}; run the steps before this one first")
        return found

    def find_run(self, connection: sa.Connection, run_id: str) -> Run | None:
        """A run's record, or None."""
        row = connection.execute(sa.select(self._runs).where(self._runs.c.run_id == run_id)).one_or_none()
        if row is None:
            return None
        return _run(row)

    def runs(self, connection: sa.Connection, rebuild: str, limit: int) -> list[Run]:
        """The last runs of a spec, newest first."""
        query = sa.select(self._runs).where(self._runs.c.rebuild == rebuild).order_by(self._runs.c.started_at.desc()).limit(limit)
        return [_run(row) for row in connection.execute(query)]

    def move(self, connection: sa.Connection, run_id: str, state: RunState, **findings: Any) -> None:
        """Sets a run's state and adds to its record."""
        self._move(connection, self.run(connection, run_id), state, findings, self._runs.c.run_id == run_id)

    def move_from(self, connection: sa.Connection, run: Run, state: RunState, **findings: Any) -> bool:
        """The same, unless somebody has moved the run since it was read; then nothing is done.

        :returns: whether it was moved
        """
        still = (self._runs.c.run_id == run.run_id) & (self._runs.c.state == run.state)
        return self._move(connection, run, state, findings, still)

    def _move(
        self, connection: sa.Connection, run: Run, state: RunState, findings: dict[str, Any], where: sa.ColumnElement[bool]
    ) -> bool:
        record = run.record | findings | {"moved": _moved(run, state)}
        moved = self._runs.update().where(where).values(state=state, record=_dump(record), updated_at=_now())
        return connection.execute(moved).rowcount > 0

    def note(self, connection: sa.Connection, run_id: str, **findings: Any) -> None:
        """Adds to the record of a run, if there is one, and leaves its state."""
        run = self.find_run(connection, run_id)
        if run is not None:
            connection.execute(
                self._runs.update().where(self._runs.c.run_id == run_id).values(record=_dump(run.record | findings))
            )

    # What is said, and what is kept -----------------------------------------------------------------------------

    def say(self, connection: sa.Connection, run_id: str, name: str, value: Mapping[str, Any], *, by: str = "") -> None:
        """Notes something about a run, in place of what was said before under this name."""
        self._make(connection, self._notes)
        table = self._notes
        said = {"value": _dump(dict(value)), "said_by": by[:190], "said_at": _now()}
        mine = (table.c.run_id == run_id) & (table.c.name == name)
        if not connection.execute(table.update().where(mine).values(said)).rowcount:
            connection.execute(table.insert().values(run_id=run_id, name=name, **said))

    def notes(self, connection: sa.Connection, run_id: str) -> dict[str, Note]:
        """What was said about a run, by name."""
        if not self._has(connection, self._notes):
            return {}
        rows = connection.execute(sa.select(self._notes).where(self._notes.c.run_id == run_id))
        return {row.name: Note(row.name, orjson.loads(row.value), row.said_by, _moment(row.said_at)) for row in rows}

    def unsay(self, connection: sa.Connection, run_id: str, name: str) -> None:
        """Takes back what was said about a run under a name."""
        if self._has(connection, self._notes):
            connection.execute(self._notes.delete().where(self._notes.c.run_id == run_id, self._notes.c.name == name))

    def wait(self, connection: sa.Connection, run_id: str, worker: str, why: str) -> None:
        """Records that a worker rests or waits, or goes on doing so."""
        table = self._waits
        mine = (table.c.run_id == run_id) & (table.c.worker == worker)
        if not connection.execute(table.update().where(mine).values(why=why[:1000], looked_at=_now())).rowcount:
            connection.execute(
                table.insert().values(run_id=run_id, worker=worker, why=why[:1000], since=_now(), looked_at=_now())
            )

    def go_on(self, connection: sa.Connection, run_id: str, worker: str) -> None:
        """Records that a worker rests no more."""
        connection.execute(self._waits.delete().where(self._waits.c.run_id == run_id, self._waits.c.worker == worker))

    def waits(self, connection: sa.Connection, run_id: str) -> list[Wait]:
        """The workers of a run that rest or wait now, by name."""
        if not self._has(connection, self._waits):
            return []
        query = sa.select(self._waits).where(self._waits.c.run_id == run_id).order_by(self._waits.c.worker)
        return [Wait(row.worker, row.why, _moment(row.since), _moment(row.looked_at)) for row in connection.execute(query)]

    def note_code(self, connection: sa.Connection, run_id: str, projector: str, *, version: str, source: str) -> None:
        """Records that this code works on a projector's rows; once for each run."""
        self._make(connection, self._code)
        table = self._code
        mine = (table.c.run_id == run_id) & (table.c.projector == projector) & (table.c.source == source)
        if connection.execute(sa.select(table.c.source).where(mine)).first() is None:
            try:
                connection.execute(
                    table.insert().values(run_id=run_id, projector=projector, source=source, version=version, seen_at=_now())
                )
            except sa.exc.IntegrityError:
                # Another worker of this projector was first.
                return

    def code(self, connection: sa.Connection, run_id: str) -> list[Code]:
        """The code that has worked in a run, oldest first."""
        if not self._has(connection, self._code):
            return []
        query = sa.select(self._code).where(self._code.c.run_id == run_id).order_by(self._code.c.seen_at, self._code.c.projector)
        return [Code(row.projector, row.version, row.source, _moment(row.seen_at)) for row in connection.execute(query)]

    def keep_report(self, connection: sa.Connection, run: Run, as_json: Mapping[str, Any], as_markdown: str) -> None:
        """Keeps a run's report, in place of an earlier one of the same run; a run that was planned anew has one of its own."""
        self._make(connection, self._reports)
        table = self._reports
        mine = (table.c.run_id == run.run_id) & (table.c.started_at == _text(run.started_at))
        kept = {"json": _dump(dict(as_json)), "markdown": as_markdown, "made_at": _now()}
        if not connection.execute(table.update().where(mine).values(kept)).rowcount:
            connection.execute(
                table.insert().values(run_id=run.run_id, started_at=_text(run.started_at), rebuild=run.rebuild, **kept)
            )

    def reports(self, connection: sa.Connection, rebuild: str, limit: int) -> list[dict[str, Any]]:
        """The last kept reports of a spec as JSON values, newest first."""
        if not self._has(connection, self._reports):
            return []
        table = self._reports
        query = sa.select(table.c.json).where(table.c.rebuild == rebuild).order_by(table.c.started_at.desc()).limit(limit)
        return [orjson.loads(each) for each in connection.execute(query).scalars()]

    def _has(self, connection: sa.Connection, table: sa.Table) -> bool:
        """Whether a table is there; a ledger that an earlier version made may lack it until its next run."""
        return self._dialect.table_exists(connection, table.schema, table.name)

    def _make(self, connection: sa.Connection, table: sa.Table) -> None:
        """Makes a table that a ledger of an earlier version lacks, under a run that this version goes on with."""
        if not self._has(connection, table):
            self.create(connection)

    # Claims -----------------------------------------------------------------------------------------------------

    def claim(self, connection: sa.Connection, run_id: str, tables: Iterable[str]) -> None:
        """Claims tables for a run; what it holds already stays its own.

        :raises ClaimRefused: another run holds one; names run and table
        """
        for table in tables:
            try:
                connection.execute(self._claims.insert().values(table_name=table, run_id=run_id, claimed_at=_now()))
            except sa.exc.IntegrityError:
                holder = self.claimant(connection, table)
                if holder not in (None, run_id):
                    raise ClaimRefused(
                        f"the table {table} is claimed by the run {holder}; wait until that run is over, or retry or fail it in "
                        "Airflow (the claim of a run that is over is taken over). One that was started from Python, and that nobody goes on with, is "
                        "given up by Rebuild(..., run_id=...).stand_down(reason)"
                    ) from None

    def claims(self, connection: sa.Connection) -> dict[str, str]:
        """The runs that hold tables, by table."""
        return {row.table_name: row.run_id for row in connection.execute(sa.select(self._claims))}

    def claimant(self, connection: sa.Connection, table: str) -> str | None:
        """The run that holds a table."""
        found: str | None = connection.execute(
            sa.select(self._claims.c.run_id).where(self._claims.c.table_name == table)
        ).scalar_one_or_none()
        return found

    def holds(self, connection: sa.Connection, run_id: str, tables: Iterable[str]) -> None:
        """Makes sure that a run still holds its tables, and keeps it so until the caller's transaction ends.

        :raises FencedOut: another run has taken one over
        """
        wanted = set(tables)
        mine = self._claims.c.run_id == run_id
        kept = connection.execute(
            self._claims.update().where(self._claims.c.table_name.in_(wanted), mine).values(claimed_at=_now())
        )
        if kept.rowcount != len(wanted):
            held = set(connection.execute(sa.select(self._claims.c.table_name).where(mine)).scalars())
            raise FencedOut(
                f"the run {run_id} no longer holds the table {', '.join(sorted(wanted - held))}; another run has taken it over"
            )

    def take_over(self, connection: sa.Connection, dead: str, run_id: str) -> None:
        """Gives all claims of a run that is over to another, and makes the dead run's workers stop at their next write."""
        connection.execute(self._claims.update().where(self._claims.c.run_id == dead).values(run_id=run_id, claimed_at=_now()))
        connection.execute(
            self._runs.update().where(self._runs.c.run_id == dead).values(state=RunState.ABANDONED, updated_at=_now())
        )
        self.fence_workers(connection, dead)

    def release(self, connection: sa.Connection, run_id: str) -> None:
        """Gives up a run's claims."""
        connection.execute(self._claims.delete().where(self._claims.c.run_id == run_id))

    # Green and old tables ---------------------------------------------------------------------------------------

    def note_green(self, connection: sa.Connection, run_id: str, green: str) -> None:
        """Records, before it is made, that a green table is ours."""
        connection.execute(self._greens.delete().where(self._greens.c.green_name == green))
        connection.execute(self._greens.insert().values(green_name=green, run_id=run_id))

    def green_run(self, connection: sa.Connection, green: str) -> str | None:
        """The run that made a table of this name, or took it back, so that the next one may drop it; None: it is not ours."""
        found: str | None = connection.execute(
            sa.select(self._greens.c.run_id).where(self._greens.c.green_name == green)
        ).scalar_one_or_none()
        return found

    def greens(self, connection: sa.Connection) -> dict[str, str]:
        """All green tables that runs have made, and have not switched, with their runs."""
        return {row.green_name: row.run_id for row in connection.execute(sa.select(self._greens))}

    def owns_greens(self, connection: sa.Connection, run_id: str, greens: Iterable[str]) -> None:
        """Makes sure that the green tables are those that this run has made or taken back.

        :raises FencedOut: another run has made one anew
        """
        mine = sa.select(self._greens.c.green_name).where(self._greens.c.run_id == run_id)
        if lost := set(greens) - set(connection.execute(mine).scalars()):
            raise FencedOut(
                f"{', '.join(sorted(lost))} has been made anew by another run, one that was taken for dead; clear clone_tables and what "
                "follows it. Blue is live and untouched"
            )

    def forget_greens(self, connection: sa.Connection, greens: Iterable[str]) -> None:
        """The green tables are there no longer: they have been switched."""
        connection.execute(self._greens.delete().where(self._greens.c.green_name.in_(list(greens))))

    def retire(self, connection: sa.Connection, retired: Sequence[Retired]) -> None:
        """Records old tables, before the switch makes them."""
        self.forget_retired(connection, [each.old for each in retired])
        rows = [
            {
                "old_name": each.old,
                "table_name": each.table,
                "run_id": each.run_id,
                "identity": each.identity,
                "retired_at": _text(each.retired_at),
                "drop_after": _text(each.drop_after),
            }
            for each in retired
        ]
        connection.execute(self._retired.insert(), rows)

    def rename_retired(self, connection: sa.Connection, old: str, name: str) -> None:
        """The old table is called otherwise now."""
        connection.execute(self._retired.update().where(self._retired.c.old_name == old).values(old_name=name))

    def retired(self, connection: sa.Connection, *, old: str | None = None, run_id: str | None = None) -> list[Retired]:
        """Old tables that have not been dropped yet, of one name or one run."""
        query = sa.select(self._retired).order_by(self._retired.c.old_name)
        if old is not None:
            query = query.where(self._retired.c.old_name == old)
        if run_id is not None:
            query = query.where(self._retired.c.run_id == run_id)
        return [
            Retired(row.table_name, row.old_name, row.run_id, row.identity, _moment(row.retired_at), _moment(row.drop_after))
            for row in connection.execute(query)
        ]

    def forget_retired(self, connection: sa.Connection, olds: Iterable[str]) -> None:
        """The old tables are there no longer."""
        connection.execute(self._retired.delete().where(self._retired.c.old_name.in_(list(olds))))

    # Checkpoints ------------------------------------------------------------------------------------------------

    def set_checkpoints(self, connection: sa.Connection, run_id: str, start: Mapping[str, tuple[Place, int]]) -> None:
        """Puts every projector's checkpoint to its start, with a new token.

        :param start: place, and events up to it, by projector
        """
        self.remove_checkpoints(connection, run_id)
        for projector, (position, events) in start.items():
            self._set_checkpoint(connection, run_id, projector, position=position, head=position, events=events)

    def _set_checkpoint(
        self, connection: sa.Connection, run_id: str, name: str, *, position: Place, head: Place, events: int
    ) -> None:
        connection.execute(
            self._checkpoints.insert().values(
                run_id=run_id,
                projector=name,
                position=position,
                head=head,
                events=events,
                seconds=0.0,
                token=uuid4().hex,
                updated_at=_now(),
            )
        )

    def fence_workers(self, connection: sa.Connection, run_id: str, projector: str | None = None) -> None:
        """Gives a run's checkpoints, or one of them, a new token: whoever read them before cannot write any more."""
        statement = self._checkpoints.update().where(self._checkpoints.c.run_id == run_id)
        if projector is not None:
            statement = statement.where(self._checkpoints.c.projector == projector)
        connection.execute(statement.values(token=uuid4().hex))

    def put_back(self, connection: sa.Connection, run_id: str, place: Place) -> None:
        """Puts checkpoints that are beyond a place back to it; the events that were handled above stay counted."""
        table = self._checkpoints
        beyond = table.c.position.is_not(None) if place is None else table.c.position > place
        connection.execute(table.update().where(table.c.run_id == run_id, beyond).values(position=place, head=place))

    def inherit_checkpoints(self, connection: sa.Connection, run_id: str, heir: str) -> None:
        """Another run goes on where this one stopped; this one's workers cannot write any more."""
        self.remove_checkpoints(connection, heir)
        connection.execute(
            self._checkpoints.update().where(self._checkpoints.c.run_id == run_id).values(run_id=heir, token=uuid4().hex)
        )
        letters = self._dead_letters
        connection.execute(letters.update().where(letters.c.run_id == run_id).values(run_id=heir))
        connection.execute(self._calls.update().where(self._calls.c.run_id == run_id).values(run_id=heir))

    def remove_checkpoints(self, connection: sa.Connection, run_id: str) -> None:
        """Removes a run's checkpoints, so that none of its workers can write any more, and what belongs to them."""
        connection.execute(self._checkpoints.delete().where(self._checkpoints.c.run_id == run_id))
        for table in (self._dead_letters, self._calls, self._asked):
            connection.execute(table.delete().where(table.c.run_id == run_id))

    def checkpoints(self, connection: sa.Connection, run_id: str) -> dict[str, Checkpoint]:
        """A run's checkpoints by projector, those of shards left out."""
        return {name: each for name, each in self.all_checkpoints(connection, run_id).items() if SHARD not in name}

    def all_checkpoints(self, connection: sa.Connection, run_id: str) -> dict[str, Checkpoint]:
        """A run's checkpoints by worker: a projector, or one of its shards."""
        rows = connection.execute(
            sa.select(self._checkpoints).where(self._checkpoints.c.run_id == run_id).order_by(self._checkpoints.c.projector)
        )
        return {
            row.projector: Checkpoint(row.projector, row.position, row.head, row.events, row.seconds, row.token) for row in rows
        }

    def runs_with_checkpoints(self, connection: sa.Connection) -> set[str]:
        """The runs that have checkpoints."""
        return set(connection.execute(sa.select(self._checkpoints.c.run_id).distinct()).scalars())

    def last_seen(self, connection: sa.Connection, run_id: str) -> datetime | None:
        """When a run last wrote anything; None: the ledger does not know it."""
        found = [
            connection.execute(sa.select(sa.func.max(table.c.updated_at)).where(table.c.run_id == run_id)).scalar()
            for table in (self._runs, self._checkpoints)
        ]
        return max((_moment(each) for each in found if each), default=None)

    def advance(
        self,
        connection: sa.Connection,
        run_id: str,
        read: Checkpoint,
        *,
        position: Place,
        head: Place,
        events: int,
        seconds: float,
    ) -> Checkpoint:
        """Moves a checkpoint on from what this worker read, as the first write of a batch's transaction.

        The row lock makes a second worker wait; it then finds another position and is fenced out with nothing written. An event that
        was set aside and is projected after all moves no position, but the count of the events.

        :raises FencedOut: the checkpoint is not where this worker read it
        """
        table = self._checkpoints
        moved = connection.execute(
            table.update()
            .where(
                table.c.run_id == run_id,
                table.c.projector == read.projector,
                # Of the beginning this makes IS NULL.
                table.c.position == read.position,
                table.c.events == read.events,
                table.c.token == read.token,
            )
            .values(position=position, head=head, events=read.events + events, seconds=read.seconds + seconds, updated_at=_now())
        )
        if moved.rowcount != 1:
            raise FencedOut(
                f"the checkpoint of {read.projector} is no longer at {said(read.position)} after {read.events} events: another worker "
                "replays it, or its tables were cloned anew; this worker stops and has written nothing since"
            )
        return Checkpoint(read.projector, position, head, read.events + events, read.seconds + seconds, read.token)

    def took(self, connection: sa.Connection, run_id: str, moved: Checkpoint, seconds: float) -> Checkpoint:
        """Adds to a checkpoint that was moved in this transaction how long that has taken, where it is known only after it."""
        table = self._checkpoints
        mine = (table.c.run_id == run_id) & (table.c.projector == moved.projector)
        connection.execute(table.update().where(mine).values(seconds=moved.seconds + seconds))
        return replace(moved, seconds=moved.seconds + seconds)

    # Calls of programs --------------------------------------------------------------------------------------------

    def begin_call(self, connection: sa.Connection, run_id: str, projector: str, after: Place, upto: int) -> None:
        """Notes that a program is about to be called; one that was cut short before is forgotten."""
        self.end_call(connection, run_id, projector)
        connection.execute(
            self._calls.insert().values(
                run_id=run_id, projector=projector, after_position=after, upto_position=upto, began_at=_now()
            )
        )

    def open_call(self, connection: sa.Connection, run_id: str, projector: str | None = None) -> bool:
        """Whether a call of the program, or of any of the run, has no end that is known."""
        if not self._has(connection, self._calls):
            return False
        query = sa.select(sa.func.count()).select_from(self._calls).where(self._calls.c.run_id == run_id)
        if projector is not None:
            query = query.where(self._calls.c.projector == projector)
        return bool(connection.execute(query).scalar_one())

    def end_call(self, connection: sa.Connection, run_id: str, projector: str) -> None:
        """The call has come to its end, or its tables have been made anew."""
        table = self._calls
        connection.execute(table.delete().where(table.c.run_id == run_id, table.c.projector == projector))

    def begin_again(self, connection: sa.Connection, run_id: str, projector: str) -> None:
        """Puts one projector's checkpoint to the beginning."""
        mine = (self._checkpoints.c.run_id == run_id) & (self._checkpoints.c.projector == projector)
        fresh = {"position": BEGINNING, "head": BEGINNING, "events": 0, "seconds": 0.0, "token": uuid4().hex}
        connection.execute(self._checkpoints.update().where(mine).values(**fresh))

    # Shards -----------------------------------------------------------------------------------------------------
    # Their checkpoints stand beside those of projectors, so that whatever fences a run's workers fences theirs.

    def set_shards(self, connection: sa.Connection, run_id: str, counts: Mapping[str, int], head: Place) -> None:
        """Gives each shard a checkpoint at the beginning, and the position at which they are joined."""
        for name in [f"{projector}{SHARD}{number}" for projector, count in counts.items() for number in range(count)]:
            self._set_checkpoint(connection, run_id, name, position=BEGINNING, head=head, events=0)

    def shard_checkpoints(self, connection: sa.Connection, run_id: str, projector: str) -> dict[int, Checkpoint]:
        """The checkpoints of a projector's shards by number; none when they are joined, or if it has none."""
        found = self.all_checkpoints(connection, run_id).items()
        numbered = {int(name.partition(SHARD)[2]): each for name, each in found if name.startswith(f"{projector}{SHARD}")}
        return dict(sorted(numbered.items()))

    def remove_shards(self, connection: sa.Connection, run_id: str, projector: str) -> None:
        """The shards of a projector are joined."""
        names = [each.projector for each in self.shard_checkpoints(connection, run_id, projector).values()]
        table, asked = self._checkpoints, self._asked
        connection.execute(table.delete().where(table.c.run_id == run_id, table.c.projector.in_(names)))
        connection.execute(asked.delete().where(asked.c.run_id == run_id, asked.c.projector == projector))

    def note_asked(self, connection: sa.Connection, run_id: str, projector: str, asked: Sequence[Asked]) -> None:
        """Records what a shard has asked for and not found."""
        rows = [
            {
                "run_id": run_id,
                "projector": projector,
                "shard": each.shard,
                "table_name": each.table,
                "column_name": each.column,
                "asked": orjson.dumps(list(each.values), default=str).decode(),
            }
            for each in asked
        ]
        if rows:
            connection.execute(self._asked.insert(), rows)

    def asked(self, connection: sa.Connection, run_id: str, projector: str) -> list[Asked]:
        """What the shards of a projector have asked for and not found."""
        table = self._asked
        query = sa.select(table).where(table.c.run_id == run_id, table.c.projector == projector).order_by(table.c.id)
        return [
            Asked(row.shard, row.table_name, row.column_name, tuple(orjson.loads(row.asked))) for row in connection.execute(query)
        ]

    # Dead letters -----------------------------------------------------------------------------------------------

    def bury(self, connection: sa.Connection, run_id: str, letters: Iterable[DeadLetter]) -> None:
        """Records events that are set aside, in the transaction that moves the checkpoint past them."""
        rows = [
            {
                "run_id": run_id,
                "projector": each.projector,
                "position": each.position,
                "event_type": each.event_type,
                "error": each.error[:190],
                "recorded_at": _now(),
            }
            for each in letters
        ]
        if rows:
            connection.execute(self._dead_letters.insert(), rows)

    def dead_letters(self, connection: sa.Connection, run_id: str, projector: str | None = None) -> list[DeadLetter]:
        """The events that a run has set aside, in the order of their positions."""
        table = self._dead_letters
        query = sa.select(table).where(table.c.run_id == run_id).order_by(table.c.position, table.c.projector)
        if projector is not None:
            query = query.where(table.c.projector == projector)
        return [DeadLetter(row.projector, row.position, row.event_type, row.error) for row in connection.execute(query)]

    def set_aside(self, connection: sa.Connection, run_id: str) -> list[DeadLetter]:
        """As :meth:`dead_letters`, for whoever only looks: a ledger that an earlier version made may know of none."""
        return self.dead_letters(connection, run_id) if self._has(connection, self._dead_letters) else []

    def forget_dead_letter(self, connection: sa.Connection, run_id: str, letter: DeadLetter) -> None:
        """The event has been projected after all."""
        table = self._dead_letters
        connection.execute(
            table.delete().where(
                table.c.run_id == run_id, table.c.projector == letter.projector, table.c.position == letter.position
            )
        )

    # Parts ------------------------------------------------------------------------------------------------------

    @property
    def part_keys(self) -> str:
        """The table of the keys of parts: ``part_id``, ``part_key``."""
        return self._part_keys.name

    def part(self, connection: sa.Connection, run_id: str, projector: str) -> PartState | None:
        """How far the part of a projector is; None: not begun."""
        row = connection.execute(sa.select(self._parts).where(*self._of_part(run_id, projector))).one_or_none()
        return None if row is None else PartState(row.part_id, row.token, row.settled)

    def begin_part(self, connection: sa.Connection, run_id: str, read: Checkpoint) -> str:
        """Begins a projector's part (again), in the caller's transaction; whoever was at it before is fenced out.

        :returns: the id of the part
        :raises FencedOut: somebody has come as far as to replay it
        """
        mine = self._of_part(run_id, read.projector)
        before = self.part(connection, run_id, read.projector)
        if before is not None:
            not_settled = (self._parts.c.settled.is_(None)) | (self._parts.c.token != read.token)
            if connection.execute(self._parts.delete().where(*mine, not_settled)).rowcount != 1:
                raise FencedOut(f"another worker is replaying the part of {read.projector}; this one has written nothing")
            connection.execute(self._part_keys.delete().where(self._part_keys.c.part_id == before.part_id))
        part_id = uuid4().hex
        connection.execute(
            self._parts.insert().values(
                run_id=run_id, projector=read.projector, part_id=part_id, token=read.token, settled=None, updated_at=_now()
            )
        )
        return part_id

    def hold_part(self, connection: sa.Connection, run_id: str, projector: str, part_id: str, settled: int | None = None) -> None:
        """Makes sure that a part is still this worker's until the caller's transaction ends, and notes how far it is.

        :raises FencedOut: another worker has begun it again, or its tables were cloned anew
        """
        mine = (*self._of_part(run_id, projector), self._parts.c.part_id == part_id, self._parts.c.settled.is_(None))
        if connection.execute(self._parts.update().where(*mine).values(settled=settled, updated_at=_now())).rowcount != 1:
            raise FencedOut(
                f"another worker has begun the part of {projector} again, or its tables were cloned anew; this one stops and has "
                "written nothing since"
            )

    def add_part_keys(self, connection: sa.Connection, part_id: str, keys: Iterable[str]) -> None:
        """Adds keys that the part does not have yet."""
        rows = [{"part_id": part_id, "part_key": key} for key in keys]
        if rows:
            connection.execute(self._part_keys.insert(), rows)

    def keys_of_part(self, connection: sa.Connection, part_id: str) -> set[str]:
        """All keys of a part."""
        found = connection.execute(sa.select(self._part_keys.c.part_key).where(self._part_keys.c.part_id == part_id))
        return set(found.scalars())

    def forget_parts(self, connection: sa.Connection, run_id: str) -> None:
        """Removes a run's parts, so that none of its workers can write one any more, and those of runs that are over."""
        claimed = sa.select(self._claims.c.run_id)
        doomed = (self._parts.c.run_id == run_id) | self._parts.c.run_id.not_in(claimed)
        ids = list(connection.execute(sa.select(self._parts.c.part_id).where(doomed)).scalars())
        connection.execute(self._part_keys.delete().where(self._part_keys.c.part_id.in_(ids)))
        connection.execute(self._parts.delete().where(self._parts.c.part_id.in_(ids)))

    def _of_part(self, run_id: str, projector: str) -> tuple[sa.ColumnElement[bool], ...]:
        return self._parts.c.run_id == run_id, self._parts.c.projector == projector


def _run(row: sa.Row[Any]) -> Run:
    return Run(row.run_id, row.rebuild, RunState(row.state), orjson.loads(row.record), _moment(row.started_at))


def _moved(run: Run, state: RunState) -> dict[str, str]:
    """When the run came to each of its states; what is after the new one is to come again."""
    order = list(RunState)
    before = {name: at for name, at in run.record.get("moved", {}).items() if order.index(RunState(name)) <= order.index(state)}
    if order.index(run.state) < order.index(state) or state not in before:
        before[str(state)] = _now()
    return before


def _long_text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def _now() -> str:
    return _text(datetime.now(UTC))


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _dump(record: dict[str, Any]) -> str:
    return orjson.dumps(record, default=str).decode()
