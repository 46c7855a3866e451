"""What SHOW GRANTS says, as an answer to: may this account do that there."""

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
    """The rights of an account with its active roles.

    :param lines: the rows of SHOW GRANTS; a privilege of some columns only does not count
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._granted: list[_Scope] = []
        self._revoked: list[_Scope] = []
        for line in lines:
            if found := _GRANT.match(line):
                words = frozenset(each.strip().upper() for each in re.sub(r"[\w ]+\([^)]*\)", "", found[2]).split(","))
                scope = _Scope(words, _name(found[3]), _name(found[5]))
                (self._granted if found[1].upper() == "GRANT" else self._revoked).append(scope)

    def allow(self, privilege: str, schema: str, table: str | None = None) -> bool:
        """Whether a privilege is there for a schema, or for a table of it.

        MySQL's partial revokes take a schema out of what is granted on all of them.
        """
        revoked = any(each.has(privilege) and each.covers(schema, None) for each in self._revoked)
        return any(
            each.has(privilege) and each.covers(schema, table) and not (revoked and each.schema is None) for each in self._granted
        )

    def allow_everywhere(self, privilege: str) -> bool:
        """Whether a privilege of the whole server is there."""
        return any(each.has(privilege) and each.schema is None for each in self._granted)


def _name(quoted: str | None) -> str | None:
    return None if quoted is None else quoted.replace("``", "`")


def _like(pattern: str, name: str) -> bool:
    """A schema in a grant is a LIKE pattern with backslashes."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    words = (".*" if each == "%" else "." if each == "_" else re.escape(each[-1]) for each in parts)
    return re.fullmatch("".join(words), name, re.IGNORECASE | re.DOTALL) is not None
