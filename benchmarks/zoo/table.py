"""The tables of the zoo's results, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.zoo.network import CHOSEN, REPORTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["is_right", "tables"]

Row = dict[str, Any]
_GATE = "pytest-trt"


def is_right(row: Row) -> bool:
    """Whether the first finding of a caught defect is an expected one."""
    return row["verdict"] != "passed" and bool(row["codes"]) and row["codes"][0] in row["expected"]


def tables(document: dict[str, Any]) -> str:
    """Rates by gate and half of the networks, then every defect with what was found first, then the alarms."""
    rows = document["rows"]
    return "\n\n".join([_rates(rows), _kinds(rows), _misses(rows)])


def _rates(rows: list[Row]) -> str:
    halves = {"chosen on": CHOSEN, "reported": REPORTED}
    head = [
        "gate",
        *(f"{half}: {what}" for half in halves for what in ("detected", "false alarms", "right code first")),
    ]
    lines = [head, ["---"] * len(head)]
    for gate in (_GATE, *_peers(rows)):
        cells = [gate]
        for names in halves.values():
            cells += _of_gate(gate, [row for row in rows if row["network"] in names])
        lines.append(cells)
    return _markdown(lines)


def _of_gate(gate: str, rows: list[Row]) -> list[str]:
    seen = [row for row in rows if gate == _GATE or row["peers"]]
    defects, twins = ([row for row in seen if bool(row["expected"]) is planted] for planted in (True, False))

    def alarmed(row: Row) -> bool:
        return bool(row["verdict"] != "passed" if gate == _GATE else not row["peers"][gate])

    right = _share(is_right, defects) if gate == _GATE else ""
    return [_share(alarmed, defects), _share(alarmed, twins), right]


def _kinds(rows: list[Row]) -> str:
    lines = [["defect", "networks", "expected first", "found first"], ["---"] * 4]
    for name in dict.fromkeys(row["name"] for row in rows if row["expected"]):
        of = [row for row in rows if row["expected"] and row["name"] == name]
        first = [row["codes"][0] if row["codes"] else row["verdict"] for row in of]
        found = ", ".join(
            f"{code}{f' ({first.count(code)})' if len(set(first)) > 1 else ''}" for code in sorted(set(first))
        )
        expected = " ".join(dict.fromkeys(code for row in of for code in row["expected"]))
        lines.append([name, " ".join(f"{row['network']}:{row['precision']}" for row in of), expected, found])
    return _markdown(lines)


def _misses(rows: list[Row]) -> str:
    lines = [["what went wrong", "network", "asked", "verdict", "found"], ["---"] * 5]
    for row in rows:
        missed = row["expected"] and not is_right(row)
        if missed or (not row["expected"] and row["verdict"] != "passed"):
            kind = (
                "not detected" if row["verdict"] == "passed" else "another reason" if row["expected"] else "false alarm"
            )
            found = " ".join(row["codes"]) or "nothing"
            lines.append([f"{kind}: {row['name']}", row["network"], row["precision"], row["verdict"], found])
    return _markdown(lines) if len(lines) > 2 else "Nothing was missed, and nothing alarmed."


def _share(holds: Callable[[Row], bool], rows: list[Row]) -> str:
    count = sum(holds(row) for row in rows)
    return f"{count} of {len(rows)} ({100 * count / len(rows):.1f} %)" if rows else ""


def _peers(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(peer for row in rows for peer in row["peers"]))


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
