"""The pages are plain English that a tired engineer reads once: short sentences, paragraphs, cells and lines, counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SENTENCE, PARAGRAPH, CELL, LINE = 25, 80, 20, 100
"""The most words of a sentence, of a paragraph and of a table's cell, and the most characters of a line."""

WRITTEN_BY_A_PROGRAM = {"docs/benchmark.md"}
"""Figures, as ``make bench`` writes them."""

PAGES = sorted(str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

FENCE = re.compile(r" *(```|~~~)")
ITEM = re.compile(r" *(?:[*+-]|\d+\.) +")
SENTENCE_END = re.compile(r"[.!?][\"')*_]*(?=\s|$)")


def words(text: str) -> int:
    """A name in backticks is one word, a link is its text."""
    text = re.sub(r"`+[^`]+`+", "name", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<[^>]+>", " ", text)
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def is_list_of_names(cell: str) -> bool:
    """A cell of names alone is looked up, not read."""
    return not any(letter.isalnum() for letter in re.sub(r"`[^`]+`", "", cell))


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines that people read, with their numbers; empty ones where code, headings and pictures were."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            fenced = not fenced
            yield number, ""
        elif fenced or line.startswith(("#", "<", "![", "    ")):
            yield number, ""
        else:
            yield number, line


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs and items of lists, with the number of their first line."""
    begun, parts = 0, list[str]()
    for number, line in [*prose(text), (0, "")]:
        ends = not line.strip() or line.startswith("|") or ITEM.match(line)
        if ends and parts:
            yield begun, " ".join(parts)
            parts = []
        if line.strip() and not line.startswith("|"):
            begun = begun if parts else number
            parts.append(ITEM.sub("", line, count=1).strip(" >"))


def faults(text: str) -> Iterator[str]:
    """What is too long in a page."""
    for number, line in prose(text):
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for cell in cells:
                if words(cell) > CELL and not is_list_of_names(cell):
                    yield f"line {number}: a cell of {words(cell)} words: {cell[:60]}"
        elif len(line) > LINE:
            yield f"line {number}: {len(line)} characters"
    for number, paragraph in paragraphs(text):
        if words(paragraph) > PARAGRAPH:
            yield f"line {number}: a paragraph of {words(paragraph)} words: {paragraph[:60]}"
        # Names first: a dot within backticks ends no sentence.
        for sentence in SENTENCE_END.split(re.sub(r"`+[^`]+`+", "`name`", paragraph)):
            if words(sentence) > SENTENCE:
                yield f"line {number}: a sentence of {words(sentence)} words: {sentence.strip()[:60]}"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in WRITTEN_BY_A_PROGRAM])
def test_a_page_is_read_once(page: str) -> None:
    found = [*faults((ROOT / page).read_text(encoding="utf-8"))]
    assert not found, f"{page}: say it in shorter pieces\n" + "\n".join(found)


def test_the_readme_says_what_it_is_in_three_sentences_and_one_picture() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (_, first), *_ = paragraphs(text)
    assert len(SENTENCE_END.findall(first)) == 3
    assert text.count("![") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("word " * 26 + "\n", "a sentence of 26 words"),
        ("* one two. " + "word " * 26, "a sentence of 26 words"),
        ("1. " + "word " * 26 + "\n2. word\n", "a sentence of 26 words"),
        ("> " + "\n> ".join(["word " * 13] * 2), "a sentence of 26 words"),
        (("word " * 20 + ".\n") * 5, "a paragraph of 100 words"),
        ("| a | b |\n| --- | --- |\n| x | " + "word " * 21 + "|\n", "a cell of 21 words"),
        ("`a.b` " * 26, "a sentence of 26 words"),
        ("w" * 101, "101 characters"),
    ],
)
def test_what_is_too_long_is_counted(text: str, said: str) -> None:
    assert any(said in each for each in faults(text))


@pytest.mark.parametrize(
    "text",
    [
        "word " * 13 + ".\n" + "word " * 13 + ".\n",
        ("* " + "word " * 19 + "\n") * 5,
        "```\n" + "word " * 40 + "\n```\n",
        "| " + "`name` " * 40 + "|\n",
        "# " + "word " * 30,
    ],
)
def test_what_is_short_or_no_prose_is_let_through(text: str) -> None:
    assert not [*faults(text)]
