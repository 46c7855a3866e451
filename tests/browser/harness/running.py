"""A whole Airflow of the tests' own, served under a prefix, with somebody who may act and somebody who may only look."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil

from tests.servers.base import free_port
from tools.airflow_up import PASSWORDS as PASSWORDS_FILE
from tools.airflow_up import ROOT, environment, migrate

PREFIX = "/airflow"
PASSWORDS = {"operator": "operator-pass", "reader": "reader-pass"}
ROLES = "operator:op,reader:viewer"
START_SECONDS = 600
RUN = "import os; from tools.airflow_up import run_parts; raise SystemExit(run_parts(dict(os.environ)))"

QUICK = {
    # The defaults suit thousands of tasks a minute; a test waits for single ones.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "120",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__CORE__PARALLELISM": "3",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ROLES,
}


class RunningAirflow:
    """The parts of Airflow, as ``make up`` runs them.

    :param home: its ``AIRFLOW_HOME``
    :param env: what else its processes are told
    """

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://localhost:{self.port}{PREFIX}"
        self.home = home
        self.env = environment(home, self.port, PREFIX) | QUICK | dict(env)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until all of its parts say that they are well."""
        migrate(self.home, self.env)
        passwords = self.home / PASSWORDS_FILE
        passwords.write_text(json.dumps(PASSWORDS), encoding="utf-8")
        with (self.home / "airflow.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", RUN], env=self.env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_well():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(f"Airflow did not start:\n{self.log()[-5_000:]}")
            time.sleep(0.5)

    def _is_well(self) -> bool:
        try:
            health = self.get("/api/v2/monitor/health")
        except OSError:
            return False
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor"))

    def get(self, path: str) -> Any:
        """What a route that asks for no login answers."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:  # noqa: S310 - our own
            return json.load(answer)

    def token(self, user: str) -> str:
        """What a login gives."""
        body = json.dumps({"username": user, "password": PASSWORDS[user]}).encode()
        asked = urllib.request.Request(self.url + "/auth/token", data=body, headers={"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
            return str(json.load(answer)["access_token"])

    def ask(self, user: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Its REST API.

        :param path: below ``/api/v2/``
        """
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token(user)}"}
        sent = json.dumps(body).encode() if body is not None else None
        asked = urllib.request.Request(f"{self.url}/api/v2/{path}", data=sent, headers=headers, method=method)  # noqa: S310 - our own
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
                return json.load(answer)
        except HTTPError as error:
            error.add_note(f"{error.read().decode(errors='replace')}\n{self.log()[-5_000:]}")
            raise

    def listens_on(self) -> set[str]:
        """The addresses on which any of its processes listens."""
        assert self._process is not None
        launcher = psutil.Process(self._process.pid)
        found = [each for process in [launcher, *launcher.children(recursive=True)] for each in process.net_connections("inet")]
        return {each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN}

    def log(self) -> str:
        """What its processes have printed."""
        return (self.home / "airflow.log").read_text(errors="replace")

    def stop(self) -> None:
        """Ends all of its processes."""
        if self._process is None:
            return
        for how, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 60)):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=patience)
                break
        # What the launcher left behind, if it died first.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None
