"""Page: two records' difference as Markdown and as one HTML file; names of anyone's are text and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.errors import ReportError
from pytest_trt.records.told import environment_of, note_of, summary_of, table_of
from pytest_trt.report.markdown import escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_trt.records.changes import RunDifference

__all__ = ["as_html", "as_markdown"]

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
