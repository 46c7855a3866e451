"""Airflow connections become what the operator has configured: each field, each extra, each character; or they are refused by name."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa
from airflow.models.connection import Connection as Stored
from airflow.providers.mysql.hooks.mysql import MySqlHook
from airflow.providers.postgres.hooks import postgres as postgres_hook
from airflow.sdk import Connection
from psycopg import conninfo, pq

from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import ConnectionRefused
from projection_rebuild.replay.external.call import url_as_text
from projection_rebuild_airflow.connections import MYSQL_OPTIONS, POSTGRES_FIELDS, url_of
from projection_rebuild_airflow.runs import _engine
from tests.conftest import Databases
from tests.engine.harness.databases import marked
from tests.servers import OwnServer, Server
from tests.servers.postgres import PostgresServer, _newest

SPECIAL = "@:/?#%+&=[] ü\"'\\`;,$"
WORD = "s3cret @:/?#%+&=[] ü"


def connection(conn_type: str, **fields: Any) -> Connection:
    extra = fields.pop("extra", None)
    return Connection(
        conn_id="shop", conn_type=conn_type, extra=extra if isinstance(extra, str | None) else json.dumps(extra), **fields
    )


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Configures a connection as an operator does."""

    def configure(conn_type: str, **fields: Any) -> str:
        monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": conn_type, **fields}))
        return "shop"

    return configure


# Logins -------------------------------------------------------------------------------------------------------------


