"""Writes docs/reference/spec.md, with every key of a spec, from the models and their docstrings.

``python -m tools.spec_reference``
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from projection_rebuild.spec.fields import WEEKDAYS
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.windows import Window

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "spec.md"

WIDTH = 99

INTRODUCTION = """\
# Spec keys

<!-- Written by `python -m tools.spec_reference` from the models in include/projection_rebuild/spec. Do not edit. -->

One YAML file per rebuild becomes the DAG `rebuild_<name>`. Files lie in `include/rebuilds` of an
Astro project, else in `rebuilds` in the folder of DAGs. `PROJECTION_REBUILD_SPECS` names other folders, \
separated as in PATH. An unknown key is a mistake, and so is a value beyond the [limits](limits.md).

A duration has a unit: `500ms`, `2s`, `15m`, `6h`, `3d`. `include/rebuilds/universal.yaml` is a spec to copy."""

SEE = {
    "event_store": "[event-store presets](event-stores.md)",
    "event_store.only": "[limits](limits.md#yaml) for values that need quotes",
    "event_store.stream_format": "[streams](event-store-requirements.md#streams)",
    "event_store.decoder": "[payloads](event-store-requirements.md#payloads)",
    "event_store.recorded_at_unit": "[times](event-store-requirements.md#times)",
    "event_store.wait_for_holes": "[holes](event-stores.md#holes)",
    "event_store.columns.type_version": "[old events](../how-to/old-events.md)",
    "read_models": "[connections](connections.md)",
    "projectors": "[external programs](../how-to/external-programs.md)",
    "live_writer": "[live-writer contracts](../concepts/live-writers.md)",
    "verify": "[verification](../concepts/verification.md)",
    "verify.sample": "[the sample](../concepts/verification.md#the-sample)",
    "low_traffic": "[schedule and windows](../how-to/schedule-and-windows.md)",
    "swap": "[cutover](../concepts/cutover.md)",
    "swap.approval": "[approve](../how-to/approve.md)",
    "retention": "[housekeeping](../how-to/housekeeping.md)",
    "notify": "[notifications](../how-to/notifications.md)",
    "replay": "[replay](../concepts/replay.md)",
    "replay.max_memory": "[tuning](../performance/tuning.md#where-rows-do-not-fit)",
    "replay.on_error": "[poison events](../how-to/poison-events.md)",
    "replay.shards": "[shards](../how-to/shards.md)",
    "replay.set_based": "[SQL projectors](../how-to/sql-projectors.md)",
    "throttle": "[pause and throttle](../how-to/throttle.md)",
    "stages": "[several nights](../how-to/several-nights.md)",
    "structure": "[new table structure](../how-to/new-structure.md)",
}
"""Links to further pages, by key."""


def page() -> str:
    """The text of the page."""
    parts = [INTRODUCTION, _section(RebuildSpec, "", "Top level", 2)]
    parts.append("## Choices of one run\n\nThe form, REST and `--conf` take these, for one run. " + _summary(RunOptions))
    parts.append(keys_of(RunOptions, ""))
    return "\n\n".join(_wrapped(part) for part in parts) + "\n"


def _section(model: type[BaseModel], path: str, title: str, level: int) -> str:
    """The text of a section: a heading, its purpose, its keys, and the sections within it."""
    parts = [f"{'#' * level} {title}", _summary(model)]
    if path in SEE:
        parts.append(f"See {SEE[path]}.")
    parts.append(keys_of(model, path))
    sections = {
        name: section
        for name, section in ((field.alias or name, section_of(field.annotation)) for name, field in _fields(model))
        if section
    }
    for section in dict.fromkeys(sections.values()):
        names = [name for name, other in sections.items() if other is section]
        key_path = _join(path, names[0] if len(names) == 1 else "*")
        parts.append(_section(section, key_path, f"`{key_path}`", 3 if path else 2))
    return "\n\n".join(parts)


def keys_of(model: type[BaseModel], path: str) -> str:
    """The list of a section's keys."""
    descriptions = _descriptions(model)
    return "\n".join(_key(field.alias or name, field, descriptions, path) for name, field in _fields(model))


def _fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """The fields of a model: its own first, then those that it inherits."""
    own = model.__annotations__
    return sorted(model.model_fields.items(), key=lambda item: item[0] not in own)


