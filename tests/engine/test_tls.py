"""A connection that asks for encryption is encrypted, or it is refused; asked of servers that encrypt, and of servers that cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import ConnectionRefused
from projection_rebuild.rebuild import of_our_own
from tests.engine.harness.databases import marked
from tests.engine.harness.faults import until
from tests.servers import OwnServer
from tests.servers.tls import Certificates, change_certificate, encrypting_server, plain_server

# Their servers are started once, not in each of the processes that share the work.
pytestmark = pytest.mark.xdist_group("tls")

KINDS = marked("postgres", "mariadb", "mysql")
FAMILY = KINDS[1:]
CIPHER = {
    "postgresql": "SELECT cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mysql": "SELECT VARIABLE_VALUE FROM {}.session_status WHERE VARIABLE_NAME = 'Ssl_cipher'",
}
ASKING = {
    "postgres": [
        {"sslmode": "require"},
        {"sslmode": "verify-ca", "sslrootcert": "CA"},
        {"sslmode": "verify-full", "sslrootcert": "CA"},
    ],
    "mysql": [
        {"ssl_mode": "REQUIRED"},
        {"ssl_mode": "VERIFY_CA", "ssl_ca": "CA"},
        {"ssl_mode": "VERIFY_IDENTITY", "ssl_ca": "CA"},
        {"ssl_ca": "CA"},
    ],
}
ASKING["mariadb"] = ASKING["mysql"]
EACH_WAY = [
    pytest.param(kind.values[0], index, marks=kind.marks, id=f"{kind.values[0]}-{'-'.join(asked.values())}")
    for kind in KINDS
    for index, asked in enumerate(ASKING[str(kind.values[0])])
]


class Pair:
    """The servers of one kind.

    :ivar plain: it cannot encrypt
    :ivar tls: it encrypts for whoever asks
    """

    def __init__(self, kind: str, certificates: Certificates) -> None:
        self.plain, self.tls = plain_server(kind), encrypting_server(kind, certificates)
        self.plain.start()
        self.tls.start()


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    made = Certificates()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def pairs(certificates: Certificates) -> Iterator[dict[str, Pair]]:
    made: dict[str, Pair] = {}
    yield made
    for each in made.values():
        each.plain.remove()
        each.tls.remove()


def _pair(kind: str, pairs: dict[str, Pair], certificates: Certificates) -> Pair:
    if kind not in pairs:
        pairs[kind] = Pair(kind, certificates)
    return pairs[kind]


def _asking(server: OwnServer, asked: dict[str, str], ca: str) -> sa.Engine:
    query = {name: ca if value == "CA" else value for name, value in asked.items()}
    return sa.create_engine(server.url.update_query_dict(query), poolclass=sa.NullPool)


def _cipher(engine: sa.Engine) -> str | None:
    """How the server says that our session is encrypted."""
    dialect = dialect_for(engine)
    with dialect.connect() as connection:
        schema = "information_schema" if dialect.database == "mariadb" else "performance_schema"
        return connection.exec_driver_sql(CIPHER[engine.dialect.name].format(schema)).scalar()


@pytest.mark.parametrize(("kind", "way"), EACH_WAY)
def test_it_is_encrypted_or_refused(kind: str, way: int, pairs: dict[str, Pair], certificates: Certificates) -> None:
    pair, asked = _pair(kind, pairs, certificates), ASKING[kind][way]
    assert _cipher(_asking(pair.tls, asked, certificates.ca))
    with pytest.raises(ConnectionRefused, match=r"plain text|cannot be encrypted") as refused:
        _cipher(_asking(pair.plain, asked, certificates.ca))
    assert not refused.value.retryable
    # Without being asked, it works there: it is the asking that is heard.
    assert not _cipher(sa.create_engine(pair.plain.url, poolclass=sa.NullPool))


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("said", [{"ssl": True}, {"ssl": {"ca": "CA"}}, {"ssl": {"cipher": "AES256-SHA"}}, {"ssl": "true"}])
def test_what_an_engine_was_made_with_counts_as_well(
    kind: str, said: dict[str, Any], pairs: dict[str, Pair], certificates: Certificates
) -> None:
    pair = _pair(kind, pairs, certificates)
    if isinstance(said["ssl"], dict):
        said = {"ssl": {name: certificates.ca if value == "CA" else value for name, value in said["ssl"].items()}}
    engine = of_our_own(sa.create_engine(pair.plain.url, connect_args=said, poolclass=sa.NullPool))
    with pytest.raises(ConnectionRefused, match="plain text"):
        _cipher(engine)


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_of_another_authority_or_for_another_host_is_refused(
    kind: str, pairs: dict[str, Pair], certificates: Certificates
) -> None:
    pair = _pair(kind, pairs, certificates)
    verifying = [each for each in ASKING[kind] if len(each) == 2]
    for asked in verifying:
        with pytest.raises(ConnectionRefused, match="cannot be encrypted"):
            _cipher(_asking(pair.tls, asked, certificates.other_ca))
    strictest = verifying[-1]
    assert _cipher(_asking(pair.tls, strictest, certificates.ca))
    change_certificate(kind, pair.tls, certificates, "elsewhere")
    try:
        until(lambda: _is_refused(_asking(pair.tls, strictest, certificates.ca)))
        assert _cipher(_asking(pair.tls, ASKING[kind][0], certificates.ca))
    finally:
        change_certificate(kind, pair.tls, certificates, "here")
        until(lambda: not _is_refused(_asking(pair.tls, strictest, certificates.ca)))


def _is_refused(engine: sa.Engine) -> bool:
    """PostgreSQL reads its certificate again a moment after it was told to."""
    try:
        _cipher(engine)
    except ConnectionRefused:
        return True
    return False


@pytest.mark.parametrize("kind", FAMILY)
def test_what_the_driver_would_ignore_is_refused_by_name(kind: str, pairs: dict[str, Pair], certificates: Certificates) -> None:
    server = _pair(kind, pairs, certificates).tls
    asked = {"ssl_ca": "CA", "ssl_check_hostname": "true"}
    with pytest.raises(ConnectionRefused, match=r"ssl\.check_hostname"):
        _cipher(_asking(server, asked, certificates.ca))
    assert _cipher(_asking(server, asked | {"ssl_mode": "VERIFY_IDENTITY"}, certificates.ca))
    assert _cipher(_asking(server, asked | {"ssl_check_hostname": "false"}, certificates.ca))


@pytest.mark.parametrize("kind", KINDS)
def test_connectionsof_our_own_are_made_as_the_engine_was_made(
    kind: str, pairs: dict[str, Pair], certificates: Certificates
) -> None:
    """What it was given, what listens to its connections, and a creator: all of it holds for the connections of a rebuild."""
    server = _pair(kind, pairs, certificates).tls
    args = {"options": "-c work_mem=7MB"} if kind == "postgres" else {"init_command": "SET SESSION max_error_count = 7"}
    asks = "SHOW work_mem" if kind == "postgres" else "SELECT @@SESSION.max_error_count"
    engine = sa.create_engine(server.url, connect_args=args, poolclass=sa.NullPool)
    heard: list[str] = []
    event.listen(engine, "connect", lambda *_: heard.append("connect"))
    event.listen(engine, "do_connect", lambda *_: heard.append("do_connect"))
    dialect = dialect_for(of_our_own(engine))
    # Over a connection of its own a server of the MySQL family has said which one it is.
    assert heard == ([] if kind == "postgres" else ["do_connect", "connect"])
    heard.clear()
    with dialect.connect() as connection:
        assert str(connection.exec_driver_sql(asks).scalar_one()).startswith("7")
    assert heard == ["do_connect", "connect"]
    arguments, said = engine.dialect.create_connect_args(server.url)
    made = sa.create_engine(server.url, creator=lambda: engine.dialect.connect(*arguments, **said, **args), poolclass=sa.NullPool)
    with dialect_for(of_our_own(made)).connect() as connection:
        assert str(connection.exec_driver_sql(asks).scalar_one()).startswith("7")


@pytest.mark.postgres
def test_pg_dump_is_asked_to_encrypt_as_the_connection_was(
    pairs: dict[str, Pair], certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, program = tmp_path / "seen", tmp_path / "pg_dump"
    program.write_text(f'#!/bin/sh\nenv > "{seen}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("REBUILD_PG_DUMP", str(program))
    dialect = dialect_for(_asking(_pair("postgres", pairs, certificates).tls, ASKING["postgres"][-1], certificates.ca))
    with dialect.connect() as connection:
        dialect.dependents.definitions(connection, None)
    given = seen.read_text().splitlines()
    assert {"PGSSLMODE=verify-full", f"PGSSLROOTCERT={certificates.ca}", "PGUSER=tests", "PGHOST=127.0.0.1"} <= {*given}
