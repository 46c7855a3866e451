"""Reads ``airflow_settings.yaml``, the demo's connections and pools, for an Airflow without the Astro CLI.

An Astro image has the project in ``/usr/local/airflow``. A path below it stands for the same path below this project.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

ROOT = Path(__file__).parents[1]
FILE = ROOT / "airflow_settings.yaml"
IMAGE_ROOT = "/usr/local/airflow"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Connection(_Entry):
    """A connection, in the format of the Astro CLI."""

    conn_id: str
    conn_type: str
    conn_host: str | None = None
    conn_schema: str | None = None
    conn_login: str | None = None
    conn_password: str | None = None
    conn_port: int | None = None
    conn_uri: str | None = None
    conn_extra: dict[str, Any] | None = None

    def as_json(self, root: Path) -> str:
        """The connection in the form in which Airflow reads it from ``AIRFLOW_CONN_<ID>``.

        :param root: the folder of this project
        """
        host = self.conn_host
        if host and host.startswith(IMAGE_ROOT):
            host = str(root) + host.removeprefix(IMAGE_ROOT)
        fields = {
            "conn_type": self.conn_type,
            "host": host,
            "schema": self.conn_schema,
            "login": self.conn_login,
            "password": self.conn_password,
            "port": self.conn_port,
            "extra": self.conn_extra,
        }
        return self.conn_uri or json.dumps({name: value for name, value in fields.items() if value is not None})


class Pool(_Entry):
    """A pool, in the format of the Astro CLI."""

    pool_name: str
    pool_slot: int
    pool_description: str = ""


class Variable(_Entry):
    """A variable, in the format of the Astro CLI."""

    variable_name: str
    variable_value: str


class AirflowSettings(_Entry):
    """The file's content."""

    connections: list[Connection] = []
    pools: list[Pool] = []
    variables: list[Variable] = []

    def environment(self, root: Path = ROOT) -> dict[str, str]:
        """Connections and variables as the environment variables that Airflow reads."""
        connections = {f"AIRFLOW_CONN_{connection.conn_id.upper()}": connection.as_json(root) for connection in self.connections}
        variables = {f"AIRFLOW_VAR_{variable.variable_name.upper()}": variable.variable_value for variable in self.variables}
        return connections | variables

    def pools_file(self) -> str:
        """The pools in the JSON format of ``airflow pools import``."""
        pools = {
            pool.pool_name: {"slots": pool.pool_slot, "description": pool.pool_description, "include_deferred": False}
            for pool in self.pools
        }
        return json.dumps(pools)


def read(path: Path = FILE) -> AirflowSettings:
    """Reads the settings.

    :raises SystemExit: the file is invalid; its message names the place
    """
    try:
        return AirflowSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))["airflow"])
    except (ValidationError, yaml.YAMLError, KeyError, TypeError) as error:
        raise SystemExit(f"{path.name} cannot be used: {error}") from None
