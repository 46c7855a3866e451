"""The fixtures that several modules of the engine's tests ask for; databases themselves come from ``tests/conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import dialect_for
from projection_rebuild.dialects.base import Dialect
from tests.conftest import SERVERS
from tests.engine.harness import fidelity_sqlite, shop, writers
from tests.engine.harness.databases import execute, having, marked
from tests.engine.harness.fidelity import Application
from tests.engine.harness.shop import events
from tests.servers import OwnServer, Server

# Kinds of databases -----------------------------------------------------------------------------------------------


@pytest.fixture(params=having(one_writer=False))
def server_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of database that is a server in turn."""
    return str(request.param)


@pytest.fixture(params=marked("mysql", "mariadb"))
def family(request: pytest.FixtureRequest) -> str:
    """MySQL and MariaDB in turn, where DDL commits by itself."""
    return str(request.param)


@pytest.fixture
def breakable_server(server_kind: str) -> Iterator[Server]:
    """A server of each kind in turn, for one test that may break it."""
    made = SERVERS[server_kind]()
    yield made
    if isinstance(made, OwnServer):
        made.remove()


@pytest.fixture
def dialect(engine: sa.Engine) -> Dialect:
    """The dialect of each kind of database in turn; a module that needs tables makes them in a fixture of the same name."""
    return dialect_for(engine)


@pytest.fixture
def sqlite(sqlite_url: sa.URL) -> Iterator[sa.Engine]:
    """An engine on an empty SQLite, where the database does not matter."""
    engine = sa.create_engine(sqlite_url)
    yield engine
    engine.dispose()


# Shops ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(engine: sa.Engine) -> list[dict[str, Any]]:
    """The 1,000 events of a shop over empty read models, on each kind of database in turn, or on the module's own ``engine``."""
    made = events(1_000)
    shop.fill(engine, made)
    return made


@pytest.fixture
def shop_on_sqlite(sqlite: sa.Engine) -> sa.Engine:
    """A shop with 300 events over empty read models, where the database does not matter."""
    return shop.fill(sqlite, events(300))


@pytest.fixture
def shop_on_each(engine: sa.Engine) -> sa.Engine:
    """Each kind of database in turn, with tables that stand alone."""
    shop.fill(engine, [each for each in events(300) if each["event_class"] != "LineAdded"])
    execute(engine, "DROP TABLE order_lines")
    return engine


@pytest.fixture
def prepared(engine: sa.Engine) -> sa.Engine:
    """The tables of a shop whose rows are projected later, on each kind of database in turn."""
    return writers.prepare(engine)


# SQLite with all that may hang on a table -------------------------------------------------------------------------


@pytest.fixture
def rich_sqlite(sqlite: sa.Engine) -> sa.Engine:
    """The tables of :mod:`tests.engine.harness.fidelity_sqlite`, empty."""
    fidelity_sqlite.create(sqlite)
    return sqlite


@pytest.fixture
def rich_application(rich_sqlite: sa.Engine) -> Iterator[Application]:
    """Their application, which has filled them."""
    clients = sa.create_engine(rich_sqlite.url)
    sa.event.listen(clients, "connect", fidelity_sqlite.enforcing)
    made = Application(clients, fidelity_sqlite.BESIDE, fidelity_sqlite.QUERIES)
    made.fill()
    yield made
    clients.dispose()
