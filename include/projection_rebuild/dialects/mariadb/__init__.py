"""MariaDB: what it does otherwise than MySQL."""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:
    from projection_rebuild.moved import names_of

    # Until version 0.3, for code that was written before this was a package.
    __getattr__ = names_of("dialects.mariadb", "dialects.mariadb.dialect")
