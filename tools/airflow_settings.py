"""Reads ``airflow_settings.yaml``, the one source of the demo's connections and pools, where the Astro CLI does not.

A path below ``/usr/local/airflow``, where an Astro image has the project, stands for the same path below this project.
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
    """A connection in the Astro CLI's words."""

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
        """As Airflow reads it from ``AIRFLOW_CONN_<ID>``."""
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
    """A pool in the Astro CLI's words."""

    pool_name: str
    pool_slot: int
    pool_description: str = ""


class Variable(_Entry):
    """A variable in the Astro CLI's words."""

    variable_name: str
    variable_value: str


class AirflowSettings(_Entry):
    """The file's content."""

    connections: list[Connection] = []
    pools: list[Pool] = []
    variables: list[Variable] = []

    def environment(self, root: Path = ROOT) -> dict[str, str]:
        """Connections and variables as Airflow reads them from the environment."""
        made = {f"AIRFLOW_CONN_{each.conn_id.upper()}": each.as_json(root) for each in self.connections}
        return made | {f"AIRFLOW_VAR_{each.variable_name.upper()}": each.variable_value for each in self.variables}

    def pools_file(self) -> str:
        """The pools as ``airflow pools import`` reads them."""
        pools = {
            each.pool_name: {"slots": each.pool_slot, "description": each.pool_description, "include_deferred": False}
            for each in self.pools
        }
        return json.dumps(pools)


def read(path: Path = FILE) -> AirflowSettings:
    """The settings.

    :raises SystemExit: the file cannot be used; says where
    """
    try:
        return AirflowSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))["airflow"])
    except (ValidationError, yaml.YAMLError, KeyError, TypeError) as error:
        raise SystemExit(f"{path.name} cannot be used: {error}") from None
