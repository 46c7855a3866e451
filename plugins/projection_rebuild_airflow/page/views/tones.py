"""Tones: the severity of a state on the page."""

from __future__ import annotations

from enum import StrEnum


class Tone(StrEnum):
    """The severity of a state. Each value is a class of the style sheet, which defines its colours."""

    OK = "ok"
    BUSY = "busy"
    WAIT = "wait"
    BAD = "bad"
    IDLE = "idle"
