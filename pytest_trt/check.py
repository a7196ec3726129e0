"""check(case, precision): the whole story on one page.

A case's model is lowered to a precision and built into an engine, run on the golden's inputs, compared with the
golden's outputs, and judged against the bound that a correct implementation keeps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pytest_trt.backends import DEFAULT, choose, known_backend
from pytest_trt.calibration import calibrate
from pytest_trt.errors import BackendError, CaseError, PytestTrtError
from pytest_trt.judge import accept_hint, judge
from pytest_trt.locate import blame
from pytest_trt.lowering import at_opset, needs_ranges
from pytest_trt.lowering.held import held_precision
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.opening import open_golden
from pytest_trt.precision import Precision
from pytest_trt.reference import subject_of
from pytest_trt.samples import read
from pytest_trt.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_trt.backends import Backend, Engine
    from pytest_trt.case import Case
    from pytest_trt.feeds import Arrays
    from pytest_trt.golden import Golden
    from pytest_trt.model import Model
    from pytest_trt.ranges import Ranges

__all__ = ["Ran", "build", "check", "could_not", "ranges_for", "refuse_simulation", "verdict_of"]


class Ran(Protocol):
    """What computed the outputs: an engine, or the user's own code."""

    @property
    def backend(self) -> str: ...  # noqa: D102 - as in Engine

    @property
    def simulated(self) -> bool: ...  # noqa: D102


def check(
    case: Case,
    precision: Precision | str,
    *,
    backend: str | None = None,
    golden_dir: Path | str = "golden",
    require_engine: bool = False,
) -> Verdict:
    """Judge one case at one precision.

    Args:
        case: what to check.
        precision: what to lower it to, or ``model`` for the file as it is.
        backend: what builds and runs the engine; the case's own, else onnxruntime, if not given.
        golden_dir: the folder of goldens.
        require_engine: whether a simulated result is a failure.

    Returns:
        The verdict; bad input makes it "error" with a message, and never raises.

    Raises:
        SpecError: no such precision or backend.
    """
    precision = Precision.parse(precision) if isinstance(precision, str) else precision
    name = known_backend(backend or case.backend or DEFAULT)
    try:
        chosen = choose(name)
        if require_engine:
            refuse_simulation(chosen)
        model = subject_of(case)
        model.require_float_output()
        golden = open_golden(case, model, precision, Path(golden_dir))
        engine = build(case, model, precision, golden, chosen)
        outputs = [engine.run(run.inputs) for run in golden.runs]
        return verdict_of(case, precision, model, golden, engine, outputs)
    except Exception as error:
        return could_not(case, precision, name, error)


def build(case: Case, model: Model, precision: Precision, golden: Golden, backend: Backend) -> Engine:
    """The engine of a case's model at a precision, calibrated with the case's own data."""
    model = at_opset(model, precision)
    return backend.build(model, precision, ranges_for(case, model, precision, golden), case.batch)


def ranges_for(case: Case, model: Model, precision: Precision, golden: Golden) -> Ranges | None:
    """The ranges that this precision needs of this model, from the case's calibration data.

    Raises:
        CaseError: it needs some, and the case names no data.
        DataError: the data can't be used.
    """
    if not needs_ranges(model, precision):
        return None
    if case.calibration is None:
        raise CaseError(
            f"{case.where}: {case.name!r} at {precision} needs calibration data and names none, and an int8 engine"
            " without calibration is wrong by as much as its outputs are large. Write calibration ="
            ' "calibration.npz" (arrays by input name) or "module:function" in the case, or pass'
            ' --trt-calibration; "golden" calibrates on the golden\'s own inputs.'
        )
    samples: Iterable[Arrays] = (run.inputs for run in golden.runs)
    if case.calibration != "golden":
        samples = read(case.calibration, case.base, model.inputs, f"{case.where}: calibration")
    source = f"{case.where}: calibration {case.calibration!r}"
    return calibrate(model, quantised_activations(model.proto), samples, source, case.batch)


def verdict_of(
    case: Case, precision: Precision, model: Model, golden: Golden, ran: Ran, outputs: list[Arrays]
) -> Verdict:
    """Judge outputs, one set a run of the golden, that ``ran`` computed."""
    held = held_precision(model.proto)
    judgements = judge(case, precision, held, model, golden, outputs)
    outside = [judgement for judgement in judgements if judgement.reasons]
    return Verdict(
        case=case.name,
        precision=precision.label,
        backend=ran.backend,
        simulated=ran.simulated,
        verdict="failed" if outside else "passed",
        judgements=judgements,
        held=held if precision is Precision.MODEL or held != "fp32" else None,
        where=case.where,
        accept=accept_hint(case, precision, judgements),
        provenance={
            "model": model.source,
            "model_sha256": model.sha256,
            "golden": golden.source,
            "golden_model_sha256": golden.model_sha256,
            "golden_made_by": dict(golden.provenance),
            "calibration": case.calibration if needs_ranges(model, precision) else None,
        },
        hops=_hops(golden),
    )


def could_not(case: Case, precision: Precision, backend: str, error: Exception) -> Verdict:
    """The verdict that a case could not be judged; what we did not foresee is named as our fault."""
    ours = isinstance(error, PytestTrtError)
    return Verdict(
        case=case.name,
        precision=precision.label,
        backend=backend,
        simulated=False,
        verdict="error",
        message=str(error) if ours else f"a fault of pytest-trt, please report it: {blame(error)}",
        kind=type(error).__name__,
        where=case.where,
    )


def refuse_simulation(backend: Backend) -> None:
    """Fail where the run requires an engine and the backend builds none.

    Raises:
        BackendError: it only simulates.
    """
    if backend.simulated:
        raise BackendError(
            f"an engine is required (--trt-require-engine), and backend {backend.name!r} only simulates the"
            " precision on the CPU. Choose a backend that builds engines with --trt-backend, or drop the requirement."
        )


def _hops(golden: Golden) -> tuple[dict[str, object], ...]:
    from pytest_trt.comparison import compare

    return tuple(
        {
            "from": "torch",
            "to": "onnx fp32",
            "output": name,
            "rel_rms": compare(array, golden.outputs[name]).rel_rms,
        }
        for name, array in golden.onnx_outputs.items()
    )
