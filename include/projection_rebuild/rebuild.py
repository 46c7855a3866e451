"""The class :class:`Rebuild`: the verbs of a rebuild, in the order in which a DAG or an operator calls them.

A caller may repeat each verb: it continues, or does nothing.
"""

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

    :param spec: the spec of the rebuild
    :param run_id: the name of the run in the ledger; with the id of an earlier run, the object continues that run
    :param event_store: the database that holds the events
    :param read_models: the database that holds the tables and the ledger; may be the same
    :param log: gets the progress, a line at a time
    :param progress: gets the checkpoint of a replay from time to time, with its events per second
    :param projectors: the projectors, if the caller has loaded them with the spec; None: the constructor imports them
    :raises ProjectorError: the engine cannot use a projector of the spec
    :raises ConnectionRefused: the engine cannot connect to one of the databases as configured
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
            # If anything fails from here on, the stack closes the engine's connections.
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
        """Checks whether the rebuild can work, records the plan, and claims the tables.

        A second call begins the run anew.

        :param options: what this run rebuilds, and how; with ``dry_run`` the verb only prepares the plan
        :param is_over: returns whether another run that still holds a table has ended; then the engine takes it over
        :param by: the name of the person or program that starts the run, for the record
        :raises PlanError: the rebuild cannot work; the message lists reasons and remedies, and nothing has changed
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
        """Checks whether a swap can be rolled back, records the plan, and claims the tables.

        :meth:`bring_back` and :meth:`swap` are the next verbs.

        :param options: only dry run, retention, reason and "swap now" count
        :param of: the id of the run whose swap the rollback takes back; None: the last run that swapped these tables
        :param is_over: as for :meth:`plan`
        :param by: as for :meth:`plan`
        :raises PlanError: the rollback cannot work; the message lists the reasons, and nothing has changed
        :raises SpecError: the options are beyond :mod:`projection_rebuild.model.limits`
        :raises ClaimRefused: another run works on one of the tables
        """
        limits.check(options.model_dump(), PARAMETERS)
        if of is not None:
            limits.word(of, "the run whose switch is taken back", most=limits.RUN_ID, lines=False)
        return rollback.plan_rollback(self._context, options, of, is_over, by)

    @boundary.step("bring_back", boundary.OLD_KEPT)
    def bring_back(self, *, stopped: Callable[[], bool] = lambda: False) -> Place:
        """Renames the old tables to green, and replays into them the events since they were live; :meth:`swap` is next.

        See :func:`projection_rebuild.cutover.rollback.bring_back`.

        :param stopped: returns whether the worker must stop
        :returns: the position that the tables have reached
        :raises StepOrderError: the run is within its swap, is no rollback, or an old table no longer exists
        :raises ClaimRefused: another run has taken the tables over
        """
        record.note_code(self._context, self.chosen())
        return rollback.bring_back(self._context, stopped)

    @boundary.step("clone_tables", boundary.UNTOUCHED)
    def clone_tables(self) -> list[str]:
        """Creates the green tables anew, empty, and resets the checkpoints; :meth:`replay` is next.

        See :func:`projection_rebuild.shadow.clone.clone_tables`.

        :returns: the names of the green tables
        :raises StepOrderError: the run is within its swap
        :raises ClaimRefused: another run has taken the tables over
        """
        return clone.clone_tables(self._context)

    @boundary.step("replay", boundary.GREEN_KEPT)
    def replay(self, projector: str, *, stopped: Callable[[], bool] = lambda: False) -> ReplayResult:
        """Replays events into a projector's green tables, from its checkpoint to the head, and builds their indexes.

        See :func:`projection_rebuild.replay.projector_replay.replay`. If the projector has shards, the verb first
        replays those that are not done, and joins all.

        :param projector: the name of the projector
        :param stopped: returns whether the worker must stop
        :raises Interrupted: ``stopped`` returned True; a later call continues from the checkpoint
        :raises StepOrderError: the run has no green tables yet
        """
        record.note_code(self._context, [projector])
        return shards.replay_all(self._context, projector, stopped)

    @boundary.step("shards", boundary.NOTHING)
    def shards(self) -> list[tuple[str, int]]:
        """The shards of this run, as pairs of the projector's name and the shard's number (from 0)."""
        with open_step(self._context) as step:
            counts = self._context.plan_of(step.ledger.runs.get()).shards
        return [(projector, number) for projector, count in counts.items() for number in range(count)]

    @boundary.step("replay_shard", boundary.GREEN_KEPT)
    def replay_shard(self, projector: str, shard: int, *, stopped: Callable[[], bool] = lambda: False) -> ReplayResult:
        """Replays one shard of a projector; several workers may replay the shards side by side.

        See :func:`projection_rebuild.replay.shards.replay_shard`. :meth:`replay` then joins the shards, and replays
        those that are not done.

        :param projector: the name of the projector
        :param shard: the number of the shard, from 0
        :param stopped: returns whether the worker must stop
        :raises StepOrderError: the run has no green tables yet, or no shard of this number
        :raises ShardError: an event changes rows of another shard
        :raises WriteError: the database refuses rows
        """
        record.note_code(self._context, [projector])
        return shards.replay_shard(self._context, projector, shard, stopped)

    @boundary.step("replay", boundary.GREEN_KEPT)
    def replay_in_stage(
        self, projector: str, *, stopped: Callable[[], bool] = lambda: False, now: Callable[[], datetime] = stages.utc_now
    ) -> ReplayResult | stages.Closed:
        """Replays a projector like :meth:`replay`, but only while a window of its stage is open.

        See :func:`projection_rebuild.replay.stages.replay_in_stage`.

        :param projector: the name of the projector
        :param stopped: returns whether the worker must stop
        :param now: returns the current time
        :returns: the result of the replay; or, while the window is closed, when it opens
        :raises Interrupted: ``stopped`` returned True; a later call continues from the checkpoint
        """
        record.note_code(self._context, [projector])
        return stages.replay_in_stage(self._context, projector, stopped, now)

    @boundary.step("replay", boundary.GREEN_KEPT)
    def replay_stages(
        self, *, stopped: Callable[[], bool] = lambda: False, now: Callable[[], datetime] = stages.utc_now
    ) -> stages.Closed | None:
        """Replays the projectors of all stages in order, as far as their windows allow; a later call continues.

        See :func:`projection_rebuild.replay.stages.replay_stages`.

        :param stopped: returns whether the worker must stop
        :param now: returns the current time
        :returns: the closed window that the run waits for; None: all projectors are replayed, :meth:`verify` is next
        :raises Interrupted: ``stopped`` returned True
        :raises StepOrderError: the spec has no stages
        """
        return stages.replay_stages(self._context, stopped, now)

    @boundary.step("verify_counts", boundary.UNTOUCHED)
    def verify(self, *, stopped: Callable[[], bool] = lambda: False) -> Verification:
        """Adds the foreign keys to green, and compares green with its events and with blue; stores the report.

        See :func:`projection_rebuild.verification.verify.verify`.

        :param stopped: returns whether the worker must stop
        :raises VerificationFailed: green must not replace blue; the message lists the findings
        :raises StepOrderError: the run has no green tables yet
        """
        with self._report_stored_on_failure():
            verification = verify.verify(self._context, stopped)
        record.keep(self._context)
        return verification

    @boundary.step("wait_for_low_traffic", boundary.UNTOUCHED)
    def look_at_traffic(self, waiting: Waiting) -> Verdict:
        """Measures the traffic once, and judges whether the cutover may begin; the caller waits between two looks.

        See :func:`projection_rebuild.cutover.gate.look_at_traffic`.

        :param waiting: a new object for the first look; then the one of the previous verdict
        :raises StepOrderError: the run is not verified, or an operator gave it up while it waited
        :raises Diverged: green no longer matches its events
        """
        with self._report_stored_on_failure():
            return gate.look_at_traffic(self._context, waiting)

    @boundary.step("look_again", boundary.UNTOUCHED)
    def look_again(self) -> None:
        """Takes another sample of a verified run that waits for its cutover, if ``verify.sample_every`` has passed.

        See :func:`projection_rebuild.verification.fresh_proof.look_again`.

        :raises StepOrderError: the run is not verified
        :raises Diverged: green no longer matches its events; verify the run again
        """
        with self._report_stored_on_failure():
            fresh_proof.look_again(self._context)

    @contextmanager
    def _report_stored_on_failure(self) -> Iterator[None]:
        """Stores the report of a run if its verification fails."""
        try:
            yield
        except VerificationFailed:
            record.keep(self._context)
            raise

    @boundary.step("stand_down", boundary.UNTOUCHED)
    def stand_down(self, reason: str) -> None:
        """Gives up a run that must end without its swap, by a rule or a decision; stores the report with the reason.

        See :func:`projection_rebuild.run.signals.stand_down`.

        :raises StepOrderError: the ledger has no such run, its cutover has begun, or an operator gave it up before
        """
        signals.stand_down(self._context, reason)
        record.keep(self._context)

    @boundary.step("atomic_swap", boundary.ONE_SIDE)
    def swap(self, *, stopped: Callable[[], bool] = lambda: False) -> SwapResult:
        """Swaps all green tables of the run with the live ones at once; :meth:`reconcile` is next.

        See :func:`projection_rebuild.cutover.swap.swap`.

        :param stopped: returns whether the worker must stop; called between two attempts
        :returns: what the swap did, with its pause in seconds; after an earlier swap, its result
        :raises SwapNotPossible: no attempt succeeded; nothing has changed, and a retry may succeed
        :raises VerificationFailed: green lacks events, or its rows have lost their parents; blue is untouched
        :raises Diverged: green no longer matches its events; verify the run again
        :raises Interrupted: ``stopped`` returned True
        :raises StepOrderError: the run is not verified
        """
        with self._report_stored_on_failure():
            result = swap.swap(self._context, stopped)
        record.keep(self._context)
        return result

    @boundary.step("reconcile", boundary.SWITCHED)
    def reconcile(self) -> Reconciliation:
        """Adds what could not be part of the swap, checks the new tables, and releases the claims; stores the report.

        See :func:`projection_rebuild.cutover.reconcile.reconcile`.

        :raises StepOrderError: the run has not swapped its tables
        :raises FenceLost: everything is recorded, but events may be missing from the new tables
        :raises LeftOnOld: everything is recorded, but the retired table has a change that the live one lacks
        """
        reconciliation = reconcile.reconcile(self._context)
        record.keep(self._context)
        return reconciliation

    @boundary.step("drop_due", boundary.SWITCHED)
    def drop_due(self, *, is_over: Callable[[str], bool] = lambda run_id: False) -> datetime:
        """The time, in UTC, from which :meth:`drop_old` may drop the tables that this run retired.

        See :func:`projection_rebuild.shadow.retire.drop_due`.

        :param is_over: returns whether another run that holds the tables has ended
        :raises StepOrderError: the run has not swapped its tables
        """
        return retire.drop_due(self._context, is_over)

    @boundary.step("drop_old_tables", boundary.SWITCHED)
    def drop_old(self, *, is_over: Callable[[str], bool] = lambda run_id: False) -> list[str]:
        """Drops the tables that this run retired, and stores the report. The caller waits for :meth:`drop_due`.

        See :func:`projection_rebuild.shadow.retire.drop_old`.

        :param is_over: returns whether another run that holds the tables has ended
        :returns: the names of the dropped tables
        :raises StepOrderError: the run has not swapped its tables
        :raises HeldByRollback: a rollback is making these tables live again
        """
        dropped = retire.drop_old(self._context, is_over)
        record.keep(self._context)
        return dropped

    @boundary.step("options", boundary.NOTHING)
    def options(self) -> RunOptions:
        """The options of this run.

        :raises StepOrderError: the ledger has no such run, or an operator gave it up
        """
        with open_step(self._context) as step:
            return step.ledger.runs.get().record.options

    @boundary.step("chosen", boundary.NOTHING)
    def chosen(self) -> list[str]:
        """The names of the projectors that this run rebuilds.

        :raises StepOrderError: the ledger has no such run, or an operator gave it up
        :raises SpecError: the spec has been edited since the run was planned
        """
        with open_step(self._context) as step:
            return self._context.plan_of(step.ledger.runs.get()).projectors

    @boundary.step("survey", boundary.NOTHING)
    def survey(self, *, is_over: Callable[[str], bool], rebuilds: Collection[str]) -> list[Leftover]:
        """Lists what dead runs have left in the database; changes nothing.

        See :func:`projection_rebuild.operations.housekeeping.survey`.

        :param is_over: returns whether a run, by its id, has ended
        :param rebuilds: the names of all specs in use
        """
        return housekeeping.survey(self._context, is_over, rebuilds)

    @boundary.step("keep_house", boundary.UNTOUCHED)
    def keep_house(self, *, is_over: Callable[[str], bool], rebuilds: Collection[str]) -> Housekeeping:
        """Removes those leftovers of dead runs that are due.

        See :func:`projection_rebuild.operations.housekeeping.keep_house`.

        :param is_over: returns whether a run, by its id, has ended
        :param rebuilds: the names of all specs in use
        """
        return housekeeping.keep_house(self._context, is_over, rebuilds)

    @boundary.step("report", boundary.NOTHING)
    def report(self) -> Report:
        """The report of the run as it is now, even if an operator gave it up.

        :raises StepOrderError: the ledger has no such run
        """
        return record.report(self._context)

    @boundary.step("history", boundary.NOTHING)
    def history(self, limit: int = 50) -> list[Report]:
        """The reports of the spec's last runs, newest first; see :func:`projection_rebuild.run.record.history`.

        :param limit: the most reports to return
        """
        return record.history(self._context, limit)

    @boundary.step("swap_now", boundary.AS_IT_WAS)
    def swap_now(self, *, by: str, reason: str = "") -> None:
        """Lets the cutover begin without low traffic; see :func:`projection_rebuild.run.signals.swap_now`.

        :param by: the name of the operator, here and in the other signals
        :raises SpecError: the reason is beyond :mod:`projection_rebuild.model.limits`
        :raises StepOrderError: the ledger has no such run, its cutover has begun, or an operator gave it up
        """
        signals.swap_now(self._context, by, reason)

    @boundary.step("pause", boundary.AS_IT_WAS)
    def pause(self, *, by: str, reason: str = "") -> None:
        """Makes all replays of the run commit their work and wait; see :func:`projection_rebuild.run.signals.pause`.

        :raises SpecError: the reason is beyond :mod:`projection_rebuild.model.limits`
        :raises StepOrderError: the ledger has no such run, its cutover has begun, or an operator gave it up
        """
        signals.pause(self._context, by, reason)

    @boundary.step("resume", boundary.AS_IT_WAS)
    def resume(self, *, by: str) -> None:
        """Lets paused replays continue; see :func:`projection_rebuild.run.signals.resume`.

        :raises StepOrderError: the ledger has no such run, or an operator gave it up
        """
        signals.resume(self._context, by)

    @boundary.step("set_limits", boundary.AS_IT_WAS)
    def set_limits(self, given: Mapping[str, Any] | None, *, by: str) -> ThrottleSection:
        """Replaces the limits of the run's replays; see :func:`projection_rebuild.run.signals.set_limits`.

        :param given: keys of the spec's section ``throttle`` with their values; None: the limits of the spec
        :returns: the limits that count now
        :raises SpecError: a value is not allowed; names its key
        :raises StepOrderError: the ledger has no such run, its cutover has begun, or an operator gave it up
        """
        return signals.set_limits(self._context, given, by)

    @boundary.step("limits", boundary.NOTHING)
    def limits(self) -> ThrottleSection:
        """The limits that count now for the replays of this run: those of :meth:`set_limits`, or else of the spec."""
        return throttle.limits(self._context, self.notes())

    @boundary.step("waits", boundary.NOTHING)
    def waits(self) -> list[Wait]:
        """The workers of the run that wait or rest now, with the reason of each."""
        with open_step(self._context) as step:
            return step.ledger.signals.waits()

    @boundary.step("decide", boundary.AS_IT_WAS)
    def decide(self, approved: bool, *, by: str, reason: str = "") -> None:
        """Approves or rejects the swap. The decision counts for the last verification and for no later one.

        See :func:`projection_rebuild.run.signals.decide`.

        :raises SpecError: the reason is beyond :mod:`projection_rebuild.model.limits`
        :raises StepOrderError: the ledger has no such run, the run is not verified, its cutover has begun, or an
            operator gave it up
        """
        signals.decide(self._context, approved, by, reason)

    @boundary.step("approval_needed", boundary.NOTHING)
    def approval_needed(self) -> bool:
        """Whether an operator must approve the swap of this run.

        See :func:`projection_rebuild.run.signals.approval_needed`.

        :raises StepOrderError: the run is not verified
        """
        return signals.approval_needed(self._context)

    @boundary.step("decided", boundary.NOTHING)
    def decided(self) -> Note | None:
        """The decision about the run's last verification; see :func:`projection_rebuild.run.signals.decided`.

        :returns: a note whose value has ``approved`` and ``reason``; None: no operator has decided yet
        :raises StepOrderError: the run is not verified
        """
        return signals.decided(self._context)

    @boundary.step("notes", boundary.NOTHING)
    def notes(self) -> dict[str, Note]:
        """The notes about the run, such as signals of operators, by name; see :mod:`projection_rebuild.run.signals`."""
        with open_step(self._context) as step:
            return step.ledger.signals.all()

    @boundary.step("look", boundary.NOTHING)
    def look(self, earlier: Traffic | None = None) -> status.Look:
        """The state of this rebuild now: its runs, whatever their ids, and the traffic.

        It only reads, and reads no table of the application.

        :param earlier: the traffic of an earlier look; the verb counts the appends since then
        """
        return status.look(self._context, earlier)

    @boundary.step("tables", boundary.NOTHING)
    def tables(self) -> list[status.TableSeen]:
        """The tables of the spec that exist (blue, green and old), with rows and bytes by the database's statistics."""
        return status.tables(self._context)

    @boundary.step("abandon", boundary.AS_IT_WAS)
    def abandon(self) -> None:
        """Gives up the run: releases its claims, and stores the report. Its green tables stay for inspection.

        See :func:`projection_rebuild.run.signals.abandon`.

        :raises StepOrderError: the ledger has no such run, its cutover has begun, or an operator gave it up before
        """
        signals.abandon(self._context)
        record.keep(self._context)

    @boundary.step("close", boundary.NOTHING)
    def close(self) -> None:
        """Closes the connections. A later call of a verb opens new ones."""
        self._context.dialect.engine.dispose()
        self._context.store.dialect.engine.dispose()

    @boundary.step("cancel_query", boundary.NOTHING)
    def cancel_query(self) -> None:
        """Cancels the statements that this object's connections are executing. Another thread may call it."""
        self._context.dialect.cancel_all()
        self._context.store.dialect.cancel_all()


def of_our_own(engine: sa.Engine) -> sa.Engine:
    """An engine for the same database, with a pool of its own, so that the session settings affect no other user of it.

    Errors of its connections do not quote the values of statements, so that rows and payloads never reach a log.
    """
    pool, on_connect = engine.pool.recreate(), dialect_class(engine).on_connect
    sa.event.listen(pool, "connect", lambda driver, _: on_connect(driver), insert=True)
    return sa.Engine(pool, engine.dialect, engine.url, hide_parameters=True)


def same_database(one: sa.Engine, other: sa.Engine) -> bool:
    """Whether both engines write to one database, so that one transaction can commit both writes."""
    return (
        all(getattr(one.url, part) == getattr(other.url, part) for part in ("host", "port", "database"))
        and one.dialect.name == other.dialect.name
    )
