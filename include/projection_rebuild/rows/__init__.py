"""Typed rows as handlers see them, and their conversion to what columns store; works without a database."""

from projection_rebuild.rows.buffer import MissLog, RowBuffer
from projection_rebuild.rows.recording import RecordingRows, Unknown
from projection_rebuild.rows.types import UNCHANGING, Changes, Key, Rows, RowSource, RowType, Values, row, row_type

ProbeRows = RecordingRows
"""Its name in version 0.1."""

__all__ = [
    "UNCHANGING",
    "Changes",
    "Key",
    "MissLog",
    "ProbeRows",
    "RecordingRows",
    "RowBuffer",
    "RowSource",
    "RowType",
    "Rows",
    "Unknown",
    "Values",
    "row",
    "row_type",
]