class PasswordPostgres(PostgresServer):
    """PostgreSQL that asks for passwords on its address and on its socket, but not its administrator."""

    def prepare(self) -> None:
        """See :class:`OwnServer`."""
        super().prepare()
        trusted = "local all tests trust\nhost all tests 127.0.0.1/32 trust\n"
        (self.folder / "data/pg_hba.conf").write_text(
            f"{trusted}local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )


@pytest.fixture(scope="module")
def asking_postgres() -> Iterator[OwnServer]:
    server = PasswordPostgres(_newest())
    server.start()
    yield server
    server.remove()


def _words(count: int, longest: int, *, without: str = "") -> list[str]:
    """Each special character by itself within a word, then mixtures of them, and blanks at both ends."""
    allowed = [each for each in SPECIAL if each not in without]
    pick = random.Random(7)
    mixtures = ["".join(pick.choices(allowed, k=pick.randint(2, longest))) + "x" for _ in range(count)]
    return [f"a{each}b" for each in allowed] + ["".join(allowed), " both ends "] + mixtures


def _administer(server: Server, *statements: str) -> None:
    engine = sa.create_engine(server.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as at:
        for statement in statements:
            at.execution_options(no_parameters=True).exec_driver_sql(statement)


def _who(conn_id: str) -> tuple[str, str]:
    """Login and database as the server sees them."""
    with _engine(conn_id) as engine, dialect_for(engine).connect() as at:
        of_postgres = engine.dialect.name == "postgresql"
        user, database = at.exec_driver_sql(
            "SELECT session_user, current_database()" if of_postgres else "SELECT USER(), DATABASE()"
        ).one()
    return str(user) if of_postgres else str(user).rpartition("@")[0], str(database)


@pytest.mark.postgres
def test_every_character_of_a_login_to_postgres_survives(asking_postgres: OwnServer, configured: Callable[..., str]) -> None:
    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    for word in _words(8, 12):
        role, database, password = f"u{word}", f"d{word}", f"p{word}"
        said = password.replace("'", "''")
        _administer(
            asking_postgres,
            f"CREATE ROLE {quoted(role)} LOGIN PASSWORD E'{said.replace(chr(92), chr(92) * 2)}'",
            f"CREATE DATABASE {quoted(database)}",
        )
        for host in ("127.0.0.1", str(asking_postgres.folder)):
            fields = {"host": host, "port": asking_postgres.port, "login": role, "password": password, "schema": database}
            assert _who(configured("postgres", **fields)) == (role, database)
            with pytest.raises(ConnectionRefused, match="login and password"):
                _who(configured("postgres", **fields | {"password": password + "+"}))
        _administer(asking_postgres, f"DROP DATABASE {quoted(database)}", f"DROP ROLE {quoted(role)}")


@pytest.mark.parametrize("kind", marked("mysql", "mariadb"))
def test_every_character_of_a_login_to_the_mysql_family_survives(
    kind: str, databases: Databases, configured: Callable[..., str]
) -> None:
    server = databases.server(kind)
    text = {chr(92): chr(92) * 2, "'": "''"}
    for word in _words(8, 8):
        user, database, password = f"u{word}".rstrip(), f"d{word}".replace("/", "-"), f"p{word}"
        # Names have no blank at their end there.
        database = database.rstrip()
        account, word_of = (str.translate(each, str.maketrans(text)) for each in (user, password))
        name = f"`{database.replace('`', '``')}`"
        _administer(
            server,
            f"CREATE USER '{account}'@'%' IDENTIFIED BY '{word_of}'",
            f"CREATE DATABASE {name}",
            f"GRANT ALL ON *.* TO '{account}'@'%'",
        )
        fields = {"host": server.url.host, "port": server.url.port, "login": user, "password": password, "schema": database}
        try:
            assert _who(configured("mysql", **fields)) == (user, database)
            with pytest.raises(ConnectionRefused, match="login and password"):
                _who(configured("mysql", **fields | {"password": password + "+"}))
        finally:
            _administer(server, f"DROP DATABASE {name}", f"DROP USER '{account}'@'%'")


@pytest.mark.parametrize("kind", marked("mysql", "mariadb"))
def test_the_socket_of_the_mysql_family_is_used(kind: str, databases: Databases, configured: Callable[..., str]) -> None:
    server = databases.server(kind)
    assert isinstance(server, OwnServer)
    _administer(server, "CREATE USER IF NOT EXISTS 'by socket'@localhost IDENTIFIED BY 'p w'")
    login = {"login": "by socket", "password": "p w"}
    extra = {"unix_socket": str(server.folder / "socket")}
    with (
        _engine(configured("mysql", **login, extra=extra)) as engine,
        dialect_for(engine).connect() as at,
    ):
        assert at.exec_driver_sql("SELECT USER()").scalar_one() == "by socket@localhost"


@pytest.mark.parametrize("word", _words(4, 10, without="/"))
def test_every_character_of_a_path_of_sqlite_survives(word: str, tmp_path: Path, configured: Callable[..., str]) -> None:
    folder = tmp_path / word
    folder.mkdir()
    path = folder / f"{word}.db"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE here (a)")
    made.close()
    for fields in ({"host": str(path)}, {"host": "", "schema": str(path)[1:]}, {"host": str(path), "extra": {"mode": "ro"}}):
        with _engine(configured("sqlite", **fields)) as engine, dialect_for(engine).connect() as at:
            assert sa.inspect(at).get_table_names() == ["here"]
    assert [each.name for each in folder.iterdir()] == [path.name]


def test_sqlite_opened_to_read_only_takes_no_write(tmp_path: Path, configured: Callable[..., str]) -> None:
    path = tmp_path / "shop.db"
    sqlite3.connect(path).execute("CREATE TABLE here (a)").connection.close()
    with _engine(configured("sqlite", host=str(path), extra={"mode": "ro"})) as engine, dialect_for(engine).connect() as at:
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            at.exec_driver_sql("CREATE TABLE there (a)")


# Extras -------------------------------------------------------------------------------------------------------------


def test_postgres_takes_what_its_hook_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook's own call of the driver is held against ours, for every parameter of libpq by itself and for all at once."""
    known = [each.keyword.decode() for each in pq.Conninfo.get_defaults()]
    usable = [name for name in known if name not in {*POSTGRES_FIELDS, "replication"}]
    assert len(usable) > 30
    given: dict[str, Any] = {}

    def connected(**arguments: Any) -> mock.MagicMock:
        given.update(arguments)
        return mock.MagicMock()

    monkeypatch.setattr("psycopg.Connection.connect", connected)
    dialect = sa.create_engine("postgresql+psycopg://").dialect
    for extras in (
        {},
        *({name: f"/a b%{name}?&=+"} for name in usable),
        dict.fromkeys(usable, "x y"),
        {"keepalives": 1, "connect_timeout": 10},
    ):
        fields: dict[str, Any] = {"host": "h", "port": 5433, "login": "u@", "password": "p /+", "schema": "d b"}
        monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "postgres", **fields, "extra": extras}))
        given.clear()
        postgres_hook.PostgresHook("shop").get_conn()
        _, ours = dialect.create_connect_args(url_of(connection("postgres", extra=extras, **fields)))
        # SQLAlchemy's own: how values are converted.
        ours.pop("context")
        assert {name: str(value) for name, value in ours.items()} == {name: str(value) for name, value in given.items()}


