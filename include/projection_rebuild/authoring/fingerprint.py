"""A hash over the source of a projector, for the record of a run: it tells which code projected the rows."""

from __future__ import annotations

import hashlib
import inspect
import sys

from projection_rebuild.authoring.projector import Projector

LENGTH = 12
"""Hexadecimal digits of a hash: enough to distinguish versions of one projector."""


def source_hash(projector: type[Projector]) -> str:
    """A hash of the modules that define a projector, its base classes and its row classes.

    The hash does not cover helpers in other modules; for them the author changes ``Projector.version``.

    :returns: hexadecimal digits; ``unknown`` if Python has no source for a module (as in a REPL)
    """
    ours = Projector.__module__.rpartition(".")[0]
    names = {member.__module__ for member in (*projector.__mro__, *projector.owns)}
    digest = hashlib.sha256()
    for name in sorted(name for name in names if name != "builtins" and name.rpartition(".")[0] != ours):
        try:
            digest.update(inspect.getsource(sys.modules[name]).encode())
        except (OSError, TypeError, KeyError):
            return "unknown"
    return digest.hexdigest()[:LENGTH]
