"""Reads a spec file's YAML as plain values, with bounded work and without the surprises of YAML 1.1.

Times, dates, octal and sexagesimal numbers stay texts. A key occurs once in its mapping. Each use of an alias counts
toward the limits, so that a few lines cannot expand to billions of values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from projection_rebuild.errors import SpecError
from projection_rebuild.model import limits
from projection_rebuild.model.limits import shown

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORDS = {"yes": True, "on": True, "no": False, "off": False}
_WORDS |= {spelled(each): truth for each, truth in _WORDS.items() for spelled in (str.title, str.upper)}
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,40})")
_DECIMAL = re.compile(
    r"[-+]?(?:[0-9][0-9_]{0,40}\.[0-9_]{0,40}(?:[eE][-+][0-9]{1,5})?|\.[0-9][0-9_]{0,40}(?:[eE][-+][0-9]{1,5})?)"
)
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MERGE = "<<"

_EXACT = "only"
"""The key below which a value may have any type; so the parser refuses ambiguous values below it."""

_resolver = yaml.SafeLoader("")


def read_spec(path: Path) -> dict[str, Any]:
    """The mapping in a spec file.

    :raises SpecError: the file cannot be read, is no YAML, or exceeds :mod:`projection_rebuild.model.limits`; the
        message names file and line
    """
    # The path goes into DAGs, into Airflow's database and onto pages.
    if problem := limits.of_text(str(path), most=limits.PATH):
        raise SpecError(f"{shown(path.name, limits.NAME)} cannot be used, for its name: {problem}")
    return parse(limits.read(path, limits.SPEC_FILE), shown(path.name, limits.NAME))


def parse(text: str, name: str) -> dict[str, Any]:
    """The mapping in a text of YAML.

    :param name: the name of the file, for messages
    :raises SpecError: see :func:`read_spec`
    """
    try:
        content = _Document(text).value()
    except _Refused as error:
        raise SpecError(f"{name}, line {error.line}: {error.problem}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise SpecError(f"{name}{line}: this is no YAML: {shown(error.problem or 'it cannot be read', 200)}") from None
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        raise SpecError(
            f"{name}, line {number}: the character {ord(text[error.position]):#06x} cannot be used; take it out"
        ) from None
    # PyYAML tries to convert some invalid escapes and numbers.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise SpecError(f"{name} cannot be read as YAML: {type(error).__name__}") from None
    if not isinstance(content, dict):
        raise SpecError(f"{name} is not a mapping; start it with `rebuild: <name>`")
    return content


class _Refused(Exception):
    """The text uses a feature of YAML that a spec may not use."""

    def __init__(self, event: Any, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = event.start_mark.line + 1 if event.start_mark else 1


@dataclass
class _Anchor:
    """A value that aliases may repeat; ``size``, its number of values, is None until the value is complete."""

    value: Any = None
    size: int | None = None


class _Document:
    """The single document of a text. Reads no more of it than the limits allow."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._anchors: dict[str, _Anchor] = {}
        self._values = 0
        self._keys: list[str] = []

    def value(self) -> Any:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), depth=0)
        next(self._events)
        following = next(self._events)
        if not isinstance(following, yaml.StreamEndEvent):
            raise _Refused(following, "a second document begins here; a spec file has one")
        return value

    def _count(self, event: Any, values: int, depth: int = 0) -> None:
        self._values += values
        if self._values > limits.MOST_VALUES:
            raise _Refused(event, f"there are more than {limits.MOST_VALUES:,} values up to here, with what aliases repeat")
        if depth > limits.DEEPEST:
            raise _Refused(event, f"there are more than {limits.DEEPEST} lists or mappings within each other")

    def _value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._repeated(event)
        self._count(event, 1, depth)
        before, anchor = self._values, _Anchor()
        if event.tag is not None:
            raise _Refused(
                event, f"tags such as {shown(event.tag)} have no place in a spec; take it out, or use quotes for a text"
            )
        if event.anchor is not None:
            self._anchors[event.anchor] = anchor
        match event:
            case yaml.ScalarEvent():
                anchor.value = self._scalar(event)
            case yaml.SequenceStartEvent():
                anchor.value = self._list(depth)
            case _:
                anchor.value = self._mapping(depth)
        anchor.size = self._values - before + 1
        return anchor.value

    def _repeated(self, event: Any) -> Any:
        anchor = self._anchors.get(event.anchor)
        if anchor is None:
            raise _Refused(event, f"there is no anchor {shown(event.anchor)} before this alias")
        if anchor.size is None:
            raise _Refused(event, f"the alias {shown(event.anchor)} stands within what it repeats")
        self._count(event, anchor.size)
        return anchor.value

    def _list(self, depth: int) -> list[Any]:
        values = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, depth + 1))
        return values

    def _mapping(self, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, depth)
            if key in lines:
                raise _Refused(event, f"the key {shown(key)} stands in line {lines[key]} already; leave one of the two")
            lines[key] = event.start_mark.line + 1
            self._keys.append(key)
            value = self._value(next(self._events), depth + 1)
            self._keys.pop()
            if key == _MERGE and event.style is None:
                merged = _merged(event, value)
            else:
                mapping[key] = value
        return merged | mapping

    def _key(self, event: Any, depth: int) -> str:
        if not isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent)):
            raise _Refused(event, "a key is a text, not a list or a mapping")
        key = self._value(event, depth + 1)
        if not isinstance(key, str):
            written = event.value if isinstance(event, yaml.ScalarEvent) else event.anchor
            raise _Refused(event, f"the key '{shown(written)}' is no text to YAML; put it in quotes")
        return key

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if event.style is not None or not event.implicit[0]:
            return text
        value = _plain(event, text)
        if _EXACT in self._keys and _is_ambiguous(text, value):
            raise _Refused(
                event, f"{shown(text)} is not the text that it looks like to YAML; put it in quotes, or write it otherwise"
            )
        return value


def _merged(event: Any, value: Any) -> dict[str, Any]:
    """The keys that ``<<`` merges into a mapping; the first of several mappings with the same key takes precedence."""
    mappings = value if isinstance(value, list) else [value]
    if not all(isinstance(mapping, dict) for mapping in mappings):
        raise _Refused(event, "<< takes a mapping, or a list of them")
    merged: dict[str, Any] = {}
    for mapping in mappings:
        merged = mapping | merged
    return merged


def _plain(event: Any, text: str) -> Any:
    """The value of a text without quotes."""
    if text in _NULL:
        return None
    if text in _TRUTH or text in _WORDS:
        return _TRUTH.get(text, _WORDS.get(text))
    if _WHOLE.fullmatch(text):
        return int(text.replace("_", ""))
    if _DECIMAL.fullmatch(text):
        return float(text.replace("_", ""))
    if _NO_NUMBER.fullmatch(text):
        raise _Refused(event, f"{text} is no number that can be used")
    return text


def _is_ambiguous(text: str, value: Any) -> bool:
    """Whether a text without quotes is a bool such as ``yes``, or a text that YAML 1.1 reads as a number or a date."""
    tag: str = _resolver.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return text in _WORDS or (isinstance(value, str) and not tag.endswith(":str"))
