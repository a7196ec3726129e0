"""Each link in README and docs leads to a file that is there, and each anchor to a heading of its page."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest
from fences import PAGES, ROOT
from markdown_it import MarkdownIt

import pytest_trt

if TYPE_CHECKING:
    from pathlib import Path

LINKED = (*PAGES, "CHANGELOG.md")


@pytest.mark.parametrize("name", LINKED)
def test_links_of_a_page_lead_somewhere(name: str) -> None:
    assert [link for link in links_of((ROOT / name).read_text(encoding="utf-8")) if not leads(link, ROOT / name)] == []


def links_of(text: str) -> list[str]:
    inline = [child for token in MarkdownIt("commonmark").parse(text) for child in token.children or ()]
    return [str(child.attrs["href"]) for child in inline if child.type == "link_open"]


def leads(link: str, page: Path) -> bool:
    if re.match(r"(https?|mailto):", link):
        return True
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors_of(target.read_text(encoding="utf-8")))


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    tokens = MarkdownIt("commonmark").parse(text)
    headings = [inline for opened, inline in itertools.pairwise(tokens) if opened.type == "heading_open"]
    told = ["".join(child.content for child in heading.children or ()) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in told}


def test_pages_that_the_code_names_are_there() -> None:
    sources = [source.read_text(encoding="utf-8") for source in (ROOT / "pytest_trt").rglob("*.py")]
    named = {page for source in sources for page in re.findall(r"docs/[\w./-]+\.md", source)}

    assert len(named) > 2
    assert [page for page in named if not (ROOT / page).is_file()] == []


def test_every_page_is_in_the_sites_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    named = re.findall(r"[\w./-]+\.md", navigation)

    assert sorted(named) == sorted(page.removeprefix("docs/") for page in PAGES if page.startswith("docs/"))


WORDS = (
    "golden",
    "envelope",
    "hop",
    "lowering",
    "sandwich",
    "typed",
    "held",
    "honoured",
    "movement",
    "range",
    "amax",
    "part",
)
LEARNT = ("tutorial", "tolerance", "lowering", "simulation", "localise", "calibration", "reference")


def test_the_glossary_has_every_word_and_pages_lead_to_it() -> None:
    glossary = ROOT / "docs" / "glossary.md"
    pages = {name: links_of((ROOT / name).read_text(encoding="utf-8")) for name in PAGES if name != "docs/glossary.md"}
    led = {name: {link.partition("#")[2] for link in links if "glossary.md#" in link} for name, links in pages.items()}

    assert sorted(WORDS) == sorted(anchors_of(glossary.read_text(encoding="utf-8")) - {"glossary"})
    assert set(WORDS) == set().union(*led.values())
    assert [name for name in ("README.md", *(f"docs/{name}.md" for name in LEARNT)) if not led[name]] == []


def test_the_page_on_python_has_every_public_name() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    public = sorted(f"::: pytest_trt.{name}" for name in pytest_trt.__all__)

    assert sorted(re.findall(r"^::: .*", page, re.MULTILINE)) == public
    assert sorted(pytest_trt._HOMES) == sorted(pytest_trt.__all__)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_takes_nothing_of_ours_but_public_names(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"\bpytest_trt\.(\w+)", text)
    named += re.findall(r"\w+", " ".join(re.findall(r"\bfrom pytest_trt import ([\w, ]+)", text)))

    assert [word for word in named if word not in pytest_trt.__all__] == []


@pytest.mark.parametrize("name", PAGES)
def test_files_of_the_repository_that_a_page_names_are_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.-])(?:pytest_trt|tests|benchmarks|examples|\.ci)/[\w/.-]*\w", text)

    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(("link", "there"), [
    ("there.md", True),
    ("there.md#two-words-3-0", True),
    ("#two-words-3-0", True),
    ("there.md#two", False),
    ("nowhere.md", False),
    ("https://example.org/never-asked", True),
])  # fmt: skip
def test_a_link_is_followed_to_its_file_and_heading(link: str, there: bool, tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# Two `words`, 3-0\n")

    assert leads(link, tmp_path / "there.md") is there
