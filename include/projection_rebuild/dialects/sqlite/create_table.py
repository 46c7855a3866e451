"""The statements that SQLite keeps in ``sqlite_master``, and how to put other names into them without touching the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

_LETTER = r"A-Za-z_\x80-\U0010ffff"
_QUOTED = r"""\"(?:[^"]|"")*"|\[[^\]]*\]|`(?:[^`]|``)*`|'(?:[^']|'')*'"""
_TOKEN = re.compile(rf"(--[^\n]*|/\*.*?(?:\*/|\Z)|\s+)|({_QUOTED}|[{_LETTER}][\w${_LETTER}]*)|.", re.DOTALL)

Rename = Callable[[str], str]
"""From a name to the quoted name that takes its place."""


def _names(statement: str) -> Iterator[re.Match[str]]:
    """Keywords and names in a statement, quoted or not; no comments, numbers and signs."""
    return (found for found in _TOKEN.finditer(statement) if found[2])


def unquoted(token: str) -> str:
    """A name as it is without the quotes of any of SQLite's four kinds."""
    if token[0] == "[":
        return token[1:-1]
    return token[1:-1].replace(token[0] * 2, token[0]) if token[0] in "\"`'" else token


def _following(statement: str, keyword: str) -> list[tuple[int, int]]:
    """Where the names stand that directly follow a keyword."""
    return [after.span() for before, after in pairwise(_names(statement)) if before[2].upper() == keyword]


def _replaced(statement: str, spans: list[tuple[int, int]], rename: Rename) -> str:
    for start, end in reversed(spans):
        statement = statement[:start] + rename(unquoted(statement[start:end])) + statement[end:]
    return statement


def table_name(statement: str) -> str | None:
    """The name that a CREATE TABLE gives, as it is written there; None for any other statement."""
    tokens = [found[2] for _, found in zip(range(3), _names(statement), strict=False)]
    return tokens[2] if [each.upper() for each in tokens[:2]] == ["CREATE", "TABLE"] and len(tokens) == 3 else None


def with_table_name(statement: str, quoted: str) -> str:
    """A CREATE TABLE for a table of another name."""
    return _replaced(statement, _following(statement, "TABLE")[:1], lambda _: quoted)


def with_parents(statement: str, rename: Rename) -> str:
    """A CREATE TABLE whose foreign keys point to other tables. REFERENCES is reserved: unquoted it means nothing else."""
    return _replaced(statement, _following(statement, "REFERENCES"), rename)


def body(statement: str) -> str:
    """What a CREATE TABLE says about its rows, its own name and those of other tables left out."""
    return with_table_name(with_parents(statement, lambda _: "?"), "?")


def with_index_names(statement: str, index: str, table: str) -> str:
    """A CREATE INDEX under another name, for a table of another name; both quoted."""
    on = _following(statement, "ON")[:1]
    return _replaced(_replaced(statement, on, lambda _: table), _following(statement, "INDEX")[:1], lambda _: index)


def counts(statement: str) -> bool:
    """Whether a CREATE TABLE has an AUTOINCREMENT, and so a row in sqlite_sequence."""
    return any(found[2].upper() == "AUTOINCREMENT" for found in _names(statement))


def options(statement: str) -> list[str]:
    """What a CREATE TABLE says of the table as a whole: AUTOINCREMENT, WITHOUT ROWID, STRICT."""
    closing = max((found.start() for found in _TOKEN.finditer(statement) if found[0] == ")"), default=0)
    behind = " ".join(found[2].upper() for found in _names(statement) if found.start() > closing)
    found = ["AUTOINCREMENT"] if counts(statement) else []
    return found + [each for each in ("WITHOUT ROWID", "STRICT") if each in behind]
