"""The HTML report without a browser: what is in it, and that a hostile record can do nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import re
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from benchmarks import records
from pytest_trt.errors import SpecError
from pytest_trt.evidence.finding import CODES
from pytest_trt.report import _numbers as told
from pytest_trt.report import html as links
from pytest_trt.report._charts.drawing import Scale, decades, span
from pytest_trt.report.html import render

SCHEMA = ROOT / "pytest_trt" / "report" / "record.schema.json"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "</style></script></title><svg onload=alert(1)>",
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "half a pair \ud800",
)


class Page(HTMLParser):
    """All elements of a page with their attributes, and all its text but for style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.told: list[str] = []
        self.raw: dict[str, str] = {}
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, _tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in ("style", "script"):
            self.raw[self.inside] = self.raw.get(self.inside, "") + data
        else:
            self.told.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.told))

    def values(self, attribute: str) -> list[str]:
        return [found for _, attributes in self.elements if (found := attributes.get(attribute)) is not None]


def page(*results: dict[str, Any], **changes: Any) -> Page:
    return Page(render(records.document(0, 0, results=list(results), **changes)))


def hostile(name: str) -> dict[str, Any]:
    """A record that has this name wherever it has a text or a name: cases, outputs, tensors, files, packages."""
    results = [records.case(simulated=False, failed=True), records.broken("a", "int8")]
    record: dict[str, Any] = renamed(records.document(0, 0, results=results), name)
    record["environment"]["packages"] = {name: name}
    record["complaints"] = [name]
    for result in record["results"]:
        result["outputs"] = dict(zip([name], result["outputs"].values(), strict=False))
        result["figures"]["outputs"] = dict(zip([name], result["figures"]["outputs"].values(), strict=False))
        result["provenance"][name] = [name, {name: name}]
        result["findings"][0]["evidence"] = {name: [name]}
    return record


def renamed(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: found if key in ("verdict", "severity") else renamed(found, name) for key, found in value.items()}
    if isinstance(value, list):
        return [renamed(found, name) for found in value]
    return name if isinstance(value, str) and value not in ("nan", "inf", "-inf") else value


def test_the_summary_shows_each_models_verdict_error_bound_and_latency_at_each_precision() -> None:
    found = page(
        records.case("digits", "fp16"),
        records.case("digits", "int8", failed=True, simulated=False),
        records.broken("bert", "int8"),
    )

    assert re.search(r"model fp16 int8 digits", found.text)
    assert "1 error 1 failed 1 passed" in found.text
    assert "0.0384" in found.text
    assert "1.23 ms" in found.text
    assert "MissingGolden" in found.text


def test_a_case_has_all_its_charts() -> None:
    result = records.case(simulated=False, failed=True)

    names = re.findall(r"<h5>(.*?)</h5>", render(records.document(0, 0, results=[result])))

    assert names == [
        "Error histogram",
        "Golden against engine",
        "Hops",
        "Layers by achieved precision",
        "Limits",
        "SQNR along the network",
        "Ranges against activations",
        "Against the baseline",
        "Latency history",
        "Latency distribution",
    ]


def test_every_chart_has_a_title_and_a_description_that_are_its_own() -> None:
    found = page(records.case(simulated=False, failed=True), records.case("other"))

    charts = [attributes for tag, attributes in found.elements if tag == "svg" and attributes.get("role") == "img"]
    names = [name for chart in charts for name in (chart["aria-labelledby"] or "").split()]
    assert len(charts) == 9 + 5
    assert set(Counter(names).values()) == {1}
    assert set(names) <= set(found.values("id"))


def test_no_two_elements_have_one_id() -> None:
    found = Counter(page(records.case(failed=True), records.case(), records.broken("a", "int8")).values("id"))

    assert max(found.values()) == 1


