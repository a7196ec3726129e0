"""The record: every verdict as plain JSON, which all other reports render; ``record.schema.json`` describes it.

Numbers that JSON has no word for are texts: "nan", "inf", "-inf".
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
from dataclasses import asdict, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.backend import all_packages
from pytest_trt.latency.result import as_record as latency_record
from pytest_trt.storage.atomic_write import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from pytest_trt.comparison.comparison import Comparison, Element
    from pytest_trt.evidence.coverage import Coverage
    from pytest_trt.evidence.finding import Finding
    from pytest_trt.evidence.hops import Hop
    from pytest_trt.evidence.judgement import JudgedPart, Judgement
    from pytest_trt.findings.verdict import Figures, Verdict

__all__ = [
    "SCHEMA",
    "document",
    "environment",
    "gpus_of",
    "packages",
    "record_of",
    "source_of",
    "text_of",
    "times",
    "write",
]

_PACKAGES = ("pytest-trt", "pytest", "pytest-benchmark", "numpy", "onnx", *all_packages(), "cuda-bindings")

_GPU = ("gpu", "compute_capability", "cuda_driver", "cuda_runtime", "tensorrt")

_SERVICES = {  # which variable tells of a service, and where it keeps commit, branch and address of the run
    "github": ("GITHUB_ACTIONS", "GITHUB_SHA", ("GITHUB_HEAD_REF", "GITHUB_REF_NAME")),
    "gitlab": ("GITLAB_CI", "CI_COMMIT_SHA", ("CI_COMMIT_REF_NAME",)),
    "jenkins": ("JENKINS_URL", "GIT_COMMIT", ("CHANGE_BRANCH", "GIT_BRANCH", "BRANCH_NAME")),
}

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


def environment(root: Path, options: Iterable[str] = ()) -> dict[str, Any]:
    """What the run runs on: versions from package metadata, where its source comes from, and its options.

    Args:
        root: the folder whose repository is asked for commit and branch, where no CI service tells them.
        options: words of the command line; credentials in addresses are left out.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": packages(),
        "source": source_of(root, os.environ),
        "options": [_CREDENTIALS.sub("", word) for word in options],
    }


def times(started: datetime, now: datetime, *, ended: bool) -> dict[str, Any]:
    """When a run began, when it ended (None while it goes on), ISO 8601 in UTC, and the seconds so far."""
    return {
        "started": started.isoformat(timespec="milliseconds"),
        "finished": now.isoformat(timespec="milliseconds") if ended else None,
        "duration_s": round((now - started).total_seconds(), 3),
    }


def packages() -> dict[str, str]:
    """Versions of the packages that matter here and are installed."""
    return {name: found for name in _PACKAGES if (found := _version(name))}


