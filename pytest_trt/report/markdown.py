"""Markdown: the record for a pull request, a step summary of GitHub, and its annotations."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.report._numbers import is_over
from pytest_trt.report.layout import number
from pytest_trt.report.terminal import asked, backend_label, cells, counted, reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["annotated", "escaped", "fitted", "is_running", "render", "summarise"]

Record = dict[str, Any]

_SIGNS = {"passed": "✅", "built": "➖", "timed": "➖"}
_MARKS = re.compile(r"([\\`*_\[\]#|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", "@": "&#64;"}
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_WORST_RANGES = 10
_LIKELIEST = 5
_OF_ELEMENT = ("actual", "golden", "difference", "allowed")


def render(document: Record) -> str:
    """The whole report."""
    return "".join([*_opening(document), *_sections(document), *_closing(document)])


def fitted(document: Record, room: int) -> str:
    """The report, cut to so many bytes; what was left out is said."""
    whole = render(document)
    if _bytes(whole) <= room:
        return whole
    said = f"\nCut here: the whole is more than {room} bytes. --trt-report=FILE.md writes all of it.\n"
    kept, left = [], room - _bytes(said)
    for part in [*_opening(document), *_sections(document)]:
        left -= _bytes(part)
        if left < 0:
            break
        kept.append(part)
    return "".join([*kept, said]) if room >= _bytes(said) else ""


def escaped(text: object) -> str:
    """A text in one line that shows as it is, in a table's cell too."""
    plain = _MARKS.sub(r"\\\1", _BLANK.sub(" ", str(text)).strip())
    return "".join(_ENTITIES.get(letter, letter) for letter in plain)


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def _opening(document: Record) -> list[str]:
    """Heading and table, a part a row."""
    records: list[Record] = document["results"]
    heading = f"## pytest-trt: {escaped(counted(records))}\n\n"
    partial = "**Partial:** the run was cut short, and cases are missing.\n\n" if document["partial"] else ""
    complaints = _together(f"- ❌ {escaped(text)}\n" for text in document.get("complaints", ()))
    if not records:
        return [heading, partial, *complaints, "Nothing was judged.\n"]
    head, *rows = cells(records)
    signs = ["", *(_SIGNS.get(record["verdict"], "❌") for record in records)]
    lines = [_row([sign, *row]) for sign, row in zip(signs, [head, *rows], strict=True)]
    left = _together(
        f"- {escaped(record['case'])} at {escaped(asked(record))}: not judged, as the case says:"
        f" {escaped(', '.join(record['unjudged']))}\n"
        for record in records
        if record.get("unjudged")
    )
    parted = ["\n"] if left else []
    return [heading, partial, *complaints, lines[0], "|---" * (len(head) + 1) + "|\n", *lines[1:], *parted, *left]


def _sections(document: Record) -> list[str]:
    return [_section(record) for record in document["results"] if record["verdict"] not in _SIGNS]


