"""What hangs on tables of MariaDB and is in no definition of theirs: triggers, foreign keys, statistics, taken names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from projection_rebuild.dialects.mysql.hanging import NAMES, TRIGGERS, Query, digest, doubles, of_each
from projection_rebuild.model.names import TableSet

# MariaDB opens each table of the server for the question that is asked on MySQL. InnoDB's own list is there for those who may see identities, too.
_KEYS = """SELECT ID, FOR_NAME, REF_NAME FROM information_schema.INNODB_SYS_FOREIGN
 WHERE FOR_NAME IN ({marks}) OR REF_NAME IN ({marks})"""

# Which of them has statistics of the server's own, beside those of the storage engine.
_STATISTICS = """SELECT table_name, COUNT(*) FROM mysql.column_stats WHERE db_name = COALESCE(%s, DATABASE()) AND table_name IN ({marks})
 GROUP BY table_name"""


def hanging(query: Query, if_allowed: Query, tables: Sequence[TableSet], spelled: Callable[[str], str]) -> str:
    """The fingerprint that :meth:`Dialect.hanging` gives.

    :param if_allowed: as ``query``, and nothing where we may not look
    :param spelled: a name as InnoDB's catalog spells it
    """
    schema = tables[0].schema
    names = [name for each in tables for name in (each.blue, each.green)]
    database = spelled(schema or query("SELECT DATABASE()").scalar_one())
    known = [f"{database}/{spelled(each.blue)}" for each in tables]
    keys = _KEYS.format(marks=", ".join(["%s"] * len(known)))
    statistics = _STATISTICS.format(marks=", ".join(["%s"] * len(names)))
    return digest(
        of_each(query, TRIGGERS, schema, names),
        if_allowed(keys, *known, *known),
        if_allowed(statistics, schema, *names),
        of_each(query, NAMES, schema, doubles(tables)),
    )
