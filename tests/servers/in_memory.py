"""Where the tests keep their files: in memory where there is room, because servers make and sync thousands of small files."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in memory that every Linux has
NEEDED = 3 << 30
"""Bytes for the servers of all processes that share the work, with what their tests write."""


def keep_files_in_memory() -> None:
    """Makes memory the place of this process's temporary files, and of its children's; not if somebody has named a place.

    A file there outlives a killed server, as one on a disk does, and goes with this process: ``TMPDIR=/tmp`` keeps what a failed
    test has left. Containers often have little room there, or allow no programs.
    """
    if "TMPDIR" in os.environ or not _has_room():
        return
    folder = tempfile.mkdtemp(prefix="rebuild-tests-", dir=MEMORY)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Servers run as other accounts.
    Path(folder).chmod(0o755)
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None


def _has_room() -> bool:
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(MEMORY)
    return found.f_bavail * found.f_frsize >= NEEDED and not found.f_flag & os.ST_NOEXEC
