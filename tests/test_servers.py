"""The test servers themselves: each one answers, and comes back after a kill with what it had committed."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.conftest import SERVERS, Databases
from tests.servers import OwnServer


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in SERVERS])
def test_a_server_comes_back_after_a_kill(kind: str, databases: Databases) -> None:
    server = databases.server(kind)
    url = server.create_database("comes_back")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n int)")
        connection.exec_driver_sql("INSERT INTO t VALUES (7)")
    if isinstance(server, OwnServer):
        server.kill()
        server.start()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT n FROM t").scalar_one() == 7
        version = str(connection.exec_driver_sql("SELECT version()").scalar_one())
    assert ("MariaDB" in version) == (kind == "mariadb")
    server.drop_database("comes_back")
