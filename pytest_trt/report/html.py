"""HTML: the record as one file: no network, no script needed to read it; it shows what was found and judges nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_trt.errors import SpecError
from pytest_trt.evidence.finding import CODES
from pytest_trt.report import _numbers as number_filters
from pytest_trt.report._charts.accuracy import errors, hops, layers, scatter
from pytest_trt.report._charts.drawing import Figure, meter, numbers
from pytest_trt.report._charts.latency import compared, distribution, history
from pytest_trt.report._charts.network import ranges, sqnr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import jinja2
    from markupsafe import Markup

__all__ = ["address", "page_of", "render"]

_PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "model")
_VERDICTS = ("error", "failed", "passed", "timed", "built")


@dataclass(frozen=True)
class Matrix:
    """Models by precisions.

    Attributes:
        precisions: the columns.
        rows: a model's name, and for each column the places of its results; several where backends or files differ.
    """

    precisions: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...]


def matrix_of(results: Sequence[Mapping[str, Any]]) -> Matrix:
    """Models in the order of the run, precisions from the widest to the narrowest."""
    rank = {name: place for place, name in enumerate(_PRECISIONS)}
    asked = sorted({str(result["precision"]) for result in results}, key=lambda name: (rank.get(name, 99), name))
    cells: dict[str, dict[str, list[int]]] = {}
    for place, result in enumerate(results):
        cells.setdefault(str(result["case"]), {}).setdefault(str(result["precision"]), []).append(place)
    rows = tuple((case, tuple(tuple(found.get(name, ())) for name in asked)) for case, found in cells.items())
    return Matrix(tuple(asked), rows)


def tally(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """How many results have which verdict, those first that want to be looked at."""
    found = Counter(str(result["verdict"]) for result in results)
    rank = {name: place for place, name in enumerate(_VERDICTS)}
    return sorted(found.items(), key=lambda each: (rank.get(each[0], 99), each[0]))


DOCS = "docs/findings/{family}.md#{code}"
"""Where findings are documented: relative to the report, as in this repository, until an address is known.

``{family}`` is TRT1xx, ``{code}`` trt105: a site of mkdocs has ``https://.../findings/{family}/#{code}``.
"""

_CODE = re.compile(r"TRT\d{3}")
_SCHEMES = ("http", "https")


def page_of(code: str, docs: str = DOCS) -> str | None:
    """The place that a finding's code is explained at; None for what is no code.

    >>> page_of("TRT105")
    'docs/findings/TRT1xx.md#trt105'
    """
    if not _CODE.fullmatch(code):
        return None
    return docs.replace("{family}", f"{code[:4]}xx").replace("{code}", code.lower())


def checked(docs: str) -> str:
    """The pattern of the documentation's places, looked at.

    Raises:
        SpecError: it leads to no file and no address of the web.
    """
    scheme = docs.partition(":")[0] if ":" in docs else ""
    if scheme.lower() not in ("", *_SCHEMES) or docs.startswith(("//", "\\")) or not docs:
        raise SpecError(
            f"findings can't be documented at {docs!r}: give a path or an https:// address with "
            f"{{family}} and {{code}}, as {DOCS!r}"
        )
    return docs


def address(value: Any) -> str | None:
    """A text that is an address of the web, else None: anything else of a record is shown and not followed."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value):
        return None
    try:
        split = urlsplit(value)
    except ValueError:
        return None
    return value if split.scheme.lower() in _SCHEMES and split.netloc else None


_ROWS = {
    "passed": 1500,
    "built": 1500,
    "timed": 1500,
}  # of each kind of table in the page: browsers take a second for 100 000 cells
_OTHER_ROWS = 6000  # of cases that want to be looked at
_LEAST_ROWS = 8
_OPEN = 3  # cases that did not pass are open from the start, as many


@dataclass(frozen=True)
class Case:
    """One result with its figures.

    Attributes:
        name: its anchor.
        record: the result as it is.
        side: what stood against the golden: "engine", "simulated" or the backend.
        opened: whether its details are shown from the start.
        outputs: figures of each output.
        figures: all others, in the order that they are shown in.
        left_out: what is not shown, and why.
    """

    name: str
    record: Mapping[str, Any]
    side: str
    opened: bool
    outputs: Mapping[str, Sequence[Figure]]
    figures: Mapping[str, Figure]
    left_out: Sequence[tuple[str, str]] = field(default=())


def require() -> None:
    """Say in time that a report can't be written.

    Raises:
        SpecError: jinja2 or svg.py is missing; says what to install.
    """
    try:
        import jinja2  # noqa: F401
        import svg  # noqa: F401
    except ImportError as error:
        raise SpecError(f'an HTML report needs jinja2 and svg.py: pip install "pytest-trt[html]" ({error})') from error


