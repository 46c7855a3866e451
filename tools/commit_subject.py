"""Checks the subject of a commit message; git calls it as the hook ``commit-msg``."""

from __future__ import annotations

import sys
from pathlib import Path

LONGEST = 72
"""Characters of a subject that `git log --oneline` shows in a terminal of 80 columns, beside the abbreviated hash."""


def problems(message: str) -> list[str]:
    """The problems of a commit message.

    :param message: the text, with or without the comments that git removes
    """
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    while lines and not lines[0].strip():
        lines.pop(0)
    if not lines:
        return ["it has no subject"]
    subject, *rest = lines
    violations: list[str] = []
    if len(subject) > LONGEST:
        violations.append(f"its subject has {len(subject)} characters; at most {LONGEST}. Move the reasons into the body")
    if subject.endswith("."):
        violations.append("its subject ends in a full stop; leave it out")
    if rest and rest[0].strip():
        violations.append("its second line is not empty; put an empty line between subject and body")
    return violations


def main() -> int:
    """Checks the message in the file that git names; returns 1 if it has a problem."""
    violations = problems(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for problem in violations:
        print(f"commit message: {problem}", file=sys.stderr)
    return 1 if violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