def test_the_worst_tensors_are_named() -> None:
    result = records.case(tensors=40)
    result["figures"]["tensors"][17] |= {"tensor": "spoiled", "local_sqnr_db": 1.5}
    result["figures"]["ranges"][3] |= {"tensor": "clipped", "sqnr_db": 0.5, "saturated": 0.47}

    found = page(result)

    assert "the lowest local SQNR is 1.5 dB, of spoiled" in found.text
    assert "47 % of clipped lies beyond its own, the most" in found.text


def test_a_record_without_figures_leaves_the_charts_out_with_a_word() -> None:
    result = records.case()
    del result["figures"]

    found = page(result)

    assert "Error histogram" not in found.text
    assert "the record has no figures: it was written by an earlier release" in found.text


def test_what_was_not_measured_is_left_out_with_a_reason() -> None:
    result = records.case() | {"hops": [], "figures": {"outputs": {}, "tensors": [], "ranges": []}}

    found = page(result)

    assert "hops: measured where a case fails, or with --trt-localise" in found.text
    assert "layers by achieved precision: simulated: there is no engine" in found.text
    assert "latency: not measured" in found.text


def test_simulated_stands_with_each_simulated_result_and_no_other() -> None:
    found = render(records.document(0, 0, results=[records.case("a"), records.case("b", simulated=False)]))

    # in the summary and at the case
    assert found.count('<span class="tag">SIMULATED</span>') == 2
    assert "1 of 2 results are SIMULATED" in Page(found).text
    assert "SIMULATED" not in page(records.case(simulated=False)).text


def test_a_partial_run_says_so() -> None:
    assert "A partial run." in page(records.case(), partial=True, exit_status=None).text
    assert "A partial run." not in page(records.case()).text


def test_why_a_run_is_not_green_beside_its_cases_is_told() -> None:
    found = page(records.case(), complaints=["int8 was asked for, and judged nowhere", "<b>`x`</b>"])

    assert "Not green: int8 was asked for, and judged nowhere" in found.text
    assert "Not green: <b> x </b>" in found.text


def test_an_empty_run_is_a_page_too() -> None:
    assert "No results" in page().text


def test_the_first_cases_that_did_not_pass_are_open_and_passed_ones_are_not() -> None:
    found = page(*[records.case(f"n{n}", failed=n % 2 == 0) for n in range(10)])

    opened = [attributes["id"] for _, attributes in found.elements if "open" in attributes]
    assert opened == ["case-1", "case-3", "case-5"]


def test_numbers_that_are_none_are_told_and_not_drawn() -> None:
    result = records.case(failed=True)
    result["outputs"]["logits"] |= {"error": "nan", "sqnr_db": "-inf", "max_abs": "inf"}
    result["hops"][1]["rel_rms"] = "nan"
    drawn = result["figures"]["outputs"]["logits"]["scatter"]
    drawn["golden"][:3] = ["nan", "inf", "-inf"]
    result["figures"]["ranges"][0] |= {"range": "inf", "amax": 0.0, "sqnr_db": "-inf"}
    result["figures"]["tensors"][0] |= {"local_sqnr_db": "-inf", "cumulative_sqnr_db": "nan"}

    text = render(records.document(0, 0, results=[result]))

    assert "3 are not finite and not drawn" in text
    assert ">nan<" in text
    assert not [d for d in re.findall(r' d="(.*?)"', text) if re.search("nan|inf", d)]


def test_an_interval_without_an_end_goes_on_to_the_edge() -> None:
    result = records.case(simulated=False)
    result["latency"]["comparison"] |= {"ratio": 0.98, "low": 0.97, "high": None, "baseline": None, "threshold": None}

    text = render(records.document(0, 0, results=[result]))

    assert "-2 % against the baseline (history), between -3 % and no end." in Page(text).text
    assert re.search(r'class="run" d="M[\d.]+ 33L360 33', text)


