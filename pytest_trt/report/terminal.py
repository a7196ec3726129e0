"""The terminal's view of records, plain lines: a table of all, and a message for each that did not pass."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pytest_trt.evidence.localise import Located, lines_of
from pytest_trt.report.layout import Block, accuracy, blocks_of, columns, fitted, number, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["asked", "backend_label", "beside", "cells", "counted", "message", "reason", "table"]

Record = dict[str, Any]

_HEAD = (
    "case", "precision", "backend", "rel. RMS", "bound", "worst element", "top-1", "accuracy", "layers", "coverage",
    "latency", "verdict",
)  # fmt: skip
_CAUSES = (0, 2, 4)  # ranks of the first findings that are errors
_NOTES = 10
_OTHER = 20  # every output but the worst
_TENSORS = 3
_WARNINGS = 10
_LONGEST_NAME = 40
_WORDS = ("nan", "inf", "-inf")
_OPTIONAL = ("top-1", "accuracy", "layers", "coverage", "latency")
_WELL = ("passed", "built", "timed")
_UNJUDGED = {"built": "built, not judged", "timed": "timed, not judged"}


def backend_label(record: Record) -> str:
    """The backend, and that it simulated where it did."""
    return f"{record['backend']} (simulated)" if record["simulated"] else str(record["backend"])


def cells(records: list[Record], verbosity: int = 0) -> list[tuple[str, ...]]:
    """The summary table's head and its rows.

    Columns that no row has anything for (top-1, accuracy, layers in the asked precision, latency) are left out, and so
    is what of the network runs at the precision, but from verbosity 1 on.
    """
    rows = [_row(record) for record in records]
    left = () if verbosity > 0 else ("coverage",)
    used = [
        i for i, name in enumerate(_HEAD) if name not in left and (name not in _OPTIONAL or any(r[i] for r in rows))
    ]
    return [tuple(line[i] or "-" for i in used) for line in [_HEAD, *rows]]


def table(records: list[Record], verbosity: int = 0) -> list[tuple[str, str]]:
    """Lines of the summary table, each with the verdict that it tells ("" for the head)."""
    lines = columns([[visible(cell) for cell in row] for row in cells(records, verbosity)])
    verdicts = ["", *(str(record["verdict"]) for record in records)]
    return list(zip(lines, verdicts, strict=True))


def counted(records: list[Record]) -> str:
    """How many passed, failed and so on, and how many of them were simulated."""
    found = Counter(str(record["verdict"]) for record in records)
    words = {"failed": "failed", "error": "could not be judged", **_UNJUDGED, "passed": "passed"}
    told = ", ".join(f"{found[verdict]} {word}" for verdict, word in words.items() if found[verdict])
    simulated = sum(bool(record["simulated"]) for record in records)
    return f"{told or 'nothing judged'}{f' ({simulated} simulated)' if simulated else ''}"


def beside(records: list[Record], verbosity: int = 0) -> list[str]:
    """What there is to say beside the table of cases that passed, and how many findings were left out.

    Args:
        records: of the run.
        verbosity: up to 0 each of their warnings has a line, 1 tells what to do too and the tensors that were asked
            for, from 2 on all findings and all figures are told.
    """
    passed = [record for record in records if record["verdict"] in _WELL]
    left = sum(count for record in records for count in record["ignored"].values())
    lines = [line for record in passed for line in _told(record, verbosity)] if verbosity > 0 else _warned(passed)
    lines = [visible(line) for line in [*lines, *(_left_out(records) if verbosity <= 0 else ())]]
    return [*lines, *([f"{left} findings left out by --trt-select and --trt-ignore"] if left else [])]


def reason(record: Record) -> str:
    """Why a case did not pass, in a sentence: the error, else what was found first, else the first limit passed."""
    if record["verdict"] == "error":
        return f"{record['kind']}: {record['message']}"
    found = [
        f"{finding['code']}: {finding['message']}" for finding in record["findings"] if finding["severity"] == "error"
    ]
    outside = [f"output {name!r}: {why}" for name, output in record["outputs"].items() for why in output["reasons"]]
    return next(iter([*found, *outside]), "it did not pass")


def message(record: Record, *, whole: bool = False) -> str:
    """Why a case did not pass, to be read top down: verdict, causes, counts, worst elements, what to do.

    Args:
        record: of the case.
        whole: all that there is to say; else as much as fits a screen, which says that there is more.
    """
    told = _error(record) if record["verdict"] == "error" else _failure(record)
    blocks = [Block(one.rank, [visible(line) for text in one.lines for line in text.split("\n")]) for one in told]
    return "\n".join([line for block in blocks for line in block.lines] if whole else fitted(blocks))


def _error(record: Record) -> Iterator[Block]:
    title = f"{record['case']} at {asked(record)} on {backend_label(record)}"
    yield Block(0, [f"{title}: could not be judged, which is never a pass.", f"{record['kind']}: {record['message']}"])
    yield from _findings(record)


def _failure(record: Record) -> Iterator[Block]:
    outside = {name: output for name, output in record["outputs"].items() if output["reasons"]}
    slow = bool(record["latency"] and record["latency"]["fails"])
    why = "outside tolerance" if outside else "for its latency" if slow else "inside its tolerance and wrong"
    title = f"{record['case']} at {asked(record)} on {backend_label(record)}"
    yield Block(0, [f"{title}: FAILED, {why}"])
    yield from _findings(record)
    for name in sorted(outside, key=lambda name: name != record["worst_output"]):
        yield from blocks_of(name, outside[name], 0 if name == record["worst_output"] else _OTHER)
    yield Block(3, _hops(record))
    yield from (Block(rank, [line]) for rank, line in zip((2, 5, 7), _located(record), strict=False))
    yield Block(8, _speed(record))
    yield Block(2, _engine(record))
    yield Block(9, _unjudged(record))
    yield Block(9, [f"  golden: {record['provenance'].get('golden')}"])
    yield Block(1, [f"  {record['accept']}"] if record["accept"] else [])


def _told(record: Record, verbosity: int) -> list[str]:
    """A passed case's findings and what was localised, and from 2 on its figures."""
    severities = ("error", "warning") if verbosity < 2 else ("error", "warning", "note")
    found = [finding for finding in record["findings"] if finding["severity"] in severities]
    lines = [*_unjudged(record), *(line for finding in found for line in _finding(finding, record))]
    if verbosity >= 2:
        blocks = [block for name, output in record["outputs"].items() for block in blocks_of(name, output)]
        lines += [line for block in blocks for line in block.lines]
        lines += [*_hops(record), *_located(record), *_speed(record), *_engine(record)]
    else:
        lines += [*_located(record), *(f"  warned: {text}" for text in record["warnings"])]
    title = f"{record['case']} at {asked(record)} on {backend_label(record)}: {record['verdict']}"
    return [title, *lines] if lines else []


