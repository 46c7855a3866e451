"""Updates the diagram of a run's states in all pages that have one: ``python -m tools.state_diagram``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from projection_rebuild.ledger.states import diagram

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"(?<=^```mermaid\n)stateDiagram-v2\n.*?(?=\n```$)", re.DOTALL | re.MULTILINE)


def pages() -> Iterator[tuple[Path, str, str]]:
    """Yields each page that has the diagram: its path, its current text, and its text with today's diagram."""
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if _BLOCK.search(text):
            yield path, text, _BLOCK.sub(diagram().replace("\\", r"\\"), text)


def main() -> None:
    """Writes the pages."""
    for path, _, updated in pages():
        path.write_text(updated, encoding="utf-8")


if __name__ == "__main__":
    main()
