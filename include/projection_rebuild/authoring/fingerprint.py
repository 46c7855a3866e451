"""Which code turns events into rows: a hash over the source of a projector, for the record of a run. Imports projectors only."""

from __future__ import annotations

import hashlib
import inspect
import sys

from projection_rebuild.authoring.projector import Projector

LENGTH = 12
"""Hexadecimal digits of a hash: enough to tell versions of one projector apart."""


def source_hash(projector: type[Projector]) -> str:
    """A hash of the modules in which a projector, its bases and its row classes are written.

    Helpers in other modules are not seen; ``Projector.version`` is for what this cannot tell.

    :returns: hexadecimal digits, ``unknown`` where there is no source (a REPL)
    """
    ours = Projector.__module__.rpartition(".")[0]
    names = {each.__module__ for each in (*projector.__mro__, *projector.owns)}
    found = hashlib.sha256()
    for name in sorted(name for name in names if name != "builtins" and name.rpartition(".")[0] != ours):
        try:
            found.update(inspect.getsource(sys.modules[name]).encode())
        except (OSError, TypeError, KeyError):
            return "unknown"
    return found.hexdigest()[:LENGTH]
