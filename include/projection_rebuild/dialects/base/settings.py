"""Session settings. Each database declares one list, and sets it on each connection.

The page docs/reference/sessions.md shows the lists.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A setting that the engine sets on each of its connections.

    :param name: its name in the server's list of variables
    :param value: its value, as the server's list shows it afterwards
    :param why: what another value would change; for the docs
    :param since: the first version of the server that has it; empty: all supported versions
    :param restricted: whether an account needs a special privilege to change it; then the engine changes it if it can,
        and the plan refuses a server on which it still has another value
    """

    name: str
    value: str
    why: str
    since: tuple[int, ...] = ()
    restricted: bool = False
