"""The ledger: our own tables beside the read models, saying which run works on what and how far it has come.

Small records over SQLAlchemy Core; knows nothing of dialects beyond what SQLAlchemy renders. Writes that belong to a
batch or a switch are made on the caller's connection, inside its transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from include.projection_rebuild.dialects.base import Dialect
from include.projection_rebuild.errors import ClaimRefused, FencedOut, StepOrderError

RUN_ID_LENGTH = 510
"""Characters of a run id; what InnoDB can index beside a projector's name."""


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


@dataclass(frozen=True)
class Run:
    """One rebuild in the ledger; ``options``, ``plan`` and ``findings`` are what the steps stored, by step."""

    run_id: str
    rebuild: str
    state: RunState
    record: dict[str, Any]
    started_at: datetime


@dataclass(frozen=True)
class Checkpoint:
    """How far one projector's replay has come in one run.

    :param position: every event of the projector up to here is in green
    :param head: the settled position that the replay is heading for
    :param events: events handled so far
    :param token: made anew with each clone; a worker of an earlier clone is fenced out by it
    """

    projector: str
    position: int
    head: int
    events: int
    seconds: float
    token: str


@dataclass(frozen=True)
class Retired:
    """A table that a run retired: where it is and what it was, so that a drop hits this one and no other."""

    table: str
    old: str
    run_id: str
    identity: str | None
    retired_at: datetime
    drop_after: datetime


