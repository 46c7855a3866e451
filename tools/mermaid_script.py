"""A hook of MkDocs (``mkdocs.yml``) that ships the script for diagrams with the site, so that pages need no other host.

Without it, the theme loads Mermaid from a public server at every page view.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

VERSION = "11.12.0"
"""The theme colours the arrows of this version; in its dark scheme, those of 11.17 are black on black."""

INTEGRITY = "sha512-ZudVx73BwrMJfCFmSSJT84y6u5brEoV8DOItdHomNLz32uBjNrelm7mg95X7g+C6UoQH/W6mBLGDEDv73JdxBg=="
"""The npm registry's hash of the package's archive."""

CACHE = Path(__file__).parents[1] / ".tools" / "mermaid"
IN_ARCHIVE = "package/dist/mermaid.min.js"
IN_SITE = "assets/javascripts/mermaid.min.js"
DIAGRAM = '<pre class="mermaid">'


def script() -> Path:
    """The path of the script, which npm fetches once.

    :raises PluginError: npm cannot fetch it, or has fetched another archive
    """
    path = CACHE / f"mermaid-{VERSION}.min.js"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            # Renamed when it is complete, because another process may build the site at the same time.
            extract(_fetch(Path(folder)), Path(folder) / path.name).replace(path)
    return path


def _fetch(folder: Path) -> Path:
    npm = [str(Path(sys.executable).parent / "npm"), "pack", "--silent", f"mermaid@{VERSION}"]
    done = subprocess.run(npm, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode:
        raise PluginError(f"npm cannot fetch Mermaid; it needs a npm registry: {(done.stderr or done.stdout)[-1000:]}")
    return folder / f"mermaid-{VERSION}.tgz"


def extract(archive: Path, path: Path) -> Path:
    """Extracts the script from the fetched archive.

    :param path: the file to write
    :raises PluginError: the archive's hash is not :data:`INTEGRITY`, or it has no script
    """
    fetched = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if fetched != INTEGRITY:
        raise PluginError(f"the registry has another Mermaid {VERSION} than this one: {fetched}, not {INTEGRITY}")
    with tarfile.open(archive) as packed:
        content = packed.extractfile(IN_ARCHIVE)
        if content is None:
            raise PluginError(f"Mermaid {VERSION} has no {IN_ARCHIVE}")
        path.write_bytes(content.read())
    return path


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Adds the script to a page that has a diagram. The theme then loads no other."""
    if DIAGRAM not in output:
        return output
    tag = f'<script src="{get_relative_url(IN_SITE, page.url)}"></script>'
    return output.replace("</body>", f"{tag}</body>")


def on_post_build(config: MkDocsConfig) -> None:
    """Copies the script into the site."""
    target = Path(config.site_dir) / IN_SITE
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(script(), target)
