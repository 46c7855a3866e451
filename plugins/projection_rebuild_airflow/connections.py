"""From an Airflow connection to a SQLAlchemy URL, field by field, with every extra that the provider's own hook honours.

Whatever cannot be honoured is refused by name: a rebuild never works over less than the operator has configured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from airflow.sdk import Connection

from projection_rebuild.api import ConnectionRefused

WITHOUT_EFFECT = frozenset({"cursor"})
"""Extras of the hooks for those who read through them: how rows look. A rebuild reads rows by itself."""

LOGS_IN = frozenset({"iam", "redshift", "redshift-serverless"})
"""Extras of the hooks that fetch a password for some minutes, or mean another database."""

FOR_LOGGING_IN = frozenset({"aws_conn_id", "azure_conn_id", "cluster-identifier", "workgroup-name"})
"""Extras that the hooks read only if one of those is on."""

POSTGRES_FIELDS = {"user": "login", "password": "password", "dbname": "schema", "host": "host", "port": "port"}
"""What libpq knows of that has a field of its own in a connection."""

MYSQL_OPTIONS = frozenset(
    {
        "auth_plugin", "charset", "client_flag", "collation", "compress", "connect_timeout", "init_command", "local_infile",
        "read_default_file", "read_default_group", "read_timeout", "server_public_key_path", "sql_mode", "unix_socket", "write_timeout",
    }
)  # fmt: skip
"""The driver's options that pass through a URL as they are."""

MYSQL_FILES = frozenset({"ca", "cert", "key", "capath", "cipher"})
"""What the driver knows of TLS beside the mode."""

MYSQL_MODES = ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"]
"""From the weakest to the strongest; each asks for what the one before it does."""

MYSQL_SWITCHES = {
    "on": "REQUIRED",
    "verify_cert": "VERIFY_CA",
    "verify_identity": "VERIFY_IDENTITY",
    "check_hostname": "VERIFY_IDENTITY",
}
"""Switches of other drivers, as the mode that does the same."""

SQLITE_PARAMETERS = frozenset({"cache", "immutable", "mode", "modeof", "nolock", "psow", "vfs"})
"""What SQLite knows in the URI of a file; it ignores everything else."""


def url_of(connection: Connection) -> sa.URL:
    """The URL of a connection, for :func:`sqlalchemy.create_engine`; it holds the password.

    :raises ConnectionRefused: a field or an extra cannot be honoured; names it and the remedy, never a value
    """
    made = _MAKERS.get(str(connection.conn_type))
    if made is None:
        remedy = "use postgres, mysql or sqlite"
        if connection.conn_type == "generic":
            # What the command line makes of a type that it does not know, with a warning that is soon overlooked.
            remedy += "; Airflow knows these types once their provider is installed"
        raise _refused(connection, "conn_type", f"{connection.conn_type} is not supported", remedy)
    return made(connection, _extras(connection))


def _extras(connection: Connection) -> dict[str, Any]:
    """The extras that are set; Airflow itself takes a text that is no JSON for none."""
    try:
        parsed = json.loads(connection.extra or "{}")
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise _refused(connection, "extra", "it is no JSON object", 'write it as {"name": value}')
    # Through Airflow, which learns here what its logs must not show.
    given = {name: value for name, value in connection.extra_dejson.items() if value is not None}
    for name in sorted(LOGS_IN & given.keys()):
        if given[name]:
            problem = "passwords that last for some minutes, and databases other than PostgreSQL and MySQL, are not supported"
            raise _refused(connection, f"extra {name}", problem, "use a connection with a login and a password of its own")
    return {name: value for name, value in given.items() if name not in WITHOUT_EFFECT | LOGS_IN | FOR_LOGGING_IN}


def _postgres(connection: Connection, extras: dict[str, Any]) -> sa.URL:
    _check_scheme(connection, str(extras.pop("sqlalchemy_scheme", "") or "postgresql+psycopg"))
    query = extras.pop("sqlalchemy_query", {})
    if not isinstance(query, dict):
        raise _refused(connection, "extra sqlalchemy_query", "it is no JSON object", 'write it as {"name": value}')
    for name in sorted(query.keys() & extras.keys()):
        if query[name] != extras[name]:
            raise _refused(connection, f"extra {name}", "sqlalchemy_query has another value for it", "say it once")
    # Whoever has no PostgreSQL needs no driver for it.
    from psycopg import pq

    known = {each.keyword.decode() for each in pq.Conninfo.get_defaults()} - POSTGRES_FIELDS.keys()
    said = {}
    for name, value in (extras | query).items():
        if name in POSTGRES_FIELDS:
            raise _refused(
                connection, f"extra {name}", "it has a field of its own", f"put it into the field {POSTGRES_FIELDS[name]}"
            )
        if name not in known or name == "replication":
            raise _unknown(connection, name, "libpq's parameters")
        said[name] = _plain(connection, name, value, yes="1", no="0")
    host, port = connection.host or None, connection.port
    if host is not None and host.startswith(("/", "@")):
        # A socket: in a URL that is text, a path has no place before the database.
        said["host"], host = host, None
        if port:
            said["port"], port = str(port), None
    return sa.URL.create(
        "postgresql+psycopg", connection.login, connection.password, host, port, connection.schema or None, query=said
    )


def _check_scheme(connection: Connection, scheme: str) -> None:
    if scheme not in ("postgresql", "postgresql+psycopg"):
        problem, remedy = "a rebuild works over psycopg 3", "take it out, or say postgresql+psycopg"
        raise _refused(connection, "extra sqlalchemy_scheme", problem, remedy)


