"""The terminal's view of records: a table of all, and a message for each that did not pass."""

from __future__ import annotations

from typing import Any

__all__ = ["backend_label", "message", "table", "told_beside"]

Record = dict[str, Any]

_HEAD = (
    "case", "precision", "backend", "rel. RMS", "bound", "worst element", "top-1", "accuracy", "layers", "verdict",
)  # fmt: skip
_MOST = 5
_TENSORS = 3
_WORDS = ("nan", "inf", "-inf")
_OPTIONAL = ("top-1", "accuracy", "layers")


def backend_label(record: Record) -> str:
    """The backend, and that it simulated where it did."""
    return f"{record['backend']} (simulated)" if record["simulated"] else str(record["backend"])


def table(records: list[Record]) -> list[tuple[str, str]]:
    """Lines of the summary table, each with the verdict that it tells ("" for the head).

    Columns that no row has anything for (top-1, accuracy, layers in the asked precision) are left out.
    """
    rows = [_row(record) for record in records]
    used = [i for i, name in enumerate(_HEAD) if name not in _OPTIONAL or any(r[i] for r in rows)]
    cells = [tuple(row[i] or "-" for i in used) for row in rows]
    head = tuple(_HEAD[i] for i in used)
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(used))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *cells]]
    verdicts = ["", *(str(record["verdict"]) for record in records)]
    return [(line.rstrip(), verdict) for line, verdict in zip(lines, verdicts, strict=True)]


def told_beside(records: list[Record]) -> str:
    """How many warnings the passed cases have, and how many findings were left out; empty if none."""
    warned = [
        f["code"] for r in records if r["verdict"] == "passed" for f in r["findings"] if f["severity"] == "warning"
    ]
    left = sum(count for record in records for count in record["ignored"].values())
    parts = [
        *(
            [f"{len(warned)} warnings in passed cases ({', '.join(sorted(set(warned)))}), in the record"]
            if warned
            else []
        ),
        *([f"{left} findings left out by --trt-select and --trt-ignore"] if left else []),
    ]
    return "; ".join(parts)


def message(record: Record) -> str:
    """Why a case did not pass, to be read top down: verdict, identity, counts, worst elements, what to do."""
    title = f"{record['case']} at {_asked(record)} on {backend_label(record)}"
    if record["verdict"] == "error":
        parts = [f"{title}: could not be judged, which is never a pass.", f"{record['kind']}: {record['message']}"]
        return "\n".join([*parts, *_findings(record)])
    outside = any(output["reasons"] for output in record["outputs"].values())
    parts = [f"{title}: FAILED, {'outside' if outside else 'inside its'} tolerance{'' if outside else ' and wrong'}"]
    parts += _findings(record)
    for name, output in record["outputs"].items():
        if output["reasons"]:
            parts += _output(name, output)
    golden = record["provenance"].get("golden")
    parts += [*_hops(record), *_located(record), *_engine(record), f"  golden: {golden}"]
    return "\n".join([*parts, *([f"  {record['accept']}"] if record["accept"] else [])])


def _findings(record: Record) -> list[str]:
    """The findings, the reason first; those whose words the error says already are told by their code."""
    lines = []
    for finding in record["findings"][:_MOST]:
        said = finding["message"] == record["message"]
        lines.append(f"  {finding['code']} {finding['severity']}: {'as above' if said else finding['message']}")
        lines += [f"    {finding['remedy']}"] if finding["remedy"] and not said else []
    more = len(record["findings"]) - _MOST
    return [*lines, f"  ... and {more} more, in the record"] if more > 0 else lines


def _located(record: Record) -> list[str]:
    """The tensors that the error comes from, the likeliest first."""
    from pytest_trt.localise import Located, lines_of

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
    told = ", ".join(f"{name} {_number(error, 2)}" for name, error in steps.items())
    return [f"  hops: {told}{'; to blame: ' + record['blame'] if record['blame'] else ''}"]


