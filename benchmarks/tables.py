"""The measured read models under other names, and whether two sets of them hold the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from benchmarks.events import PROJECTORS
from include.universal.schema import metadata
from projection_rebuild.authoring.projector import Projector

Projectors = Sequence[type[Projector]]


def names(projectors: Projectors = PROJECTORS) -> list[str]:
    """The live names of what projectors own."""
    return [table for projector in projectors for table in projector.tables()]


def copy_of(name: str, suffix: str) -> tuple[sa.Table, list[sa.Index]]:
    """A read model's table under the name ``<name>_<suffix>``, and its secondary indexes, which it does not have yet."""
    live = metadata.tables[name]
    copy = live.to_metadata(sa.MetaData(), name=f"{name}_{suffix}")
    copy.indexes.clear()
    for constraint in copy.constraints:
        if isinstance(constraint, sa.CheckConstraint):
            # On MySQL their names are the schema's.
            constraint.name = f"{constraint.name}_{suffix}"
    # Of a table of its own: an index goes where its columns' table goes.
    columns = live.to_metadata(sa.MetaData(), name=copy.name).c
    return copy, [sa.Index(f"{each.name}_{suffix}", *(columns[key.name] for key in each.columns)) for each in live.indexes]


def make(connection: sa.Connection, suffix: str, projectors: Projectors = PROJECTORS) -> None:
    """Makes empty copies, in place of those that are there, as bare as the database fills them fastest."""
    for name in names(projectors):
        table, _ = copy_of(name, suffix)
        table.drop(connection, checkfirst=True)
        table.create(connection)
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"ALTER TABLE {table.name} DROP CONSTRAINT {table.name}_pkey")


def finish(connection: sa.Connection, suffix: str, name: str) -> None:
    """Gives a filled copy its key, indexes and statistics, as a replay of ours ends with them."""
    table, indexes = copy_of(name, suffix)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD PRIMARY KEY ({', '.join(table.primary_key.columns.keys())})")
    for index in indexes:
        index.create(connection)
    statement = {"postgresql": "ANALYZE {}", "sqlite": ""}.get(connection.dialect.name, "ANALYZE TABLE {}")
    if statement:
        connection.exec_driver_sql(statement.format(table.name))


def drop(connection: sa.Connection, suffix: str, projectors: Projectors = PROJECTORS) -> None:
    """Drops copies that are there."""
    for name in names(projectors):
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {name}_{suffix}"))


def row_count(connection: sa.Connection, suffix: str, projectors: Projectors = PROJECTORS) -> int:
    """How many rows the copies hold."""
    counts = [sa.select(sa.func.count()).select_from(sa.table(f"{name}_{suffix}")) for name in names(projectors)]
    return sum(connection.execute(each).scalar_one() for each in counts)


def differing(connection: sa.Connection, left: str, right: str, projectors: Projectors = PROJECTORS) -> dict[str, int]:
    """Tables whose copies differ, and by how many rows; empty: they are equal row for row, column for column."""
    found = {name: _differing(connection, name, left, right) for name in names(projectors)}
    return {name: rows for name, rows in found.items() if rows}


def _differing(connection: sa.Connection, name: str, left: str, right: str) -> int:
    columns = _list(connection, metadata.tables[name].columns.keys())
    # Both have a primary key: as many rows on both sides, and none of the left missing on the right, is equality.
    query = (
        f"SELECT (SELECT count(*) FROM {name}_{left}) - (SELECT count(*) FROM {name}_{right}), (SELECT count(*) FROM "
        f"(SELECT {columns} FROM {name}_{left} EXCEPT SELECT {columns} FROM {name}_{right}) AS missing)"
    )
    more, missing = connection.execute(sa.text(query)).one()
    return int(max(abs(more), missing))


def _list(connection: sa.Connection, columns: Iterable[str]) -> str:
    quote = connection.dialect.identifier_preparer.quote
    return ", ".join(quote(each) for each in columns)
