"""Tables that an author declares instead of writing handlers: which events add, change and remove their rows."""

from projection_rebuild.authoring.declared.expressions import case, coalesce, concat, current, event, lower, prefix, truncate
from projection_rebuild.authoring.declared.tables import Entity, Groups, first, last, maximum, minimum

__all__ = [
    "Entity",
    "Groups",
    "case",
    "coalesce",
    "concat",
    "current",
    "event",
    "first",
    "last",
    "lower",
    "maximum",
    "minimum",
    "prefix",
    "truncate",
]
