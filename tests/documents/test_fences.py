"""Each block of code in README and docs does what its page says, and one that is not run gives its reason."""

from __future__ import annotations

import pytest
from fences import PAGES, Misread, blocks_of
from running import Page, Untrue, prints


@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_says(
    name: str, pytester: pytest.Pytester, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    page = opened(pytester)

    for block in blocks_of(name):
        try:
            page.do(block)
        except pytest.skip.Exception as skipped:
            page.left.append(str(skipped))

    for reason in page.left:
        with subtests.test():
            pytest.skip(reason)


def opened(pytester: pytest.Pytester) -> Page:
    page = Page(pytester, pytester.path)
    page.enter("empty")
    return page


def run(text: str, pytester: pytest.Pytester) -> Page:
    page = opened(pytester)
    for block in blocks_of("page.md", text):
        page.do(block)
    return page


@pytest.mark.parametrize(("text", "why"), [
    ("```\nx\n```", "nothing runs a block of 'no language'"),
    ("```rust\nfn main() {}\n```", "nothing runs a block of 'rust'"),
    ("    indented", "nothing runs a block of 'no language'"),
    ("1. In a list\n\n    ```rust\n    fn main() {}\n    ```", "nothing runs a block of 'rust'"),
    ("```text\nsaid by nobody\n```", "nothing runs a block of 'text'"),
    ("```console\nls\n```", "begins with '\\$ '"),
    ("```console\n$ false\n```", "exit code 1, not 0"),
    ("```console\n$ echo yes\nno\n```", "the page says\nno"),
    ("```console\n$ pytest --trt-precision=fp12\n```", "exit code 4, not 0"),
    ("```console\n$ pytest-trt flower\n```", "exit code 2, not 0"),
    ('```sh\npip install "pytest-trt[gpus]"\n```', "no extra gpus"),
    ("<!-- exit: 1 -->\n```sh\ntrue\n```", "exit code 0, not 1"),
    ("```toml\nx = 1\n```", "name its file"),
    ('```toml\n[[model]]\nonnx = ""\n```', "must be a text"),
    ("```yaml\nx: 1\n```", "it has no commands"),
])  # fmt: skip
def test_a_block_that_is_untrue_or_claimed_by_nothing_fails(text: str, why: str, pytester: pytest.Pytester) -> None:
    with pytest.raises(Untrue, match=why):
        run(text, pytester)


@pytest.mark.parametrize(("text", "why"), [
    ("<!-- skipp: typed wrong -->\n```sh\ntrue\n```", "'skipp' is none of"),
    ("<!-- skip: -->\n```sh\ntrue\n```", "'skip' says nothing"),
    ("<!-- leave: git -->\n```sh\ngit\n```", "'git' has no reason"),
    ("<!-- skip: far away -->\n\nWords.\n\n```sh\ntrue\n```", "'skip' is said of no block"),
])  # fmt: skip
def test_a_directive_that_is_not_understood_fails(text: str, why: str) -> None:
    with pytest.raises(Misread, match=why):
        blocks_of("page.md", text)


def test_a_block_is_skipped_with_its_reason_alone(pytester: pytest.Pytester) -> None:
    with pytest.raises(pytest.skip.Exception, match=r"page.md:2: needs a GPU"):
        run("<!-- skip: needs a GPU -->\n```sh\nfalse\n```", pytester)


@pytest.mark.parametrize("line", ["pip install 'no-such-package>=1'", "python -m pip install no-such-package && true"])
@pytest.mark.parametrize("needs", ["", "<!-- needs: pytest -->\n"])
def test_nothing_is_installed(line: str, needs: str, pytester: pytest.Pytester) -> None:
    assert "would install no-such-package" in run(f"{needs}```sh\n{line}\n```", pytester).printed


def test_a_file_is_written_and_a_command_shows_what_it_does(pytester: pytest.Pytester) -> None:
    page = run(
        "<!--\nfile: test_it.py\nthen: pytest -q\n-->\n```python\ndef test_it():\n    pass\n```\n\n"
        "<!-- output -->\n```text\n1 passed in ...s\n```",
        pytester,
    )

    assert "1 passed" in page.printed


def test_commands_of_a_workflow_are_run(pytester: pytest.Pytester) -> None:
    page = run(
        "<!-- leave: git lfs; no repository is here -->\n"
        "```yaml\njobs: {a: {steps: [{run: 'git lfs pull'}, {run: |-\n  echo one\n  echo two}]}}\n```".replace(
            "|-\n  echo one\n  echo two", "'echo two'"
        ),
        pytester,
    )

    assert page.printed == "two\n"
    assert page.left == ["page.md:2: git lfs pull: no repository is here"]


@pytest.mark.parametrize(("claimed", "printed", "alike"), [
    ("error 1.02e-3", "error 1.03e-3", True),
    ("error 1.02e-3", "error 2.03e-3", False),
    ("a\n...\nz", "a\nb\nc\nz", True),
    ("a\n...\nz", "a\nz", True),
    ("a ... z", "a\nz", False),
    ("a\nz", "a\nb\nz", False),
    ("b", "a\nb\nc", True),
    ("b", "abc", False),
])  # fmt: skip
def test_what_is_claimed_is_found_in_what_is_printed(claimed: str, printed: str, alike: bool) -> None:
    assert prints(claimed, printed) is alike