def _closing(document: Record) -> list[str]:
    """What it ran on, folded."""
    told = document["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in told.get("packages", {}).items())
    gpus = ", ".join(f"{gpu['gpu']} (driver {gpu['cuda_driver']})" for gpu in told.get("gpus", []))
    source = told.get("source") or {}
    facts = {
        "Python": told.get("python"),
        "platform": told.get("platform"),
        "packages": packages,
        "GPUs": gpus,
        "commit": source.get("commit"),
        "branch": source.get("branch"),
        "options": " ".join(told.get("options", [])),
        "started": told.get("started"),
        "seconds": told.get("duration_s"),
    }
    lines = [f"- {name}: {escaped(value)}\n" for name, value in facts.items() if value not in (None, "")]
    return [_folded("Environment", "".join(lines))]


def _section(record: Record) -> str:
    """Why one case did not pass: findings and the worst figures; the rest folded."""
    title = f"{record['case']} at {asked(record)} on {backend_label(record)}"
    why = f"{escaped(record['kind'])}: {escaped(record['message'])}\n\n" if record["verdict"] == "error" else ""
    accept = f"{escaped(record['accept'])}\n" if record["accept"] else ""
    outside = {name: output for name, output in record["outputs"].items() if output["reasons"]}
    reasons = [
        f"- output {escaped(name)}: {escaped(reason)}\n" for name, o in outside.items() for reason in o["reasons"]
    ]
    parts = [
        f"\n### ❌ {escaped(title)}: {'could not be judged' if record['verdict'] == 'error' else 'failed'}\n\n",
        why,
        *_findings(record),
        *_together(reasons),
        accept,
    ]
    details = "".join(_details(record))
    return "".join([*parts, _folded("Details", details) if details else ""])


def _findings(record: Record) -> list[str]:
    return _together(
        f"- **{escaped(finding['code'])}** {escaped(finding['severity'])}: {escaped(_sentence(finding['message']))}"
        f"{' ' + escaped(finding['remedy']) if finding['remedy'] else ''}\n"
        for finding in record["findings"]
    )


def _sentence(text: str) -> str:
    """With the stop that keeps it apart from what follows on its line."""
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."


def _details(record: Record) -> list[str]:
    outputs = record["outputs"]
    return [
        *_table(
            ("output", "error", "bound", "max abs", "p99", "p99.9", "bias", "cosine", "SQNR dB", "beyond", "elements"),
            [_output(name, output) for name, output in outputs.items()],
        ),
        *_table(
            ("part", "error", "bound", ""),
            [
                (part["name"], number(part["error"]), number(part["bound"]), "outside" if part["outside"] else "")
                for output in outputs.values()
                for part in output.get("parts", ())
                if len(output["parts"]) > 1
            ],
        ),
        *_table(
            ("output", "worst element", *_OF_ELEMENT),
            [
                (
                    name,
                    element["index"],
                    *(number(element[k], 6) for k in ("actual", "golden", "difference", "allowed")),
                )
                for name, output in outputs.items()
                for element in output["worst"]
            ],
        ),
        *_table(
            ("hop", "output", "relative RMS", "limit", ""),
            [_hop(hop, record["blame"]) for hop in record["hops"]],
        ),
        *_table(
            ("likeliest tensors", "node", "operator", "local SQNR dB", "cumulative SQNR dB"),
            [
                (one["tensor"], one["node"], one["op"], number(one["local_db"]), number(one["cumulative_db"]))
                for one in record["located"][:_LIKELIEST]
            ],
        ),
        *_table(("worst ranges", "range", "largest value", "saturated", "SQNR dB"), _ranges(record)),
        *_table(("layers run in", "how many"), list(record["layers"].get("by_precision", {}).items())),
        *_table(("coverage", "at the precision", "of", "share"), _coverage(record)),
        *_table(("latency", "ms"), _latency(record["latency"] or {})),
        *_together(f"- warned: {escaped(text)}\n" for text in record["warnings"]),
        *_together(_provenance(record)),
    ]


def _output(name: str, o: Record) -> tuple[object, ...]:
    keys = ("error", "bound", "max_abs", "p99", "p999", "mean_error")
    figures = [number(o[key]) for key in keys]
    return (name, *figures, number(o["cosine"], 6), number(o["sqnr_db"]), number(o["beyond"]), o["count"])


def _hop(hop: Record, blame: str | None) -> tuple[object, ...]:
    name = f"{hop['from']} -> {hop['to']}"
    limit = number(hop["limit"])
    blamed = name == blame and is_over(hop)
    return (name, hop["output"], number(hop["rel_rms"]), limit, "to blame" if blamed else "")


def _ranges(record: Record) -> list[tuple[object, ...]]:
    """Those that keep the least of their tensor."""
    found = [one for one in record.get("figures", {}).get("ranges", []) if one["sqnr_db"] is not None]
    worst = sorted(found, key=lambda one: float(one["sqnr_db"]))[:_WORST_RANGES]
    keys = ("range", "amax", "saturated", "sqnr_db")
    return [(one["tensor"], *(number(one[key]) for key in keys)) for one in worst]


def _coverage(record: Record) -> list[tuple[object, ...]]:
    """What of the network runs at the precision."""
    found = record.get("coverage") or {}
    kinds = {"multiply-adds": "macs", "weights": "weights", "operators": "operators"}
    reached = {"macs": "reached_macs", "weights": "reached_weights", "operators": "reached"}
    return [
        (what, found[reached[key]], found[key], f"{found[reached[key]] / found[key]:.1%}")
        for what, key in kinds.items()
        if found.get(key)
    ]


def _latency(found: Record) -> list[tuple[object, ...]]:
    """Statistics in milliseconds; those that too few samples do not tell are left out."""
    names = ("min", "p50", "mean", "p90", "p95", "p99", "max", "stddev", "iqr")
    told = {name: found.get(f"{name}_s") for name in names}
    return [(name, number(1e3 * value)) for name, value in told.items() if value is not None]


def _provenance(record: Record) -> list[str]:
    told = {key: value for key, value in record["provenance"].items() if isinstance(value, (str, list)) and value}
    engine = {key: value for key, value in (record["provenance"].get("engine") or {}).items() if value is not None}
    facts = {**told, **({"engine": ", ".join(f"{key} {value}" for key, value in engine.items())} if engine else {})}
    return [f"- {escaped(key)}: {escaped(value)}\n" for key, value in facts.items()]


def _table(head: Sequence[str], rows: Sequence[Iterable[object]]) -> list[str]:
    if not rows:
        return []
    return [_row(head), "|---" * len(head) + "|\n", *(_row(row) for row in rows), "\n"]


def _row(values: Iterable[object]) -> str:
    return f"| {' | '.join(escaped(value) for value in values)} |\n"


def _together(lines: Iterable[str]) -> list[str]:
    """A list, and the empty line that ends it."""
    found = list(lines)
    return [*found, "\n"] if found else []


def _folded(title: str, text: str) -> str:
    return f"\n<details><summary>{title}</summary>\n\n{text}\n</details>\n"


SUMMARY_BYTES = 1 << 20
"""What a step's summary may hold; GitHub drops all of one that is larger."""

_MOST = 10  # annotations of a kind that GitHub shows of one step
_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}


