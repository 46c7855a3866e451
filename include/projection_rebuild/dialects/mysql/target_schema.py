"""Tables of another structure on MySQL and MariaDB, made empty in a database of their own, to see what the server makes of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from projection_rebuild.errors import PlanError
from projection_rebuild.model.findings import Finding, refusal

PLACE = "projection_rebuild_structure"
"""The database that holds them, for a moment."""

PATIENCE = 10
"""Seconds to wait for another plan that is at it."""

DENIED = (1044, 1227, 1142)

_VIEWS = "SELECT TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s ORDER BY TABLE_NAME"

_NAME = r"(?:`(?:[^`]|``)*`|[^\W\d]\w*)"

# What is within quotes is skipped, and so is where a foreign key points to.
_QUALIFIED = re.compile(
    rf"'(?:[^'\\]|''|\\.)*'|\bREFERENCES\s+{_NAME}(?:\s*\.\s*{_NAME})?|(?P<database>{_NAME})\s*\.\s*{_NAME}|{_NAME}|.",
    re.IGNORECASE | re.DOTALL,
)

Query = Callable[..., Any]
"""Executes a statement with values."""


@contextmanager
def tried(query: Query, live: str, statements: Sequence[str]) -> Iterator[str]:
    """Executes the statements in a database of its own, and drops it with the context.

    :param live: the database of the tables, to which the connection returns
    :returns: its name
    :raises PlanError: we may not make that database, or another plan does not end
    """
    _refuse_databases(statements)
    own = query("SELECT DATABASE()").scalar_one()
    if query("SELECT GET_LOCK(%s, %s)", PLACE, PATIENCE).scalar_one() != 1:
        raise PlanError(f"structure: another plan has been using the database {PLACE} for {PATIENCE} s; try again")
    try:
        _begin(query, live)
        # Parents that are not there are no mistake, and nobody's tables are locked for them.
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
    """Each statement is executed in earnest, if apart, so none may name another database; a foreign key only refers to it."""
    for statement in statements:
        if found := next((each for each in _QUALIFIED.finditer(statement) if each["database"]), None):
            raise PlanError(
                f"structure.ddl: it names the database {found['database']}; let it make each table that it speaks of, under its live name alone"
            )


def _use(database: str) -> str:
    return f"USE {_quoted(database)}"


def _begin(query: Query, live: str) -> None:
    charset, collation = query(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", live
    ).one()
    try:
        # A plan that was killed has left it.
        query(f"DROP DATABASE IF EXISTS {PLACE}")
        query(f"CREATE DATABASE {PLACE} CHARACTER SET {charset} COLLATE {collation}")
        query(f"USE {PLACE}")
    except sa.exc.DBAPIError as error:
        if error.orig is None or error.orig.args[0] not in DENIED:
            raise
        raise PlanError(
            f"structure: the new tables are first made, empty, in a database of their own, which our user may not make; GRANT ALL ON {PLACE}.* to it"
        ) from None


def refusals(query: Query, live: str, place: str, tables: Collection[str], views: Mapping[str, str]) -> Iterator[Finding]:
    """Why views would not work with the tables in ``place``. The server writes every name in their queries in full."""
    for name in views:
        yield refusal(
            f"the view {name}",
            "on this server no statement changes a table and a view at once, so that for a moment readers of the view would meet the "
            "wrong one",
            "give the view a query, before the rebuild, that works with both structures",
        )
    left = {name: definition for name, definition in query(_VIEWS, live) if definition}
    there = {name for (name,) in query("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s", live)}
    moved, again = {*tables}, True
    while again:
        again = False
        for name, definition in [*left.items()]:
            if not any(f"{_quoted(live)}.{_quoted(each)}" in definition for each in moved):
                continue
            made = _there(definition, live, place, moved, there)
            del left[name]
            again = True
            try:
                query(f"CREATE VIEW {_quoted(place)}.{_quoted(name)} AS {made}")
                moved.add(name)
            except sa.exc.DBAPIError as error:
                yield refusal(
                    f"the view {name}",
                    f"it would not work with the new structure ({_reason(error)})",
                    "give it a query that works with both structures before the rebuild, or drop it",
                )


def _there(definition: str, live: str, place: str, moved: Collection[str], there: Collection[str]) -> str:
    """A view's query with the tables and views that are made apart in the place of the live ones."""

    def named(found: re.Match[str]) -> str:
        name = found[1].replace("``", "`")
        if name in moved:
            return f"{_quoted(place)}.{_quoted(name)}"
        # The server writes aliases like tables; there they have no database.
        return found[0] if name in there else _quoted(name)

    return re.sub(re.escape(_quoted(live)) + r"\.`((?:[^`]|``)*)`", named, definition)


def _reason(error: sa.exc.DBAPIError) -> str:
    return str(error.orig.args[-1] if error.orig is not None and error.orig.args else error.orig)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
