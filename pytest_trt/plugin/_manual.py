"""Manual: the fixtures for tests that run the engine themselves."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_trt.backends.backend import choose
from pytest_trt.backends.cuda import is_on_device
from pytest_trt.case.build_settings import require_heeded
from pytest_trt.case.reference import subject_of
from pytest_trt.errors import CaseError, DataError, NotPassed, PytestTrtError
from pytest_trt.evidence.weight_envelope import with_weight_envelope
from pytest_trt.gate import build, could_not, refuse_other_than_engines, verdict_of
from pytest_trt.golden.load import open_golden
from pytest_trt.plugin import _benchmarks as benchmarks
from pytest_trt.plugin import settings
from pytest_trt.plugin._verdict_items import note, prepare, renote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_trt.backends.backend import Backend, Built, Engine, Layer
    from pytest_trt.case.case import Case
    from pytest_trt.case.reference import Subject
    from pytest_trt.findings.verdict import Verdict
    from pytest_trt.golden.golden import Golden
    from pytest_trt.latency.result import Latency
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.precision import Precision

__all__ = ["GoldenCheck", "open_engine", "open_golden_check", "time_engine"]

_built: pytest.StashKey[Built] = pytest.StashKey()


@dataclass(frozen=True)
class OutputsGiven:
    """Who computed the outputs: the ``trt_engine`` of the same test, else code that we do not know."""

    backend: str
    simulated: bool
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def layers(self) -> tuple[Layer, ...]:
        """None that we know of."""
        return ()


@dataclass(frozen=True)
class GoldenCheck:
    """A golden that can judge outputs for one case and precision.

    Attributes:
        golden: the whole golden.
        inputs: arrays by input name, samples along axis 0.
        outputs: reference arrays by output name, samples along axis 0.
    """

    golden: Golden
    _item: pytest.Item
    _subject: Subject
    _ran: OutputsGiven

    @property
    def inputs(self) -> Arrays:
        """Arrays by input name, samples along axis 0."""
        return self.golden.inputs

    @property
    def outputs(self) -> Arrays:
        """Reference arrays by output name, samples along axis 0."""
        return self.golden.outputs

    def check(self, outputs: Mapping[str, Any]) -> Verdict:
        """Judge outputs for :attr:`inputs`, record the verdict, and fail the test unless it passed.

        Args:
            outputs: arrays by output name, in the golden's shapes.
        """
        __tracebackhide__ = True
        try:
            arrays = {name: _on_host(name, value) for name, value in outputs.items()}
            built = self._item.stash.get(_built, None)
            ran = built.engine if built else self._ran
            scrutiny = settings.scrutiny(self._item.config)
            verdict = verdict_of(self._subject, self.golden, ran, [arrays], scrutiny, built)
        except PytestTrtError as error:
            case, precision = self._subject.case, self._subject.precision
            verdict = could_not(case, precision, self._ran.backend, error, settings.scrutiny(self._item.config))
        try:
            return note(self._item, verdict)
        except NotPassed as error:
            text = str(error)
        pytest.fail(text, pytrace=False)


def _on_host(name: str, value: Any) -> np.ndarray:
    if is_on_device(value):
        raise DataError(f"output {name!r} lies on the GPU, and is judged in numpy: run without on_device, or copy it.")
    return np.asarray(value)


def open_engine(item: pytest.Item, case: Case, precision: Precision) -> Engine:
    """The engine for ``trt_engine``; what goes wrong is noted on the item.

    Raises:
        NotPassed: it can't be built.
    """
    name = settings.backend_for(item.config, case)
    try:
        case = prepare(item, case)
        _require_ordinary(item, case, name, "runs its engine")
        subject = subject_of(case, precision)
        golden = with_weight_envelope(subject, open_golden(subject, settings.golden_dir(item.config)))
        backend = choose(name)
        if _engine_asked(item, case):
            refuse_other_than_engines(backend)
        built = build(subject, golden, backend, settings.how_for(item.config, case))
    except PytestTrtError as error:
        note(item, could_not(case, precision, name, error, settings.scrutiny(item.config)))
        raise
    if built.unhonoured:  # the test may never hand its outputs to be judged
        with suppress(NotPassed):
            note(item, could_not(case, precision, name, built.unhonoured, settings.scrutiny(item.config)))
    item.stash[_built] = built
    return built.engine


def open_golden_check(item: pytest.Item, case: Case, precision: Precision) -> GoldenCheck:
    """The golden for ``trt_golden``; what goes wrong is noted on the item.

    Raises:
        NotPassed: it is missing, damaged, stale, of other shapes, without evidence, or of several data sets; or an
            engine is required and nothing shows that one computes the outputs.
    """
    name = settings.backend_for(item.config, case)
    try:
        case = prepare(item, case)
        _require_ordinary(item, case, name, "judges by hand")
        subject = subject_of(case, precision)
        golden = with_weight_envelope(subject, open_golden(subject, settings.golden_dir(item.config)))
        if len(golden.runs) > 1:
            raise CaseError(
                f"{case.where}: {golden.source} holds {len(golden.runs)} data sets, which trt_golden can't hand out as"
                " one: judge them all with trt_check()."
            )
        ran = _ran(item, case, choose(name))
    except PytestTrtError as error:
        note(item, could_not(case, precision, name, error, settings.scrutiny(item.config)))
        raise
    return GoldenCheck(golden, item, subject, ran)


def time_engine(item: pytest.Item, case: Case, precision: Precision, engine: Engine, inputs: Arrays) -> Latency | None:
    """What ``trt_benchmark`` does: time the test's engine, note it, and fail where the gate or a budget says so.

    Returns:
        What was found; None where benchmarks are disabled and nothing asks for a latency: then it runs once.

    Raises:
        NotPassed: it is slower, can't be told, or is over a budget.
        CaseError: the engine is not that of ``trt_engine``, or the test timed it before.
    """
    built = item.stash.get(_built, None)
    if built is None or built.engine is not engine:
        raise CaseError(
            f"{item.nodeid}: trt_benchmark times the engine of trt_engine, and was given another: take trt_engine in"
            " the same test and pass it."
        )
    if benchmarks.is_disabled(item):
        engine.run(inputs)
        return None
    if benchmarks.was_timed(item):
        raise CaseError(
            f"{item.nodeid}: trt_benchmark times once a test, since pytest-benchmark keeps one benchmark a test:"
            " parametrize the test, or write another."
        )
    try:
        found = benchmarks.time_by_hand(item, case, built, inputs)
    except PytestTrtError as error:
        note(item, could_not(case, precision, engine.backend, error, settings.scrutiny(item.config)))
        raise
    renote(item, case, precision, found, engine)
    return found


def _require_ordinary(item: pytest.Item, case: Case, backend: str, what: str) -> None:
    """Refuse what such a test can't do: build only, or heed words that the backend has no use for."""
    if settings.build_only(item.config):
        raise CaseError(f"--trt-build-only runs and judges nothing, and this test {what}: deselect it.")
    require_heeded(settings.how_for(item.config, case).words, backend)


def _engine_asked(item: pytest.Item, case: Case) -> bool:
    """Whether outputs of anything but an engine do not count: one is required, or a plan is named."""
    return settings.require_engine(item.config) or settings.how_for(item.config, case).plan is not None


def _ran(item: pytest.Item, case: Case, backend: Backend) -> OutputsGiven:
    if "trt_engine" in getattr(item, "fixturenames", ()):
        return OutputsGiven(backend.name, backend.simulated)
    if _engine_asked(item, case):
        raise CaseError(
            "an engine is required (--trt-require-engine, --trt-engine), and outputs that are handed to"
            " trt_golden.check() without trt_engine may come from anywhere: take trt_engine, or trt_check."
        )
    return OutputsGiven("given outputs", False)
