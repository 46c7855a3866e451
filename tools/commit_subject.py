"""Checks the subject of a commit message; git calls it as the hook ``commit-msg``."""

from __future__ import annotations

import sys
from pathlib import Path

LONGEST = 72
"""What `git log --oneline` shows in a terminal of 80 columns, beside the abbreviated hash."""


def problems(message: str) -> list[str]:
    """What is wrong with a commit message.

    :param message: as git stores it, or with the comments that git removes
    """
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    while lines and not lines[0].strip():
        lines.pop(0)
    if not lines:
        return ["it has no subject"]
    subject, *rest = lines
    found: list[str] = []
    if len(subject) > LONGEST:
        found.append(f"its subject has {len(subject)} characters; at most {LONGEST}. Move the reasons into the body")
    if subject.endswith("."):
        found.append("its subject ends in a full stop; leave it out")
    if rest and rest[0].strip():
        found.append("its second line is not empty; put an empty line between subject and body")
    return found


def main() -> int:
    """Checks the file that git names; 1 if the message has to be changed."""
    found = problems(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for problem in found:
        print(f"commit message: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
