"""Keeps the tests' files in memory if it has room, because servers create and sync thousands of small files."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in memory that every Linux has
NEEDED = 3 << 30
"""Bytes that the servers of all test processes need, with the data of their tests."""


def keep_files_in_memory() -> None:
    """Puts the temporary files of this process and of its children into memory, unless ``TMPDIR`` names another place.

    A file in memory outlives a killed server, as one on a disk does, and disappears with this process. ``TMPDIR=/tmp``
    keeps the files of a failed test. In many containers the folder has little room, or allows no programs.
    """
    if "TMPDIR" in os.environ or not _has_room():
        return
    folder = tempfile.mkdtemp(prefix="rebuild-tests-", dir=MEMORY)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Servers run under other accounts.
    Path(folder).chmod(0o755)
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None


def _has_room() -> bool:
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        return False
    status = os.statvfs(MEMORY)
    return status.f_bavail * status.f_frsize >= NEEDED and not status.f_flag & os.ST_NOEXEC
