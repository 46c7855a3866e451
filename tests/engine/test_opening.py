"""Opening a run: what is left open when it fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import ConnectionRefused
from projection_rebuild.rebuild import Rebuild
from tests.engine.harness.specs import spec

NOWHERE = "mysql+mysqldb://nobody@127.0.0.1:1/nothing"
"""Of such a URL the server is asked whether it is MySQL or MariaDB."""


@pytest.fixture
def opened() -> Iterator[list[object]]:
    """The connections of drivers that are open."""
    connections: list[object] = []

    def connect(connection: object, _: object) -> None:
        connections.append(connection)

    def close(connection: object, _: object) -> None:
        connections.remove(connection)

    sa.event.listen(sa.Pool, "connect", connect)
    sa.event.listen(sa.Pool, "close", close)
    yield connections
    sa.event.remove(sa.Pool, "connect", connect)
    sa.event.remove(sa.Pool, "close", close)


def test_an_event_store_that_cannot_be_reached_leaves_no_connection_open(sqlite_url: sa.URL, opened: list[object]) -> None:
    given = spec(event_store={"conn_id": "store"})
    with pytest.raises(ConnectionRefused):
        Rebuild(given, run_id="run", event_store=sa.create_engine(NOWHERE), read_models=sa.create_engine(sqlite_url))
    assert opened == []
