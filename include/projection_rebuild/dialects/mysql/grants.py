"""Parses SHOW GRANTS, and answers whether the account has a privilege on a schema or table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NAME = r"(?:`((?:[^`]|``)*)`|(\*))"
_GRANT = re.compile(rf"(GRANT|REVOKE) (.+?) ON (?:TABLE )?{_NAME}\.{_NAME} (?:TO|FROM) ", re.IGNORECASE)
ALL = "ALL PRIVILEGES"


@dataclass(frozen=True)
class _Scope:
    """Privileges on a schema (a pattern; None: all) and a table (None: all)."""

    privileges: frozenset[str]
    schema: str | None
    table: str | None

    def covers(self, schema: str, table: str | None) -> bool:
        if self.schema is not None and not _like(self.schema, schema):
            return False
        return self.table is None or (table is not None and self.table.casefold() == table.casefold())

    def has(self, privilege: str) -> bool:
        return privilege in self.privileges or ALL in self.privileges


class Grants:
    """The privileges of an account with its active roles.

    :param lines: the rows of SHOW GRANTS; privileges on single columns do not count
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._granted: list[_Scope] = []
        self._revoked: list[_Scope] = []
        for line in lines:
            if match := _GRANT.match(line):
                words = frozenset(word.strip().upper() for word in re.sub(r"[\w ]+\([^)]*\)", "", match[2]).split(","))
                scope = _Scope(words, _name(match[3]), _name(match[5]))
                (self._granted if match[1].upper() == "GRANT" else self._revoked).append(scope)

    def allow(self, privilege: str, schema: str, table: str | None = None) -> bool:
        """Whether the account has a privilege on a schema, or on a table of it.

        MySQL's partial revokes exclude a schema from a privilege on all schemas.
        """
        revoked = any(scope.has(privilege) and scope.covers(schema, None) for scope in self._revoked)
        return any(
            scope.has(privilege) and scope.covers(schema, table) and not (revoked and scope.schema is None)
            for scope in self._granted
        )

    def allow_everywhere(self, privilege: str) -> bool:
        """Whether the account has a privilege on the whole server."""
        return any(scope.has(privilege) and scope.schema is None for scope in self._granted)


def _name(quoted: str | None) -> str | None:
    return None if quoted is None else quoted.replace("``", "`")


def _like(pattern: str, name: str) -> bool:
    """Whether a name matches a grant's schema, which is a LIKE pattern with backslashes."""
    symbols = re.findall(r"\\.|.", pattern, re.DOTALL)
    parts = (".*" if symbol == "%" else "." if symbol == "_" else re.escape(symbol[-1]) for symbol in symbols)
    return re.fullmatch("".join(parts), name, re.IGNORECASE | re.DOTALL) is not None
