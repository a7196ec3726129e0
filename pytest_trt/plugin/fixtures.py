"""Fixtures: the gate and its steps, for tests. Everything heavier is imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_trt.backends.backend import Engine
    from pytest_trt.case.case import Case
    from pytest_trt.findings.verdict import Verdict
    from pytest_trt.latency.result import Latency
    from pytest_trt.plugin._manual import GoldenCheck
    from pytest_trt.precision import Precision

__all__ = ["trt_benchmark", "trt_case", "trt_check", "trt_engine", "trt_golden", "trt_precision"]


@pytest.fixture
def trt_precision(request: pytest.FixtureRequest) -> Precision:
    """The precision that this test runs at; the test is repeated for each that was asked.

    Example::

        def test_tolerance(trt_precision):
            assert trt_precision.bits <= 32

    Asked for by ``--trt-precision=fp16,int8``, else the ``precisions`` of the marker (or, with a fixture that takes
    a case, of trt.toml), else the ini file.
    """
    from pytest_trt.precision import Precision

    label = _param(request)
    return Precision.FP32 if label == "-" else Precision.parse(label)


@pytest.fixture
def trt_case(request: pytest.FixtureRequest, trt_precision: Precision) -> Case:  # noqa: ARG001 - parametrized in pairs
    """The model that this test is about: from its ``trt`` marker, else each case of the nearest trt.toml.

    Example::

        @pytest.mark.trt(onnx="digits.onnx", calibration="calibration.npz")
        def test_digits(trt_case):
            assert trt_case.name == "digits"
    """
    from pytest_trt.errors import CaseError
    from pytest_trt.plugin._verdict_items import note_error

    found = _param(request)
    if isinstance(found, CaseError):
        note_error(request.node, request.node.name, None, found)
        pytest.fail(f"{type(found).__name__}: {found}", pytrace=False)
    case: Case = found
    return case


@pytest.fixture
def trt_engine(request: pytest.FixtureRequest, trt_case: Case, trt_precision: Precision) -> Engine:
    """The case's model, built at the precision; ``run(inputs)`` gives outputs by name.

    Example::

        def test_by_hand(trt_engine, trt_golden):
            outputs = trt_engine.run(trt_golden.inputs)
            trt_golden.check(outputs)
    """
    from pytest_trt.plugin._manual import open_engine

    engine: Engine = _or_fail(lambda: open_engine(request.node, trt_case, trt_precision))
    return engine


@pytest.fixture
def trt_benchmark(
    request: pytest.FixtureRequest,
    trt_case: Case,
    trt_precision: Precision,
    benchmark: object,  # noqa: ARG001 - so that pytest-benchmark's own options select this test
) -> Callable[..., Latency | None]:
    """Time an engine on inputs and hand the samples to pytest-benchmark; with ``--trt-latency=gate`` also judge them.

    Seconds of the GPU by CUDA events, of the host where nothing runs on one. Returns what was found; None where
    ``--benchmark-disable`` has it run once, untimed.

    Example::

        def test_speed(trt_engine, trt_golden, trt_benchmark):
            trt_golden.check(trt_engine.run(trt_golden.inputs))
            latency = trt_benchmark(trt_engine, trt_golden.inputs)
            assert latency is None or latency.samples.metric.batch == 1
    """
    from pytest_trt.plugin._manual import time_engine

    return lambda engine, inputs: _or_fail(lambda: time_engine(request.node, trt_case, trt_precision, engine, inputs))


@pytest.fixture
def trt_golden(request: pytest.FixtureRequest, trt_case: Case, trt_precision: Precision) -> GoldenCheck:
    """The case's golden: ``inputs``, reference ``outputs``, and ``check(outputs)``, which judges and records.

    Example::

        def test_by_hand(trt_engine, trt_golden):
            trt_golden.check(trt_engine.run(trt_golden.inputs))
    """
    from pytest_trt.plugin._manual import open_golden_check

    golden: GoldenCheck = _or_fail(lambda: open_golden_check(request.node, trt_case, trt_precision))
    return golden


@pytest.fixture
def trt_check(request: pytest.FixtureRequest, trt_case: Case, trt_precision: Precision) -> Callable[[], Verdict]:
    """The whole gate: build, run, compare with the golden, judge, record; fails the test unless it passed.

    Example::

        @pytest.mark.trt(onnx="digits.onnx", calibration="calibration.npz")
        def test_digits(trt_check):
            verdict = trt_check()
    """
    from pytest_trt.plugin._verdict_items import judge_case

    return lambda: _or_fail(lambda: judge_case(request.node, trt_case, trt_precision))


def _param(request: pytest.FixtureRequest) -> Any:
    """What the fixture was parametrized with."""
    if hasattr(request, "param"):
        return request.param
    pytest.fail(
        f"{request.fixturename} has no model to be about: name it among the test's arguments; unittest classes and"
        " request.getfixturevalue() come too late to repeat a test for each case and precision.",
        pytrace=False,
    )


def _or_fail(step: Callable[[], Any]) -> Any:
    """The step's result; what went wrong fails the test with its message alone."""
    __tracebackhide__ = True
    from pytest_trt.errors import NotPassed, PytestTrtError

    try:
        return step()
    except (NotPassed, PytestTrtError) as error:
        text = str(error) if isinstance(error, NotPassed) else f"{type(error).__name__}: {error}"
    pytest.fail(text, pytrace=False)
