"""Parses the statements in ``sqlite_master``, and replaces names in them without changing the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

_LETTER = r"A-Za-z_\x80-\U0010ffff"
_QUOTED = r"""\"(?:[^"]|"")*"|\[[^\]]*\]|`(?:[^`]|``)*`|'(?:[^']|'')*'"""
_TOKEN = re.compile(rf"(--[^\n]*|/\*.*?(?:\*/|\Z)|\s+)|({_QUOTED}|[{_LETTER}][\w${_LETTER}]*)|.", re.DOTALL)

Rename = Callable[[str], str]
"""Maps a name to the quoted name that replaces it."""


def _names(statement: str) -> Iterator[re.Match[str]]:
    """The keywords and names in a statement, quoted or not, without comments, numbers and punctuation."""
    return (token for token in _TOKEN.finditer(statement) if token[2])


def unquoted(token: str) -> str:
    """A name without its quotes; SQLite has four kinds."""
    if token[0] == "[":
        return token[1:-1]
    return token[1:-1].replace(token[0] * 2, token[0]) if token[0] in "\"`'" else token


def _following(statement: str, keyword: str) -> list[tuple[int, int]]:
    """The spans of the names that directly follow a keyword."""
    return [after.span() for before, after in pairwise(_names(statement)) if before[2].upper() == keyword]


def _replaced(statement: str, spans: list[tuple[int, int]], rename: Rename) -> str:
    for start, end in reversed(spans):
        statement = statement[:start] + rename(unquoted(statement[start:end])) + statement[end:]
    return statement


def table_name(statement: str) -> str | None:
    """The table's name in a CREATE TABLE, as written there; None for any other statement."""
    tokens = [token[2] for _, token in zip(range(3), _names(statement), strict=False)]
    return tokens[2] if [token.upper() for token in tokens[:2]] == ["CREATE", "TABLE"] and len(tokens) == 3 else None


def with_table_name(statement: str, quoted: str) -> str:
    """The CREATE TABLE with another name for its table."""
    return _replaced(statement, _following(statement, "TABLE")[:1], lambda _: quoted)


def with_parents(statement: str, rename: Rename) -> str:
    """The CREATE TABLE with other parents for its foreign keys. REFERENCES is a reserved word, so every unquoted one is a key's."""
    return _replaced(statement, _following(statement, "REFERENCES"), rename)


def body(statement: str) -> str:
    """The CREATE TABLE without its own name and those of parents: what it declares about its rows."""
    return with_table_name(with_parents(statement, lambda _: "?"), "?")


def with_index_names(statement: str, index: str, table: str) -> str:
    """The CREATE INDEX with other names for the index and its table; both are given quoted."""
    on = _following(statement, "ON")[:1]
    return _replaced(_replaced(statement, on, lambda _: table), _following(statement, "INDEX")[:1], lambda _: index)


def counts(statement: str) -> bool:
    """Whether a CREATE TABLE declares AUTOINCREMENT, so that the table has a row in sqlite_sequence."""
    return any(token[2].upper() == "AUTOINCREMENT" for token in _names(statement))


def options(statement: str) -> list[str]:
    """The options that a CREATE TABLE declares for the whole table: AUTOINCREMENT, WITHOUT ROWID, STRICT."""
    closing = max((token.start() for token in _TOKEN.finditer(statement) if token[0] == ")"), default=0)
    behind = " ".join(token[2].upper() for token in _names(statement) if token.start() > closing)
    written = ["AUTOINCREMENT"] if counts(statement) else []
    return written + [option for option in ("WITHOUT ROWID", "STRICT") if option in behind]
