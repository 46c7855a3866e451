"""MariaDB's own checks before a rebuild."""

from __future__ import annotations

from projection_rebuild.dialects.mysql.preflight import Preflight

OLDEST = (10, 6)
"""The first version whose RENAME of several tables is atomic, whenever it is killed."""


class MariaDBPreflight(Preflight):
    """See :class:`Preflight`."""

    flush_privileges = ("RELOAD",)
    unseen = "; older snapshots are not waited for"

    def _show_grants(self) -> str:
        # It includes the privileges of the active role.
        return "SHOW GRANTS"
