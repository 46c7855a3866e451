"""The docs' pictures of Airflow's UI, as ``make pictures`` takes them."""

from __future__ import annotations

import re
from pathlib import Path

from tools.pictures import IMAGES, ROOT, TESTS, keep


def test_the_tests_of_the_browser_take_every_picture_of_the_docs() -> None:
    taken = set(re.findall(r'\.shoot\("([\w-]+)"\)', (ROOT / TESTS).read_text(encoding="utf-8")))
    assert {picture.stem for picture in IMAGES.glob("*.png")} - taken == set()


def test_every_picture_is_on_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    assert [picture.name for picture in IMAGES.iterdir() if f"images/{picture.name})" not in pages] == []


def test_a_picture_replaces_the_one_of_its_name_and_no_other_is_added(tmp_path: Path) -> None:
    taken, images = tmp_path / "taken", tmp_path / "images"
    for folder in (taken, images):
        folder.mkdir()
    for path in (images / "form.png", images / "gone.png", images / "drawn.svg"):
        path.write_text("old")
    for path in (taken / "form.png", taken / "extra.png"):
        path.write_text("new")
    assert keep(taken, images) == ["gone.png"]
    assert {path.name: path.read_text() for path in images.iterdir()} == {
        "form.png": "new",
        "gone.png": "old",
        "drawn.svg": "old",
    }