def _left_out(records: list[Record]) -> list[str]:
    """How many cases judge some of their outputs only: that is no fault, and never silent."""
    some = [record for record in records if record.get("unjudged")]
    many = "s judge" if len(some) > 1 else " judges"
    return [f"{len(some)} case{many} some outputs only: -v tells which are left out, and the record"] if some else []


def _unjudged(record: Record) -> list[str]:
    names = ", ".join(map(repr, record.get("unjudged") or ()))
    return [f"  not judged, as the case says (outputs, ignore_outputs): {names}"] if names else []


def _warned(passed: list[Record]) -> list[str]:
    """A line for each warning, since a pass with one is no silent green; the rest of a long list is counted."""
    found = [
        f"{record['case']} at {asked(record)}: {finding['code']} warning: {finding['message']}"
        for record in passed
        for finding in record["findings"]
        if finding["severity"] == "warning"
    ]
    left = found[_WARNINGS:]
    more = [f"{len(left)} more warning{'s' if len(left) > 1 else ''} in passed cases"] if left else []
    hint = ["what to do: -v tells it, and the record"] if found else []
    return [*found[:_WARNINGS], *more, *hint]


def _findings(record: Record) -> Iterator[Block]:
    """The findings, the reason first."""
    for place, finding in enumerate(record["findings"]):
        counts = finding["severity"] == "error" and place < len(_CAUSES)
        yield Block(_CAUSES[place] if counts else _NOTES, _finding(finding, record))


def _finding(finding: dict[str, Any], record: Record) -> list[str]:
    """A finding and its remedy; one whose words the error says already is told by its code."""
    said = finding["message"] == record["message"]
    head = f"  {finding['code']} {finding['severity']}: {'as above' if said else finding['message']}"
    return [head, *([f"    {finding['remedy']}"] if finding["remedy"] and not said else [])]


