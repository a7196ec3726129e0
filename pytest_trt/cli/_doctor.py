"""``pytest-trt doctor``: what this machine has, what does not fit, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from pytest_trt.cli._console import Finite, Line, as_json, comma_lists, say, watched
from pytest_trt.doctor.examination import BACKENDS, OTHERS, examine
from pytest_trt.doctor.platform import Here
from pytest_trt.errors import unknown

if TYPE_CHECKING:
    from pytest_trt.cli._console import Part
    from pytest_trt.doctor.examination import Examination

__all__ = ["command"]

_WORDS = {"good": "ok", "absent": "absent", "doubt": "doubt", "broken": "broken"}
_STYLES = {"good": "good", "absent": "quiet", "doubt": "doubt", "broken": "bad"}
_WIDTH = max(map(len, _WORDS.values()))


@click.command(name="doctor", short_help="Look this machine over; say how to mend it.")
@click.option(
    "--for",
    "asked",
    multiple=True,
    metavar="BACKEND",
    help="What the machine is to be fit for: a backend, pycuda, modelopt, latency or html; a comma list.",
)
@click.option("--timeout", type=Finite(min=1), default=60.0, show_default=True, help="Seconds a probe may take.")
@as_json
@click.pass_context
def command(ctx: click.Context, asked: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Look at Python, packages, driver, GPUs and TensorRT's libraries, and say how to mend what does not fit.

    Whatever might end a process (an import, a library) is tried in one of its own. Exit code 0 if pytest-trt, and every
    BACKEND that was asked for, can work here; 1 if not. What was not asked for is told and counts for nothing.
    """
    wanted = comma_lists(asked)
    for word in wanted:
        if word not in (*BACKENDS, *OTHERS):
            raise unknown("thing to be fit for", word, (*BACKENDS, *OTHERS))
    found = examine(Here(timeout), wanted, progress=watched())
    facts = {
        "fit": not found.against,
        "asked": list(wanted),
        "fit_for": found.fit_for,
        "symptoms": [{**asdict(one), "counts": one in found.against} for one in found.symptoms],
    }
    say(_parts(found), facts, json_wanted=as_json)
    ctx.exit(1 if found.against else 0)


def _parts(found: Examination) -> list[Part]:
    parts: list[Part] = []
    for about in dict.fromkeys(one.about for one in found.symptoms):
        parts.append(Line(about, "head"))
        for one in found.symptoms:
            if one.about == about:
                counts = one in found.against
                style = "bad" if counts else _STYLES[one.state]
                parts.append(Line(f"  {_WORDS[one.state].ljust(_WIDTH)}  {one.said}", style))
                parts += [f"  {' ' * _WIDTH}  -> {one.remedy}"] if one.remedy else []
    return [*parts, *_end(found)]


def _end(found: Examination) -> list[Part]:
    fit = [backend for backend, fits in found.fit_for.items() if fits]
    asked = ", ".join(found.asked) or "pytest-trt itself"
    verdict = f"not fit for {asked}: {len(found.against)} to mend" if found.against else f"fit for {asked}"
    return [
        Line("fit for", "head"),
        f"  backends that can work here: {', '.join(fit) or 'none'}",
        Line(f"  {verdict}", "bad" if found.against else "good"),
    ]
