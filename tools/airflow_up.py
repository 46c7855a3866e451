"""Starts Airflow with its UI on the demo: ``make up``. Everything that it writes goes to ``.airflow``."""

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
"""Airflow's file of passwords, in its home."""

LISTENS_ON = "127.0.0.1"
"""The address of this machine that no other one can reach."""

PARTS = (
    # The servers of log files would listen on every network, whatever is configured; on one machine Airflow reads the files.
    ("scheduler", "--skip-serve-logs"),
    ("triggerer", "--skip-serve-logs"),
    ("dag-processor",),
    ("api-server",),
)
"""What ``airflow standalone`` starts, without what cannot be kept to this machine."""

PATIENCE = 20.0
"""Seconds that a part has to end by itself."""


def configuration(home: Path, port: int, prefix: str = "") -> dict[str, str]:
    """Airflow's own settings for an instance of this project.

    :param prefix: the path below which it is served, such as ``/airflow``
    """
    base = f"http://localhost:{port}{prefix}"
    return {
        "AIRFLOW_HOME": str(home),
        # Said in full: a database that the caller's environment names is not ours to migrate.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home.absolute() / 'airflow.db'}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{base}/execution/",
        # Who can reach the port could try passwords; the default is every network of the machine.
        "AIRFLOW__API__HOST": LISTENS_ON,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": LISTENS_ON,
        "AIRFLOW__API__BASE_URL": base,
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    }


def environment(home: Path, port: int, prefix: str = "") -> dict[str, str]:
    """What an Airflow of this project needs to be told, in every one of its processes; see :func:`configuration`."""
    found = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "include"), str(ROOT / "plugins")]),
        # `airflow standalone` starts its parts by the name `airflow`.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    return {**os.environ, **configuration(home, port, prefix), **found, **airflow_settings.read().environment()}


def migrate(home: Path, env: dict[str, str]) -> None:
    """Makes Airflow's own database, with the pools of ``airflow_settings.yaml``."""
    home.mkdir(parents=True, exist_ok=True)
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], env=env, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words
    pools = home / "pools.json"
    pools.write_text(airflow_settings.read().pools_file(), encoding="utf-8")
    subprocess.run([*airflow, "pools", "import", str(pools)], env=env, check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def made_password(home: Path) -> Path:
    """Airflow's file with a password for ``admin``, which is made up at the first start and only its owner may read."""
    path = home / PASSWORDS
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({"admin": secrets.token_urlsafe(12)}, file)
    return path


def how_to_open(port: int, passwords: Path) -> str:
    """What is printed for whoever has started it."""
    return (
        f"Airflow starts at http://localhost:{port}, for this machine alone (it listens on {LISTENS_ON}). User admin; the password is in "
        f"{passwords}.\nFrom another machine: ssh -L {port}:localhost:{port} THIS-MACHINE, then open the same address there. Ctrl-C ends it."
    )


def run_parts(env: dict[str, str], commands: Sequence[Sequence[str]] = ()) -> int:
    """Runs Airflow until one of its parts ends, or somebody ends it; ends the others then.

    :param commands: what is run; empty: :data:`PARTS`
    :returns: what the first part that ended has returned; 0: it was asked to end
    """

    def asked(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, asked)
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
        signal.signal(signal.SIGTERM, before)
        _end(parts)


def _end(parts: list[subprocess.Popen[bytes]]) -> None:
    for part in parts:
        part.terminate()
    until = time.monotonic() + PATIENCE
    for part in parts:
        try:
            part.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            part.kill()
            part.wait()


def main() -> int:
    """The command line; ends when Airflow does."""
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
