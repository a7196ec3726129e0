"""The HTML report in a real browser: Chromium, by Playwright, without a network."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from places import ROOT

from benchmarks import records
from benchmarks.report import FLAGS, opened
from pytest_trt.report.html import render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = Path(os.environ.get("AXE_CORE", ROOT / "node_modules" / "axe-core" / "axe.min.js"))
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)")


@cache
def missing() -> str:
    if importlib.util.find_spec("playwright") is None:
        return "needs Playwright: pip install -e '.[browser]'"
    return "" if CHROMIUM else "needs a Chromium: apt-get install chromium"


pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


class Shown:
    """Opens reports, and keeps what the browser said of them and what it asked the network for."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self.browser, self.folder, self.complaints = browser, folder, list[str]()

    def __call__(self, record: dict[str, Any], **context: Any) -> Page:
        path = self.folder / "report.html"
        path.write_text(render(record), encoding="utf-8")
        page = self.browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}).new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: self._asked(request.url))
        page.goto(path.as_uri())
        return page

    def _asked(self, url: str) -> None:
        if not url.startswith("file:"):
            self.complaints.append(url)


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Shown]:
    shown = Shown(browser, tmp_path)
    yield shown
    for context in browser.contexts:
        context.close()
    assert shown.complaints == []


def run() -> dict[str, Any]:
    results = [
        records.case("digits", "fp16"),
        records.case("digits", "int8", simulated=False, failed=True),
        records.case("resnet", "fp16", simulated=False),
        records.broken("bert", "int8"),
    ]
    return records.document(0, 0, results=results, partial=True, exit_status=None, complaints=["judged nowhere"])


def visible(page: Page, selector: str) -> list[str]:
    return [each.inner_text() for each in page.locator(selector).all() if each.is_visible()]


