"""Turns an Airflow connection into a SQLAlchemy URL, with every extra that the provider's own hook honours.

A field or extra that a URL cannot express is refused by name: a rebuild never ignores a part of the configuration.
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
"""Extras that only change how a hook returns rows. A rebuild does not read through the hook."""

LOGS_IN = frozenset({"iam", "redshift", "redshift-serverless"})
"""Extras by which a hook fetches a short-lived password, or connects to another kind of database."""

FOR_LOGGING_IN = frozenset({"aws_conn_id", "azure_conn_id", "cluster-identifier", "workgroup-name"})
"""Extras that the hooks read only if one of :data:`LOGS_IN` is on."""

POSTGRES_FIELDS = {"user": "login", "password": "password", "dbname": "schema", "host": "host", "port": "port"}
"""Parameters of libpq, each with the field that an Airflow connection has for it."""

MYSQL_OPTIONS = frozenset(
    {
        "auth_plugin", "charset", "client_flag", "collation", "compress", "connect_timeout", "init_command", "local_infile",
        "read_default_file", "read_default_group", "read_timeout", "server_public_key_path", "sql_mode", "unix_socket", "write_timeout",
    }
)  # fmt: skip
"""The driver's options that pass through a URL as they are."""

MYSQL_FILES = frozenset({"ca", "cert", "key", "capath", "cipher"})
"""The driver's TLS options besides the mode."""

MYSQL_MODES = ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"]
"""From the weakest to the strongest; each mode includes the checks of the one before it."""

MYSQL_SWITCHES = {
    "on": "REQUIRED",
    "verify_cert": "VERIFY_CA",
    "verify_identity": "VERIFY_IDENTITY",
    "check_hostname": "VERIFY_IDENTITY",
}
"""TLS switches of other drivers, each with the mode that does the same."""

SQLITE_PARAMETERS = frozenset({"cache", "immutable", "mode", "modeof", "nolock", "psow", "vfs"})
"""The parameters that SQLite knows in the URI of a file; it ignores all others."""


def url_of(connection: Connection) -> sa.URL:
    """The URL of a connection, for :func:`sqlalchemy.create_engine`; it holds the password.

    :raises ConnectionRefused: a rebuild cannot honour a field or an extra; names it and the remedy, never a value
    """
    build = _BUILDERS.get(str(connection.conn_type))
    if build is None:
        remedy = "use postgres, mysql or sqlite"
        if connection.conn_type == "generic":
            # Airflow's command line stores an unknown type as "generic", with a warning that is easily overlooked.
            remedy += "; Airflow knows these types once their provider is installed"
        raise _refused(connection, "conn_type", f"{connection.conn_type} is not supported", remedy)
    return build(connection, _extras(connection))


def _extras(connection: Connection) -> dict[str, Any]:
    """The extras that have a value, without those that need nothing from us.

    :raises ConnectionRefused: the text is no JSON object, which Airflow itself would ignore; or an extra needs a
        short-lived password
    """
    try:
        parsed = json.loads(connection.extra or "{}")
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise _refused(connection, "extra", "it is no JSON object", 'write it as {"name": value}')
    # Read through Airflow's own property, so that Airflow masks secret values in its logs.
    extras = {name: value for name, value in connection.extra_dejson.items() if value is not None}
    for name in sorted(LOGS_IN & extras.keys()):
        if extras[name]:
            problem = "passwords that last for some minutes, and databases other than PostgreSQL and MySQL, are not supported"
            raise _refused(connection, f"extra {name}", problem, "use a connection with a login and a password of its own")
    return {name: value for name, value in extras.items() if name not in WITHOUT_EFFECT | LOGS_IN | FOR_LOGGING_IN}


def _postgres(connection: Connection, extras: dict[str, Any]) -> sa.URL:
    _check_scheme(connection, str(extras.pop("sqlalchemy_scheme", "") or "postgresql+psycopg"))
    query_extra = extras.pop("sqlalchemy_query", {})
    if not isinstance(query_extra, dict):
        raise _refused(connection, "extra sqlalchemy_query", "it is no JSON object", 'write it as {"name": value}')
    for name in sorted(query_extra.keys() & extras.keys()):
        if query_extra[name] != extras[name]:
            raise _refused(connection, f"extra {name}", "sqlalchemy_query has another value for it", "set it once")
    # Imported here: an installation without PostgreSQL does not need its driver.
    from psycopg import pq

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()} - POSTGRES_FIELDS.keys()
    query = {}
    for name, value in (extras | query_extra).items():
        if name in POSTGRES_FIELDS:
            raise _refused(
                connection, f"extra {name}", "it has a field of its own", f"put it into the field {POSTGRES_FIELDS[name]}"
            )
        if name not in known or name == "replication":
            raise _unknown(connection, name, "libpq's parameters")
        query[name] = _plain(connection, name, value, yes="1", no="0")
    host, port = connection.host or None, connection.port
    if host is not None and host.startswith(("/", "@")):
        # The path of a socket goes into the query: in a URL's text, the host part cannot hold a path.
        query["host"], host = host, None
        if port:
            query["port"], port = str(port), None
    return sa.URL.create(
        "postgresql+psycopg", connection.login, connection.password, host, port, connection.schema or None, query=query
    )


def _check_scheme(connection: Connection, scheme: str) -> None:
    if scheme not in ("postgresql", "postgresql+psycopg"):
        problem, remedy = "a rebuild works over psycopg 3", "take it out, or set postgresql+psycopg"
        raise _refused(connection, "extra sqlalchemy_scheme", problem, remedy)