def _key(name: str, field: FieldInfo, descriptions: dict[str, str], path: str) -> str:
    """One item of the list.

    :raises KeyError: the model's docstring does not describe the key
    """
    description = descriptions[name]
    description = description[0].upper() + description[1:]
    see = SEE.get(_join(path, name), "") if path else ""
    pointer = f" See {see}." if see else ""
    return f"* **`{name}`**: {_type(_shown(field), field.metadata)}; {_default(field)}. {description.rstrip('.')}.{pointer}"


def _shown(field: FieldInfo) -> Any:
    """The annotation, without a null that the default shows already."""
    types = [option for option in get_args(field.annotation) if option is not NoneType]
    if field.default is not None or get_origin(field.annotation) not in (Union, UnionType):
        return field.annotation
    return types[0] if len(types) == 1 else Union[tuple(types)]  # noqa: UP007


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a key whose value is a section or a list of sections; None: its value is neither."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return None if annotation is Window else annotation
    return next((section for inner in get_args(annotation) if (section := section_of(inner))), None)


def _summary(model: type[BaseModel]) -> str:
    return _plain(inspect.cleandoc(model.__doc__ or "").partition(":param ")[0].strip())


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The descriptions of all keys, from the docstrings of a model and of its base classes."""
    descriptions: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            _, *params = re.split(r"^:param ", inspect.cleandoc(base.__doc__ or ""), flags=re.MULTILINE)
            for name, _, description in (param.partition(":") for param in params):
                descriptions[name] = _plain(" ".join(description.split()))
    return descriptions


def _plain(text: str) -> str:
    """Converts the markup of a docstring to Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


NAMES: dict[Any, str] = {
    timedelta: "a duration",
    int: "a whole number",
    float: "a percentage",
    bool: "`true` or `false`",
    str: "a text",
    Path: "a file",
    time: "a time of the day",
    datetime: "a date or a time",
    Any: "any value",
    Window: "a window",
}


def _type(annotation: Any, metadata: list[Any] | None = None) -> str:
    """The values that a key accepts, in words."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *rest = get_args(annotation)
        return _type(inner, rest)
    if origin in (Union, UnionType):
        return " or ".join("`null`" if option is NoneType else _type(option) for option in get_args(annotation))
    if origin is tuple:
        return f"a list of {_many(get_args(annotation)[0])}"
    if origin is dict:
        key, value = get_args(annotation)
        return f"a mapping from {_many(key)} to {_many(value)}"
    if origin is Literal:
        return "one of " + " ".join(f"`{value}`" for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return "one of " + " ".join(f"`{member.value}`" for member in annotation)
    if annotation not in NAMES:
        return "a section"
    return NAMES[annotation] + _bounds(metadata or [])


def _many(annotation: Any) -> str:
    """The values of :func:`_type`, in the plural."""
    one = _type(annotation)
    if one.startswith("a list of"):
        return one.removeprefix("a ").replace("list", "lists", 1)
    parts = (f"{part.removeprefix('a ')}s" if re.fullmatch(r"a [a-z ]+", part) else part for part in one.split(" or "))
    return " or ".join(parts).replace("one of", "any of")


def _bounds(metadata: list[Any]) -> str:
    least = next((bound.ge for bound in metadata if hasattr(bound, "ge")), None)
    most = next((bound.le for bound in metadata if hasattr(bound, "le")), None)
    if least is not None and most is not None:
        return f" from {least:,} to {most:,}"
    return "" if least in (None, 0) else f", at least {least:,}"


UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        return "may be left out"
    if value == WEEKDAYS:
        return "default: all"
    return f"default `{_value(value)}`" if value != "" else "default: empty"


def _value(value: Any) -> str:
    """A default value, in the notation of YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, timedelta):
        if value % timedelta(seconds=1):
            return f"{value // timedelta(milliseconds=1)}ms"
        seconds = value // timedelta(seconds=1)
        # The largest unit of which the value is a multiple other than 1, as people write it: 72h, 10m, 60s.
        unit, size = next((unit, size) for unit, size in UNITS if not seconds % size and (seconds // size > 1 or size == 1))
        return f"{seconds // size}{unit}"
    if value in ((), {}):
        return "[]" if value == () else "{}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(text: str) -> str:
    return "\n".join(line for part in text.splitlines() for line in _lines(part))


def _lines(line: str) -> Iterator[str]:
    if not line or line.startswith(("#", "<")):
        yield line
        return
    indent = "  " if line.startswith(("* ", "  ")) else ""
    yield from textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
