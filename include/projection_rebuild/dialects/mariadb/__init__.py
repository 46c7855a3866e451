"""MariaDB: its differences from MySQL."""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:
    from projection_rebuild.moved import names_of

    # Until version 0.3, for code that imports names from this package as from the former module.
    __getattr__ = names_of("dialects.mariadb", "dialects.mariadb.dialect")
