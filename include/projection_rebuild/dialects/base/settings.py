"""What a session of ours is like: one declared list of settings per database, made on each connection, and shown in docs/reference/sessions.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A setting that every connection of the engine makes.

    :param name: as the server's own list of variables has it
    :param value: as the server's own list shows it once it is made
    :param why: what another value would change; for the docs
    :param since: the first version of the server that has it; empty: all that are supported
    :param restricted: whether an account needs a right of its own to change it; then it is changed where that can be done, and the plan
        refuses a server on which it still has another value
    """

    name: str
    value: str
    why: str
    since: tuple[int, ...] = ()
    restricted: bool = False