def test_mysql_takes_what_its_hook_takes() -> None:
    ssl = {"ca": "/c a.pem", "cert": "/cert", "key": "/k&y", "capath": "/p", "cipher": "A:B"}
    fields: dict[str, Any] = {"host": "h", "port": 3307, "login": "u@", "password": "p /+", "schema": "d b"}
    dialect = sa.create_engine("mysql+mysqldb://").dialect
    for extra in (
        {},
        {"charset": "latin1", "unix_socket": "/a b/socket", "ssl": ssl, "ssl_mode": "VERIFY_IDENTITY"},
        {"ssl": json.dumps(ssl), "ssl_mode": "VERIFY_CA"},
    ):
        hooks = MySqlHook()._get_conn_config_mysql_client(
            Stored(conn_id="shop", conn_type="mysql", extra=json.dumps(extra), **fields)
        )
        _, ours = dialect.create_connect_args(url_of(connection("mysql", extra=extra, **fields)))
        ours.pop("client_flag")
        assert ours == hooks


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"ssl_mode": "required"}, {"ssl_mode": "REQUIRED"}),
        ({"ssl": True}, {"ssl_mode": "REQUIRED"}),
        ({"ssl": "true"}, {"ssl_mode": "REQUIRED"}),
        ({"ssl": {"ca": "/ca"}}, {"ssl_ca": "/ca", "ssl_mode": "REQUIRED"}),
        ({"ssl_ca": "/ca"}, {"ssl_ca": "/ca", "ssl_mode": "REQUIRED"}),
        ({"ssl": {"ca": "/ca", "check_hostname": True}}, {"ssl_ca": "/ca", "ssl_mode": "VERIFY_IDENTITY"}),
        ({"ssl": {"ca": "/ca", "verify_cert": "true"}}, {"ssl_ca": "/ca", "ssl_mode": "VERIFY_CA"}),
        (
            {"ssl": {"ca": "/ca", "check_hostname": True}, "ssl_mode": "REQUIRED"},
            {"ssl_ca": "/ca", "ssl_mode": "VERIFY_IDENTITY"},
        ),
        ({"ssl": {"ca": "/ca", "check_hostname": False}}, {"ssl_ca": "/ca", "ssl_mode": "REQUIRED"}),
        ({"ssl": False}, {}),
        ({"ssl": None, "ssl_mode": None}, {}),
        ({"ssl_mode": "DISABLED"}, {"ssl_mode": "DISABLED"}),
        (
            {"init_command": "SET a = 1", "connect_timeout": 5, "compress": True},
            {"init_command": "SET a = 1", "connect_timeout": "5", "compress": "true"},
        ),
        ({"cursor": "SSCursor", "client": "mysqlclient", "aws_conn_id": "aws"}, {}),
    ],
)
def test_tls_of_the_mysql_family_is_said_in_the_url(extra: dict[str, Any], said: dict[str, str]) -> None:
    assert dict(url_of(connection("mysql", host="h", extra=extra)).query) == said


