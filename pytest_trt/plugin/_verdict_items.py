"""Verdict items: options applied, goldens written when asked, verdicts noted on their item."""

from __future__ import annotations

import json
import os
from html import escape
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt.errors import CaseError, NotPassed, PytestTrtError
from pytest_trt.findings.diagnosis import with_found
from pytest_trt.findings.verdict import Verdict
from pytest_trt.gate import check, could_not
from pytest_trt.golden.create import update
from pytest_trt.plugin import _benchmarks as benchmarks
from pytest_trt.plugin import settings
from pytest_trt.plugin._benchmarks import was_timed, with_latency
from pytest_trt.plugin._items import RECORDS, about, attach, records_of
from pytest_trt.report.record import record_of
from pytest_trt.report.terminal import cells, message

if TYPE_CHECKING:
    from pytest_trt.backends.backend import Engine
    from pytest_trt.case.case import Case
    from pytest_trt.latency.result import Latency
    from pytest_trt.precision import Precision

__all__ = [
    "WRITTEN",
    "begin_anew",
    "collected",
    "extras",
    "gather",
    "golden_path",
    "judge_case",
    "note",
    "note_error",
    "prepare",
    "renote",
    "ship",
    "speak",
    "unjudged",
    "unreadable",
    "untimed",
]


def extras(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A line of the summary table, and the whole record as JSON.

    The shape of an extra is pytest-html's: name, format_type, content, mime_type, extension.
    """
    lines = zip(cells([record]), ("th", "td"), strict=True)
    rows = [f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in line)}</tr>" for line, tag in lines]
    return [
        _extra("html", f'<table class="pytest-trt">{"".join(rows)}</table>'),
        _extra("json", record, name="pytest-trt", mime_type="application/json", extension="json"),
    ]


def _extra(kind: str, content: Any, **words: str) -> dict[str, Any]:
    return {"name": None, "format_type": kind, "content": content, "mime_type": None, "extension": None, **words}


WRITTEN = "trt_golden_written"
"""Name of the item's property that tells what a golden's update changed."""

_verdict = pytest.StashKey["Verdict | None"]()
_said = pytest.StashKey[str]()
_updated = pytest.StashKey[dict[str, PytestTrtError | None]]()


def judge_case(item: pytest.Item, case: Case, precision: Precision) -> Verdict:
    """Check a case as the run's options say, note the verdict on the item, and fail unless it passed.

    Raises:
        NotPassed: it did not pass; the text says why.
    """
    backend = settings.backend_for(item.config, case)
    scrutiny = settings.scrutiny(item.config)
    try:
        case = prepare(item, case)
        keeper = benchmarks.keeper_of(item)
    except Exception as error:
        return note(item, could_not(case, precision, backend, error, scrutiny))
    verdict = check(
        case,
        precision,
        backend=backend,
        golden_dir=settings.golden_dir(item.config),
        require_engine=settings.require_engine(item.config),
        how=settings.how_for(item.config, case),
        scrutiny=scrutiny,
        keeper=keeper,
    )
    benchmarks.replayed(item, verdict)
    return note(item, verdict)


def prepare(item: pytest.Item, case: Case) -> Case:
    """The case with the command line's calibration, its golden made anew if that was asked.

    Raises:
        PytestTrtError: another case of this name would share its golden, or the golden can't be made.
    """
    _require_own_golden(item, case)
    _require_own_plan(item)
    case = settings.lowering_for(item.config, settings.calibration_for(item.config, case))
    case = settings.weak_bounds_for(item.config, case)
    if settings.update_golden(item.config):
        _update_once(item, case)
    return case


def note(item: pytest.Item, verdict: Verdict) -> Verdict:
    """Put the verdict on the item, for JUnit, xdist and the reports, and fail unless it passed.

    Raises:
        NotPassed: it did not pass; the text says why.
    """
    verdict = with_latency(item, verdict)
    before = item.stash.get(_verdict, None)
    if before is not None and (before.verdict == "timed" or _awaits_outputs(before)):
        _forget(item)  # it is judged now, by its outputs too: that is one result
    item.stash[_verdict] = verdict
    record = record_of(verdict)
    _put(item, record)
    if not verdict.passed:
        item.stash[_said] = message(record, whole=item.config.get_verbosity() >= 2)
        raise NotPassed(item.stash[_said])
    return verdict


def renote(item: pytest.Item, case: Case, precision: Precision, found: Latency, engine: Engine) -> None:
    """Put a latency on the item: into the verdict that it has, or as one of its own; fail where it fails.

    Raises:
        NotPassed: it is slower, that can't be told, or it is over a budget.
    """
    kept = item.stash.get(_verdict, None)
    alone = Verdict(
        case=case.name,
        precision=precision.label,
        backend=engine.backend,
        simulated=engine.simulated,
        verdict="timed",
        where=case.where,
        warnings=engine.warnings,
        provenance={"engine": dict(engine.facts)},
    )
    if kept is not None:
        _forget(item)
    benchmarks.tell(item, kept or alone)
    note(item, with_found(kept or alone, found, settings.scrutiny(item.config).choice))


def note_error(item: pytest.Item, case: str, precision: str | None, error: Exception) -> None:
    """Put it on the item that a case could not even be tried."""
    backend = settings.backend_for(item.config, None)
    verdict = Verdict(case, precision or "-", backend, False, "error", message=str(error), kind=type(error).__name__)
    _put(item, record_of(verdict))


collected = pytest.StashKey[dict[str, list["Case"]]]()
"""All cases that were collected, those deselected later too, by the path of their golden."""

unreadable = pytest.StashKey[bool]()
"""Whether a case among them could not be read."""


def gather(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remember the cases of all items before any is deselected, and mark the items as ours."""
    found = [(item, _about(item)) for item in items]
    distinct = {id(case): case for _, case in found if case is not None and not isinstance(case, Exception)}
    owners = config.stash.setdefault(collected, {})
    for case in distinct.values():
        owners.setdefault(golden_path(case, config), []).append(case)
    config.stash[unreadable] = any(isinstance(case, Exception) for _, case in found)
    for item, subject in found:
        if subject is not None and item.get_closest_marker("trt") is None:
            item.add_marker("trt")


def unjudged(item: pytest.Item, fixtures: list[str]) -> str:
    """Why a test that asked for the gate has no pass of it; empty if it has, or works by hand."""
    verdicts = [value for name, value in item.user_properties if name == "trt_verdict"]
    if verdicts:
        bad = next((str(value) for value in verdicts if value not in ("passed", "built", "timed")), "")
        return f"{item.nodeid} swallowed a verdict: {bad}, which is never a pass." if bad else ""
    if "trt_check" in fixtures:
        return f"{item.nodeid} takes trt_check and never calls it: nothing was judged. Write trt_check()."
    if not any(name.startswith("trt_") for name in fixtures):
        return (
            f"{item.nodeid} is marked trt and takes no fixture of it: nothing was judged. Take trt_check and call it."
        )
    return ""


def untimed(item: pytest.Item, fixtures: list[str]) -> str:
    """Why a test that asked to be timed was not, in a run that is about latency; empty if it was, or never asked."""
    mode = settings.latency_mode(item.config)
    if mode is None or "trt_benchmark" not in fixtures or was_timed(item):
        return ""
    return (
        f"{item.nodeid} takes trt_benchmark and never calls it: nothing was timed for --trt-latency={mode}. Call it"
        " with the engine and its inputs, or leave the fixture out."
    )


def golden_path(case: Case, config: pytest.Config) -> str:
    """Where a case's golden is kept, or would be."""
    own = case.base / case.golden if case.golden else settings.golden_dir(config) / f"{case.name}.safetensors"
    return os.path.normcase(own.resolve())


def _about(item: pytest.Item) -> Case | Exception | None:
    return about(item)[0]


def _require_own_golden(item: pytest.Item, case: Case) -> None:
    """One golden belongs to one model; and to be made anew, to cases that would make the same one."""
    making = settings.update_golden(item.config)
    owners = item.config.stash.get(collected, {})
    for other in owners.get(golden_path(case, item.config), []):
        if _model_key(other) != _model_key(case):
            raise CaseError(
                f"{case.where}: the name {case.name!r} is taken by another model too ({other.where}), and they"
                " would share one golden. Give one of them another `name`."
            )
        if making and _making_key(other) != _making_key(case):
            raise CaseError(
                f"{case.where}: {other.where} is of the same name and model and would make another golden (from other"
                " inputs, samples, seed or labels). Make them alike, or give one of them another `name`."
            )


def _require_own_plan(item: pytest.Item) -> None:
    """--trt-engine names one plan: it can be of one case at one precision only."""
    plan = item.config.getoption("trt_engine")
    judged = [other.nodeid for other in item.session.items if _about(other) is not None]
    if plan and len(judged) > 1:
        raise CaseError(
            f"--trt-engine={plan} is one plan, and {len(judged)} tests would judge it ({judged[0]}, {judged[1]}, ...):"
            " choose one case and one precision, by node id or with -k; or name a plan for each case (engine = ...)."
        )


def _model_key(case: Case) -> str:
    """What a case's golden is made from."""
    return str((case.base / str(case.reference or case.onnx or case.torch)).resolve())


def _making_key(case: Case) -> tuple[object, ...]:
    data = [str((case.base / path).resolve()) if path else None for path in (case.inputs, case.labels)]
    drawn = (case.samples, case.seed) if case.inputs is None else None
    may = (case.constant_outputs, case.nan_outputs)
    return (*data, drawn, dict(case.input), case.opset, case.output_names, case.class_output, *may)


def _update_once(item: pytest.Item, case: Case) -> None:
    """A golden is made once a run, by the first of its items; the others see how that ended."""
    done = item.config.stash.setdefault(_updated, {})
    golden_dir = settings.golden_dir(item.config)
    key = golden_path(case, item.config)
    if key not in done:
        try:
            lines = update(case, golden_dir, item.config.getoption("trt_golden_reason") or "")
        except PytestTrtError as error:
            done[key] = error
        else:
            done[key] = None
            item.user_properties.append((WRITTEN, "\n".join(lines)))
    error_of = done[key]
    if error_of is not None:
        raise error_of


def speak(item: pytest.Item, raised: BaseException, report: pytest.TestReport) -> None:
    """Let a test function's report be our message, where that is what it failed with, as a case's of a file is."""
    said = item.stash.get(_said, None)
    if said is not None and str(raised) == said:
        report.longrepr = said


def ship(item: pytest.Item, report: pytest.TestReport) -> None:
    """Put the item's records on its last report, and before pytest-html where that shows them."""
    if report.when == "teardown":
        records = records_of(item)
        attach(report, records)
        if item.config.pluginmanager.hasplugin("html") and item.config.getoption("htmlpath", None):
            shown = [extra for text in records for extra in extras(json.loads(text))]
            vars(report)["extras"] = [*getattr(report, "extras", []), *shown]


def begin_anew(item: pytest.Item) -> None:
    """Nothing was judged or timed in this test yet: what an attempt before noted is in that one's report."""
    _forget(item)
    item.stash[_verdict] = None
    benchmarks.forget(item)


def _awaits_outputs(verdict: Verdict) -> bool:
    """Whether nothing is known but that the engine, which runs, is in another precision."""
    return verdict.kind == "PrecisionNotHonoured"


def _forget(item: pytest.Item) -> None:
    """Take back what was noted on the item: it is told anew."""
    names = {name for name, _ in item.user_properties if name.startswith("trt_")} - {WRITTEN}
    item.user_properties[:] = [pair for pair in item.user_properties if pair[0] not in names]
    item.stash[RECORDS] = []


def _put(item: pytest.Item, record: dict[str, Any]) -> None:
    worst = record["outputs"].get(record["worst_output"], {})
    latency = record["latency"] or {}
    properties = {
        "trt_case": record["case"],
        "trt_precision": record["precision"],
        "trt_backend": record["backend"],
        "trt_simulated": record["simulated"],
        "trt_verdict": record["verdict"],
        "trt_rel_rms": worst.get("rel_rms"),
        "trt_bound": worst.get("bound"),
        "trt_findings": ",".join(dict.fromkeys(finding["code"] for finding in record["findings"])) or None,
        "trt_latency_state": latency.get("state"),
        **{f"trt_latency_{name}": latency.get(name) for name in ("p50_s", "p90_s", "p99_s")},
        "trt_latency_ratio": (latency.get("comparison") or {}).get("ratio"),
    }
    item.user_properties.extend((name, value) for name, value in properties.items() if value is not None)
    item.stash.setdefault(RECORDS, []).append(json.dumps(record, allow_nan=False))