def _mysql(connection: Connection, extras: dict[str, Any]) -> sa.URL:
    if extras.pop("client", "mysqlclient") != "mysqlclient":
        raise _refused(connection, "extra client", "a rebuild works over mysqlclient", "take it out, or set mysqlclient")
    query = _mysql_tls(connection, extras)
    for name, value in extras.items():
        if name not in MYSQL_OPTIONS:
            raise _unknown(connection, name, "mysqlclient's options")
        query[name] = _plain(connection, name, value, yes="true", no="false")
    # The hook's default: without a host, the driver would connect to its own socket.
    host = connection.host or "localhost"
    return sa.URL.create(
        "mysql+mysqldb", connection.login, connection.password, host, connection.port, connection.schema or None, query=query
    )


def _mysql_tls(connection: Connection, extras: dict[str, Any]) -> dict[str, str]:
    """Takes the extras about TLS out of ``extras``, and returns them as parameters of the URL.

    Where any extra asks for TLS, the URL has an explicit mode, so that the driver and our own check both see it.
    """
    ssl = _ssl(connection, extras)
    prefixed = {name[4:]: extras.pop(name) for name in list(extras) if name.startswith("ssl_")}
    for name in sorted(ssl.keys() & prefixed.keys()):
        if ssl[name] != prefixed[name]:
            raise _refused(connection, f"extra ssl_{name}", f"ssl has another value for {name}", "set it once")
    tls_extras = ssl | prefixed
    mode = str(tls_extras.pop("mode", "")).upper()
    if mode not in ("", "DISABLED", *MYSQL_MODES):
        problem = "the driver cannot do it: PREFERRED would be plain text" if mode == "PREFERRED" else "no mode has this name"
        raise _refused(connection, "extra ssl_mode", problem, f"set one of DISABLED, {', '.join(MYSQL_MODES)}")
    modes, query = [mode] if mode else [], {}
    for name, value in tls_extras.items():
        if name in MYSQL_SWITCHES:
            modes += [MYSQL_SWITCHES[name]] if _is_on(connection, f"ssl {name}", value) else []
        elif name in MYSQL_FILES:
            query[f"ssl_{name}"] = _plain(connection, f"ssl {name}", value)
        else:
            raise _unknown(connection, f"ssl {name}", f"{', '.join(sorted(MYSQL_FILES | MYSQL_SWITCHES.keys()))} and ssl_mode")
    if query and not modes:
        modes = ["REQUIRED"]
    if "DISABLED" in modes and (query or len(modes) > 1):
        raise _refused(connection, "extra ssl_mode", "DISABLED contradicts the other extras of TLS", "keep one of them")
    return query | ({"ssl_mode": max(modes, key=["DISABLED", *MYSQL_MODES].index)} if modes else {})


def _ssl(connection: Connection, extras: dict[str, Any]) -> dict[str, Any]:
    """The extra ``ssl`` as an object.

    It may be the object, its text (as in a connection that is a URI), or a mere boolean.
    """
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
            raise _refused(connection, field, "SQLite has none", "leave it empty")
    # Airflow parses the path of a connection URI into the field of the schema.
    path = (connection.host or "") + (f"/{connection.schema}" if connection.schema else "")
    if not path or path == ":memory:" or extras.get("mode") == "memory":
        raise _refused(
            connection, "host", "it names no file, and each connection has a memory of its own", "give the path of the file"
        )
    extras.pop("uri", None)
    query = {}
    for name, value in extras.items():
        if name not in SQLITE_PARAMETERS:
            raise _unknown(connection, name, "SQLite's URI parameters")
        query[name] = quote(_plain(connection, name, value, yes="1", no="0"), safe="")
    if query.get("mode") != "rwc" and not Path(path).exists():
        raise _refused(
            connection, "host", "there is no such file, or this process cannot see it", "correct the path, or create the database"
        )
    if not query:
        return sa.URL.create("sqlite", database=path)
    return sa.URL.create("sqlite", database=f"file:{quote(path)}", query=query | {"uri": "true"})


def _plain(connection: Connection, name: str, value: Any, *, yes: str = "", no: str = "") -> str:
    """A value as text for a URL.

    :param yes: the text of True; empty: booleans are refused
    :param no: the text of False
    """
    if isinstance(value, bool) and yes:
        return yes if value else no
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise _refused(connection, f"extra {name}", "it is neither text nor a number", "write its value as text")


def _is_on(connection: Connection, name: str, value: Any) -> bool:
    is_on = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
    if is_on is None:
        raise _refused(connection, f"extra {name}", "it is neither true nor false", "set one of them")
    return is_on


def _unknown(connection: Connection, name: str, known: str) -> ConnectionRefused:
    return _refused(connection, f"extra {name}", f"it is none of {known}, and would be ignored", "correct it, or take it out")


def _refused(connection: Connection, field: str, problem: str, remedy: str) -> ConnectionRefused:
    return ConnectionRefused(f"the connection {connection.conn_id} cannot be used: {field}: {problem}; {remedy}")


_BUILDERS: Mapping[str, Callable[[Connection, dict[str, Any]], sa.URL]] = {
    "postgres": _postgres,
    "postgresql": _postgres,
    "mysql": _mysql,
    "sqlite": _sqlite,
}
