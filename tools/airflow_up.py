"""Starts Airflow with its UI on the demo: ``make up``. Airflow writes all of its files to ``.airflow``."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tools import airflow_settings

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".airflow"
PASSWORDS = "simple_auth_manager_passwords.json.generated"
"""The name of Airflow's file of passwords, in its home."""

LISTENS_ON = "127.0.0.1"
"""The loopback address, which no other machine can reach."""

PARTS = (
    # The log servers would listen on every network, whatever the configuration. On one machine, Airflow reads the
    # files.
    ("scheduler", "--skip-serve-logs"),
    ("triggerer", "--skip-serve-logs"),
    ("dag-processor",),
    ("api-server",),
)
"""The processes that ``airflow standalone`` starts, without the servers that cannot be limited to this machine."""

PATIENCE = 20.0
"""Seconds that a process has to end after a signal, before it is killed."""


def configuration(home: Path, port: int, prefix: str = "") -> dict[str, str]:
    """Airflow's own settings for an instance of this project.

    :param prefix: the path of its UI, such as ``/airflow``; empty: the root
    """
    base = f"http://localhost:{port}{prefix}"
    return {
        "AIRFLOW_HOME": str(home),
        # Explicit: the caller's environment may name another database, which we must not migrate.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home.absolute() / 'airflow.db'}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{base}/execution/",
        # By default Airflow listens on every network of the machine, where others could try passwords.
        "AIRFLOW__API__HOST": LISTENS_ON,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": LISTENS_ON,
        "AIRFLOW__API__BASE_URL": base,
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    }


def environment(home: Path, port: int, prefix: str = "") -> dict[str, str]:
    """The environment of every process of an Airflow of this project; see :func:`configuration`."""
    paths = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "include"), str(ROOT / "plugins")]),
        # `airflow standalone` starts its parts by the name `airflow`.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    return {**os.environ, **configuration(home, port, prefix), **paths, **airflow_settings.read().environment()}


def migrate(home: Path, env: dict[str, str]) -> None:
    """Creates or migrates Airflow's own database, and imports the pools of ``airflow_settings.yaml``."""
    home.mkdir(parents=True, exist_ok=True)
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], env=env, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words
    pools = home / "pools.json"
    pools.write_text(airflow_settings.read().pools_file(), encoding="utf-8")
    subprocess.run([*airflow, "pools", "import", str(pools)], env=env, check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def made_password(home: Path) -> Path:
    """Airflow's file with the password of ``admin``.

    The first call generates a password; only the file's owner may read it.
    """
    path = home / PASSWORDS
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({"admin": secrets.token_urlsafe(12)}, file)
    return path


def how_to_open(port: int, passwords: Path) -> str:
    """The message for the person who starts Airflow: its address and where to find the password."""
    return (
        f"Airflow starts at http://localhost:{port}, for this machine alone (it listens on {LISTENS_ON}). User admin; the password is in "
        f"{passwords}.\nFrom another machine: ssh -L {port}:localhost:{port} THIS-MACHINE, then open the same address there. Ctrl-C ends it."
    )


def run_parts(env: dict[str, str], commands: Sequence[Sequence[str]] = ()) -> int:
    """Runs Airflow's processes until one of them ends, or a signal ends this process; then ends the others.

    :param commands: the processes; empty: :data:`PARTS`
    :returns: the exit code of the process that ended first; 0: a signal ended all of them
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    parts: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands or [[sys.executable, "-m", "airflow", *part] for part in PARTS]:
            parts.append(subprocess.Popen(command, env=env))  # noqa: S603 - our own words
        while all(part.poll() is None for part in parts):
            time.sleep(0.2)
        return next(part.returncode for part in parts if part.returncode is not None)
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)
        _end(parts)


def _end(parts: list[subprocess.Popen[bytes]]) -> None:
    for part in parts:
        part.terminate()
    deadline = time.monotonic() + PATIENCE
    for part in parts:
        try:
            part.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            part.kill()
            part.wait()


def main() -> int:
    """Runs the command line; returns when Airflow ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8080)
    port = parser.parse_args().port
    env = environment(HOME, port)
    print("Preparing Airflow's own database ...", flush=True)
    migrate(HOME, env)
    print(how_to_open(port, made_password(HOME).relative_to(ROOT)), flush=True)
    return run_parts(env)


if __name__ == "__main__":
    raise SystemExit(main())