def gpus_of(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The GPUs that engines ran on, each once, with driver and release, as the results' provenance tells them."""
    engines = [result["provenance"].get("engine") or {} for result in results]
    found = [tuple(engine.get(key) for key in _GPU) for engine in engines if engine.get("gpu")]
    return [dict(zip(_GPU, gpu, strict=True)) for gpu in dict.fromkeys(found)]


def source_of(root: Path, variables: Mapping[str, str]) -> dict[str, str | None]:
    """Commit and branch of what is tested, and the address of the CI run, each None where nothing tells it.

    Args:
        root: a folder of a git repository, perhaps.
        variables: of the process.
    """
    for service, (sign, commit, branches) in _SERVICES.items():
        if variables.get(sign):
            branch = next((variables[name] for name in branches if variables.get(name)), None)
            told = {"service": service, "commit": variables.get(commit), "branch": branch}
            return {**told, "run": _address(service, variables)}
    return {"service": None, **_of_git(root), "run": None}


def _address(service: str, variables: Mapping[str, str]) -> str | None:
    if service == "github":
        parts = [variables.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")]
        return "{}/{}/actions/runs/{}".format(*parts) if all(parts) else None
    return variables.get("CI_JOB_URL" if service == "gitlab" else "BUILD_URL")


def _of_git(root: Path) -> dict[str, str | None]:
    """Commit and branch that are checked out; None each where there is no git, or no repository."""
    nothing: dict[str, str | None] = {"commit": None, "branch": None}
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        return nothing
    command = ["git", "rev-parse", "HEAD", "--abbrev-ref", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return nothing
    commit, branch = (*done.stdout.split("\n"), "", "")[:2]
    return {"commit": commit or None, "branch": None if branch in ("", "HEAD") else branch}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


SCHEMA = 1
"""Grows when a reader of the older shape would be misled; new keys alone do not make it grow."""

_LOCATED = 20  # the likeliest causes; the rest of a network is no news


def record_of(verdict: Verdict) -> dict[str, Any]:
    """One verdict as plain data."""
    return {
        "case": verdict.case,
        "precision": verdict.precision,
        "held": verdict.held,
        "backend": verdict.backend,
        "simulated": verdict.simulated,
        "verdict": verdict.verdict,
        "message": verdict.message,
        "kind": verdict.kind,
        "where": verdict.where,
        "accept": verdict.accept,
        "unjudged": list(verdict.unjudged),
        "worst_output": verdict.worst.output if verdict.worst else None,
        "outputs": {judgement.output: _output(judgement) for judgement in verdict.judgements},
        "findings": [_finding(finding) for finding in verdict.findings],
        "ignored": dict(verdict.ignored),
        "hops": [_hop(hop) for hop in verdict.hops],
        "blame": verdict.blame,
        "located": _plain(list(verdict.located[:_LOCATED])),
        "figures": _figures_of(verdict.figures),
        "layers": _plain(dict(verdict.layers)),
        "coverage": _coverage(verdict.coverage),
        "warnings": list(verdict.warnings),
        "latency": latency_record(verdict.latency) if verdict.latency else None,
        "provenance": _plain(dict(verdict.provenance)),
    }


def _coverage(found: Coverage | None) -> dict[str, Any] | None:
    if found is None:
        return None
    told = {**asdict(found), "left_out": list(found.left_out[:_LOCATED])}
    return {**told, "share": found.share, "share_of_weights": found.share_of_weights}


def document(
    results: list[dict[str, Any]],
    environment: Mapping[str, Any],
    *,
    partial: bool,
    exit_status: int | None,
    complaints: Sequence[str] = (),
) -> dict[str, Any]:
    """The whole record of a run.

    Args:
        results: records of verdicts.
        environment: what the run ran on; the GPUs are added as the results tell them.
        partial: whether something is missing, because the run was cut short or still goes on.
        exit_status: pytest's; None while the run goes on.
        complaints: why the run is not green beside its results.
    """
    return {
        "schema": SCHEMA,
        "partial": partial,
        "exit_status": exit_status,
        "complaints": list(complaints),
        "environment": {**environment, "gpus": gpus_of(results)},
        "results": results,
    }


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record whole or not at all; the folder is made.

    Raises:
        OSError: it can't be written there.
    """
    write_whole(path, text_of(record).encode())


def text_of(record: Mapping[str, Any]) -> str:
    """The record as JSON text, a line a result."""
    head = json.dumps({key: value for key, value in record.items() if key != "results"}, allow_nan=False)
    lines = ",\n".join(json.dumps(result, allow_nan=False) for result in record["results"])
    return f'{head[:-1]}, "results": [\n{lines}\n]}}\n'


def _output(judgement: Judgement) -> dict[str, Any]:
    comparison = judgement.comparison
    return {
        "error": _plain(judgement.error),
        "bound": _plain(judgement.bound),
        "bound_from": judgement.origin,
        "metric": "mismatch" if judgement.whole else "rel_rms",
        "reasons": list(judgement.reasons),
        "parts": [_part(part) for part in judgement.parts],
        "run": judgement.run,
        "limits": {
            f.name: value
            for f in fields(judgement.tolerance)
            if (value := getattr(judgement.tolerance, f.name)) not in (None, {})
        },
        "accuracy": _plain(judgement.accuracy),
        "near_ties": judgement.near_ties,
        **_compared(comparison),
    }


def _part(one: JudgedPart) -> dict[str, Any]:
    return {"name": one.part.name, "error": _plain(one.error), "bound": _plain(one.bound), "outside": one.outside}


def _compared(c: Comparison) -> dict[str, Any]:
    return {
        "dtype": c.actual_dtype,
        "golden_dtype": c.reference_dtype,
        "shape": list(c.shape),
        "count": c.count,
        "rel_rms": _plain(c.rel_rms),
        "max_abs": _plain(c.max_abs.difference if c.max_abs else None),
        "max_rel": _plain(c.max_rel.relative if c.max_rel else None),
        "mean_error": _plain(c.mean_error),
        "cosine": _plain(c.cosine),
        "sqnr_db": _plain(c.sqnr_db),
        "p99": _plain(c.p99),
        "p999": _plain(c.p999),
        "different": c.different,
        "beyond": c.beyond,
        "nonfinite": c.actual_nan + c.actual_inf,
        "nan": {"actual": c.actual_nan, "golden": c.reference_nan},
        "inf": {"actual": c.actual_inf, "golden": c.reference_inf},
        "mismatched": c.mismatched,
        "top1": c.ranking.top1 if c.ranking else None,
        "top5": c.ranking.top5 if c.ranking else None,
        "samples": c.ranking.samples if c.ranking else None,
        "sequences": c.ranking.sequences if c.ranking else None,
        "top1_all": c.ranking.top1_all if c.ranking else None,
        "flips": _plain(list(c.ranking.flips)) if c.ranking else [],
        "max_abs_at": _element(c.max_abs),
        "max_rel_at": _element(c.max_rel),
        "worst": [_element(element) for element in c.worst],
    }


def _figures_of(figures: Figures | None) -> dict[str, Any]:
    drawn: dict[str, Any] = _plain(figures) if figures else {"outputs": {}, "tensors": [], "ranges": []}
    return drawn


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "message": finding.message,
        "remedy": finding.remedy,
        "evidence": _plain(dict(finding.evidence)),
    }


def _hop(hop: Hop) -> dict[str, Any]:
    return {
        "from": hop.start,
        "to": hop.end,
        "output": hop.output,
        "rel_rms": _plain(hop.rel_rms),
        "limit": _plain(hop.limit),
    }


def _element(element: Element | None) -> dict[str, Any] | None:
    if element is None:
        return None
    return {
        "index": list(element.index),
        "actual": _plain(element.actual),
        "golden": _plain(element.reference),
        "difference": _plain(element.difference),
        "relative": _plain(element.relative),
        "allowed": _plain(element.allowed),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
