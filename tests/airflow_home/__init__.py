"""An Airflow of the tests' own: a home in a temporary folder, its database migrated, its pools from the settings file."""

from __future__ import annotations

import atexit
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from tools.airflow_up import environment, migrate

ROOT = Path(__file__).parents[2]


class AirflowHome:
    """Runs Airflow's command line as an operator would, each command in a process of its own.

    :param folder: its ``AIRFLOW_HOME``
    """

    _forks: _Forks | None = None

    def __init__(self, folder: Path) -> None:
        self.env = environment(folder, port=8080)
        # A deprecation in our own code is a mistake; in Airflow's it is not ours to fail on.
        self.env["PYTHONWARNINGS"] = "default"
        migrate(folder, self.env)

    def airflow(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """One ``airflow`` command, forked from a process that has imported Airflow; what it printed is in ``stdout``."""
        if self._forks is None:
            self._forks = _Forks(self.env)
        return self._forks.run(words, self.env | env)

    def started_airflow(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The same, started as a shell does."""
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


class _Forks:
    """A process of :mod:`tests.airflow_home.forks`, which ends with this one.

    :param env: what it is told
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        # Its own folder: the length of a socket's path is limited.
        self._folder = tempfile.TemporaryDirectory(prefix="forks-")
        self._path = str(Path(self._folder.name) / "socket")
        self._process = subprocess.Popen([sys.executable, "-m", "tests.airflow_home.forks", self._path], env=env, cwd=ROOT)
        atexit.register(self._end)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def run(self, words: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """One command; several may run at a time."""
        request = json.dumps({"words": words, "env": env}).encode()
        with self._asked() as asking, tempfile.TemporaryFile("w+") as output:
            socket.send_fds(asking, [request], [output.fileno()])
            said = asking.recv(16)
            output.seek(0)
            # Whoever dies says nothing.
            return subprocess.CompletedProcess(words, int(said or -1), output.read())

    def _asked(self) -> socket.socket:
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        while True:
            try:
                asking.connect(self._path)
                return asking
            except OSError:
                assert self._process.poll() is None, "Airflow cannot be imported"
                time.sleep(0.05)


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
