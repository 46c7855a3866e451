"""Removes what dead runs have left, by the rules of the spec, and says what stays and why."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import Context

from projection_rebuild.api import Housekeeping, load_spec
from projection_rebuild_airflow.operators.rebuild import SpecOperator, airflow_errors
from projection_rebuild_airflow.params import ONLY_LIST
from projection_rebuild_airflow.runs import is_over_by, ledger_run, open_spec
from projection_rebuild_airflow.specs import read_specs


class HousekeepingOperator(SpecOperator):
    """Keeps house in the read models' database of one spec. A run is dead when its DAG run is neither queued nor running."""

    def execute(self, context: Context) -> dict[str, list[str]]:
        """Removes what dead runs have left, or only lists it if the param ``only_list`` says so.

        :returns: what is gone and what stays, each in words
        """
        is_over = is_over_by(context)
        rebuilds = [spec.rebuild for spec in read_specs().usable.values()]

        with airflow_errors(), open_spec(load_spec(Path(self.spec_path)), ledger_run(context)) as rebuild, self.at_work(rebuild):
            if context["params"][ONLY_LIST]:
                done = Housekeeping(removed=[], kept=rebuild.survey(is_over=is_over, rebuilds=rebuilds))
                self.log.info(done.describe())
            else:
                done = rebuild.keep_house(is_over=is_over, rebuilds=rebuilds)
        return {"removed": [left.describe() for left in done.removed], "kept": [left.describe() for left in done.kept]}
