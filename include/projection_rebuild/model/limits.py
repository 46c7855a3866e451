"""The limits of specs, run parameters and texts of operators. File, form, REST, engine and page all check them here."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Set
from datetime import timedelta
from pathlib import Path

from projection_rebuild.errors import SpecError
from projection_rebuild.model.positions import HIGHEST

SPEC_FILE = 128 * 1024
"""The most bytes of a spec file."""

DDL_FILE = 1024 * 1024
"""The most bytes of the file that ``structure.ddl`` names."""

DEEPEST = 32
"""The most levels of nested lists and mappings."""

MOST_VALUES = 12_000
"""The most values and keys of one spec or of one run's parameters; each use of a YAML alias counts."""

MOST_TEXT = 4 * 1024 * 1024
"""The most characters of all texts of one spec, or of one run's parameters, together."""

LONGEST = timedelta(days=36_500)
"""The longest duration; the shortest is zero."""

LONGEST_HOLD = timedelta(hours=1)
"""The longest time for which a spec may let others wait for the tables; the shortest is one millisecond."""

FIRST_YEAR, LAST_YEAR = 1900, 9998
"""The first and last year of dates, so that they stay within the range of databases and Python in every time zone."""

MOST_SHARDS = 64
MOST_AGGREGATES = 5_000
"""The most aggregates that a run can name; for more, select a time or rebuild all rows."""

MOST_SAMPLED = 100_000
"""The most aggregates of a projector that verification refolds; it keeps all of them in memory at once."""

NAME = 250
"""The most characters of a name (of a table, a column, a class, a connection), and of each text that :data:`TEXTS` does
not list. One line."""

PATH = 1_000
"""The most characters of the path of a spec file. One line."""

RUN_ID = 510
"""The most characters of a run id: InnoDB can index this many beside a projector's name. One line."""

REASON = 500
AGGREGATE = 510
SQL = 20_000

TEXTS: Mapping[str, int] = {
    "aggregates": AGGREGATE,
    "reason": REASON,
    "assertions": SQL,
    "drain_check": SQL,
    "jobs_left": SQL,
    "replica_lag": SQL,
    "views": SQL,
    "command": SQL,
    "environment": SQL,
    "arguments": SQL,
}
"""The most characters of longer texts, by their key; they may have several lines."""

MOST_PROBLEMS = 10
"""The most errors in one message."""

SHOWN = 40
"""The most characters of a value that a message quotes."""

_NEVER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_LINES = re.compile("[\t\n\r\x85\u2028\u2029]")

Where = tuple[object, ...]


def shown(value: object, most: int = SHOWN) -> str:
    """The beginning of a text for messages; escapes unprintable characters.

    :param most: the most characters of the text
    """
    text = value if isinstance(value, str) else _text_of(value)
    part = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text[:most])
    return part if len(text) <= most else f"{part}..."


def _text_of(value: object) -> str:
    """The text of a number or an error; for any other value, whose text may be endless or fail, its class."""
    if isinstance(value, (bool, float, BaseException)) or value is None or (isinstance(value, int) and abs(value) <= HIGHEST):
        return str(value)
    return f"({type(value).__name__})"


def of_text(text: str, *, most: int = NAME, lines: bool = False) -> str | None:
    """Describes why a text cannot be used; None: it can.

    :param most: the most characters of the text
    :param lines: whether the text may have more than one line
    """
    if len(text) > most:
        return f"a text of {len(text):,} characters; at most {most:,} can be used"
    # Databases, logs and drivers refuse these characters, each in its own way, or cut the text there.
    if match := _NEVER.search(text) or (None if lines else _LINES.search(text)):
        return (
            f"the character {ascii(match[0])[1:-1]} at place {match.start() + 1} of '{shown(text)}' cannot be used; take it out"
        )
    return None


def check(given: object, where: str) -> None:
    """Checks all values of unchecked data against the limits; these also bound the work of the check.

    :param given: mappings, lists, texts and numbers, as in YAML and JSON; values of other types are not checked
    :param where: the name of the data in the message
    :raises SpecError: a value exceeds a limit; the message names the first such value and its place
    """
    values = characters = 0
    for place, value in _walk(given):
        values += 1
        characters += len(value) if isinstance(value, str) else 0
        problem = _problem(place, value)
        if values > MOST_VALUES:
            problem = f"there are more than {MOST_VALUES:,} values"
        elif characters > MOST_TEXT:
            problem = f"its texts have more than {MOST_TEXT:,} characters together"
        if problem:
            raise SpecError(f"{where} cannot be used. {at(place)}: {problem}")


def at(place: Where) -> str:
    """The place of a value for messages, such as ``swap.attempts``."""
    parts = [shown(key) for key in place]
    return ".".join([*parts[:6], *(["..."] if len(parts) > 6 else [])]) or "all"


def _walk(given: object) -> Iterator[tuple[Where, object]]:
    """Yields all values and keys with their places.

    The caller stops one level beyond the allowed depth.
    """
    waiting: list[tuple[Where, object]] = [((), given)]
    while waiting:
        place, value = waiting.pop()
        yield place, value
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield place, _Key(key)
                waiting.append(((*place, key), item))
        elif isinstance(value, (list, tuple, Set)):
            # No more items than the check will read, however long the list is.
            waiting.extend(((*place, number), item) for number, item in zip(range(MOST_VALUES + 1), value, strict=False))


class _Key:
    """A key among the checked values; a message about it names the place of its mapping."""

    def __init__(self, name: object) -> None:
        self.name = name


def _problem(place: Where, value: object) -> str | None:
    match value:
        case _Key(name=str(name)):
            wrong = of_text(name)
            return f"the key '{shown(name)}' is {wrong}" if wrong and len(name) > NAME else wrong
        case _Key(name=name):
            return f"the key {shown(name)} is no text; put it in quotes"
        case bytes() | bytearray() | memoryview():
            return "bytes are no text"
        case str():
            most = next((TEXTS[key] for key in place if isinstance(key, str) and key in TEXTS), None)
            return of_text(value, most=NAME if most is None else most, lines=most is not None)
        case bool():
            return None
        case int() if abs(value) > HIGHEST:
            return f"this number is beyond {HIGHEST}"
        case float() if not math.isfinite(value):
            return f"{value} is no number that can be used"
        case _ if len(place) > DEEPEST:
            return f"there are more than {DEEPEST} lists or mappings within each other"
    return None


def word(text: str, where: str, *, most: int = REASON, lines: bool = True) -> str:
    """Checks a text that an operator gives to a run, such as a reason, and returns it unchanged.

    :param where: the name of the text in the message
    :param most: the most characters of the text
    :param lines: whether the text may have more than one line
    :raises SpecError: the text cannot be used
    """
    if problem := of_text(text, most=most, lines=lines) if isinstance(text, str) else "it is no text":
        raise SpecError(f"{where} cannot be used: {problem}")
    return text


def read(path: Path, most: int) -> str:
    """Reads a text file in the folder of specs.

    :param most: the most bytes of the file
    :raises SpecError: the file is no regular file, is too long, cannot be read, or is no UTF-8
    """
    named = shown(path.name, NAME)
    try:
        # Reading a pipe could block for ever, and a device may have no end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise SpecError(f"{named} cannot be read: it is no file")
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SpecError(f"{named} cannot be read: it is no file")
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name cannot be used"
        raise SpecError(f"{named} cannot be read: {reason}") from None
    if len(content) > most:
        raise SpecError(f"{named} cannot be read: it has more than {most:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{named} cannot be read: it is no UTF-8 at byte {error.start + 1:,}; save it as UTF-8") from None
