"""The steps of a rebuild as Airflow tasks, in the order in which a DAG runs them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import Asset, AssetAlias, BaseOperator, Context
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRuntimeError,
    AirflowSkipException,
    DownstreamTasksSkipped,
)

from projection_rebuild.api import Checkpoint, Closed, Interrupted, Plan, Rebuild, RebuildError, ReplayResult, Verification
from projection_rebuild_airflow import metrics
from projection_rebuild_airflow.params import options_from, rollback_options_from
from projection_rebuild_airflow.runs import is_over_by, open_rebuild, started_by
from projection_rebuild_airflow.signals import heard_at_once

PROGRESS = "progress"
"""The key in the task's store for the progress of a replay; its values are those of :func:`metrics.of_replay`."""


MAP_INDEX_LABEL = "map_index_label"
"""The key in a shard's context that holds its name in Airflow's UI."""

DRY_RUN = "dry_run"
"""The key of the XCom that holds a dry run's plan."""


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Fails the task at once for an error that no retry can repair. Other errors pass, and Airflow retries the task.

    :raises AirflowFailException: in place of an engine error that is not retryable
    """
    try:
        yield
    except RebuildError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error


class SpecOperator(BaseOperator):
    """Calls the engine for a spec.

    When Airflow ends the task, it cancels the statement that the engine runs on a server.

    :param spec_path: the spec file
    """

    template_fields: Sequence[str] = ("spec_path",)
    ui_color = "#e8f3ec"

    def __init__(self, *, spec_path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec_path = spec_path
        self._rebuild: Rebuild | None = None
        self._killed = False

    @contextmanager
    def at_work(self, rebuild: Rebuild) -> Iterator[None]:
        """Within it, a signal that ends the task stops the engine's work.

        It raises afterwards, because Airflow takes a return for a success.

        :raises Interrupted: Airflow has ended the task
        """
        self._rebuild = rebuild
        try:
            with heard_at_once(self._end_statement):
                yield
        finally:
            self._rebuild = None
        if self._killed:
            raise Interrupted("the task was asked to stop; a retry goes on from what is committed")

    def is_killed(self) -> bool:
        """Whether Airflow has ended the task. The engine checks this between batches."""
        return self._killed

    def on_kill(self) -> None:
        """Stops the step, and cancels its statement on the server, which would outlive its client."""
        self._killed = True
        # Read once: the step may end at this moment, in another thread.
        rebuild = self._rebuild
        if rebuild is not None:
            rebuild.cancel_query()

    def _end_statement(self) -> None:
        """Calls :meth:`on_kill` in place of Airflow's signal handler.

        The handler cannot run while the driver waits in C, and Airflow sends SIGKILL seconds later.
        """
        try:
            self.on_kill()
        except RebuildError as error:
            self.log.warning("the step's statement on the server cannot be cancelled: %s", error)


class RebuildOperator(SpecOperator):
    """One step of a rebuild."""

    def execute(self, context: Context, event: Any = None) -> Any:
        """Runs the step.

        :param event: the event of the trigger that the task waited for; None: it has not waited
        """
        with (
            airflow_errors(),
            open_rebuild(self.spec_path, context, lambda now, rate: self.progress(context, now, rate)) as rebuild,
            self.at_work(rebuild),
        ):
            return self.step(rebuild, context)

    @abstractmethod
    def step(self, rebuild: Rebuild, context: Context) -> Any:
        """Calls the engine.

        :returns: the XCom of the task
        """

    def progress(self, context: Context, now: Checkpoint, rate: float) -> None:
        """Sends the progress of a replay to Airflow's metrics and to the task's store, which Airflow has from 3.3 on.

        :param rate: events per second
        """
        values = metrics.of_replay(context["dag"].dag_id, now, rate)
        store = context.get("task_state_store")
        if store is None:
            return
        try:
            store.set(PROGRESS, values)
        except (AirflowException, AirflowRuntimeError) as error:
            # A replay must not fail because Airflow could not store its progress.
            self.log.warning("the progress cannot be shown: %s", error)

    def answer(self, plan: Plan, context: Context) -> dict[str, Any]:
        """Logs a plan. A dry run pushes the whole plan as the XCom :data:`DRY_RUN`, and ends here.

        :returns: a summary of the plan, as XCom
        :raises DownstreamTasksSkipped: it is a dry run
        """
        self.log.info(plan.describe())
        if plan.dry_run:
            context["ti"].xcom_push(key=DRY_RUN, value=plan.model_dump(mode="json"))
            raise DownstreamTasksSkipped(tasks=sorted(self.get_flat_relative_ids(upstream=False)))  # type: ignore[no-untyped-call]
        return {"projectors": plan.projectors, "tables": plan.tables, "events": plan.events}


class PlanOperator(RebuildOperator):
    """Plans a rebuild: checks that it is possible, and claims the tables. A dry run ends here."""

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, Any]:
        options = options_from(context["params"])
        plan = rebuild.plan(options, is_over=is_over_by(context), by=started_by(context))
        return self.answer(plan, context)


class RollbackPlanOperator(RebuildOperator):
    """Plans a rollback: selects the swap, checks that it can be taken back, and claims the tables.

    A dry run ends here.
    """

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, Any]:
        options, of = rollback_options_from(context["params"])
        plan = rebuild.plan_rollback(options, of=of, is_over=is_over_by(context), by=started_by(context))
        return self.answer(plan, context)


class BringBackOperator(RebuildOperator):
    """Projects the events since the swap into the retired tables, so that they can become live again."""

    def step(self, rebuild: Rebuild, context: Context) -> int | None:
        return rebuild.bring_back(stopped=self.is_killed)


class CloneTablesOperator(RebuildOperator):
    """Creates the green tables.

    Airflow maps the task of the shards over its XCom: projector and number of each shard.
    """

    def step(self, rebuild: Rebuild, context: Context) -> list[dict[str, Any]]:
        rebuild.clone_tables()
        return [{"projector": projector, "shard": number} for projector, number in rebuild.shards()]


class ReplayOperator(RebuildOperator):
    """Replays one projector, or the events that its shards have left.

    It is skipped if the run did not choose the projector. Between the windows of its stage it waits, and holds no
    worker.

    :param projector: the projector's name
    """

    template_fields: Sequence[str] = (*RebuildOperator.template_fields, "projector")

    def __init__(self, *, projector: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.projector = projector

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, Any]:
        if self.projector not in rebuild.chosen():
            raise AirflowSkipException(f"{self.projector} was not chosen for this run")
        result = rebuild.replay_in_stage(self.projector, stopped=self.is_killed)
        if isinstance(result, Closed):
            self.log.info(result.describe())
            # A wait is no failure: it costs neither a retry nor a worker.
            self.defer(trigger=DateTimeTrigger(moment=result.opens), method_name="execute")
        return self.gist(result)

    def gist(self, result: ReplayResult) -> dict[str, Any]:
        """Logs the result of a replay.

        :returns: a summary of it, as XCom
        """
        self.log.info(result.describe())
        return {"events": result.events, "position": result.position, "events_per_second": round(result.rate)}


class ReplayShardOperator(ReplayOperator):
    """Replays one shard of a projector. Airflow maps it over all shards of the run.

    :param shard: the number of the shard, from 0
    """

    def __init__(self, *, shard: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, Any]:
        context[MAP_INDEX_LABEL] = f"{self.projector} {self.shard + 1}"  # type: ignore[literal-required]
        return self.gist(rebuild.replay_shard(self.projector, self.shard, stopped=self.is_killed))


class VerifyCountsOperator(RebuildOperator):
    """Compares green with blue; fails if green must not replace it."""

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, int]:
        verification = rebuild.verify(stopped=self.is_killed)
        self.log.info(verification.describe())
        return _green_rows(verification)


def _green_rows(verification: Verification) -> dict[str, int]:
    return {comparison.table: comparison.green_rows for comparison in verification.tables}


def table_asset(rebuild: str, table: str) -> Asset:
    """The asset of a read model, on which other DAGs can be scheduled, as ``dags/example_after_rebuild.py`` is."""
    return Asset(name=f"{rebuild}.{table}", uri=f"projection://{rebuild}/{table}")


class AtomicSwapOperator(RebuildOperator):
    """Swaps all tables of the run at once, and emits an asset event for each table.

    :param alias: the asset alias of the events
    """

    def __init__(self, *, alias: AssetAlias, **kwargs: Any) -> None:
        super().__init__(**kwargs, outlets=[alias])
        self.alias = alias

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, Any]:
        result = rebuild.swap(stopped=self.is_killed)
        report = rebuild.report()
        rows = _green_rows(report.verification) if report.verification else {}
        for table in result.tables:
            asset = table_asset(self.alias.name, table)
            extra: dict[str, Any] = {
                "rows": rows.get(table),
                "position": result.position,
                "pause_seconds": result.pause_seconds,
                "rolls_back": report.plan.rolls_back,
                "run_id": report.run_id,
            }
            context["outlet_events"][self.alias].add(asset, extra=extra)
        metrics.of_switch(context["dag"].dag_id, result, rows)
        return result.model_dump()


class ReconcileOperator(RebuildOperator):
    """Does the repairs that could wait until after the swap, releases the claims, and logs the report."""

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, int]:
        reconciliation = rebuild.reconcile()
        self.log.info(reconciliation.describe())
        self.log.info(rebuild.report().as_markdown())
        return {"appended_since": reconciliation.appended_since, **reconciliation.rows}


class DropOldTablesOperator(RebuildOperator):
    """Drops the tables that this run retired, and no other tables."""

    def step(self, rebuild: Rebuild, context: Context) -> list[str]:
        return rebuild.drop_old(is_over=is_over_by(context))