def _located(record: Record) -> list[str]:
    """The tensors that the error comes from, the likeliest first."""
    plain: list[dict[str, Any]] = [
        {key: float(value) if value in _WORDS else value for key, value in one.items()} for one in record["located"]
    ]
    located = [Located(**one) for one in plain]
    return [f"  from {line}" for line in lines_of(located, _TENSORS)]


def _hops(record: Record) -> list[str]:
    """The error of each step, where there is more than one, on its worst output."""
    steps: dict[str, float] = {}
    for hop in record["hops"]:
        name = f"{hop['from']} -> {hop['to']}"
        steps[name] = max(steps.get(name, 0.0), float(hop["rel_rms"]))
    if len(steps) < 2 and not record["blame"]:
        return []
    told = ", ".join(f"{name} {number(error, 2)}" for name, error in steps.items())
    return [f"  hops: {told}{'; to blame: ' + record['blame'] if record['blame'] else ''}"]


def asked(record: Record) -> str:
    """The precision, and what the file under test holds, where it is judged as it is."""
    held = record.get("held")
    return f"{record['precision']} (the file holds {held})" if held else str(record["precision"])


def _row(record: Record) -> tuple[str, ...]:
    output = record["outputs"].get(record["worst_output"])
    identity = (record["case"], asked(record), backend_label(record))
    if output is None:
        told = _UNJUDGED.get(record["verdict"], f"error: {record['kind']}")
        return (*identity, "", "", "", "", "", "", _covered(record), _latency(record), told)
    place = output["max_abs_at"]
    label = _named(record["worst_output"])
    worst = f"{label}{place['index']} off by {number(place['difference'])}" if place else f"{label} is empty"
    top1 = f"{output['top1']:.4g}" if output["top1"] is not None else ""
    return (
        *identity,
        _size(output),
        number(output["bound"]),
        worst,
        top1,
        accuracy(output),
        _honoured(record),
        _covered(record),
        _latency(record),
        record["verdict"],
    )


def _named(name: str) -> str:
    """A name without its middle, where it would push all columns off the screen."""
    end = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:end]}...{name[-end:]}"


def _honoured(record: Record) -> str:
    layers = record["layers"]
    return f"{layers['honoured']}/{layers['compute']} {layers['asked']}" if layers else ""


def _covered(record: Record) -> str:
    """The share of the multiply-adds, and of the weights, that runs at the precision."""
    found = record.get("coverage") or {}
    shares = (("MACs", found.get("share") if found.get("macs") else None), ("weights", found.get("share_of_weights")))
    told = [f"{share:.0%} {what}" for what, share in shares if share is not None]
    return f"{', '.join(told)} {found['precision']}" if told else ""


def _latency(record: Record) -> str:
    """The median, how it compares, and what that means."""
    found = record["latency"]
    if not found:
        return ""
    ratio = (found["comparison"] or {}).get("ratio")
    return f"{number(1e3 * found['p50_s'])} ms{f' x{ratio:.3f}' if ratio else ''} {found['state']}"


def _speed(record: Record) -> list[str]:
    """The latency in figures."""
    found = record["latency"]
    if not found:
        return []
    figures = {name: found[f"{name}_s"] for name in ("p50", "p90", "p99", "max")}
    told = ", ".join(f"{name} {number(1e3 * value)} ms" for name, value in figures.items() if value is not None)
    said = any(finding["message"] == found["message"] for finding in record["findings"])
    return [f"  latency: {told}, {found['samples']} samples{'' if said else '; ' + found['message']}"]


def _engine(record: Record) -> list[str]:
    """What the engine is, what its builder warned of, and what could not be looked at."""
    engine = record["provenance"].get("engine") or {}
    lines = []
    if engine.get("gpu"):
        typing = f" {engine['typing']} typing," if engine.get("typing") else ""
        lines.append(f"  engine: {engine.get('tensorrt')},{typing} {engine['gpu']}; {_honoured(record)} compute layers")
    warned = record["warnings"]
    lines += [f"  warned: {text}" for text in warned[:3]]
    return [*lines, f"  ... and {len(warned) - 3} warnings more, in the record"] if len(warned) > 3 else lines


def _size(output: dict[str, Any]) -> str:
    unit = " unequal" if output["metric"] == "mismatch" else ""
    return f"{number(output['error'])}{unit}"
