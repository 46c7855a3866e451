"""What may be in a rebuild's way on MariaDB alone."""

from __future__ import annotations

from projection_rebuild.dialects.mysql.preflight import Preflight

OLDEST = (10, 6)
"""The first whose RENAME of several tables is done wholly or not at all, whenever it is killed."""


class MariaDBPreflight(Preflight):
    """See :class:`Preflight`."""

    flush_privileges = ("RELOAD",)
    unseen = "; older snapshots are not waited for"

    def _show_grants(self) -> str:
        # It shows the active role's rights by itself.
        return "SHOW GRANTS"
