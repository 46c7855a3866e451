"""Removes by rule what dead runs have left, and says what it leaves and why."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import Context

from projection_rebuild.api import Housekeeping, load_spec
from projection_rebuild_airflow.operators.rebuild import SpecOperator, airflow_errors
from projection_rebuild_airflow.runs import ledger_id, open_spec, run_is_over
from projection_rebuild_airflow.specs import read_specs


class HousekeepingOperator(SpecOperator):
    """Keeps house in the ledger's database of one spec. A run is dead when its DAG run is neither queued nor running."""

    def execute(self, context: Context) -> dict[str, list[str]]:
        """Lists, and removes unless the run's param ``only_list`` says otherwise."""
        names = [each.rebuild for each in read_specs().usable.values()]
        me = ledger_id(context["dag"].dag_id, context["run_id"])

        def is_over(run: str) -> bool:
            return run_is_over(context["ti"], run)

        with airflow_errors(), open_spec(load_spec(Path(self.spec_path)), me) as rebuild, self.at_work(rebuild):
            if context["params"]["only_list"]:
                done = Housekeeping(removed=[], kept=rebuild.survey(is_over=is_over, rebuilds=names))
                self.log.info(done.describe())
            else:
                done = rebuild.keep_house(is_over=is_over, rebuilds=names)
        return {"removed": [each.describe() for each in done.removed], "kept": [each.describe() for each in done.kept]}
