"""The steps of a rebuild as Airflow tasks, in the order in which a DAG runs them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from airflow.sdk import Asset, AssetAlias, BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped

from include.projection_rebuild.errors import Interrupted, RebuildError
from include.projection_rebuild.rebuild import Rebuild
from projection_rebuilds.params import options_from
from projection_rebuilds.runs import open_rebuild, run_is_over


@contextmanager
def airflow_errors() -> Iterator[None]:
    """What a retry cannot repair fails the task at once; everything else is left to the task's retries.

    :raises AirflowFailException: in place of an engine error that is not retryable
    """
    try:
        yield
    except RebuildError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error


class RebuildOperator(BaseOperator):
    """One step of a rebuild.

    :param spec_path: the spec file
    """

    template_fields: Sequence[str] = ("spec_path",)
    ui_color = "#e8f3ec"

    def __init__(self, *, spec_path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec_path = spec_path
        self._rebuild: Rebuild | None = None
        self._killed = False

    def execute(self, context: Context) -> Any:
        """Runs the step; the task is killed by raising, since Airflow takes a return for a success."""
        with airflow_errors(), open_rebuild(self.spec_path, context) as rebuild:
            self._rebuild = rebuild
            try:
                result = self.step(rebuild, context)
            finally:
                self._rebuild = None
        if self._killed:
            raise Interrupted("the task was asked to stop; a retry goes on from what is committed")
        return result

    @abstractmethod
    def step(self, rebuild: Rebuild, context: Context) -> Any:
        """Calls the engine; returns what is pushed as XCom."""

    def on_kill(self) -> None:
        """Asks the step to stop, and ends on the server what it is executing there: it would outlive its client."""
        self._killed = True
        if self._rebuild is not None:
            self._rebuild.cancel_query()


class PlanOperator(RebuildOperator):
    """Decides what is rebuilt, refuses what cannot be, and claims the tables; a dry run ends here."""

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, Any]:
        options = options_from(context["params"])
        plan = rebuild.plan(options, is_over=lambda run: run_is_over(context["ti"], run))
        self.log.info(plan.describe())
        if plan.dry_run:
            raise DownstreamTasksSkipped(tasks=sorted(self.get_flat_relative_ids(upstream=False)))  # type: ignore[no-untyped-call]
        return {"projectors": plan.projectors, "tables": plan.tables, "events": plan.events}


class CloneTablesOperator(RebuildOperator):
    """Makes the green tables."""

    def step(self, rebuild: Rebuild, context: Context) -> list[str]:
        return rebuild.clone_tables()


class ReplayOperator(RebuildOperator):
    """Replays one projector; skipped if the run did not choose it.

    :param projector: its name
    """

    template_fields: Sequence[str] = (*RebuildOperator.template_fields, "projector")

    def __init__(self, *, projector: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.projector = projector

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, Any]:
        if self.projector not in rebuild.chosen():
            raise AirflowSkipException(f"{self.projector} was not chosen for this run")
        result = rebuild.replay(self.projector, stopped=lambda: self._killed)
        self.log.info(result.describe())
        return {"events": result.events, "position": result.position, "events_per_second": round(result.rate)}


class VerifyCountsOperator(RebuildOperator):
    """Compares green with blue; fails if green must not replace it."""

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, int]:
        found = rebuild.verify()
        self.log.info(found.describe())
        return {each.table: each.green_rows for each in found.tables}


class AtomicSwapOperator(RebuildOperator):
    """Switches all tables of the run at once, and emits an asset event per table.

    :param alias: the asset alias that the events hang on
    """

    def __init__(self, *, alias: AssetAlias, **kwargs: Any) -> None:
        super().__init__(**kwargs, outlets=[alias])
        self.alias = alias

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, Any]:
        result = rebuild.swap()
        rows = {each.table: each.green_rows for each in rebuild.verify().tables}
        for table in result.tables:
            asset = Asset(name=f"{self.alias.name}.{table}", uri=f"projection://{self.alias.name}/{table}")
            extra: dict[str, Any] = {"rows": rows[table], "position": result.position, "pause_seconds": result.pause_seconds}
            context["outlet_events"][self.alias].add(asset, extra=extra)
        return result.model_dump()


class ReconcileOperator(RebuildOperator):
    """Looks once more after the switch, gives up the claims, and logs the report."""

    def step(self, rebuild: Rebuild, context: Context) -> dict[str, int]:
        found = rebuild.reconcile()
        self.log.info(found.describe())
        self.log.info(rebuild.report().as_markdown())
        return {"appended_since": found.appended_since, **found.rows}


class DropOldTablesOperator(RebuildOperator):
    """Drops the tables that this run retired, and no others."""

    def step(self, rebuild: Rebuild, context: Context) -> list[str]:
        return rebuild.drop_old()
