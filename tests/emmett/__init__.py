"""Emmett's own library, fetched once, and Node's programs to run it."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from tests.servers.base import ServerMissing

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".tools" / "emmett"


def library(program: Path) -> Path:
    """Fetches what the lock says.

    :param program: it needs the library, so it gets a copy beside it
    :returns: the copy
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = ("package.json", "package-lock.json", ".npmrc")
        if any(not (CACHE / name).exists() or (CACHE / name).read_bytes() != (HERE / name).read_bytes() for name in names):
            for name in names:
                shutil.copy(HERE / name, CACHE / name)
            done = subprocess.run([node("npm"), "ci", "--silent"], cwd=CACHE, capture_output=True, text=True, check=False)
            if done.returncode:
                (CACHE / "package.json").unlink()
                raise ServerMissing(f"npm cannot fetch Emmett; it needs a npm registry: {(done.stderr or done.stdout)[-1000:]}")
        return Path(shutil.copy(program, CACHE / program.name))


def node(name: str = "node") -> str:
    """``node`` or ``npm``; from the wheel, so that it is one version everywhere."""
    found = Path(sys.executable).parent / name
    if not found.exists():
        raise ServerMissing(f"no {name}: run `make setup`")
    return str(found)
