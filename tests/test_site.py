"""The site of docs/, as ``make docs`` builds it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mkdocs.exceptions import PluginError

from tools import mermaid_script

ROOT = Path(__file__).parents[1]


def built(into: Path, settings: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(settings),
        "--site-dir",
        str(into),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, cwd=ROOT, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, with every page in its navigation and no link that leads nowhere."""
    into = tmp_path_factory.mktemp("site")
    done = built(into)
    assert done.returncode == 0, f"give each page a place in mkdocs.yml, and mend its links:\n{done.stdout}{done.stderr}"
    return into


def test_the_search_finds_an_error_by_its_code(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    (found,) = [entry for entry in index["docs"] if entry["location"] == "on-call/errors/#pr-db-05"]
    assert "OutOfRoom" in found["text"]


def test_a_diagram_stays_a_diagram(site: Path) -> None:
    assert '<pre class="mermaid">' in (site / "concepts" / "runs" / "index.html").read_text(encoding="utf-8")


def test_the_site_brings_the_script_of_its_diagrams_along(site: Path) -> None:
    """The theme takes it from a public server, unless the page has loaded it."""
    with_diagram = [page for page in site.rglob("*.html") if '<pre class="mermaid">' in page.read_text(encoding="utf-8")]
    assert len(with_diagram) >= 6
    for page in with_diagram:
        (src,) = re.findall(r'<script src="([^"]*mermaid[^"]*)">', page.read_text(encoding="utf-8"))
        assert 'globalThis["mermaid"]' in (page.parent / src).read_text(encoding="utf-8")
    assert "mermaid" not in (site / "index.html").read_text(encoding="utf-8")


def test_a_script_that_is_not_the_one_of_the_hash_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "mermaid.tgz"
    other.write_bytes(b"something else")
    with pytest.raises(PluginError, match="the registry has another Mermaid"):
        mermaid_script.extract(other, tmp_path / "mermaid.js")
    assert not (tmp_path / "mermaid.js").exists()


def test_no_page_needs_anything_from_elsewhere_to_be_read(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "fonts.googleapis.com" not in text and 'src="http' not in text


@pytest.mark.parametrize("wrong", ["[away](nowhere.md)", "[away](other.md#nowhere)"])
def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# A page\n\n{wrong}\n")
    (tmp_path / "docs" / "other.md").write_text("# Another one\n")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(text.replace("- tools/", f"- {ROOT}/tools/"))
    done = built(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert done.returncode != 0 and "nowhere" in done.stdout + done.stderr
