"""What a spec, a run's parameters and a person's words may be at most. Every face of a rebuild asks here: file, form, REST, engine, page."""

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
"""Bytes of a spec file."""

DDL_FILE = 1024 * 1024
"""Bytes of the file that ``structure.ddl`` names."""

DEEPEST = 32
"""How many lists and mappings may stand within each other."""

MOST_VALUES = 12_000
"""Values and keys of one spec or of one run's parameters; what a YAML alias repeats counts each time."""

MOST_TEXT = 4 * 1024 * 1024
"""Characters of all texts of one spec, or of one run's parameters, together."""

LONGEST = timedelta(days=36_500)
"""Durations are between zero and this."""

LONGEST_HOLD = timedelta(hours=1)
"""For as long at most others may have to wait for the tables; at least a millisecond."""

FIRST_YEAR, LAST_YEAR = 1900, 9998
"""Dates are in these years, so that no time zone takes them beyond what a database or Python can hold."""

MOST_SHARDS = 64
MOST_AGGREGATES = 5_000
"""Aggregates that can be named one by one; for more, a time or a whole rebuild is the better choice."""

MOST_SAMPLED = 100_000
"""Aggregates of a projector that verification refolds; they are in memory all at once."""

NAME = 250
"""Characters of a name: of a table, a column, a class, a connection, and of every text that is not listed in :data:`TEXTS`. One line."""

PATH = 1_000
"""Characters of the path of a spec file. One line."""

RUN_ID = 510
"""Characters of a run id; what InnoDB can index beside a projector's name. One line."""

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
"""Characters of longer texts, which may have several lines, by the key that they stand under."""

MOST_PROBLEMS = 10
"""Mistakes that one message lists."""

SHOWN = 40
"""Characters of a value that a message quotes."""

_NEVER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_LINES = re.compile("[\t\n\r\x85\u2028\u2029]")

Where = tuple[object, ...]


def shown(value: object, most: int = SHOWN) -> str:
    """A short part of a text that can be printed anywhere; what cannot be printed is escaped."""
    text = value if isinstance(value, str) else _text_of(value)
    part = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[:most])
    return part if len(text) <= most else f"{part}..."


def _text_of(value: object) -> str:
    """Of numbers and errors their text; of what may be endless, or fail when it is asked for one, its kind."""
    if isinstance(value, (bool, float, BaseException)) or value is None or (isinstance(value, int) and abs(value) <= HIGHEST):
        return str(value)
    return f"({type(value).__name__})"


def of_text(text: str, *, most: int = NAME, lines: bool = False) -> str | None:
    """What is wrong with a text; None: nothing.

    :param most: characters that it may have
    :param lines: whether it may have more than one line
    """
    if len(text) > most:
        return f"a text of {len(text):,} characters; at most {most:,} can be used"
    # Databases, logs and drivers refuse them, each in its own way, or cut the text there.
    if found := _NEVER.search(text) or (None if lines else _LINES.search(text)):
        return (
            f"the character {ascii(found[0])[1:-1]} at place {found.start() + 1} of '{shown(text)}' cannot be used; take it out"
        )
    return None


def check(given: object, where: str) -> None:
    """Looks at everything in what was given, before anybody makes something of it. Its work is bounded by these limits.

    :param given: mappings, lists, texts and numbers, as YAML and JSON have them; what else there is, is left to who uses it
    :param where: what it is called in the message
    :raises SpecError: the first thing in it that is beyond a limit, with its place
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
    """The place of a value as a person reads it."""
    parts = [shown(each) for each in place]
    return ".".join([*parts[:6], *(["..."] if len(parts) > 6 else [])]) or "all"


def _walk(given: object) -> Iterator[tuple[Where, object]]:
    """All values with their places, keys included; no deeper than one level beyond what is allowed."""
    waiting: list[tuple[Where, object]] = [((), given)]
    while waiting:
        place, value = waiting.pop()
        yield place, value
        if isinstance(value, Mapping):
            for key, each in value.items():
                yield place, _Key(key)
                waiting.append(((*place, key), each))
        elif isinstance(value, (list, tuple, Set)):
            # One at a time: a long list is not worth a second one of its length.
            waiting.extend(((*place, number), each) for number, each in zip(range(MOST_VALUES + 1), value, strict=False))


class _Key:
    """A key on its way through the checks; what is wrong with one is told of the mapping that has it."""

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
    """What a person says to a run, such as a reason; given back as it is.

    :raises SpecError: it cannot be kept
    """
    if problem := of_text(text, most=most, lines=lines) if isinstance(text, str) else "it is no text":
        raise SpecError(f"{where} cannot be used: {problem}")
    return text


def read(path: Path, most: int) -> str:
    """The text of a file that somebody has put where specs are.

    :param most: bytes that it may have
    :raises SpecError: it is no plain file, too long, cannot be read, or is no UTF-8
    """
    named = shown(path.name, NAME)
    try:
        # A pipe would let its reader wait for ever, and a device may have no end.
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