def _mysql(connection: Connection, extras: dict[str, Any]) -> sa.URL:
    if extras.pop("client", "mysqlclient") != "mysqlclient":
        raise _refused(connection, "extra client", "a rebuild works over mysqlclient", "take it out, or say mysqlclient")
    said = _mysql_tls(connection, extras)
    for name, value in extras.items():
        if name not in MYSQL_OPTIONS:
            raise _unknown(connection, name, "mysqlclient's options")
        said[name] = _plain(connection, name, value, yes="true", no="false")
    # As the hook does: without a host, the driver goes to its own socket.
    host = connection.host or "localhost"
    return sa.URL.create(
        "mysql+mysqldb", connection.login, connection.password, host, connection.port, connection.schema or None, query=said
    )


def _mysql_tls(connection: Connection, extras: dict[str, Any]) -> dict[str, str]:
    """What the extras say of TLS, each of them taken out, as the URL says it.

    The mode is always said where TLS is asked for: then whoever is given the URL knows, and our own check too.
    """
    ssl = _ssl(connection, extras)
    apart = {name[4:]: extras.pop(name) for name in list(extras) if name.startswith("ssl_")}
    for name in sorted(ssl.keys() & apart.keys()):
        if ssl[name] != apart[name]:
            raise _refused(connection, f"extra ssl_{name}", f"ssl has another value for {name}", "say it once")
    given = ssl | apart
    mode = str(given.pop("mode", "")).upper()
    if mode not in ("", "DISABLED", *MYSQL_MODES):
        problem = "the driver cannot do it: PREFERRED would be plain text" if mode == "PREFERRED" else "there is no such mode"
        raise _refused(connection, "extra ssl_mode", problem, f"say one of DISABLED, {', '.join(MYSQL_MODES)}")
    asked, said = [mode] if mode else [], {}
    for name, value in given.items():
        if name in MYSQL_SWITCHES:
            asked += [MYSQL_SWITCHES[name]] if _is_on(connection, f"ssl {name}", value) else []
        elif name in MYSQL_FILES:
            said[f"ssl_{name}"] = _plain(connection, f"ssl {name}", value)
        else:
            raise _unknown(connection, f"ssl {name}", f"{', '.join(sorted(MYSQL_FILES | MYSQL_SWITCHES.keys()))} and ssl_mode")
    if said and not asked:
        asked = ["REQUIRED"]
    if "DISABLED" in asked and (said or len(asked) > 1):
        raise _refused(connection, "extra ssl_mode", "DISABLED contradicts the other extras of TLS", "say one of them")
    return said | ({"ssl_mode": max(asked, key=["DISABLED", *MYSQL_MODES].index)} if asked else {})


def _ssl(connection: Connection, extras: dict[str, Any]) -> dict[str, Any]:
    """The extra ``ssl``: an object, its text (as in a connection that is a URI), or only that it is on."""
    ssl = extras.pop("ssl", None)
    if isinstance(ssl, str) and ssl.strip():
        try:
            ssl = json.loads(ssl)
        except ValueError:
            ssl = ssl.strip()
    if isinstance(ssl, dict):
        return {name: value for name, value in ssl.items() if value is not None}
    if ssl is True:
        return {"on": True}
    if ssl in (None, False, ""):
        return {}
    raise _refused(connection, "extra ssl", "it is neither an object nor true or false", 'write it as {"ca": "/path"}')


def _sqlite(connection: Connection, extras: dict[str, Any]) -> sa.URL:
    for field in ("login", "password", "port"):
        if getattr(connection, field):
            raise _refused(connection, field, "SQLite knows none", "leave it empty")
    # A connection that is a URI has the path after the host, and so in the field of the schema.
    path = (connection.host or "") + (f"/{connection.schema}" if connection.schema else "")
    if not path or path == ":memory:" or extras.get("mode") == "memory":
        raise _refused(
            connection, "host", "it names no file, and each connection has a memory of its own", "give the path of the file"
        )
    extras.pop("uri", None)
    said = {}
    for name, value in extras.items():
        if name not in SQLITE_PARAMETERS:
            raise _unknown(connection, name, "SQLite's URI parameters")
        said[name] = quote(_plain(connection, name, value, yes="1", no="0"), safe="")
    if said.get("mode") != "rwc" and not Path(path).exists():
        raise _refused(
            connection, "host", "there is no such file, or it cannot be seen", "correct the path, or create the database"
        )
    if not said:
        return sa.URL.create("sqlite", database=path)
    return sa.URL.create("sqlite", database=f"file:{quote(path)}", query=said | {"uri": "true"})


def _plain(connection: Connection, name: str, value: Any, *, yes: str = "", no: str = "") -> str:
    """A value as a URL has it."""
    if isinstance(value, bool) and yes:
        return yes if value else no
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise _refused(connection, f"extra {name}", "it is neither text nor a number", "write its value as text")


def _is_on(connection: Connection, name: str, value: Any) -> bool:
    said = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
    if said is None:
        raise _refused(connection, f"extra {name}", "it is neither true nor false", "say one of them")
    return said


def _unknown(connection: Connection, name: str, known: str) -> ConnectionRefused:
    return _refused(connection, f"extra {name}", f"it is none of {known}, and would be ignored", "correct it, or take it out")


def _refused(connection: Connection, field: str, problem: str, remedy: str) -> ConnectionRefused:
    return ConnectionRefused(f"the connection {connection.conn_id} cannot be used: {field}: {problem}; {remedy}")


_MAKERS: Mapping[str, Callable[[Connection, dict[str, Any]], sa.URL]] = {
    "postgres": _postgres,
    "postgresql": _postgres,
    "mysql": _mysql,
    "sqlite": _sqlite,
}