def colour(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def open_all(page: Page) -> None:
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")


def violations(page: Page) -> list[str]:
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert len(found["passes"]) > 30  # rules that had something to look at
    return [f"{each['id']}: {node['html'][:200]}" for each in found["violations"] for node in each["nodes"]]


def test_nothing_is_asked_of_the_network_and_the_console_stays_silent(show: Shown) -> None:
    page = show(run())

    assert page.title() == "pytest-trt: 1 error, 1 failed, 2 passed"
    assert "A partial run." in page.inner_text("main")


def test_names_that_are_scripts_do_nothing(show: Shown) -> None:
    results = [records.case(name, name, failed=True) for name in HOSTILE]
    for result in results:
        result["figures"]["tensors"][0]["tensor"] = result["case"]

    page = show(records.document(0, 0, results=results))
    open_all(page)

    assert visible(page, ".matrix tbody th[scope=row]") == list(HOSTILE)
    assert page.locator("img").count() == 0


def test_the_filter_shows_what_was_asked_for(show: Shown) -> None:
    page = show(run())

    page.get_by_label("passed 2").uncheck()
    assert [text.split()[1] for text in visible(page, ".case h3")] == ["digits", "bert"]
    assert visible(page, ".matrix tbody th") == ["digits", "bert"]
    assert page.inner_text("#shown") == "2 of 4 cases"
    page.get_by_label("Find").fill("TRT501")
    assert [text.split()[1] for text in visible(page, ".case h3")] == ["bert"]


def test_a_cell_of_the_summary_opens_its_case(show: Shown) -> None:
    page = show(run())
    assert not page.locator("#case-3 .body").is_visible()

    page.locator('a[href="#case-3"]').click()

    page.locator("#case-3 .body").wait_for()
    assert page.evaluate("document.activeElement.closest('details').id") == "case-3"


def test_all_cases_open_and_close(show: Shown) -> None:
    page = show(run())

    page.get_by_role("button", name="Open all").click()
    assert len(visible(page, ".case .body")) == 4
    page.get_by_role("button", name="Close all").click()
    assert not visible(page, ".case .body")


def test_tab_reaches_everything_in_the_pages_order(show: Shown) -> None:
    page = show(run())
    open_all(page)
    wanted = page.evaluate("""
        [...document.querySelectorAll('a[href], button, input, summary, [tabindex="0"]')]
          .filter((each) => each.checkVisibility() && !(each.type === 'radio' && !each.checked))
          .map((each, number) => each.dataset.number = String(number))
    """)

    reached = []
    for _ in wanted:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.dataset.number"))

    assert len(wanted) > 60
    assert reached == wanted


def test_what_has_the_focus_is_seen_to_have_it(show: Shown) -> None:
    page = show(run())

    for _ in range(12):
        page.keyboard.press("Tab")
        outline = page.evaluate("""
            (() => {
              const one = document.activeElement;
              const seen = one.type === 'radio' ? one.nextElementSibling : one;
              return getComputedStyle(seen).outlineStyle;
            })()
        """)
        assert outline != "none"


def test_the_keyboard_opens_a_case(show: Shown) -> None:
    page = show(run())

    page.locator("#case-1 > summary").focus()
    page.keyboard.press("Enter")

    assert page.locator("#case-1 .body").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_are_the_systems_until_others_are_chosen_which_are_kept(show: Shown, scheme: str) -> None:
    page = show(run(), color_scheme=scheme)
    light, dark = "rgb(244, 246, 247)", "rgb(19, 23, 26)"
    assert colour(page) == (light if scheme == "light" else dark)

    page.locator("#theme-auto").focus()
    page.keyboard.press("ArrowRight")
    assert colour(page) == light
    page.keyboard.press("ArrowRight")
    assert colour(page) == dark
    page.reload()
    assert colour(page) == dark


@pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: npm install --no-save axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_no_violation(show: Shown, scheme: str, width: int) -> None:
    page = show(run(), color_scheme=scheme, viewport={"width": width, "height": 900})
    assert violations(page) == []

    open_all(page)
    assert violations(page) == []


def test_a_phone_needs_no_scrolling_to_the_side(show: Shown) -> None:
    long = "backbone_stage_" * 12
    results = [*run()["results"], records.case(long, "int8", failed=True)]
    results[-1]["findings"][0]["message"] = f"tensor '{long}' is clipped"

    page = show(records.document(0, 0, results=results), viewport={"width": 360, "height": 740})
    open_all(page)

    assert page.evaluate("document.documentElement.scrollWidth") == 360
    beyond = page.evaluate("""
        [...document.querySelectorAll('main *')]
          .filter((each) => !each.closest('.scroll, svg, .unseen') && each.getBoundingClientRect().right > 360)
          .map((each) => each.outerHTML.slice(0, 99))
    """)
    assert beyond == []


@pytest.mark.parametrize("width", [720, 900, 1280])
def test_seven_precisions_fit_a_window(show: Shown, width: int) -> None:
    results = [records.case("efficientnet_lite0", p) for p in ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "model")]

    page = show(records.document(0, 0, results=results), viewport={"width": width, "height": 900})

    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_texts_of_charts_are_large_enough_on_a_phone(show: Shown) -> None:
    page = show(run(), viewport={"width": 360, "height": 740})
    open_all(page)

    sizes = page.evaluate("""
        [...document.querySelectorAll('.chart text')].map((each) =>
          parseFloat(getComputedStyle(each).fontSize) * each.getScreenCTM().a)
    """)
    assert min(sizes) > 7.5


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="needs pdftotext: apt-get install poppler-utils")
def test_everything_is_printed_and_the_tools_are_not(show: Shown, tmp_path: Path) -> None:
    page = show(run(), color_scheme="dark")

    page.pdf(path=tmp_path / "report.pdf", format="A4")

    done = subprocess.run(["pdftotext", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True)
    assert "golden_made_by" in done.stdout  # inside details of details that were closed
    assert "Open all" not in done.stdout
    assert colour(page) == "rgb(19, 23, 26)"


def test_without_javascript_it_is_read_all_the_same(show: Shown) -> None:
    page = show(run(), java_script_enabled=False)

    assert not page.locator("#filter").is_visible()
    page.locator("#case-1 > summary").click()
    assert page.locator("#case-1 .body").is_visible()


def test_two_hundred_cases_of_a_hundred_tensors_open_in_two_seconds(show: Shown) -> None:
    page = show(records.document(200, 100))
    assert page.inner_text("#shown") == "200 cases"

    # the browser's own processor time: a shared machine adds what it likes to the clock's
    assert opened(page.context, Path(page.url.removeprefix("file://"))).processor_s < 2
