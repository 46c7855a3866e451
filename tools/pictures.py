"""Takes the docs' pictures of Airflow's UI anew: ``make pictures``. The tests of the browser take them on their way."""

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
"""The environment variable that names the folder into which these tests put pictures."""


def keep(taken: Path, images: Path) -> list[str]:
    """Replaces each picture that the docs have by the one that was taken.

    :param taken: the folder of new pictures; those that the docs do not have are left out
    :returns: the names of the docs' pictures that nobody has taken
    """
    missing = []
    for picture in sorted(images.glob("*.png")):
        if (taken / picture.name).exists():
            shutil.copy(taken / picture.name, picture)
        else:
            missing.append(picture.name)
    return missing


def main() -> int:
    """Runs the tests; without their success, all pictures stay."""
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
