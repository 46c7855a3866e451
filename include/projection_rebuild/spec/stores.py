"""The databases of events and read models: ``event_store`` and ``read_models``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, model_validator

from projection_rebuild.spec.fields import Duration, Flag, Section
from projection_rebuild.spec.presets import Preset, completed


class EventColumns(Section):
    """The names of the event store's columns; the defaults are those of Spatie's ``stored_events``.

    ``version``, ``type_version``, ``metadata`` and ``recorded_at`` may be null if a store lacks the column.

    :param position: the event's place in the total order
    :param stream: the aggregate
    :param type: the event's type, which decides its handlers
    :param payload: the event's data
    :param recorded_at: when the application appended the event
    :param version: the event's number within its stream
    :param type_version: the version of the event's type, for upcasters
    :param metadata: further data about the event
    """

    position: str = "id"
    stream: str = "aggregate_uuid"
    type: str = "event_class"
    payload: str = "event_properties"
    recorded_at: str | None = "created_at"
    version: str | None = "aggregate_version"
    type_version: str | None = None
    metadata: str | None = "meta_data"


class StreamFormat(StrEnum):
    """The format of the bytes in a binary stream column."""

    UUID = "uuid"
    HEX = "hex"
    TEXT = "text"


class TimeUnit(StrEnum):
    """The unit of a time column that counts from 1970 in UTC."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"


class EventStoreSection(Section):
    """The event store to read.

    :param conn_id: the Airflow connection
    :param preset: a known event store; supplies defaults for the keys below
    :param table: the table of events
    :param schema: its schema; null: the connection's own
    :param columns: the names of its columns
    :param stream_format: the format of the bytes in a binary stream column: a UUID, hexadecimal digits, or UTF-8 text
    :param decoder: ``package.module:function`` that decodes a stored payload (bytes or text) to a mapping; null:
        payloads are JSON
    :param decimals: whether numbers with a fraction in JSON become exact Decimals instead of floats
    :param recorded_at_unit: the unit of a ``recorded_at`` that counts from 1970; null: the column holds times
    :param only: read only events with these values of columns, such as a tenant; null means NULL
    :param wait_for_holes: how long to wait for holes to fill. For stores that assign positions before the INSERT
    :param mapper: for pyeventsourcing, ``package.module:name`` of its application, or of an object with its mapper
    """

    conn_id: str
    preset: Preset | None = None
    table: str = "stored_events"
    db_schema: str | None = Field(default=None, alias="schema")
    columns: EventColumns = EventColumns()
    only: dict[str, str | int | bool | None] = {}
    wait_for_holes: Duration | None = None
    mapper: str | None = None
    stream_format: StreamFormat | None = None
    decoder: str | None = None
    decimals: Flag = False
    recorded_at_unit: TimeUnit | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_its_preset(cls, given: Any) -> Any:
        return completed(given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _fits_its_preset(self) -> Self:
        python = self.preset is Preset.PYEVENTSOURCING
        if python and "table" not in self.model_fields_set:
            raise ValueError(
                "name event_store.table: the application's name in lower case and _events, such as bankaccounts_events"
            )
        if self.mapper is not None and not python:
            raise ValueError("event_store.mapper belongs to the preset pyeventsourcing")
        if self.decoder is not None and (python or self.decimals):
            raise ValueError(
                "event_store.decoder decodes payloads by itself; leave out the preset pyeventsourcing, and `decimals`, which is about JSON"
            )
        return self


class ReadModelsSection(Section):
    """The database with the tables to rebuild; the ledger is beside them.

    :param conn_id: the Airflow connection
    :param schema: the schema; null: the connection's own
    """

    conn_id: str
    db_schema: str | None = Field(default=None, alias="schema")
