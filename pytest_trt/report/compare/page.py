"""Page: two records' difference as rows, as Markdown and as one HTML file; names of anyone are text and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.errors import ReportError
from pytest_trt.report.markdown import escaped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_trt.report.compare.changes import Change, RunDifference, Two

__all__ = ["as_html", "as_markdown", "environment_of", "note_of", "summary_of", "table_of"]

_HEAD = (
    "case",
    "precision",
    "backend",
    "verdict",
    "error",
    "bound",
    "top-1",
    "layers",
    "findings",
    "p50 ms",
    "p99 ms",
    "gate",
)

_LATENCY = "Latencies are set side by side, and not judged: that takes samples of both (--trt-latency=gate)."


def table_of(found: RunDifference, *, everything: bool) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A head, and a row a case and precision, of those that changed or of all; columns without a word are left out."""
    rows = [_cells(change) for change in found.changes if everything or change.moved]
    used = [place for place in range(len(_HEAD)) if any(row[place] for row in rows)]
    return tuple(_HEAD[place] for place in used), [tuple(row[place] for place in used) for row in rows]


def _cells(change: Change) -> tuple[str, ...]:
    """One case as texts."""
    worst, latency = change.worst, change.latency
    return (
        change.case,
        change.precision,
        _arrow(change.backend),
        _verdict(change),
        _error(change),
        _numbers(worst.bound) if worst else "",
        _numbers(worst.top1, 4) if worst else "",
        _arrow(change.layers),
        _findings(change),
        _milliseconds(latency.p50, latency.ratio, latency.apart) if latency else "",
        _milliseconds(latency.p99) if latency else "",
        _arrow(latency.state) if latency else "",
    )


def note_of(found: RunDifference) -> str:
    """What to know of the latencies in the table; empty where there are none."""
    return _LATENCY if any(change.latency for change in found.changes) else ""


def environment_of(found: RunDifference) -> list[str]:
    """What changed around the cases, a line each: versions, GPUs, what models and engines were made from."""
    lines = [f"{key}: {_arrow(two)}" for key, two in found.environment.items()]
    for change in found.changes:
        told: Mapping[str, Two] = {**change.engine, **change.made_from}
        lines += [f"{change.case} at {change.precision}: {key} {_arrow(two)}" for key, two in told.items()]
    return lines


def summary_of(found: RunDifference) -> str:
    """How many changed, in a sentence."""
    both = [change for change in found.changes if not change.missing and not change.new]
    moved = sum(change.moved for change in both)
    gone, new = (sum(getattr(change, key) for change in found.changes) for key in ("missing", "new"))
    parts = [f"{len(both)} in both records, {moved} of them changed"]
    parts += [f"{gone} only in {found.before}"] if gone else []
    return "; ".join([*parts, *([f"{new} only in {found.after}"] if new else [])])


def _verdict(change: Change) -> str:
    before, after = change.verdict
    if before is None:
        return f"{after} (new)"
    return f"{before} (missing now)" if after is None else _arrow(change.verdict)


def _error(change: Change) -> str:
    worst = change.worst
    if worst is None:
        return ""
    name = f"{worst.output} " if len(change.outputs) > 1 else ""
    return f"{name}{_numbers(worst.error)}{worst.grown}"


def _findings(change: Change) -> str:
    signs = [f"+{code}{f' {about}' if about else ''}" for code, about, _ in change.appeared]
    return ", ".join([*signs, *(f"-{code}{f' {about}' if about else ''}" for code, about, _ in change.gone)])


def _milliseconds(two: Two, ratio: float | None = None, apart: str = "") -> str:
    told = _numbers((None if value is None else 1e3 * value for value in two), 4)
    grown = "" if ratio is None else f" ({100 * (ratio - 1):+.2g} %)"
    return f"{told}{grown}{f' ({apart})' if apart else ''}"


