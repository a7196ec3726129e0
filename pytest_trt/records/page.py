"""Page: two records' difference as Markdown and as one HTML file; names of anyone's are text and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.errors import ReportError
from pytest_trt.records.told import HEAD, LATENCY, environment_of, rows_of, summary_of
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
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid GrayText; padding: .3rem .6rem; text-align: left; vertical-align: top; }
.reasons { border-left: .3rem solid #c62828; padding-left: 1rem; }
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
<div class="wide" tabindex="0" role="region" aria-label="Cases">
<table>
<thead><tr>{% for name in head %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
<p>{{ latency }}</p>
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
    rows = rows_of(found, everything=everything)
    lines = [f"# {escaped(found.before)} against {escaped(found.after)}", "", f"{escaped(summary_of(found))}.", ""]
    if reasons:
        lines += ["## It fails", "", *(f"- {escaped(reason)}" for reason in reasons), ""]
    lines += ["## Cases", ""]
    if rows:
        lines += [_row(HEAD), _row(["---"] * len(HEAD)), *(_row([escaped(cell) for cell in row]) for row in rows), ""]
    lines += [LATENCY if rows else "Nothing changed.", ""]
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
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_HTML)
    text: str = page.render(
        found=found,
        reasons=reasons,
        rows=rows_of(found, everything=everything),
        head=HEAD,
        summary=summary_of(found),
        environment=environment_of(found),
        latency=LATENCY,
    )
    return text


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
