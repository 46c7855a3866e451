"""One database for all cases of a class, and what each case does with it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import dialect_for
from projection_rebuild.dialects.base import Dialect
from tests.conftest import Databases
from tests.engine.conformance.contract.tables import Workshop
from tests.servers.postgres import PostgresServer

_numbers = itertools.count(1)


@pytest.fixture(scope="class")
def shared_url(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sa.URL]:
    """The database of a class, by its ``kind``; empty at first. Its cases make tables of names of their own."""
    kind, name = str(request.cls.kind), f"conformance_{os.getpid()}_{next(_numbers)}"
    if kind == "sqlite":
        yield sa.make_url(f"sqlite:///{tmp_path_factory.mktemp('conformance') / name}.db")
        return
    server = databases.server(kind)
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(server, PostgresServer):
            # Of the server's own version.
            patch.setenv("REBUILD_PG_DUMP", str(server.programs / "bin/pg_dump"))
        yield server.create_database(name)
        server.drop_database(name)


@pytest.fixture(scope="class")
def dialect(shared_url: sa.URL) -> Iterator[Dialect]:
    """The engine's side."""
    made = dialect_for(sa.create_engine(shared_url))
    yield made
    made.engine.dispose()


@pytest.fixture(scope="class")
def application(shared_url: sa.URL) -> Iterator[sa.Engine]:
    """The application's side: each connection is a new one, and closed after use."""
    made = sa.create_engine(shared_url, poolclass=sa.NullPool)
    yield made
    made.dispose()


@pytest.fixture
def connection(dialect: Dialect) -> Iterator[sa.Connection]:
    """A connection of the engine's."""
    with dialect.connect() as made:
        yield made


@pytest.fixture
def schema(dialect: Dialect, connection: sa.Connection) -> str | None:
    """The schema of the tables."""
    return dialect.inspector.default_schema(connection)


@pytest.fixture
def workshop(dialect: Dialect, application: sa.Engine, schema: str | None) -> Workshop:
    """Makes tables as the application does."""
    return Workshop(application, schema, dialect.max_identifier)
