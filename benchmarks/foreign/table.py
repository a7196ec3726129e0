"""The tables of the results, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.foreign.networks import CHOSEN, REPORTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["is_found", "is_placed", "is_right", "tables"]

Row = dict[str, Any]
ASKED = ("fp16", "bf16", "int8", "fp8")


def is_found(row: Row) -> bool:
    """Whether a defect is not let pass; one that is only to be warned of is found by its code too."""
    return row["verdict"] != "passed" or (row["warns"] and bool(set(row["codes"]) & set(row["expected"])))


def is_right(row: Row) -> bool:
    """Whether what is said first is an expected code, or an error where nothing can be judged."""
    if row["warns"] and row["verdict"] == "passed":
        return is_found(row)
    first = row["codes"][0] if row["codes"] else row["verdict"]
    return first in row["expected"]


def is_placed(row: Row) -> bool:
    """Whether the first finding names the place of the defect."""
    return bool(set(row["tensors"]) & set(row.get("named", ()))) or any(
        repr(name) in row["first"] for name in row["tensors"]
    )


def tables(document: Row) -> str:
    """Rates by network and half, what each kind of defect was found as, independent errors, and all that went wrong."""
    rows = [row for row in document["rows"] if row["verdict"] != "not planted"]
    parts = [_rates(rows, document["seconds"]), _kinds(rows)]
    if document.get("truth"):
        parts.append(_truth(document["truth"]))
    return "\n\n".join([*parts, _wrong(document["rows"])])


def _rates(rows: list[Row], seconds: list[Row]) -> str:
    head = ["network", "healthy: alarms", *(f"at {precision}" for precision in ASKED)]
    head += ["defects: found", "right code first", "right tensor", "golden, CPU s", "gate, CPU s"]
    networks = [name for name in (*CHOSEN, *REPORTED) if any(row["network"] == name for row in rows)]
    groups: list[tuple[str, tuple[str, ...]]] = [
        (name, (name,)) for name in networks or dict.fromkeys(row["network"] for row in rows)
    ]
    groups += [("chosen on", CHOSEN), ("reported", REPORTED), ("all", tuple(name for name, _ in groups))]
    lines = [head, ["---"] * len(head)]
    for label, names in groups:
        of = [row for row in rows if row["network"] in names]
        if of:
            lines.append([label, *_shares(of), *_seconds([row for row in seconds if row["network"] in names])])
    return _markdown(lines)


def _shares(rows: list[Row]) -> list[str]:
    twins = [row for row in rows if not row["expected"]]
    defects = [row for row in rows if row["expected"]]
    by = [[row for row in twins if row["precision"] == precision] for precision in ASKED]
    placed = [row for row in defects if row["tensors"]]
    return [
        *(_share(_alarms, part) for part in (twins, *by)),
        _share(is_found, defects),
        _share(is_right, defects),
        _share(is_placed, placed),
    ]


def _alarms(row: Row) -> bool:
    return bool(row["verdict"] != "passed" and not row.get("worse"))


def _seconds(rows: list[Row]) -> list[str]:
    """The median over the draws of one network; nothing for several."""
    if len({row["network"] for row in rows}) != 1:
        return ["", ""]
    return [f"{sorted(row[what] for row in rows)[len(rows) // 2]:.1f}" for what in ("golden", "gate")]


def _kinds(rows: list[Row]) -> str:
    lines = [["defect", "precision", "expected first", "found first", "on"], ["---"] * 5]
    kinds = dict.fromkeys((row["name"], row["precision"]) for row in rows if row["expected"])
    for name, precision in kinds:
        of = [row for row in rows if row["expected"] and (row["name"], row["precision"]) == (name, precision)]
        first = [row["codes"][0] if row["codes"] else row["verdict"] for row in of]
        found = ", ".join(f"{code} ({first.count(code)})" for code in sorted(set(first)))
        lines.append([name, precision, " ".join(of[0]["expected"]), found, str(len(of))])
    return _markdown(lines)


def _truth(truth: list[Row]) -> str:
    head = ["network", "output", "file", "golden against float64", "file in onnxruntime"]
    head += ["our file in onnxruntime", "ours, simulated", "our bound", "verdict"]
    lines = [head, ["---"] * len(head)]
    lines += [[_figure(row.get(column)) for column in head] for row in truth]
    return _markdown(lines)


def _figure(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else "" if value is None else str(value)


def _wrong(rows: Iterable[Row]) -> str:
    lines = [["what went wrong", "network", "asked", "draw", "verdict", "said"], ["---"] * 6]
    for row in rows:
        kind = _kind(row)
        if kind:
            said = " ".join(row["codes"]) or row["first"][:120].replace("|", "/").replace("\n", " ")
            lines.append(
                [f"{kind}: {row['name']}", row["network"], row["precision"], str(row["seed"]), row["verdict"], said]
            )
    return _markdown(lines) if len(lines) > 2 else "Nothing was missed, and nothing alarmed."


def _kind(row: Row) -> str:
    if row["verdict"] == "not planted":
        return "not planted"
    if not row["expected"]:
        return (
            "false alarm" if _alarms(row) else "rightly refused, worse than ours" if row["verdict"] != "passed" else ""
        )
    if not is_found(row):
        return "not found"
    if not is_right(row):
        return "another reason"
    return "another tensor" if row["tensors"] and not is_placed(row) else ""


def _share(holds: Callable[[Row], bool], rows: list[Row]) -> str:
    count = sum(map(holds, rows))
    return f"{count} of {len(rows)} ({100 * count / len(rows):.1f} %)" if rows else ""


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
