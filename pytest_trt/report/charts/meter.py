"""The small picture in a cell of the summary: how much of its bound an error uses."""

from __future__ import annotations

from typing import Any

import svg
from markupsafe import Markup

from pytest_trt.report.charts.drawing import line, rect
from pytest_trt.report.told import finite

__all__ = ["meter"]

_WIDTH, _BOUND = 96.0, 72.0


def meter(error: Any, bound: Any) -> Markup | None:
    """A bar that reaches a stroke where the error is the bound; None where there are no such figures.

    It says nothing that the numbers beside it don't, and is hidden from those who have them read out.
    """
    size, most = finite(error), finite(bound)
    if error is None or most is None or most <= 0:
        return None
    share = 2.0 if size is None else min(size / most, 2.0)
    end = round(min(_BOUND * share, _WIDTH), 1)
    kind = "bar" if share <= 1 else "bad"
    elements: list[svg.Element] = [rect("track", (0, 2), (_WIDTH, 6)), rect(kind, (0, 1), (end, 7))]
    whole = svg.SVG(
        xmlns=None,
        viewBox=svg.ViewBoxSpec(0, 0, _WIDTH, 8),
        class_=["meter"],
        extra={"aria-hidden": "true"},
        elements=[*elements, line("limit", (_BOUND, 0), (_BOUND, 8))],
    )
    return Markup(whole.as_str())