def render(document: Mapping[str, Any], docs: str = DOCS) -> str:
    """The record of a run as a self-contained HTML page.

    Args:
        document: the record, as ``report.record.document`` makes it, or read from its JSON.
        docs: where findings are documented, with ``{family}`` and ``{code}`` in it.

    Raises:
        SpecError: jinja2 or svg.py is missing, or ``docs`` is neither a path nor an address of the web.
    """
    require()
    names = numbers()
    results = document.get("results") or []
    opened = _opened(results)
    cases = [
        _case(place, result, place in opened, _rows(result, len(results)), names)
        for place, result in enumerate(results)
    ]
    page = _environment(checked(docs)).get_template("page.html")
    style, script = _asset("style.css"), _asset("page.js")
    text = page.render(
        record=document,
        environment=document.get("environment") or {},
        cases=cases,
        matrix=matrix_of(results),
        tally=tally(results),
        style=style,
        script=script,
        policy=_policy(style, script),
    )
    # a name may hold half a surrogate pair, which no file can
    return text.encode("utf-8", "replace").decode("utf-8")


def _case(place: int, result: Mapping[str, Any], opened: bool, rows: int, names: Iterator[int]) -> Case:
    side = _side(result)
    outputs = _of_outputs(result, side, rows, names)
    figures = _of_case(result, rows, names)
    left = _left_out(result, outputs, figures)
    return Case(f"case-{place + 1}", result, side, opened, outputs, figures, left)


def _side(result: Mapping[str, Any]) -> str:
    """What stands against the golden; what runs a graph or a module and builds no engine has its own name."""
    backend = str(result.get("backend"))
    return "simulated" if result.get("simulated") else "engine" if "tensorrt" in backend else backend


def _of_outputs(result: Mapping[str, Any], side: str, rows: int, names: Iterator[int]) -> dict[str, list[Figure]]:

    drawn: Mapping[str, Any] = (result.get("figures") or {}).get("outputs") or {}
    found = {}
    for output, figures in drawn.items():
        both = (
            errors(output, figures.get("errors") or {}, side, names, rows),
            scatter(output, figures.get("scatter") or {}, side, names),
        )
        found[output] = [figure for figure in both if figure]
    return found


def _of_case(result: Mapping[str, Any], rows: int, names: Iterator[int]) -> dict[str, Figure]:

    figures: Mapping[str, Any] = result.get("figures") or {}
    latency: Mapping[str, Any] = result.get("latency") or {}
    found = {
        "hops": hops(result.get("hops") or (), result.get("blame"), names),
        "layers": layers(result.get("layers") or {}, names, rows),
        "sqnr": sqnr(figures.get("tensors") or (), names, rows),
        "ranges": ranges(figures.get("ranges") or (), names, rows),
        "compared": compared(latency, names),
        "history": history(latency, names),
        "distribution": distribution(latency, names, rows),
    }
    return {name: figure for name, figure in found.items() if figure}


def _left_out(
    result: Mapping[str, Any], outputs: Mapping[str, Sequence[Figure]], figures: Mapping[str, Figure]
) -> list[tuple[str, str]]:
    """What a reader may look for and not find, with the reason."""
    if result.get("verdict") not in ("passed", "failed") and not result.get("outputs"):
        return []
    older = "figures" not in result
    why = "the record has no figures: it was written by an earlier release" if older else ""
    missing = [
        ("error histogram and scatter", why or "no finite values to draw", any(outputs.values())),
        ("hops", "measured where a case fails, or with --trt-localise", "hops" in figures),
        (
            "SQNR along the network",
            why or "no tensor differs from fp32, or none was compared (--trt-localise)",
            "sqnr" in figures,
        ),
        ("ranges", why or "the precision has none, or nobody knows them", "ranges" in figures),
        ("layers by achieved precision", _no_layers(result), "layers" in figures),
        ("latency", "not measured", bool(result.get("latency"))),
    ]
    return [(name, reason) for name, reason, there in missing if not there]


def _no_layers(result: Mapping[str, Any]) -> str:
    return "simulated: there is no engine" if result.get("simulated") else "the backend does not tell"


def _rows(result: Mapping[str, Any], size: int) -> int:
    """How many rows a case's tables may have in a page of so many cases."""
    return max(_LEAST_ROWS, _ROWS.get(str(result.get("verdict")), _OTHER_ROWS) // size)


def _opened(results: Sequence[Mapping[str, Any]]) -> set[int]:
    if len(results) == 1:
        return {0}
    bad = [place for place, result in enumerate(results) if result.get("verdict") in ("failed", "error")]
    return set(bad[:_OPEN])


@cache
def _environment(docs: str) -> jinja2.Environment:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("pytest_trt.report", "page"),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({name: getattr(number_filters, name) for name in number_filters.__all__})
    made.filters.update(prose=_prose, extract=lambda name, found: found[name])
    made.globals.update(meter=meter, codes=CODES, address=address, page_of=lambda code: page_of(code, docs))
    return made


def _prose(text: Any) -> Markup:
    """A message, its words in backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _asset(name: str) -> str:
    from importlib.resources import files

    return (files("pytest_trt.report") / "page" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing is loaded from anywhere; of styles and scripts the page's own are the only ones."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
