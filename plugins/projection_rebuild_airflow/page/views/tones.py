"""How something on the page is to be taken."""

from __future__ import annotations

from enum import StrEnum


class Tone(StrEnum):
    """How something is to be taken. Each value is a class of the style sheet, which has the colours."""

    OK = "ok"
    BUSY = "busy"
    WAIT = "wait"
    BAD = "bad"
    IDLE = "idle"
