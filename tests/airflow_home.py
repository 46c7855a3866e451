"""An Airflow of the tests' own: a home in a temporary folder, its database migrated, its pools from the settings file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from tools.airflow_up import environment, migrate

ROOT = Path(__file__).parents[1]


class AirflowHome:
    """Runs Airflow's command line as an operator would, in processes of its own.

    :param folder: its ``AIRFLOW_HOME``
    """

    def __init__(self, folder: Path) -> None:
        self.env = environment(folder, port=8080)
        # A deprecation in our own code is a mistake; in Airflow's it is not ours to fail on.
        self.env["PYTHONWARNINGS"] = "default"
        migrate(folder, self.env)

    def airflow(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """One ``airflow`` command; what it printed is in ``stdout``."""
        return subprocess.run(
            [sys.executable, "-m", "airflow", *words],
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=ROOT,
        )

    def dags_test(self, dag: str, conf: dict[str, object], **env: str) -> tuple[str, str]:
        """``airflow dags test``.

        :returns: the state of the run at its end, and everything that was printed
        """
        done = self.airflow("dags", "test", dag, "-c", json.dumps(conf), **env)
        ended = [line for line in done.stdout.splitlines() if "DagRun Finished" in line]
        state = ended[-1].partition(", state=")[2].partition(",")[0] if ended else "none"
        return state, done.stdout


def connection(url: sa.URL) -> str:
    """A SQLAlchemy URL as an Airflow connection."""
    kinds = {"postgresql": "postgres", "mysql": "mysql", "sqlite": "sqlite"}
    fields = {
        "conn_type": kinds[url.get_backend_name()],
        "host": url.database if url.get_backend_name() == "sqlite" else url.host,
        "login": url.username,
        "password": url.password,
        "port": url.port,
        "schema": None if url.get_backend_name() == "sqlite" else url.database,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None})


NOW = {"swap_now": True, "keep_old": False, "max_count_drift_percent": 100}
"""The parameters of a run of the example that waits for nobody and leaves nothing."""


def conn(engine: sa.Engine) -> dict[str, str]:
    """The example's connection, as a variable of Airflow's environment."""
    return {"AIRFLOW_CONN_UNIVERSAL_DB": connection(engine.url)}
