"""Creates empty tables of a new structure on MySQL and MariaDB, in a database of their own.

The engine reads the definitions as the server stores them, and checks that views would work with the new tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from projection_rebuild.errors import PlanError
from projection_rebuild.model.findings import Finding, refusal

PLACE = "projection_rebuild_structure"
"""The temporary database that holds the tables."""

PATIENCE = 10
"""Seconds to wait for another plan that uses this database."""

DENIED = (1044, 1227, 1142)

_VIEWS = "SELECT TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s ORDER BY TABLE_NAME"

_NAME = r"(?:`(?:[^`]|``)*`|[^\W\d]\w*)"

# It skips quoted texts, and the parents of foreign keys.
_QUALIFIED = re.compile(
    rf"'(?:[^'\\]|''|\\.)*'|\bREFERENCES\s+{_NAME}(?:\s*\.\s*{_NAME})?|(?P<database>{_NAME})\s*\.\s*{_NAME}|{_NAME}|.",
    re.IGNORECASE | re.DOTALL,
)

Query = Callable[..., Any]
"""Executes a statement with values."""


@contextmanager
def tried(query: Query, live: str, statements: Sequence[str]) -> Iterator[str]:
    """Executes statements in a database of their own, and drops it with the context.

    :param live: the database of the live tables
    :returns: the name of the new database
    :raises PlanError: a statement names a database, the account may not create one, or another plan does not end
    """
    _refuse_databases(statements)
    own = query("SELECT DATABASE()").scalar_one()
    if query("SELECT GET_LOCK(%s, %s)", PLACE, PATIENCE).scalar_one() != 1:
        raise PlanError(f"structure: another plan has been using the database {PLACE} for {PATIENCE} s; try again")
    try:
        _begin(query, live)
        # Missing parents are no error here, and without checks the server locks no tables of clients.
        query("SET SESSION foreign_key_checks = 0")
        for statement in statements:
            query(statement)
        query(_use(own))
        yield PLACE
    finally:
        query(_use(own))
        query("SET SESSION foreign_key_checks = 1")
        query(f"DROP DATABASE IF EXISTS {PLACE}")
        query("SELECT RELEASE_LOCK(%s)", PLACE)


def _refuse_databases(statements: Sequence[str]) -> None:
    """Refuses statements that name a database, except as the parent of a foreign key: the engine executes them.

    :raises PlanError: names the database
    """
    for statement in statements:
        if qualified := next((match for match in _QUALIFIED.finditer(statement) if match["database"]), None):
            raise PlanError(
                f"structure.ddl: it names the database {qualified['database']}; create each table that it uses, under its live name alone"
            )


def _use(database: str) -> str:
    return f"USE {_quoted(database)}"


def _begin(query: Query, live: str) -> None:
    charset, collation = query(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", live
    ).one()
    try:
        # A killed plan may have left it.
        query(f"DROP DATABASE IF EXISTS {PLACE}")
        query(f"CREATE DATABASE {PLACE} CHARACTER SET {charset} COLLATE {collation}")
        query(f"USE {PLACE}")
    except sa.exc.DBAPIError as error:
        if error.orig is None or error.orig.args[0] not in DENIED:
            raise
        raise PlanError(
            f"structure: the engine first creates the new tables, empty, in a database of their own, but its account may not create one; "
            f"GRANT ALL ON {PLACE}.* to it"
        ) from None


def refusals(query: Query, live: str, place: str, tables: Collection[str], views: Mapping[str, str]) -> Iterator[Finding]:
    """Refuses views that would not work with the tables in ``place``.

    The server writes every name in their queries in full.

    :param tables: the names of the new tables
    :param views: new queries for views, by name, which this server cannot use
    """
    for name in views:
        yield refusal(
            f"the view {name}",
            "on this server no statement changes a table and a view at once, so that for a moment readers of the view would meet the "
            "wrong one",
            "give the view a query, before the rebuild, that works with both structures",
        )
    left = {name: definition for name, definition in query(_VIEWS, live) if definition}
    live_names = {name for (name,) in query("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s", live)}
    moved, again = {*tables}, True
    while again:
        again = False
        for name, definition in [*left.items()]:
            if not any(f"{_quoted(live)}.{_quoted(moved_name)}" in definition for moved_name in moved):
                continue
            moved_query = _moved(definition, live, place, moved, live_names)
            del left[name]
            again = True
            try:
                query(f"CREATE VIEW {_quoted(place)}.{_quoted(name)} AS {moved_query}")
                moved.add(name)
            except sa.exc.DBAPIError as error:
                yield refusal(
                    f"the view {name}",
                    f"it would not work with the new structure ({_reason(error)})",
                    "give it a query that works with both structures before the rebuild, or drop it",
                )


def _moved(definition: str, live: str, place: str, moved: Collection[str], live_names: Collection[str]) -> str:
    """A view's query over the tables and views in ``place`` in place of the live ones.

    :param moved: the names of the tables and views in ``place``
    :param live_names: the names of all live tables and views
    """

    def named(qualified: re.Match[str]) -> str:
        name = qualified[1].replace("``", "`")
        if name in moved:
            return f"{_quoted(place)}.{_quoted(name)}"
        # The server writes aliases like tables, but an alias must have no database here.
        return qualified[0] if name in live_names else _quoted(name)

    return re.sub(re.escape(_quoted(live)) + r"\.`((?:[^`]|``)*)`", named, definition)


def _reason(error: sa.exc.DBAPIError) -> str:
    return str(error.orig.args[-1] if error.orig is not None and error.orig.args else error.orig)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
