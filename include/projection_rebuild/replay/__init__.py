"""Turns events into rows: replays into green (whole, in shards, or a part), and projection inside the application."""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:
    from projection_rebuild.moved import names_of

    # Until version 0.3, for code that was written when this was still a module.
    __getattr__ = names_of("replay", "replay.projector_replay")