def _asked(record: Record) -> str:
    held = record.get("held")
    return f"{record['precision']} (the file holds {held})" if held else str(record["precision"])


def _row(record: Record) -> tuple[str, ...]:
    output = record["outputs"].get(record["worst_output"])
    identity = (record["case"], _asked(record), backend_label(record))
    if output is None:
        told = "built, not judged" if record["verdict"] == "built" else f"error: {record['kind']}"
        return (*identity, "", "", "", "", "", "", told)
    place = output["max_abs_at"]
    label = record["worst_output"]
    worst = f"{label}{place['index']} off by {_number(place['difference'])}" if place else f"{label} is empty"
    top1 = f"{output['top1']:.4g}" if output["top1"] is not None else ""
    return (
        *identity,
        _error(output),
        _number(output["bound"]),
        worst,
        top1,
        _accuracy(output),
        _honoured(record),
        record["verdict"],
    )


def _honoured(record: Record) -> str:
    layers = record["layers"]
    return f"{layers['honoured']}/{layers['compute']} {layers['asked']}" if layers else ""


def _engine(record: Record) -> list[str]:
    """What the engine is, and what its builder warned of."""
    engine = record["provenance"].get("engine") or {}
    lines = []
    if engine.get("gpu"):
        typing = f" {engine['typing']} typing," if engine.get("typing") else ""
        lines.append(f"  engine: {engine.get('tensorrt')},{typing} {engine['gpu']}; {_honoured(record)} compute layers")
    warned = record["warnings"]
    lines += [f"  the builder warned: {text}" for text in warned[:3]]
    return [*lines, f"  ... and {len(warned) - 3} warnings more, in the record"] if len(warned) > 3 else lines


def _error(output: dict[str, Any]) -> str:
    unit = " unequal" if output["metric"] == "mismatch" else ""
    return f"{_number(output['error'])}{unit}"


def _accuracy(output: dict[str, Any]) -> str:
    found = output["accuracy"]
    return f"{found['actual']:.4f} (fp32 {found['reference']:.4f})" if found else ""


def _output(name: str, o: dict[str, Any]) -> list[str]:
    run = f" in {o['run']}" if o["run"] else ""
    limit = f", bound by the {o['bound_from']}" if o["bound"] is not None else ""
    lines = [f"  output {name!r}{run}: {o['dtype']}{o['shape']} against golden {o['golden_dtype']}{limit}"]
    lines += [f"    {reason}" for reason in o["reasons"]]
    lines.append(f"    {o['beyond']} of {o['count']} elements differ by more than is allowed ({_share(o)})")
    lines += _nonfinite(o)
    lines += _worst(o["worst"])
    lines.append(
        f"    distribution of |difference|: p99 {_number(o['p99'])}, p99.9 {_number(o['p999'])},"
        f" max {_number(o['max_abs'])}; bias {_number(o['mean_error'])}; cosine {_number(o['cosine'], 6)};"
        f" SQNR {_number(o['sqnr_db'])} dB"
    )
    return [*lines, *_ranking(o)]


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
        figures = (_number(e[key], 6) for key in ("actual", "golden", "difference", "allowed"))
        rows.append((f"{rank}.", str(e["index"]), *figures))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["    " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _ranking(o: dict[str, Any]) -> list[str]:
    if o["top1"] is None:
        return []
    flips = ", ".join(f"sample {f['sample']}: class {f['reference']} -> {f['actual']}" for f in o["flips"])
    kept = round(o["top1"] * o["samples"])
    line = f"    top-1 agrees on {kept} of {o['samples']} samples, top-5 on {round(o['top5'] * o['samples'])}"
    lines = [f"{line}; first flips: {flips}" if flips else line]
    if o["accuracy"]:
        lines.append(f"    accuracy {_accuracy(o)}")
    return lines


def _number(value: Any, digits: int = 3) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.{digits}g}"
