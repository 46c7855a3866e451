"""Removes the leftovers of dead runs by the rules of the spec, and lists what stays and why."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import Context

from projection_rebuild.api import Housekeeping, load_spec
from projection_rebuild_airflow.operators.rebuild import SpecOperator, airflow_errors
from projection_rebuild_airflow.params import ONLY_LIST
from projection_rebuild_airflow.runs import is_over_by, ledger_run, open_spec
from projection_rebuild_airflow.specs import read_specs


class HousekeepingOperator(SpecOperator):
    """Housekeeping in the read models' database of one spec.

    A run is dead when its DAG run is neither queued nor running.
    """

    def execute(self, context: Context) -> dict[str, list[str]]:
        """Removes the leftovers of dead runs; with the param ``only_list`` it only lists them.

        :returns: descriptions of the leftovers, under ``removed`` and ``kept``
        """
        is_over = is_over_by(context)
        rebuilds = [spec.rebuild for spec in read_specs().usable.values()]

        with airflow_errors(), open_spec(load_spec(Path(self.spec_path)), ledger_run(context)) as rebuild, self.at_work(rebuild):
            if context["params"][ONLY_LIST]:
                result = Housekeeping(removed=[], kept=rebuild.survey(is_over=is_over, rebuilds=rebuilds))
                self.log.info(result.describe())
            else:
                result = rebuild.keep_house(is_over=is_over, rebuilds=rebuilds)
        return {
            "removed": [leftover.describe() for leftover in result.removed],
            "kept": [leftover.describe() for leftover in result.kept],
        }