def _numbers(two: Any, digits: int = 3) -> str:
    return _arrow(tuple(None if value is None else f"{value:.{digits}g}" for value in two))


def _arrow(two: Any) -> str:
    before, after = two
    if before == after:
        return "" if after is None else str(after)
    return f"{'none' if before is None else before} -> {'none' if after is None else after}"


_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ found.before }} against {{ found.after }}</title>
<style>
:root {
  color-scheme: light dark;
  --ground: light-dark(#f4f6f7, #13171a); --paper: light-dark(#ffffff, #1a1f24);
  --ink: light-dark(#1b2127, #e6eaed); --soft: light-dark(#55606b, #a3aeb8);
  --rule: light-dark(#d9dee3, #323a42); --failed: light-dark(#ab3206, #ff9166);
}
body {
  margin: 0 auto; padding: 1.25rem clamp(.75rem, 3vw, 2rem) 4rem; max-width: 80rem; overflow-wrap: break-word;
  background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1 { font-size: 1.35rem; line-height: 1.3; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
p { margin: .3rem 0; color: var(--soft); }
.wide { overflow-x: auto; background: var(--paper); border: 1px solid var(--rule); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { border-top: 1px solid var(--rule); padding: .45rem .7rem; text-align: left; vertical-align: top; }
th { border-top: 0; color: var(--soft); font-size: .85rem; white-space: nowrap; }
td:first-child { font-weight: 600; }
ul { margin: 0; padding-left: 1.25rem; }
.reasons { border-left: 3px solid var(--failed); padding-left: 1.75rem; color: var(--failed); }
</style>
</head>
<body>
<main>
<h1>{{ found.before }} against {{ found.after }}</h1>
<p>{{ summary }}.</p>
{% if reasons %}
<h2>It fails</h2>
<ul class="reasons">{% for reason in reasons %}<li>{{ reason }}</li>{% endfor %}</ul>
{% endif %}
<h2>Cases</h2>
{% if rows %}
<div class="wide" tabindex="0" role="region" aria-label="Cases that are compared">
<table>
<thead><tr>{% for name in head %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% if latency %}<p>{{ latency }}</p>{% endif %}
{% else %}
<p>Nothing changed.</p>
{% endif %}
{% if environment %}
<h2>Around them</h2>
<ul>{% for line in environment %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
</main>
</body>
</html>
"""


def as_markdown(found: RunDifference, reasons: Sequence[str], *, everything: bool) -> str:
    """The difference as Markdown, as GitHub and GitLab show it."""
    head, rows = table_of(found, everything=everything)
    lines = [f"# {escaped(found.before)} against {escaped(found.after)}", "", f"{escaped(summary_of(found))}.", ""]
    if reasons:
        lines += ["## It fails", "", *(f"- {escaped(reason)}" for reason in reasons), ""]
    lines += ["## Cases", ""]
    if rows:
        lines += [_row(head), _row(["---"] * len(head)), *(_row([escaped(cell) for cell in row]) for row in rows), ""]
    lines += [note_of(found) if rows else "Nothing changed.", ""]
    around = environment_of(found)
    if around:
        lines += ["## Around them", "", *(f"- {escaped(line)}" for line in around), ""]
    return "\n".join(lines)


def as_html(found: RunDifference, reasons: Sequence[str], *, everything: bool) -> str:
    """The difference as one HTML file that loads nothing else.

    Raises:
        ReportError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ReportError('an .html comparison needs jinja2: pip install "pytest-trt[html]"; or write .md.') from error
    head, rows = table_of(found, everything=everything)
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_HTML)
    text: str = page.render(
        found=found,
        reasons=reasons,
        rows=[[cell.replace(" -> ", " \u2192\u00a0") for cell in row] for row in rows],
        head=head,
        summary=summary_of(found),
        environment=[line.replace(" -> ", " \u2192\u00a0") for line in environment_of(found)],
        latency=note_of(found),
    )
    return text


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
