"""Outputs: one output against its golden, in lines that tell the most important first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.report.screen import Block

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["accuracy", "blocks_of", "columns", "number"]


def accuracy(output: dict[str, Any]) -> str:
    """The share of samples whose class is the true one, and fp32's; empty where there are no labels."""
    found = output["accuracy"]
    return f"{found['actual']:.4f} (fp32 {found['reference']:.4f})" if found else ""


def blocks_of(name: str, o: dict[str, Any], later: int = 0) -> Iterator[Block]:
    """What there is to say of one output.

    Args:
        name: of the output.
        o: its record.
        later: added to the ranks of all that is said, which is left out sooner.
    """
    run = f" in {o['run']}" if o["run"] else ""
    limit = f", bound by the {o['bound_from']}" if o["bound"] is not None else ""
    head = f"  output {name!r}{run}: {o['dtype']}{o['shape']} against golden {o['golden_dtype']}{limit}"
    worst = _worst(o["worst"])
    yield Block(later, [head, *(f"    {reason}" for reason in o["reasons"])])
    yield Block(
        later + 3,
        [f"    {o['beyond']} of {o['count']} elements differ by more than is allowed ({_share(o)})", *_nonfinite(o)],
    )
    yield Block(later + 3, worst[:3])
    yield Block(later + 6, worst[3:])
    yield Block(
        later + 4,
        [
            f"    distribution of |difference|: p99 {number(o['p99'])}, p99.9 {number(o['p999'])},"
            f" max {number(o['max_abs'])}; bias {number(o['mean_error'])}; cosine {number(o['cosine'], 6)};"
            f" SQNR {number(o['sqnr_db'])} dB"
        ],
    )
    yield Block(later + 4, _ranking(o))


def _share(o: dict[str, Any]) -> str:
    return f"{100 * (o['beyond'] or 0) / max(o['count'], 1):.3g} %"


def _nonfinite(o: dict[str, Any]) -> list[str]:
    counts = [o["nan"]["actual"], o["inf"]["actual"], o["nan"]["golden"], o["inf"]["golden"]]
    if not any(counts):
        return []
    return ["    NaN {}, Inf {} in the output; NaN {}, Inf {} in the golden".format(*counts)]


def _worst(elements: list[dict[str, Any]]) -> list[str]:
    if not elements:
        return []
    rows: list[tuple[str, ...]] = [("worst", "index", "actual", "golden", "difference", "allowed")]
    for rank, e in enumerate(elements, 1):
        figures = (number(e[key], 6) for key in ("actual", "golden", "difference", "allowed"))
        rows.append((f"{rank}.", str(e["index"]), *figures))
    return [f"    {line}" for line in columns(rows)]


def _ranking(o: dict[str, Any]) -> list[str]:
    if o["top1"] is None:
        return []
    flips = ", ".join(f"sample {f['sample']}: class {f['reference']} -> {f['actual']}" for f in o["flips"])
    kept = round(o["top1"] * o["samples"])
    line = f"    top-1 agrees on {kept} of {o['samples']} samples, top-5 on {round(o['top5'] * o['samples'])}"
    lines = [f"{line}; first flips: {flips}" if flips else line]
    if o["accuracy"]:
        lines.append(f"    accuracy {accuracy(o)}")
    return lines


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of one length, their cells under each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def number(value: Any, digits: int = 3) -> str:
    """A figure to so many digits, a count whole; what JSON has no number for stays a word."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
