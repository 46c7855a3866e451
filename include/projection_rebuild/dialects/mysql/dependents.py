"""Lists what hangs on a table of MySQL or MariaDB and stays as it is; operators read the list before a rebuild."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from projection_rebuild.dialects.mysql import create_table as text
from projection_rebuild.model.findings import Dependents, named
from projection_rebuild.model.names import TableSet

_OF_TABLE = "TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"

_CHILDREN = """SELECT DISTINCT CONCAT(CONSTRAINT_NAME, ' of ', TABLE_NAME) FROM information_schema.KEY_COLUMN_USAGE
 WHERE REFERENCED_TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND REFERENCED_TABLE_NAME = %s AND TABLE_NAME <> REFERENCED_TABLE_NAME"""

# The server writes the names of tables in a view's query in full and in backticks.
_VIEWS = """SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE())
 AND LOCATE(CONCAT(TABLE_SCHEMA, '`.`', REPLACE(%s, '`', '``'), '`'), VIEW_DEFINITION) > 0"""

_TRIGGERS_ELSEWHERE = """SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = COALESCE(%s, DATABASE())
 AND LOCATE(%s, ACTION_STATEMENT) > 0"""

_GRANTS = f"""SELECT CONCAT(GROUP_CONCAT(PRIVILEGE_TYPE ORDER BY PRIVILEGE_TYPE SEPARATOR ' '), ' to ', GRANTEE)
 FROM information_schema.TABLE_PRIVILEGES WHERE {_OF_TABLE} GROUP BY GRANTEE"""

_COLUMN_GRANTS = f"""SELECT CONCAT(PRIVILEGE_TYPE, ' (', COLUMN_NAME, ') to ', GRANTEE)
 FROM information_schema.COLUMN_PRIVILEGES WHERE {_OF_TABLE} ORDER BY GRANTEE, COLUMN_NAME, PRIVILEGE_TYPE"""

_COMMENTS = f"""SELECT CONCAT('on ', TABLE_NAME) FROM information_schema.TABLES WHERE {_OF_TABLE} AND TABLE_COMMENT <> ''"""

_COLUMN_COMMENTS = f"""SELECT CONCAT('on ', COLUMN_NAME) FROM information_schema.COLUMNS WHERE {_OF_TABLE} AND COLUMN_COMMENT <> ''
 ORDER BY ORDINAL_POSITION"""

_TABLES = "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE())"

_TRIGGERS = "SELECT TRIGGER_NAME, 'TRIGGER' FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = COALESCE(%s, DATABASE())"

_ALL_GRANTS = """SELECT GRANTEE, TABLE_NAME, PRIVILEGE_TYPE, IS_GRANTABLE, '' FROM information_schema.TABLE_PRIVILEGES
 WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) UNION ALL
SELECT GRANTEE, TABLE_NAME, PRIVILEGE_TYPE, IS_GRANTABLE, COLUMN_NAME FROM information_schema.COLUMN_PRIVILEGES
 WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) ORDER BY 1, 2, 3, 5"""

_SHOWN = {"VIEW": "VIEW", "SEQUENCE": "SEQUENCE", "TRIGGER": "TRIGGER"}

# Each new row changes the counter, so it does not belong to the definition.
_COUNTER = re.compile(r" AUTO_INCREMENT=\d+(?= DEFAULT)")

_KEY = re.compile(r"(PRIMARY KEY|UNIQUE KEY `((?:[^`]|``)*)`)")


def dependents_of(query: Callable[..., Any], table: TableSet, definition: text.Definition) -> Iterator[Dependents]:
    """The objects of a table, and the objects elsewhere that name it.

    :param query: executes a statement with values
    """

    def names(statement: str) -> list[str]:
        return [str(name) for (name,) in query(statement, table.schema, table.blue)]

    keys = (_KEY.match(clause) for clause in definition.clauses)
    yield from named(
        table.blue,
        {
            "columns": definition.columns(),
            "options": [f"AUTO_INCREMENT at {definition.counter}"] if definition.counter else [],
            "keys": [key[1].replace("UNIQUE KEY ", "").strip("`") for key in keys if key],
            "indexes": [f"{index.name}{f' ({index.kind.lower()})' if index.kind else ''}" for index in definition.indexes()],
            "checks": [check.name for check in definition.checks()],
            "foreign keys": [f"{key.name} to {key.parent}" for key in definition.foreign_keys()],
            "foreign keys of others": names(_CHILDREN),
            "partitions": re.findall(r"PARTITION `?(\w+)`? VALUES", definition.options),
            "views": names(_VIEWS),
            "triggers elsewhere that may use it": names(_TRIGGERS_ELSEWHERE),
            "privileges": [*names(_GRANTS), *names(_COLUMN_GRANTS)],
            "comments": [*names(_COMMENTS), *names(_COLUMN_COMMENTS)],
        },
    )


def definitions(query: Callable[..., Any], qualified: Callable[[str], str], schema: str | None) -> dict[str, str]:
    """The output of SHOW CREATE for tables, views, sequences and triggers, and the privileges on them.

    It leaves the ledger out.

    :param query: executes a statement with values
    :param qualified: quotes a name, with its schema
    """
    shown = {}
    for name, kind in [*query(_TABLES, schema), *query(_TRIGGERS, schema)]:
        if name.startswith("projection_rebuild"):
            continue
        what = _SHOWN.get(kind, "TABLE")
        row = query(f"SHOW CREATE {what} {qualified(name)}").one()
        # The row of a trigger has its settings, and the time of its creation at the end.
        definition = "\n".join(map(str, row[1:6])) if what == "TRIGGER" else _COUNTER.sub("", str(row[1]))
        shown[f"{what.lower()} {name}"] = definition
    for grantee, table, privilege, grantable, column in query(_ALL_GRANTS, schema, schema):
        shown[f"privilege {privilege} {column} on {table} to {grantee}"] = str(grantable)
    return shown
