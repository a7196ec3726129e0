"""What one chart costs by library: a histogram of 30 bars, a scatter of 512 points; milliseconds and kilobytes.

``python benchmarks/charts.py`` prints medians of nine of processor time, and sizes of the SVG as the library writes it,
of those that are installed: ``pip install svg.py drawsvg pygal leather matplotlib altair vl-convert-python plotnine``.
"""

from __future__ import annotations

import io
import random
import statistics
import time
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_draw = random.Random(0)
COUNTS = [_draw.randint(0, 300) for _ in range(30)]
POINTS = [(x, x + _draw.gauss(0, 0.2)) for x in (_draw.gauss(0, 5) for _ in range(512))]


def svg_py() -> tuple[str, str]:
    """Elements alone: a box a bar, one path for all points."""
    import svg

    boxes: list[svg.Element] = [svg.Rect(x=10 * n, y=120 - c / 3, width=9, height=c / 3) for n, c in enumerate(COUNTS)]
    spots = "".join(f"M{round(150 + 10 * x)} {round(150 - 10 * y)}h0" for x, y in POINTS)
    page = svg.ViewBoxSpec(0, 0, 300, 300)
    both = (svg.SVG(viewBox=page, elements=boxes), svg.SVG(viewBox=page, elements=[svg.Path(extra={"d": spots})]))
    return both[0].as_str(), both[1].as_str()


def drawsvg() -> tuple[str, str]:
    """Elements alone."""
    import drawsvg as draw

    bars, points = draw.Drawing(300, 120), draw.Drawing(300, 300)
    for n, found in enumerate(COUNTS):
        bars.append(draw.Rectangle(10 * n, 120 - found / 3, 9, found / 3))
    for x, y in POINTS:
        points.append(draw.Circle(round(150 + 10 * x), round(150 - 10 * y), 2))
    return bars.as_svg(), points.as_svg()


def pygal() -> tuple[str, str]:
    """A charting library in plain Python, which pytest-benchmark's histogram has."""
    import pygal

    bars = pygal.Bar(js=[])
    bars.add("errors", COUNTS)
    points = pygal.XY(stroke=False, js=[])
    points.add("values", POINTS)
    return bars.render(is_unicode=True), points.render(is_unicode=True)


def leather() -> tuple[str, str]:
    """A charting library in plain Python."""
    import leather

    bars, points = leather.Chart("errors"), leather.Chart("values")
    bars.add_columns([(str(n), found) for n, found in enumerate(COUNTS)])
    points.add_dots(POINTS)
    return bars.to_svg(), points.to_svg()


def matplotlib() -> tuple[str, str]:
    """The well-known one, with its SVG backend."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    written = []
    for kind in ("bar", "plot"):
        figure = Figure(figsize=(3.6, 2.4))
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        axes.bar(range(30), COUNTS) if kind == "bar" else axes.plot(*zip(*POINTS, strict=True), ".")
        text = io.StringIO()
        figure.savefig(text, format="svg")
        written.append(text.getvalue())
    return written[0], written[1]


def altair() -> tuple[str, str]:
    """Vega-Lite, rendered by vl-convert (Deno inside)."""
    import altair as alt
    import vl_convert

    bars = alt.Chart(alt.Data(values=[{"n": n, "c": c} for n, c in enumerate(COUNTS)])).mark_bar()
    points = alt.Chart(alt.Data(values=[{"x": x, "y": y} for x, y in POINTS])).mark_point()
    charts = (bars.encode(x="n:O", y="c:Q"), points.encode(x="x:Q", y="y:Q"))
    first, second = (vl_convert.vegalite_to_svg(chart.to_dict()) for chart in charts)
    return first, second


def plotnine() -> tuple[str, str]:
    """A grammar of graphics over matplotlib and pandas."""
    import pandas
    import plotnine as p9

    bars = p9.ggplot(pandas.DataFrame({"n": range(30), "c": COUNTS}), p9.aes("n", "c")) + p9.geom_col()
    points = p9.ggplot(pandas.DataFrame(POINTS, columns=["x", "y"]), p9.aes("x", "y")) + p9.geom_point()
    written = []
    for plot in (bars, points):
        text = io.BytesIO()
        plot.save(text, format="svg", width=3.6, height=2.4, verbose=False)
        written.append(text.getvalue().decode())
    return written[0], written[1]


def cost(maker: Callable[[], tuple[str, str]], times: int = 9) -> str:
    """Milliseconds of processor time for both charts, and the size of each."""
    bars, points = maker()  # imports
    spent = []
    for _ in range(times):
        before = time.process_time()
        maker()
        spent.append(1e3 * (time.process_time() - before))
    return f"{statistics.median(spent):7.1f} ms   {len(bars) / 1e3:6.1f} kB   {len(points) / 1e3:6.1f} kB"


def main() -> None:
    """Print a line a library."""
    warnings.simplefilter("ignore")
    print("library      both charts      bars       points")
    for maker in (svg_py, drawsvg, pygal, leather, matplotlib, altair, plotnine):
        try:
            told = cost(maker)
        except ImportError as error:
            told = f"not installed ({error})"
        print(f"{maker.__name__:12} {told}")


if __name__ == "__main__":
    main()
