"""The site's hook: files that pages link to are put beside them, and what draws their diagrams, where it is at hand.

GitHub draws a block of ``mermaid`` by itself. Here a script must, and no page loads one from elsewhere: the environment
variable MERMAID names ``dist/mermaid.min.js`` of the npm package mermaid, and the site gets a copy. Without it the
site shows the text of a diagram.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mkdocs.structure.files import File
from pymdownx.superfences import fence_code_format

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_LINK = re.compile(r"\]\((?P<up>(?:\.\./)+)(?P<path>[^)#]+)\)")
ROOT = Path(__file__).parent.parent
MERMAID = os.environ.get("MERMAID", "")
SCRIPT = "assets/mermaid.min.js"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Mark diagrams as such where they can be drawn: the theme would else load what draws them from elsewhere."""
    if MERMAID:
        fence = {"name": "mermaid", "class": "mermaid", "format": fence_code_format}
        config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each file outside docs/ that a page links to, under its path in the repository."""
    linked = {path for file in files.documentation_pages() for path in _outside(file)}
    for path in sorted(linked - set(files.src_uris)):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    if MERMAID:
        files.append(File.generated(config, SCRIPT, abs_src_path=str(Path(MERMAID).absolute())))
    return files


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Hand a page with diagrams what draws them."""
    if 'class="mermaid"' not in html:
        return html
    script = os.path.relpath(SCRIPT, PurePosixPath(page.file.src_uri).parent)
    return f'{html}\n<script src="{script}"></script>'


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead those links to the files of the site."""
    folder = PurePosixPath(page.file.src_uri).parent

    def led(link: re.Match[str]) -> str:
        path = _inside_repository(page.file, link)
        return f"]({os.path.relpath(path, folder)})" if path else link[0]

    return _LINK.sub(led, markdown)


def _outside(file: File) -> list[str]:
    found = [_inside_repository(file, link) for link in _LINK.finditer(file.content_string)]
    return [path for path in found if path]


def _inside_repository(file: File, link: re.Match[str]) -> str:
    """The path, from the repository's root, of a linked file outside docs/; empty where the link is another."""
    path = os.path.normpath(PurePosixPath("docs", file.src_uri).parent / link["up"] / link["path"])
    return path if not path.startswith(("docs", "..")) and (ROOT / path).is_file() else ""
