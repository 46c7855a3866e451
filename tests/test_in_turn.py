"""A run whose workers leave cases to the other database says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*given: str) -> str:
    """What pytest says of a file's cases, without running them."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/engine/test_throttle.py", *given]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_summary_counts_the_cases_of_the_other_database() -> None:
    assert "left to the other database" in run("-n", "1", "--setup-plan")


def test_whoever_runs_a_file_by_itself_leaves_nothing_out() -> None:
    said = run("--collect-only")
    assert "left to the other database" not in said and "deselected" not in said