def is_running(variables: Mapping[str, str]) -> bool:
    """Whether a workflow runs us."""
    return variables.get("GITHUB_ACTIONS") == "true"


def annotated(document: Record, root: Path, variables: Mapping[str, str]) -> list[str]:
    """Workflow commands: of each case that did not pass, at the line where it is written, and of what else is wrong.

    Args:
        document: the record of the run.
        root: pytest's root folder, which the record's files are told from.
        variables: of the process; the workspace is among them.
    """
    bad = [record for record in document["results"] if record["verdict"] in ("failed", "error")]
    workspace = Path(variables.get("GITHUB_WORKSPACE") or root)
    lines = [_command({"title": "pytest-trt"}, text) for text in document["complaints"]]
    lines += [_annotation(record, root, workspace) for record in bad]
    more = len(lines) - _MOST + 1
    rest = f"{more} more are in the step's summary and in the log."
    return lines if len(lines) <= _MOST else [*lines[: _MOST - 1], _command({"title": "pytest-trt"}, rest)]


def summarise(document: Record, variables: Mapping[str, str]) -> None:
    """Append the record to the step's summary, where there is one, as far as there is room.

    Raises:
        OSError: it can't be written.
    """
    named = variables.get("GITHUB_STEP_SUMMARY")
    if not named:
        return
    path = Path(named)
    taken = path.stat().st_size if path.exists() else 0
    with path.open("a", encoding="utf-8", errors="replace", newline="\n") as file:
        file.write(fitted(document, SUMMARY_BYTES - taken))


def _annotation(record: Record, root: Path, workspace: Path) -> str:
    told = {
        "file": _relative(root / record["file"], workspace),
        "line": str(record["line"] or 1),
        "title": f"{record['case']} at {asked(record)} on {backend_label(record)}",
    }
    return _command(told, reason(record))


def _relative(path: Path, workspace: Path) -> str:
    try:
        return Path(os.path.relpath(path, workspace)).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def _command(properties: Mapping[str, str], message: str) -> str:
    told = ",".join(f"{name}={_escaped(value, _PROPERTY)}" for name, value in properties.items())
    return f"::error {told}::{_escaped(message, _DATA)}"


def _escaped(text: str, escapes: Mapping[str, str]) -> str:
    return "".join(escapes.get(letter, letter) for letter in text)