class Ledger:
    """The ``projection_rebuild_*`` tables of one read-model database.

    :param dialect: the database
    :param schema: where the tables are; the same schema as the read models
    """

    def __init__(self, dialect: Dialect, schema: str | None) -> None:
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
            sa.Column("position", sa.BigInteger, nullable=False),
            sa.Column("head", sa.BigInteger, nullable=False),
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
        self._metadata = metadata

    # Where it lives ---------------------------------------------------------------------------------------------

    def create(self, connection: sa.Connection) -> None:
        """Makes the tables that are missing. Two runs that begin at once both succeed."""
        for table in self._metadata.sorted_tables:
            try:
                table.create(connection, checkfirst=True)
            except sa.exc.DBAPIError:
                if not self._dialect.table_exists(connection, table.schema, table.name):
                    raise

    def exists(self, connection: sa.Connection) -> bool:
        """Whether any run has ever been planned here."""
        return self._dialect.table_exists(connection, self._runs.schema, self._retired.name)

    # Runs -------------------------------------------------------------------------------------------------------

    def begin(self, connection: sa.Connection, run_id: str, rebuild: str, record: dict[str, Any]) -> None:
        """Records a run as planned; one of the same id begins anew."""
        connection.execute(self._runs.delete().where(self._runs.c.run_id == run_id))
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
        return Run(row.run_id, row.rebuild, RunState(row.state), orjson.loads(row.record), _moment(row.started_at))

    def move(self, connection: sa.Connection, run_id: str, state: RunState, **findings: Any) -> None:
        """Sets a run's state and adds to its record."""
        run = self.run(connection, run_id)
        connection.execute(
            self._runs.update()
            .where(self._runs.c.run_id == run_id)
            .values(state=state, record=_dump(run.record | findings), updated_at=_now())
        )

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
                        "Airflow (the claim of a run that is over is taken over)"
                    ) from None

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
        for table in tables:
            kept = connection.execute(
                self._claims.update()
                .where(self._claims.c.table_name == table, self._claims.c.run_id == run_id)
                .values(claimed_at=_now())
            )
            if kept.rowcount != 1:
                raise FencedOut(f"the run {run_id} no longer holds the table {table}; another run has taken it over")

    def take_over(self, connection: sa.Connection, dead: str, run_id: str) -> None:
        """Gives all claims of a run that is over to another, and makes the dead run's workers stop at their next write."""
        connection.execute(self._claims.update().where(self._claims.c.run_id == dead).values(run_id=run_id, claimed_at=_now()))
        connection.execute(
            self._runs.update().where(self._runs.c.run_id == dead).values(state=RunState.ABANDONED, updated_at=_now())
        )
        connection.execute(self._checkpoints.delete().where(self._checkpoints.c.run_id == dead))

    def release(self, connection: sa.Connection, run_id: str) -> None:
        """Gives up a run's claims."""
        connection.execute(self._claims.delete().where(self._claims.c.run_id == run_id))

    # Green and old tables ---------------------------------------------------------------------------------------

    def note_green(self, connection: sa.Connection, run_id: str, green: str) -> None:
        """Records, before it is made, that a green table is ours."""
        connection.execute(self._greens.delete().where(self._greens.c.green_name == green))
        connection.execute(self._greens.insert().values(green_name=green, run_id=run_id))

    def is_our_green(self, connection: sa.Connection, green: str) -> bool:
        """Whether a table of this name was made by a run, and so may be dropped by the next one."""
        return connection.execute(sa.select(self._greens).where(self._greens.c.green_name == green)).first() is not None

    def forget_green(self, connection: sa.Connection, green: str) -> None:
        """The green table is there no longer: it has been switched."""
        connection.execute(self._greens.delete().where(self._greens.c.green_name == green))

    def retire(self, connection: sa.Connection, retired: Retired) -> None:
        """Records an old table, before the switch makes it."""
        self.forget_retired(connection, retired.old)
        connection.execute(
            self._retired.insert().values(
                old_name=retired.old,
                table_name=retired.table,
                run_id=retired.run_id,
                identity=retired.identity,
                retired_at=_text(retired.retired_at),
                drop_after=_text(retired.drop_after),
            )
        )

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

    def forget_retired(self, connection: sa.Connection, old: str) -> None:
        """The old table is there no longer."""
        connection.execute(self._retired.delete().where(self._retired.c.old_name == old))

    # Checkpoints ------------------------------------------------------------------------------------------------

    def reset_checkpoints(self, connection: sa.Connection, run_id: str, projectors: Iterable[str]) -> None:
        """Puts every projector's checkpoint to the beginning, with a new token."""
        self.remove_checkpoints(connection, run_id)
        for projector in projectors:
            connection.execute(
                self._checkpoints.insert().values(
                    run_id=run_id,
                    projector=projector,
                    position=0,
                    head=0,
                    events=0,
                    seconds=0.0,
                    token=uuid4().hex,
                    updated_at=_now(),
                )
            )

    def remove_checkpoints(self, connection: sa.Connection, run_id: str) -> None:
        """Removes a run's checkpoints, so that none of its workers can write any more."""
        connection.execute(self._checkpoints.delete().where(self._checkpoints.c.run_id == run_id))

    def checkpoints(self, connection: sa.Connection, run_id: str) -> dict[str, Checkpoint]:
        """A run's checkpoints by projector."""
        rows = connection.execute(
            sa.select(self._checkpoints).where(self._checkpoints.c.run_id == run_id).order_by(self._checkpoints.c.projector)
        )
        return {
            row.projector: Checkpoint(row.projector, row.position, row.head, row.events, row.seconds, row.token) for row in rows
        }

    def advance(
        self, connection: sa.Connection, run_id: str, read: Checkpoint, *, position: int, head: int, events: int, seconds: float
    ) -> Checkpoint:
        """Moves a checkpoint on from what this worker read, as the first write of a batch's transaction.

        The row lock makes a second worker wait; it then finds another position and is fenced out with nothing written.

        :raises FencedOut: the checkpoint is not where this worker read it
        """
        table = self._checkpoints
        moved = connection.execute(
            table.update()
            .where(
                table.c.run_id == run_id,
                table.c.projector == read.projector,
                table.c.position == read.position,
                table.c.token == read.token,
            )
            .values(position=position, head=head, events=read.events + events, seconds=read.seconds + seconds, updated_at=_now())
        )
        if moved.rowcount != 1:
            raise FencedOut(
                f"the checkpoint of {read.projector} is no longer at position {read.position}: another worker replays it, or its "
                "tables were cloned anew; this worker stops and has written nothing since"
            )
        return Checkpoint(read.projector, position, head, read.events + events, read.seconds + seconds, read.token)


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