def test_a_ratio_that_can_not_be_told_is_not_drawn() -> None:
    result = records.case(simulated=False)
    result["latency"]["comparison"] |= {"ratio": None, "low": None, "high": None}

    assert "Against the baseline" not in page(result).text


def test_what_disturbed_a_measurement_is_told() -> None:
    result = records.case(simulated=False)
    result["latency"]["telemetry"]["disturbances"] = ["the GPU throttled"]

    assert "the GPU throttled" in page(result).text


def test_many_rows_are_cut_and_counted() -> None:
    found = page(*[records.case(f"n{n}", tensors=100) for n in range(30)])

    assert "The first 50 of 100, lowest local SQNR first; the JSON record has all." in found.text


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_nothing_but_text(name: str) -> None:
    harmless, found = Page(render(hostile("harmless"))), Page(render(hostile(name)))

    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in harmless.elements}
    assert sum(tag == "script" for tag, _ in found.elements) == 1
    assert not [key for _, attributes in found.elements for key in attributes if key.startswith(("on", "style"))]
    assert all(re.match(r"#|docs/findings/TRT\dxx\.md#", target) for target in found.values("href"))
    assert not found.values("src")
    shown = re.sub(r"\s+", " ", name.replace("\ud800", "?"))
    assert shown in found.text


def test_every_drawing_is_well_formed_whatever_names_it_bears() -> None:
    for name in HOSTILE[:-1]:
        text = render(hostile(name))

        drawings = re.findall(r"<svg viewBox.*?</svg>", text, re.DOTALL)
        assert len(drawings) > 9
        for drawing in drawings:
            ET.fromstring(drawing)


