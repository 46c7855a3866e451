"""A rebuild by its verbs, in the order in which an operator (or a DAG) uses them; each can be called again safely."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from projection_rebuild.cutover import gate, reconcile, rollback, swap
from projection_rebuild.dialects import dialect_class, dialect_for
from projection_rebuild.errors import VerificationFailed, boundary
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.ledger import Checkpoint, Ledger, Note, Wait
from projection_rebuild.model import limits
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import Place
from projection_rebuild.model.results import Reconciliation, ReplayResult, SwapResult, Verification
from projection_rebuild.operations import housekeeping, status
from projection_rebuild.operations.housekeeping import Housekeeping, Leftover
from projection_rebuild.planning import planner
from projection_rebuild.replay import shards, stages
from projection_rebuild.run import record, signals
from projection_rebuild.run.context import Context
from projection_rebuild.run.report import Report
from projection_rebuild.run.step import open_step
from projection_rebuild.shadow import clone, retire
from projection_rebuild.spec.options import PARAMETERS, RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.registry import ProjectorRegistry
from projection_rebuild.spec.replay import ThrottleSection
from projection_rebuild.traffic import throttle
from projection_rebuild.traffic.low_traffic import Traffic, Verdict, Waiting
from projection_rebuild.verification import fresh_proof, verify

_logger = logging.getLogger(__name__)


class Rebuild:
    """One run of a spec.

    :param spec: what is rebuilt
    :param run_id: names the run in the ledger; the same id goes on where an earlier object of it stopped
    :param event_store: the database that holds the events
    :param read_models: the database that holds the tables and the ledger; may be the same
    :param log: where progress goes, a line at a time
    :param progress: told now and then how far a replay is, with its events per second
    :param projectors: those of the spec, where it was loaded with them; None: they are imported here
    :raises ProjectorError: a projector of the spec cannot be used
    :raises ConnectionRefused: one of the databases cannot be connected to as configured
    :raises SpecError: the spec or the run's id is beyond :mod:`projection_rebuild.model.limits`
    """

    @boundary.step("opening the run", boundary.NOTHING)
    def __init__(
        self,
        spec: RebuildSpec,
        *,
        run_id: str,
        event_store: sa.Engine,
        read_models: sa.Engine,
        log: Callable[[str], None] = _logger.info,
        progress: Callable[[Checkpoint, float], None] = lambda checkpoint, rate: None,
        projectors: ProjectorRegistry | None = None,
    ) -> None:
        limits.check(spec.model_dump(), "the spec")
        limits.word(run_id, "run_id", most=limits.RUN_ID, lines=False)
        shared = event_store is read_models
        with ExitStack() as opened:
            # Whatever fails from here on, no connection of ours stays open.
            read_models = of_our_own(read_models)
            opened.callback(read_models.dispose)
            event_store = read_models if shared else of_our_own(event_store)
            opened.callback(event_store.dispose)
            dialect = dialect_for(read_models, spec.read_models.conn_id)
            with dialect.connect() as connection:
                schema = spec.read_models.db_schema or dialect.inspector.default_schema(connection)
            self._context = Context(
                spec=spec,
                run_id=run_id,
                dialect=dialect,
                store=EventStore(dialect_for(event_store, spec.event_store.conn_id), spec.event_store),
                ledger=Ledger(dialect, schema),
                schema=schema,
                one_database=same_database(event_store, read_models),
                projectors=ProjectorRegistry.load(spec) if projectors is None else projectors,
                log=log,
                progress=progress,
            )
            opened.pop_all()

    @boundary.step("plan", boundary.UNTOUCHED)
    def plan(self, options: RunOptions, *, is_over: Callable[[str], bool] = lambda run_id: False, by: str = "") -> Plan:
        """Decides what is rebuilt, refuses what cannot be, and claims the tables. Calling it again begins the run anew.

        :param is_over: whether another run, that still holds a table, has ended; its claim is then taken over
        :param by: who starts it, for the record
        :raises PlanError: nothing has been touched; the message names reason and remedy
        :raises SpecError: the options are beyond :mod:`projection_rebuild.model.limits`
        :raises ClaimRefused: another run works on one of the tables
        """
        limits.check(options.model_dump(), PARAMETERS)
        return planner.plan(self._context, options, is_over, by)

    @boundary.step("plan", boundary.UNTOUCHED)
    def plan_rollback(
        self,
        options: RunOptions,
        *,
        of: str | None = None,
        is_over: Callable[[str], bool] = lambda run_id: False,
        by: str = "",
    ) -> Plan:
        """Decides which switch is taken back, refuses what cannot be, and claims the tables; :meth:`bring_back` and
        :meth:`swap` are next. Of the options, dry run, retention, reason and "swap now" count.

        :param of: the run whose switch it is; None: the last one of these tables
        :param is_over: as for :meth:`plan`
        :param by: as for :meth:`plan`
        :raises PlanError: nothing has been touched; the message names the reasons
        :raises SpecError: the options are beyond :mod:`projection_rebuild.model.limits`
        :raises ClaimRefused: another run works on one of the tables
        """
        limits.check(options.model_dump(), PARAMETERS)
        if of is not None:
            limits.word(of, "the run whose switch is taken back", most=limits.RUN_ID, lines=False)
        return rollback.plan_rollback(self._context, options, of, is_over, by)

    @boundary.step("bring_back", boundary.OLD_KEPT)
    def bring_back(self, *, stopped: Callable[[], bool] = lambda: False) -> Place:
        """See :func:`projection_rebuild.cutover.rollback.bring_back`."""
        record.note_code(self._context, self.chosen())
        return rollback.bring_back(self._context, stopped)

    @boundary.step("clone_tables", boundary.UNTOUCHED)
    def clone_tables(self) -> list[str]:
        """See :func:`projection_rebuild.shadow.clone.clone_tables`."""
        return clone.clone_tables(self._context)

    @boundary.step("replay", boundary.GREEN_KEPT)
    def replay(self, projector: str, *, stopped: Callable[[], bool] = lambda: False) -> ReplayResult:
        """See :func:`projection_rebuild.replay.projector_replay.replay`."""
        record.note_code(self._context, [projector])
        return shards.replay_all(self._context, projector, stopped)

    @boundary.step("shards", boundary.NOTHING)
    def shards(self) -> list[tuple[str, int]]:
        """The shards of this run, each as its projector and its number."""
        with open_step(self._context) as step:
            counts = self._context.plan_of(step.ledger.runs.get()).shards
        return [(projector, number) for projector, count in counts.items() for number in range(count)]

    @boundary.step("replay_shard", boundary.GREEN_KEPT)
    def replay_shard(self, projector: str, shard: int, *, stopped: Callable[[], bool] = lambda: False) -> ReplayResult:
        """See :func:`projection_rebuild.replay.shards.replay_shard`. :meth:`replay` joins the shards, and does those itself that
        are not done.

        :param shard: from 0
        """
        record.note_code(self._context, [projector])
        return shards.replay_shard(self._context, projector, shard, stopped)

    @boundary.step("replay", boundary.GREEN_KEPT)
    def replay_in_stage(
        self, projector: str, *, stopped: Callable[[], bool] = lambda: False, now: Callable[[], datetime] = stages.utc_now
    ) -> ReplayResult | stages.Closed:
        """See :func:`projection_rebuild.replay.stages.replay_in_stage`."""
        record.note_code(self._context, [projector])
        return stages.replay_in_stage(self._context, projector, stopped, now)

    @boundary.step("replay", boundary.GREEN_KEPT)
    def replay_stages(
        self, *, stopped: Callable[[], bool] = lambda: False, now: Callable[[], datetime] = stages.utc_now
    ) -> stages.Closed | None:
        """See :func:`projection_rebuild.replay.stages.replay_stages`."""
        return stages.replay_stages(self._context, stopped, now)

    @boundary.step("verify_counts", boundary.UNTOUCHED)
    def verify(self, *, stopped: Callable[[], bool] = lambda: False) -> Verification:
        """See :func:`projection_rebuild.verification.verify.verify`."""
        with self._kept_if_it_fails():
            found = verify.verify(self._context, stopped)
        record.keep(self._context)
        return found

    @boundary.step("wait_for_low_traffic", boundary.UNTOUCHED)
    def look_at_traffic(self, waiting: Waiting) -> Verdict:
        """See :func:`projection_rebuild.cutover.gate.look_at_traffic`."""
        with self._kept_if_it_fails():
            return gate.look_at_traffic(self._context, waiting)

    @boundary.step("look_again", boundary.UNTOUCHED)
    def look_again(self) -> None:
        """See :func:`projection_rebuild.verification.fresh_proof.look_again`."""
        with self._kept_if_it_fails():
            fresh_proof.look_again(self._context)

    @contextmanager
    def _kept_if_it_fails(self) -> Iterator[None]:
        """Keeps the report of a run that does not pass."""
        try:
            yield
        except VerificationFailed:
            record.keep(self._context)
            raise

    @boundary.step("stand_down", boundary.UNTOUCHED)
    def stand_down(self, reason: str) -> None:
        """See :func:`projection_rebuild.run.signals.stand_down`."""
        signals.stand_down(self._context, reason)
        record.keep(self._context)

    @boundary.step("atomic_swap", boundary.ONE_SIDE)
    def swap(self, *, stopped: Callable[[], bool] = lambda: False) -> SwapResult:
        """See :func:`projection_rebuild.cutover.swap.swap`."""
        with self._kept_if_it_fails():
            result = swap.swap(self._context, stopped)
        record.keep(self._context)
        return result

    @boundary.step("reconcile", boundary.SWITCHED)
    def reconcile(self) -> Reconciliation:
        """See :func:`projection_rebuild.cutover.reconcile.reconcile`."""
        found = reconcile.reconcile(self._context)
        record.keep(self._context)
        return found

    @boundary.step("drop_due", boundary.SWITCHED)
    def drop_due(self, *, is_over: Callable[[str], bool] = lambda run_id: False) -> datetime:
        """See :func:`projection_rebuild.shadow.retire.drop_due`."""
        return retire.drop_due(self._context, is_over)

    @boundary.step("drop_old_tables", boundary.SWITCHED)
    def drop_old(self, *, is_over: Callable[[str], bool] = lambda run_id: False) -> list[str]:
        """See :func:`projection_rebuild.shadow.retire.drop_old`."""
        dropped = retire.drop_old(self._context, is_over)
        record.keep(self._context)
        return dropped

    @boundary.step("options", boundary.NOTHING)
    def options(self) -> RunOptions:
        """What was chosen for this run."""
        with open_step(self._context) as step:
            return step.ledger.runs.get().record.options

    @boundary.step("chosen", boundary.NOTHING)
    def chosen(self) -> list[str]:
        """The names of the projectors that this run rebuilds."""
        with open_step(self._context) as step:
            return self._context.plan_of(step.ledger.runs.get()).projectors

    @boundary.step("survey", boundary.NOTHING)
    def survey(self, *, is_over: Callable[[str], bool], rebuilds: Collection[str]) -> list[Leftover]:
        """See :func:`projection_rebuild.operations.housekeeping.survey`."""
        return housekeeping.survey(self._context, is_over, rebuilds)

    @boundary.step("keep_house", boundary.UNTOUCHED)
    def keep_house(self, *, is_over: Callable[[str], bool], rebuilds: Collection[str]) -> Housekeeping:
        """See :func:`projection_rebuild.operations.housekeeping.keep_house`."""
        return housekeeping.keep_house(self._context, is_over, rebuilds)

    @boundary.step("report", boundary.NOTHING)
    def report(self) -> Report:
        """What the run has done so far, given up or not.

        :raises StepOrderError: there is no such run
        """
        return record.report(self._context)

    @boundary.step("history", boundary.NOTHING)
    def history(self, limit: int = 50) -> list[Report]:
        """See :func:`projection_rebuild.run.record.history`."""
        return record.history(self._context, limit)

    @boundary.step("swap_now", boundary.AS_IT_WAS)
    def swap_now(self, *, by: str, reason: str = "") -> None:
        """See :func:`projection_rebuild.run.signals.swap_now`."""
        signals.swap_now(self._context, by, reason)

    @boundary.step("pause", boundary.AS_IT_WAS)
    def pause(self, *, by: str, reason: str = "") -> None:
        """See :func:`projection_rebuild.run.signals.pause`."""
        signals.pause(self._context, by, reason)

    @boundary.step("resume", boundary.AS_IT_WAS)
    def resume(self, *, by: str) -> None:
        """See :func:`projection_rebuild.run.signals.resume`."""
        signals.resume(self._context, by)

    @boundary.step("set_limits", boundary.AS_IT_WAS)
    def set_limits(self, given: Mapping[str, Any] | None, *, by: str) -> ThrottleSection:
        """See :func:`projection_rebuild.run.signals.set_limits`."""
        return signals.set_limits(self._context, given, by)

    @boundary.step("limits", boundary.NOTHING)
    def limits(self) -> ThrottleSection:
        """The thresholds that count now for the replays of this run."""
        return throttle.limits(self._context, self.notes())

    @boundary.step("waits", boundary.NOTHING)
    def waits(self) -> list[Wait]:
        """The workers of the run that rest or wait now, each with its reason."""
        with open_step(self._context) as step:
            return step.ledger.signals.waits()

    @boundary.step("decide", boundary.AS_IT_WAS)
    def decide(self, approved: bool, *, by: str, reason: str = "") -> None:
        """See :func:`projection_rebuild.run.signals.decide`."""
        signals.decide(self._context, approved, by, reason)

    @boundary.step("approval_needed", boundary.NOTHING)
    def approval_needed(self) -> bool:
        """See :func:`projection_rebuild.run.signals.approval_needed`."""
        return signals.approval_needed(self._context)

    @boundary.step("decided", boundary.NOTHING)
    def decided(self) -> Note | None:
        """See :func:`projection_rebuild.run.signals.decided`."""
        return signals.decided(self._context)

    @boundary.step("notes", boundary.NOTHING)
    def notes(self) -> dict[str, Note]:
        """What was said about the run while it went on, by name: see :mod:`projection_rebuild.run.signals`."""
        with open_step(self._context) as step:
            return step.ledger.signals.all()

    @boundary.step("look", boundary.NOTHING)
    def look(self, earlier: Traffic | None = None) -> status.Look:
        """What is going on with this rebuild now, in whatever run; only reads, and never a table of the application.

        :param earlier: what an earlier look has seen, since which appends are counted
        """
        return status.look(self._context, earlier)

    @boundary.step("tables", boundary.NOTHING)
    def tables(self) -> list[status.TableSeen]:
        """Which of the spec's tables there are, blue, green and old, with their rows and bytes by the database's statistics."""
        return status.tables(self._context)

    @boundary.step("abandon", boundary.AS_IT_WAS)
    def abandon(self) -> None:
        """See :func:`projection_rebuild.run.signals.abandon`."""
        signals.abandon(self._context)
        record.keep(self._context)

    @boundary.step("close", boundary.NOTHING)
    def close(self) -> None:
        """Closes the connections; the object can be used again all the same."""
        self._context.dialect.engine.dispose()
        self._context.store.dialect.engine.dispose()

    @boundary.step("cancel_query", boundary.NOTHING)
    def cancel_query(self) -> None:
        """Ends the statements that this object's connections are executing; callable from another thread."""
        self._context.dialect.cancel_all()
        self._context.store.dialect.cancel_all()


def of_our_own(engine: sa.Engine) -> sa.Engine:
    """The same database over connections of our own, whose session settings are nobody else's.

    Their errors do not quote the values of their statements: rows and payloads never reach a log.
    """
    pool, on_connect = engine.pool.recreate(), dialect_class(engine).on_connect
    sa.event.listen(pool, "connect", lambda driver, _: on_connect(driver), insert=True)
    return sa.Engine(pool, engine.dialect, engine.url, hide_parameters=True)


def same_database(one: sa.Engine, other: sa.Engine) -> bool:
    """Whether what is written over both commits in one database."""
    return (
        all(getattr(one.url, part) == getattr(other.url, part) for part in ("host", "port", "database"))
        and one.dialect.name == other.dialect.name
    )
