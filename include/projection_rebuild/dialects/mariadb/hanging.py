"""MariaDB: the fingerprint of what hangs on tables beside their definitions.

It covers triggers, foreign keys, statistics, and the names that a rebuild needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from projection_rebuild.dialects.mysql.hanging import NAMES, TRIGGERS, Query, digest, doubles, of_each
from projection_rebuild.model.names import TableSet

# For MySQL's query MariaDB would open each table of the server. InnoDB's own list needs the privilege that identities
# need, too.
_KEYS = """SELECT ID, FOR_NAME, REF_NAME FROM information_schema.INNODB_SYS_FOREIGN
 WHERE FOR_NAME IN ({marks}) OR REF_NAME IN ({marks})"""

# Statistics of the server itself, beside those of the storage engine.
_STATISTICS = """SELECT table_name, COUNT(*) FROM mysql.column_stats WHERE db_name = COALESCE(%s, DATABASE()) AND table_name IN ({marks})
 GROUP BY table_name"""


def hanging(query: Query, if_allowed: Query, tables: Sequence[TableSet], spelled: Callable[[str], str]) -> str:
    """The fingerprint that :meth:`Dialect.hanging` returns.

    :param if_allowed: as ``query``; returns no rows if the account lacks the privilege
    :param spelled: converts a name to the spelling of InnoDB's catalog
    """
    schema = tables[0].schema
    names = [name for table in tables for name in (table.blue, table.green)]
    database = spelled(schema or query("SELECT DATABASE()").scalar_one())
    catalog_names = [f"{database}/{spelled(table.blue)}" for table in tables]
    keys = _KEYS.format(marks=", ".join(["%s"] * len(catalog_names)))
    statistics = _STATISTICS.format(marks=", ".join(["%s"] * len(names)))
    return digest(
        of_each(query, TRIGGERS, schema, names),
        if_allowed(keys, *catalog_names, *catalog_names),
        if_allowed(statistics, schema, *names),
        of_each(query, NAMES, schema, doubles(tables)),
    )
