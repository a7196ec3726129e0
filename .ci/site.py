"""The site's one hook: files of the repository that a page links to, such as results, are put beside the pages."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_LINK = re.compile(r"\]\((?P<up>(?:\.\./)+)(?P<path>[^)#]+)\)")
ROOT = Path(__file__).parent.parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each file outside docs/ that a page links to, under its path in the repository."""
    linked = {path for file in files.documentation_pages() for path in _outside(file)}
    for path in sorted(linked - set(files.src_uris)):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


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