@pytest.mark.parametrize(
    ("conn_type", "fields", "named"),
    [
        *(
            ("postgres", {"extra": {name: "v4lue"}}, name)
            for name in ("sslmod", "ssl", "row_factory", "password", "user", "dbname", "replication")
        ),
        *(("postgres", {"extra": {name: True}}, name) for name in ("iam", "redshift", "redshift-serverless")),
        ("postgres", {"extra": {"sslmode": {"v4lue": 1}}}, "sslmode"),
        ("postgres", {"extra": {"sqlalchemy_scheme": "postgresql+asyncpg"}}, "sqlalchemy_scheme"),
        ("postgres", {"extra": {"sqlalchemy_query": "v4lue"}}, "sqlalchemy_query"),
        ("postgres", {"extra": {"sqlalchemy_query": {"sslmode": "v4lue"}, "sslmode": "require"}}, "sslmode"),
        ("postgres", {"extra": "v4lue, not JSON"}, "extra"),
        ("postgres", {"extra": '["v4lue"]'}, "extra"),
        *(("mysql", {"extra": {name: "v4lue"}}, name) for name in ("sslmode", "client", "ssl", "named_pipe", "conv", "ssl_mode")),
        *(("mysql", {"extra": {name: True}}, named) for name, named in (("iam", "iam"), ("ssl_disabled", "ssl disabled"))),
        ("mysql", {"extra": {"ssl_mode": "PREFERRED"}}, "PREFERRED"),
        ("mysql", {"extra": {"ssl": {"ca": "/v4lue"}, "ssl_mode": "DISABLED"}}, "DISABLED"),
        ("mysql", {"extra": {"ssl": {"ca": "/v4lue"}, "ssl_ca": "/other"}}, "ssl_ca"),
        ("mysql", {"extra": {"ssl": {"fingerprint": "v4lue"}}}, "fingerprint"),
        ("mysql", {"extra": {"ssl": {"check_hostname": "v4lue"}}}, "check_hostname"),
        ("sqlite", {"host": "/v4lue.db"}, "no such file"),
        ("sqlite", {"host": ""}, "no file"),
        ("sqlite", {"host": ":memory:"}, "no file"),
        ("sqlite", {"host": "/", "extra": {"mode": "memory"}}, "no file"),
        ("sqlite", {"host": "/", "extra": {"timeout": "v4lue"}}, "timeout"),
        ("sqlite", {"host": "/", "login": "v4lue"}, "login"),
        ("mssql", {"host": "v4lue"}, "mssql"),
        (
            "generic",
            {"host": "v4lue"},
            "generic is not supported; use postgres, mysql or sqlite; .* once their provider is installed",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(conn_type: str, fields: dict[str, Any], named: str) -> None:
    fields = {"password": None if conn_type == "sqlite" else WORD, **fields}
    with pytest.raises(ConnectionRefused, match=named) as refused:
        url_of(connection(conn_type, **fields))
    said = str(refused.value)
    assert said.startswith("the connection shop") and "v4lue" not in said and WORD not in said


def test_the_list_of_options_is_the_drivers() -> None:
    """Each of them is taken by the driver's own signature or its documentation; none is left to be ignored."""
    import MySQLdb.connections

    said = MySQLdb.connections.Connection.__init__.__doc__ or ""
    undocumented = {"read_timeout", "write_timeout"}
    assert [name for name in MYSQL_OPTIONS - undocumented if f" {name}:" not in said] == []


def test_a_connection_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConnectionRefused, match="there is no connection nowhere_to_be_found"), _engine("nowhere_to_be_found"):
        pass


# To whom URLs are handed on ------------------------------------------------------------------------------------------


def test_a_program_is_given_a_url_that_says_all_of_it() -> None:
    for word in _words(30, 20):
        for host in ("db.example", "/var/run/a socket", "::1"):
            fields: dict[str, Any] = {
                "host": host,
                "port": 5433,
                "login": f"u{word}",
                "password": f"p{word}",
                "schema": f"d{word}",
            }
            url = url_of(
                connection("postgres", extra={"sslmode": "verify-full", "sslrootcert": f"/{word}", "options": "-c a=b"}, **fields)
            )
            understood = conninfo.conninfo_to_dict(url_as_text(url))
            assert understood == {
                "host": host, "port": "5433" if host.startswith("/") else 5433, "user": f"u{word}", "password": f"p{word}",
                "dbname": f"d{word}", "sslmode": "verify-full", "sslrootcert": f"/{word}", "options": "-c a=b",
            } | ({"port": understood["port"]} if str(understood["port"]) == "5433" else {})  # fmt: skip
            if not host.startswith("/"):
                mysql = url_of(connection("mysql", extra={"ssl": {"ca": f"/{word}"}}, **fields))
                assert sa.make_url(url_as_text(mysql)) == mysql.set(drivername="mysql")


# What goes wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.postgres
def test_what_keeps_postgres_from_being_connected_to_is_said(asking_postgres: OwnServer, configured: Callable[..., str]) -> None:
    server = asking_postgres
    _administer(
        server,
        "CREATE ROLE acc_any LOGIN PASSWORD 'right'",
        "CREATE ROLE acc_one LOGIN PASSWORD 'right' CONNECTION LIMIT 0",
        "CREATE ROLE acc_shut NOLOGIN PASSWORD 'right'",
        "CREATE DATABASE shut ALLOW_CONNECTIONS false",
        "CREATE DATABASE closed",
        "REVOKE CONNECT ON DATABASE closed FROM public",
    )
    right = {"host": "127.0.0.1", "port": server.port, "login": "acc_any", "password": "right", "schema": "postgres"}
    cases: list[tuple[dict[str, Any], str, bool]] = [
        ({"password": "wr0ng"}, "login and password", False),
        ({"login": "acc_one"}, "no connection to spare", True),
        ({"login": "acc_shut"}, "may not connect", False),
        ({"schema": "nowhere"}, "no such database", False),
        ({"schema": "shut"}, "accepts no connections", False),
        ({"schema": "closed"}, "may not connect", False),
        ({"port": 1}, "cannot be reached", True),
        ({"host": "nowhere.invalid"}, "cannot be reached", True),
        ({"extra": {"sslmode": "require"}}, "cannot be encrypted", False),
        ({"extra": {"sslmode": "bogus"}}, "extras", False),
        ({"extra": {"options": "-c nothing=1"}}, "options", False),
    ]
    for change, said, retryable in cases:
        with pytest.raises(ConnectionRefused, match=said) as refused:
            _who(configured("postgres", **right | change))
        assert refused.value.retryable is retryable
        _names_nothing(str(refused.value), right | change)


@pytest.mark.parametrize("kind", marked("mysql", "mariadb"))
def test_what_keeps_the_mysql_family_from_being_connected_to_is_said(
    kind: str, databases: Databases, configured: Callable[..., str]
) -> None:
    server = databases.server(kind)
    _administer(
        server,
        "CREATE USER IF NOT EXISTS acc_any@'%' IDENTIFIED BY 'right'",
        "CREATE USER IF NOT EXISTS acc_one@'%' IDENTIFIED BY 'right' WITH MAX_USER_CONNECTIONS 1",
        "CREATE USER IF NOT EXISTS acc_shut@'%' IDENTIFIED BY 'right' ACCOUNT LOCK",
    )
    right = {"host": server.url.host, "port": server.url.port, "login": "acc_any", "password": "right"}
    cases: list[tuple[dict[str, Any], str, bool]] = [
        ({"password": "wr0ng"}, "login and password", False),
        ({"login": "acc_shut"}, "locked", False),
        ({"schema": "nowhere"}, "no such database", False),
        ({"port": 1}, "cannot be reached", True),
        ({"host": "nowhere.invalid"}, "cannot be reached", True),
    ]
    for change, said, retryable in cases:
        with pytest.raises(ConnectionRefused, match=said) as refused:
            _who(configured("mysql", **right | change))
        assert refused.value.retryable is retryable
        _names_nothing(str(refused.value), right | change)
    with _engine(configured("mysql", **right | {"login": "acc_one"})) as engine:
        dialect = dialect_for(engine)
        with dialect.connect(), pytest.raises(ConnectionRefused, match="to spare") as refused, dialect.connect():
            pass
        assert refused.value.retryable


def test_what_keeps_sqlite_from_being_opened_is_said(tmp_path: Path, configured: Callable[..., str]) -> None:
    (tmp_path / "text.db").write_text("this is no database, and long enough to be looked at" * 10)
    for path, said in ((tmp_path, "cannot be opened"), (tmp_path / "text.db", "no SQLite database")):
        with pytest.raises(ConnectionRefused, match=said) as refused:
            _open(configured("sqlite", host=str(path)))
        assert not refused.value.retryable and str(tmp_path) not in str(refused.value)


def _open(conn_id: str) -> None:
    with _engine(conn_id) as engine, dialect_for(engine).connect():
        pass


def _names_nothing(said: str, fields: dict[str, Any]) -> None:
    """Neither address nor account nor password."""
    for field in ("host", "login", "password", "extra"):
        with suppress(KeyError):
            assert str(fields[field]) not in said or fields[field] == "right"
