"""``pytest-trt inspect``: what a model, plan, golden or record holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_trt.cli._console import Line, Table, as_json, say
from pytest_trt.cli._golden import facts, parts
from pytest_trt.report.terminal import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_trt.cli._console import Part

__all__ = ["command"]

_STYLES = {"passed": "good", "built": "doubt", "failed": "bad", "error": "bad"}


@click.command(name="inspect", short_help="Tell what a file holds.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--load", is_flag=True, help="A plan: load it for its layers. A plan is code: only one that you trust.")
@as_json
def command(file: Path, load: bool, as_json: bool) -> None:
    """Print what FILE holds: an ONNX model, a TensorRT plan, a golden, or a record of --trt-report.

    Which of them it is, is told by its content. Nothing is run, and a plan is not loaded unless you say so.
    """
    from pytest_trt.cli._summary import kind_of

    kind = kind_of(file)
    if load and kind != "plan":
        raise click.UsageError(f"--load is for plans, and {file} is of the kind {kind}.")
    parts, facts = _plan(file, load) if kind == "plan" else _TOLD[kind](file)
    say(parts, facts, json_wanted=as_json)


def _plan(file: Path, load: bool) -> tuple[list[Part], dict[str, Any]]:
    from pytest_trt.cli._summary import plan_facts

    facts = plan_facts(file)
    built = f"{facts['product']} {facts['release'] or 'of a release that its header does not tell'}"
    parts: list[Part] = [
        Line(f"{file}: {facts['product']} plan, {facts['bytes']} bytes", "head"),
        f"  SHA-256 {facts['sha256']}",
        f"  built with {built}; serialization {facts['serialization']}",
    ]
    if not load:
        return [*parts, f"  layers: --load, on a machine with {facts['product']} and the GPU it was built for"], facts
    from pytest_trt.backends.tensorrt.runtime import look_into

    told = look_into(file, facts["product"].lower())
    return [*parts, *_loaded(told)], {**facts, "loaded": told}


def _loaded(told: Mapping[str, Any]) -> list[Part]:
    layers = told["layers"]
    counts = Counter(layer["precision"] for layer in layers if layer["computes"])
    shares = ", ".join(f"{count} in {label}" for label, count in counts.most_common()) or "none tells"
    rows = tuple((one["name"], one["type"], one["precision"], one["tactic"]) for one in layers)
    return [
        f"  loaded by {told['release']} on {told['gpu']}",
        *(f"  {end}" for end in told["ends"]),
        f"  {len(layers)} layers; of those that multiply matrices: {shares}",
        *([Table(("layer", "type", "precision", "tactic"), rows)] if rows else []),
    ]


def _network(file: Path) -> tuple[list[Part], dict[str, Any]]:
    from pytest_trt.cli._summary import network_facts

    facts = network_facts(file)
    opsets = ", ".join(f"{domain} {version}" for domain, version in facts["opsets"].items())
    parts: list[Part] = [
        Line(f"{file}: ONNX model, {facts['bytes']} bytes, {facts['weights']} weights, holds {facts['held']}", "head"),
        f"  by {facts['producer'] or 'a producer that is not told'}, IR {facts['ir_version']}, opset {opsets}",
        f"  model hash {facts['model_sha256']}",
        f"  file SHA-256 {facts['sha256']}",
        *(f"  input {spec}" for spec in facts["inputs"]),
        *(f"  output {spec}" for spec in facts["outputs"]),
        f"  {facts['nodes']} nodes: {', '.join(f'{count} {kind}' for kind, count in facts['ops'].items())}",
        *_qdq(facts["qdq"]),
        *(f"  {count} weight{'s' * (count > 1)} in {told}" for told, count in facts["formats"].items()),
    ]
    rows = tuple((label, *_lowered(told)) for label, told in facts["lowered"].items())
    return [*parts, *([Table(("precision", "nodes that it lowers", "beside"), rows)] if rows else [])], facts


def _qdq(told: Mapping[str, Any] | None) -> list[Part]:
    if told is None:
        return []
    line = f"  {told['quantize']} QuantizeLinear, {told['dequantize']} DequantizeLinear; {told['ranges']} ranges"
    if "said" in told:
        return [line, Line(f"  {told['said']}", "doubt")]
    if not told["ranges"]:
        return [f"{line}: no activation is quantised"]
    ends = [f"{word} {name!r} {amax:.4g}" for word in ("narrowest", "widest") for name, amax in told[word].items()]
    return [f"{line}, {told['distinct']} distinct: {', '.join(ends)}"]


def _lowered(told: Mapping[str, Any]) -> tuple[str | Line, str | Line]:
    if "refused" in told:
        return "none", Line(f"refused: {told['refused']}", "doubt")
    beside = [f"{told['matrix_nodes']} multiply matrices"]
    beside += [f"{told['ranges']} ranges needed"] if "ranges" in told else []
    if told.get("weights_beyond"):
        beside.append(f"{told['weights_beyond']} weights become infinite")
    if told.get("weights_zeroed"):
        beside.append(f"{told['weights_zeroed']} weights become zero")
    return str(told["nodes"]), "; ".join(beside)


def _golden(file: Path) -> tuple[list[Part], dict[str, Any]]:
    from pytest_trt.golden.golden import read

    golden = read(file, "pytest-trt golden create")
    return parts(golden), {"kind": "golden", **facts(golden)}


def _record(file: Path) -> tuple[list[Part], dict[str, Any]]:
    from pytest_trt.report.record_file import read_record, telling

    document = read_record(file, newer=True)
    with telling(file):
        return _told_of(document, file)


def _told_of(document: Mapping[str, Any], file: Path) -> tuple[list[Part], dict[str, Any]]:
    results = document["results"]
    verdicts = Counter(result["verdict"] for result in results)
    found = Counter(finding["code"] for result in results for finding in result.get("findings", []))
    told = document.get("environment", {})
    shares = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()) or "nothing judged"
    facts = {
        "kind": "record",
        "file": str(file),
        "schema": document["schema"],
        "partial": bool(document.get("partial")),
        "environment": told,
        "verdicts": dict(verdicts),
        "findings": dict(found),
        "results": [{key: result[key] for key in ("case", "precision", "backend", "verdict")} for result in results],
    }
    parts: list[Part] = [
        Line(f"{file}: record, schema {document['schema']}; {shares}", "head"),
        *([Line("  partial: the run was cut short", "doubt")] if facts["partial"] else []),
        f"  Python {told.get('python', '?')}, {told.get('platform', '?')}",
        f"  {', '.join(f'{name} {release}' for name, release in told.get('packages', {}).items())}",
        *([f"  findings: {', '.join(f'{code} {count}' for code, count in sorted(found.items()))}"] if found else []),
        *(Line(line, _STYLES.get(verdict, "head")) for line, verdict in (table(results) if results else [])),
    ]
    return parts, facts


_TOLD = {"onnx": _network, "golden": _golden, "record": _record}
