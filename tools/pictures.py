"""Retakes the docs' pictures of Airflow's UI: ``make pictures``. The browser tests take them while they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
TESTS = "tests/browser/test_operators_day.py"
VARIABLE = "REBUILD_TEST_SCREENSHOTS"
"""The environment variable that names the folder for the tests' pictures."""


def keep(taken: Path, images: Path) -> list[str]:
    """Replaces each picture of the docs by the new one.

    :param taken: the folder of new pictures; those that the docs do not have are ignored
    :param images: the folder of the docs' pictures
    :returns: the names of the docs' pictures that have no new one
    """
    missing = []
    for picture in sorted(images.glob("*.png")):
        if (taken / picture.name).exists():
            shutil.copy(taken / picture.name, picture)
        else:
            missing.append(picture.name)
    return missing


def main() -> int:
    """Runs the tests, and replaces the pictures if they pass; returns 0 if every picture was replaced."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", TESTS]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {VARIABLE: folder}, check=False)  # noqa: S603 - our own words
        if done.returncode:
            return done.returncode
        missing = keep(Path(folder), IMAGES)
    if missing:
        print(f"{TESTS} takes no picture of these: {', '.join(missing)}", file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    raise SystemExit(main())
