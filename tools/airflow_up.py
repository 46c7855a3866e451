"""Starts Airflow with its UI on the demo: ``make up``. Everything that it writes goes to ``.airflow``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tools import airflow_settings

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".airflow"
PASSWORDS = HOME / "simple_auth_manager_passwords.json.generated"


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
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": base,
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    }


def environment(home: Path, port: int, prefix: str = "") -> dict[str, str]:
    """What an Airflow of this project needs to be told, in every one of its processes; see :func:`configuration`."""
    found = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
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


def main() -> int:
    """The command line; ends when Airflow does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8080)
    port = parser.parse_args().port
    env = environment(HOME, port)
    print("Preparing Airflow's own database ...", flush=True)
    migrate(HOME, env)
    if not PASSWORDS.exists():
        # A demo on this machine alone; written before Airflow makes one up, so that it can be said here.
        PASSWORDS.write_text(json.dumps({"admin": "admin"}), encoding="utf-8")
        PASSWORDS.chmod(0o600)
    print(f"Airflow starts at http://localhost:{port} (user admin, password admin). Ctrl-C ends it.", flush=True)
    return subprocess.call([sys.executable, "-m", "airflow", "standalone"], env=env)


if __name__ == "__main__":
    raise SystemExit(main())
