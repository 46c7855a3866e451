"""Presets: the defaults of the section ``event_store`` for known event stores. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Preset(StrEnum):
    """The known event stores."""

    SPATIE = "spatie"
    PYEVENTSOURCING = "pyeventsourcing"
    MESSAGE_DB = "message_db"
    MARTEN = "marten"
    EMMETT = "emmett"


_SECTIONS: dict[Preset, dict[str, Any]] = {
    # spatie/laravel-event-sourcing: the defaults of EventColumns are its names; its table has this column besides.
    Preset.SPATIE: {"columns": {"type_version": "event_version"}},
    # The table has the name of the application, so only the spec can name it.
    Preset.PYEVENTSOURCING: {
        "columns": {
            "position": "notification_id",
            "stream": "originator_id",
            "type": "topic",
            "payload": "state",
            "recorded_at": None,
            "version": "originator_version",
            "metadata": None,
        }
    },
    Preset.MESSAGE_DB: {
        "schema": "message_store",
        "table": "messages",
        "columns": {
            "position": "global_position",
            "stream": "stream_name",
            "type": "type",
            "payload": "data",
            "recorded_at": "time",
            "version": "position",
            "metadata": "metadata",
        },
    },
    # Marten reserves positions from its sequence before it inserts the events, so holes may still fill.
    Preset.MARTEN: {
        "table": "mt_events",
        "columns": {
            "position": "seq_id",
            "stream": "stream_id",
            "type": "type",
            "payload": "data",
            "recorded_at": "timestamp",
            "version": "version",
            "metadata": None,
        },
        "only": {"is_archived": False},
        "wait_for_holes": "3s",
    },
    Preset.EMMETT: {
        "table": "emt_messages",
        "columns": {
            "position": "global_position",
            "stream": "stream_id",
            "type": "message_type",
            "payload": "message_data",
            "recorded_at": "created",
            "version": "stream_position",
            "type_version": "message_schema_version",
            "metadata": "message_metadata",
        },
        "only": {"message_kind": "E", "is_archived": False},
    },
}


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a spec, completed by the defaults of its preset; the keys of the spec take precedence."""
    try:
        preset = _SECTIONS[Preset(given["preset"])]
    except (KeyError, ValueError):
        return dict(given)
    merged = preset | dict(given)
    for part in ("columns", "only"):
        if isinstance(given.get(part, {}), Mapping) and part in preset:
            merged[part] = preset[part] | dict(given.get(part, {}))
    return merged
