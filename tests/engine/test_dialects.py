"""Which dialect an engine gets: its driver tells, and of a URL that leads to MySQL or to MariaDB the server."""

from __future__ import annotations

from collections.abc import Callable

import MySQLdb
import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import Dialect, dialect_class, dialect_for
from projection_rebuild.dialects.mariadb.dialect import MariaDBDialect
from projection_rebuild.dialects.mysql.dialect import MySQLDialect
from projection_rebuild.errors import ConnectionRefused, UnsupportedDatabase
from projection_rebuild.rebuild import of_our_own

CHOSEN = {"mysql": MySQLDialect, "mariadb": MariaDBDialect}
FAMILY = [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in CHOSEN]
NOWHERE = "mysql+mysqldb://nobody@127.0.0.1:1/nothing"


def counted(url: sa.URL | str) -> tuple[sa.Engine, list[object]]:
    """An engine, and the connections that its driver makes from now on."""
    engine, made = sa.create_engine(url), list[object]()
    sa.event.listen(engine, "do_connect", lambda *given: made.append(given))
    return engine, made


@pytest.mark.parametrize("kind", FAMILY)
def test_the_server_tells_of_which_kind_it_is(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    engine, made = counted(new_database(kind).set(drivername="mysql+mysqldb"))
    dialect = dialect_for(engine)
    assert type(dialect) is CHOSEN[kind]
    assert dialect.database == kind
    # It is asked once; the connection is the first one of the pool.
    assert type(dialect_for(engine)) is CHOSEN[kind]
    with dialect.connect():
        assert len(made) == 1
    # Connections of our own are made by the same dialect of SQLAlchemy's, which knows.
    own = of_our_own(engine)
    assert type(dialect_for(own)) is CHOSEN[kind]
    assert len(made) == 1
    engine.dispose()


@pytest.mark.parametrize("kind", FAMILY)
def test_asking_leaves_the_session_as_the_server_made_it(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database(kind).set(drivername="mysql+mysqldb"), pool_size=1)
    query = "SELECT @@SESSION.time_zone, @@SESSION.sql_mode, @@SESSION.lock_wait_timeout, @@SESSION.tx_isolation"
    query = query.replace("tx_isolation", "transaction_isolation") if kind == "mysql" else query
    fresh = sa.create_engine(engine.url, poolclass=sa.NullPool)
    with fresh.connect() as connection:
        before = connection.exec_driver_sql(query).one()
    dialect_for(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql(query).one() == before
    engine.dispose()


@pytest.mark.mariadb
def test_a_url_of_mariadb_needs_no_question(mariadb_url: sa.URL) -> None:
    engine, made = counted(mariadb_url.set(drivername="mariadb+mysqldb"))
    dialect = dialect_for(engine)
    assert type(dialect) is MariaDBDialect
    assert made == []
    with dialect.connect():
        assert len(made) == 1
    engine.dispose()


def test_a_server_that_cannot_be_asked_is_refused_by_name() -> None:
    with pytest.raises(ConnectionRefused, match="the shop's database cannot be used: the server cannot be reached") as refused:
        dialect_for(sa.create_engine(NOWHERE), "the shop's database")
    assert refused.value.retryable


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://nobody@127.0.0.1:1/nothing", "mariadb+mysqldb://nobody@127.0.0.1:1/nothing"]
)
def test_nobody_is_asked_where_the_url_tells(url: str) -> None:
    engine, made = counted(url)
    assert dialect_for(engine).database in ("postgresql", "mariadb")
    assert made == []


def test_connections_of_our_own_are_made_before_anybody_is_asked() -> None:
    engine, made = counted(NOWHERE)
    of_our_own(engine)
    assert dialect_class(engine) is MySQLDialect
    assert made == []


def test_an_unknown_driver_is_refused() -> None:
    with pytest.raises(UnsupportedDatabase, match=r"mysql\+pymysql is not supported; use one of postgresql\+psycopg"):
        dialect_for(sa.create_engine("mysql+pymysql://", module=MySQLdb))


def verbs(subject: type) -> set[str]:
    """What one of the classes of which a dialect is made promises by itself."""
    own = {name for name, value in vars(subject).items() if callable(value) or isinstance(value, property | staticmethod)}
    return {name for name in own if not name.startswith("_")}


def test_each_subject_has_few_verbs_and_none_of_anothers() -> None:
    subjects = [each for each in Dialect.__mro__[1:] if each.__module__.startswith("projection_rebuild.dialects.base.")]
    assert len(subjects) >= 8
    assert {each.__name__: len(verbs(each)) for each in subjects if not 4 <= len(verbs(each)) <= 16} == {}
    # Its own attributes lead to the subjects.
    assert {name for name in verbs(Dialect) if not isinstance(vars(Dialect)[name], property)} == set()
    named = [name for each in subjects for name in verbs(each)]
    assert len(named) == len(set(named))
