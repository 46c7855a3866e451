"""A rebuild by its verbs, in the order in which an operator (or a DAG) uses them; each can be called again safely."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa

from include.projection_rebuild import clone, planning, reconcile, replay, retire, swap, verify
from include.projection_rebuild.context import Context
from include.projection_rebuild.dialects import dialect_for
from include.projection_rebuild.errors import StepOrderError
from include.projection_rebuild.event_store import EventStore
from include.projection_rebuild.ledger import Ledger, RunState
from include.projection_rebuild.low_traffic import Traffic
from include.projection_rebuild.plan import Plan
from include.projection_rebuild.report import Report
from include.projection_rebuild.spec import RebuildSpec, RunOptions

_logger = logging.getLogger(__name__)


class Rebuild:
    """One run of a spec.

    :param spec: what is rebuilt
    :param run_id: names the run in the ledger; the same id goes on where an earlier object of it stopped
    :param event_store: the database that holds the events
    :param read_models: the database that holds the tables and the ledger; may be the same
    :param log: where progress goes, a line at a time
    :raises ProjectorError: a projector of the spec cannot be used
    """

    def __init__(
        self,
        spec: RebuildSpec,
        *,
        run_id: str,
        event_store: sa.Engine,
        read_models: sa.Engine,
        log: Callable[[str], None] = _logger.info,
    ) -> None:
        event_store, read_models = _silenced(event_store), _silenced(read_models)
        dialect = dialect_for(read_models)
        with dialect.connect() as connection:
            schema = spec.read_models.db_schema or dialect.default_schema(connection)
        self._context = Context(
            spec=spec,
            run_id=run_id,
            dialect=dialect,
            store=EventStore(dialect_for(event_store), spec.event_store),
            ledger=Ledger(dialect, schema),
            schema=schema,
            one_database=_same_database(event_store, read_models),
            projectors=spec.load_projectors(),
            log=log,
        )

    def plan(self, options: RunOptions, *, is_over: Callable[[str], bool] = lambda run_id: False) -> Plan:
        """Decides what is rebuilt, refuses what cannot be, and claims the tables. Calling it again begins the run anew.

        :param is_over: whether another run, that still holds a table, has ended; its claim is then taken over
        :raises PlanError: nothing has been touched; the message names reason and remedy
        :raises ClaimRefused: another run works on one of the tables
        """
        return planning.plan(self._context, options, is_over)

    def clone_tables(self) -> list[str]:
        """See :func:`include.projection_rebuild.clone.clone_tables`."""
        return clone.clone_tables(self._context)

    def replay(self, projector: str, *, stopped: Callable[[], bool] = lambda: False) -> replay.ReplayResult:
        """See :func:`include.projection_rebuild.replay.replay`."""
        return replay.replay(self._context, projector, stopped)

    def verify(self) -> verify.Verification:
        """See :func:`include.projection_rebuild.verify.verify`."""
        return verify.verify(self._context)

    def traffic(self) -> Traffic:
        """One look at what the application is doing, for the low-traffic gate."""
        with self._context.dialect.connect() as connection:
            sessions = self._context.dialect.active_sessions(connection)
        return Traffic(head=self._context.store.newest(), active_sessions=sessions, at=datetime.now(UTC))

    def swap(self) -> swap.SwapResult:
        """See :func:`include.projection_rebuild.swap.swap`."""
        return swap.swap(self._context)

    def reconcile(self) -> reconcile.Reconciliation:
        """See :func:`include.projection_rebuild.reconcile.reconcile`."""
        return reconcile.reconcile(self._context)

    def drop_due(self) -> datetime:
        """When the tables that this run retired may go, in UTC; now if there are none."""
        with self._context.dialect.connect() as connection:
            self._context.ledger.run(connection, self._context.run_id, at_least=RunState.SWITCHED)
            retired = self._context.ledger.retired(connection, run_id=self._context.run_id)
        return max((each.drop_after for each in retired), default=datetime.now(UTC))

    def drop_old(self) -> list[str]:
        """See :func:`include.projection_rebuild.retire.drop_old`."""
        return retire.drop_old(self._context)

    def options(self) -> RunOptions:
        """What was chosen for this run."""
        with self._context.dialect.connect() as connection:
            return self._context.options_of(self._context.ledger.run(connection, self._context.run_id))

    def chosen(self) -> list[str]:
        """The names of the projectors that this run rebuilds."""
        with self._context.dialect.connect() as connection:
            return self._context.plan_of(self._context.ledger.run(connection, self._context.run_id)).projectors

    def report(self) -> Report:
        """What the run has done so far, given up or not.

        :raises StepOrderError: there is no such run
        """
        with self._context.dialect.connect() as connection:
            run = self._context.ledger.find_run(connection, self._context.run_id)
            if run is None:
                raise StepOrderError(f"the ledger has no run {self._context.run_id}")
            return Report.of(run, self._context.ledger.checkpoints(connection, self._context.run_id))

    def abandon(self) -> None:
        """Gives up a run that will not go on: its claims are free again, its green tables stay for inspection.

        :raises StepOrderError: there is no such run
        """
        with self._context.dialect.connect() as connection, self._context.dialect.transaction(connection):
            self._context.ledger.move(connection, self._context.run_id, RunState.ABANDONED)
            self._context.ledger.remove_checkpoints(connection, self._context.run_id)
            self._context.ledger.release(connection, self._context.run_id)

    def cancel_query(self) -> None:
        """Ends the statements that this object's connections are executing; callable from another thread."""
        self._context.dialect.cancel_all()
        self._context.store.dialect.cancel_all()


def _silenced(engine: sa.Engine) -> sa.Engine:
    """The same engine, whose errors do not quote the values of their statements: rows and payloads never reach a log."""
    ours: sa.Engine = engine.execution_options()
    ours.hide_parameters = True
    return ours


def _same_database(one: sa.Engine, other: sa.Engine) -> bool:
    return (
        all(getattr(one.url, part) == getattr(other.url, part) for part in ("host", "port", "database"))
        and one.dialect.name == other.dialect.name
    )