def spoiled(value: Any, draw: random.Random) -> Any:
    """The same with one in ten numbers made an extreme one, a word or nothing."""
    if isinstance(value, dict):
        return {key: spoiled(found, draw) for key, found in value.items()}
    if isinstance(value, list):
        return [spoiled(found, draw) for found in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or draw.random() > 0.1:
        return value
    return draw.choice((0, 0.0, -1.0, 1.7e308, -1.7e308, 5e-324, 10**400, "nan", "inf", "-inf", None))


def test_any_numbers_make_drawings_of_finite_places() -> None:
    draw = random.Random(0)
    for _ in range(40):
        result = records.case(simulated=False, failed=True, tensors=4)
        for key in ("outputs", "hops", "located", "figures", "layers", "latency"):
            result[key] = spoiled(result[key], draw)

        text = render(records.document(0, 0, results=[result]))

        for drawing in re.findall(r"<svg viewBox.*?</svg>", text, re.DOTALL):
            places = [found for element in ET.fromstring(drawing).iter() for found in element.attrib.items()]
            assert not [found for found in places if re.search(r"\bnan\b|\binf\b|e\+\d{2}", found[1])]


def test_what_is_no_engine_has_its_own_name() -> None:
    found = page(records.case(simulated=False) | {"backend": "torch-compile"})

    assert "Golden against torch-compile" in found.text


def test_only_addresses_of_the_web_are_links() -> None:
    assert links.address("https://ci.example/run/1") == "https://ci.example/run/1"
    for text in (
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        "//x",
        "http:",
        "https://a b",
        'h"',
        3,
    ):
        assert links.address(text) is None


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else() -> None:
    found = page(records.case())
    policy = next(a["content"] for _, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert policy == (
        f"default-src 'none'; style-src {hashed(found.raw['style'])}; script-src {hashed(found.raw['script'])}; "
        "base-uri 'none'; form-action 'none'"
    )


def test_the_page_asks_for_nothing_from_anywhere() -> None:
    text = render(records.document(0, 0, results=[records.case(simulated=False)]))

    assert not re.findall(r"(?:src|href|action|data)=\"(?!#|docs/)[^\"]*\"|url\(|@import|https?://", text)


def test_every_finding_links_to_a_place_that_is_there() -> None:
    for code in CODES:
        path, anchor = (links.page_of(code) or "").split("#")
        assert re.search(rf"^## {anchor}$", (ROOT / path).read_text().lower(), re.MULTILINE), code
    assert links.page_of("TRT1") is None
    assert links.page_of("TRT105/../../x") is None


def test_the_documentation_may_lie_elsewhere() -> None:
    record = records.document(0, 0, results=[records.case()])

    assert 'href="https://trt.example/TRT2xx/#trt205"' in render(record, "https://trt.example/{family}/#{code}")
    for docs in ("javascript:alert(1)//{code}", "//other.example/{code}", ""):
        with pytest.raises(SpecError, match="give a path or an https:// address"):
            render(record, docs)


@pytest.mark.parametrize("package", ["jinja2", "svg"])
def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(SpecError, match=r'pip install "pytest-trt\[html\]"'):
        render(records.document(1, 1))


def test_a_record_read_from_json_renders_as_the_one_in_memory() -> None:
    record = records.document(3, 4)

    assert render(json.loads(json.dumps(record))) == render(record)


def test_the_synthetic_records_are_records() -> None:
    jsonschema = pytest.importorskip("jsonschema")

    jsonschema.validate(json.loads(json.dumps(records.document(60, 4))), json.loads(SCHEMA.read_text("utf-8")))


def test_two_hundred_cases_of_a_hundred_tensors_stay_small_and_quick() -> None:
    record = records.document(200, 100)
    before = time.process_time()

    size = len(render(record).encode())

    assert size < 15e6
    assert time.process_time() - before < 30  # some 5 s on a quiet machine


def test_a_scale_puts_its_ends_and_its_middle_in_place() -> None:
    assert [Scale(0, 10, 100, 0)(value) for value in (0, 5, 10, 11)] == [100, 50, 0, 0]
    assert [Scale(1e-4, 1, 0, 80, log=True)(value) for value in (1e-4, 1e-2, 1, 0)] == [0, 40, 80, 0]


def test_ticks_are_round_and_inside() -> None:
    assert Scale(0, 1, 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Scale(1e-8, 1, 0, 100, log=True).ticks() == pytest.approx([1e-8, 1e-6, 1e-4, 1e-2, 1])


def test_scales_take_any_finite_numbers() -> None:
    draw = random.Random(0)
    for _ in range(500):
        values = [draw.choice((-1, 1)) * 10 ** draw.uniform(-320, 308) * draw.randint(0, 1) for _ in range(3)]
        low, high = span(values)
        scale = Scale(low, high, 0, 100)
        assert low < high
        assert all(0 <= scale(value) <= 100 for value in [*values, *scale.ticks()])
        assert len(scale.ticks()) < 15
        low, high = decades([abs(value) for value in values])
        assert 0 < low < high < math.inf
        assert len(Scale(low, high, 0, 100, log=True).ticks()) < 15


def test_numbers_are_told_as_people_read_them() -> None:
    assert [told.number(v) for v in (0.03843837, 1.0, 3600, "nan", None, True)] == [
        "0.0384",
        "1",
        "3600",
        "nan",
        "–",
        "True",
    ]
    assert [told.seconds(v) for v in (0.00123, 4.2e-5, 0, None)] == ["1.23\u00a0ms", "42\u00a0µs", "0\u00a0s", "–"]
    assert [told.ratio(v) for v in (1.042, 0.9, 1.0)] == ["+4.2\u00a0%", "-10\u00a0%", "0\u00a0%"]
    assert told.size(73400320) == "70\u00a0MiB"
    assert told.when("2026-11-25T22:10:56.211+00:00") == "2026-11-25 22:10 UTC"


def test_the_pages_python_writes_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.json").write_text(json.dumps(records.document(2, 2)), encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "reports-html.md").read_text(), re.DOTALL)

    exec(code, {})

    assert "https://example.org/trt/findings/TRT2xx/#trt205" in Path("report.html").read_text(encoding="utf-8")
