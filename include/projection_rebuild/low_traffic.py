"""Placeholder until the gate's author commits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Traffic:
    head: int
    active_sessions: int | None
    at: datetime
