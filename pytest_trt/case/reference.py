"""What a case stands on: the model under test, the fp32 reference, and where the golden lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_trt.backends.achieved_precision import asked_of
from pytest_trt.errors import CaseError
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.model.feeds import is_float
from pytest_trt.model.model import Model, load
from pytest_trt.model.samples import data_sets_beside
from pytest_trt.model.torch_export import TorchSource, export
from pytest_trt.storage.entry_point import is_reference

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_trt.case.case import Case
    from pytest_trt.model.feeds import Arrays, TensorSpec
    from pytest_trt.model.torch_export import Network, TorchModel
    from pytest_trt.precision import Precision

__all__ = [
    "Reference",
    "Subject",
    "class_output",
    "find_golden",
    "judged_outputs",
    "mend",
    "model_of",
    "network_of",
    "reference_of",
    "require_float_output",
    "subject_of",
    "unjudged_outputs",
]


@dataclass(frozen=True)
class Reference:
    """The fp32 model that a golden is made from.

    Attributes:
        model: its ONNX graph.
        run: the torch module itself, where there is one; its outputs are the golden then.
    """

    model: Model
    run: Callable[[Arrays], Arrays] | None = None


@dataclass(frozen=True)
class Subject:
    """What is judged: a case's model at a precision.

    Attributes:
        case: what to check.
        precision: what was asked.
        model: under test.
    """

    case: Case
    precision: Precision
    model: Model

    @cached_property
    def held(self) -> str:
        """The precision that the file under test holds: fp32 where it is lowered from it."""
        return held_precision(self.model.proto)

    @cached_property
    def asked(self) -> str:
        """The precision that layers should run in and whose error counts: of a file as it is, the one that it holds."""
        return asked_of(self.precision, self.model)

    @cached_property
    def judged(self) -> tuple[TensorSpec, ...]:
        """The outputs that are judged."""
        return judged_outputs(self.case, self.model)


def subject_of(case: Case, precision: Precision) -> Subject:
    """The case's model at a precision.

    Raises:
        CaseError, ModelError: the model can't be loaded or exported.
    """
    return Subject(case, precision, model_of(case))


def model_of(case: Case) -> Model:
    """The model under test.

    Raises:
        CaseError, ModelError: it can't be loaded or exported.
    """
    if case.onnx is not None:
        return load(case.base / case.onnx)
    return _exported(str(case.torch), case, "torch").model


def reference_of(case: Case) -> Reference:
    """The fp32 model: the case's ``reference``, else the model under test.

    Raises:
        CaseError, ModelError: it can't be loaded or exported.
    """
    if case.reference is None:
        return _exported(case.torch, case, "torch") if case.torch else Reference(model_of(case))
    if _names_factory(case):
        return _exported(case.reference, case, "reference")
    return Reference(load(case.base / case.reference))


def network_of(case: Case) -> Callable[[], Network] | None:
    """Copies the torch module under test, or else the one that is its reference; None where the case names neither."""
    if case.torch is None and not _names_factory(case):
        return None

    def copied() -> Network:
        return _torch_model(
            str(case.torch or case.reference), case, "torch" if case.torch else "reference"
        ).network.copy()

    return copied


def find_golden(case: Case, golden_dir: Path) -> Path:
    """The golden's file, or the folder of ONNX test data that stands for it.

    The case's own ``golden`` first, then ``<golden_dir>/<name>.safetensors``, then ``test_data_set_N``
    beside the model; where none exists, the file that would be written.
    """
    if case.golden is not None:
        return case.base / case.golden
    file = golden_dir / f"{case.name}.safetensors"
    if not file.exists() and case.onnx is not None and data_sets_beside(case.base / case.onnx):
        return (case.base / case.onnx).parent
    return file


def mend(case: Case, place: Path | None = None) -> str:
    """The command that makes the case's golden anew; ONNX test data (``place`` is a folder) has none."""
    if place is not None and place.is_dir():
        return f"write other test data into {place}; pytest-trt never writes there"
    if not case.command:
        return "in Python, pytest_trt.update_golden(case, golden_dir)"
    return f"pytest {case.command} --trt-update-golden"


def judged_outputs(case: Case, model: Model) -> tuple[TensorSpec, ...]:
    """The outputs that the case wants judged, in the model's order.

    Raises:
        CaseError: ``outputs``, ``ignore_outputs`` or another list of outputs names one that the model has not, or
            nothing is left.
    """
    names = [spec.name for spec in model.outputs]
    for key in ("outputs", "ignore_outputs", "constant_outputs", "nan_outputs"):
        for name in getattr(case, key):
            if name not in names:
                raise CaseError(
                    f"{case.where}: {key} names {name!r}, which is no output of {model.source}: it has"
                    f" {', '.join(map(repr, names))}."
                )
    found = tuple(
        spec
        for spec in model.outputs
        if spec.name not in case.ignore_outputs and (not case.outputs or spec.name in case.outputs)
    )
    if not found:
        raise CaseError(
            f"{case.where}: ignore_outputs names every output of {model.source}, and nothing would be judged: leave one"
            " of them out of it."
        )
    return found


def require_float_output(case: Case, model: Model) -> None:
    """Refuse a case whose judged outputs hold nothing that precision could move.

    Raises:
        ModelError: every output is integer or boolean.
        CaseError: all that are judged are, and others are left out.
    """
    model.require_float_output()
    if not any(is_float(spec.dtype) for spec in judged_outputs(case, model)):
        raise CaseError(
            f"{case.where}: of the outputs of {model.source} that are judged none is of floats, and there is nothing"
            f" whose error could be measured: judge one of"
            f" {', '.join(repr(spec.name) for spec in model.outputs if is_float(spec.dtype))} too."
        )


def unjudged_outputs(case: Case, model: Model) -> tuple[str, ...]:
    """The outputs that ``outputs`` or ``ignore_outputs`` leaves unjudged, in the model's order.

    Raises:
        CaseError: as :func:`judged_outputs`.
    """
    judged = {spec.name for spec in judged_outputs(case, model)}
    return tuple(spec.name for spec in model.outputs if spec.name not in judged)


def class_output(case: Case, model: Model) -> str:
    """The output whose classes are ranked.

    Raises:
        CaseError: the case names one that the model has not, or there are several and it names none.
    """
    floats = [spec.name for spec in judged_outputs(case, model) if is_float(spec.dtype)]
    if case.class_output is not None and case.class_output not in floats:
        raise CaseError(
            f"{case.where}: class_output = {case.class_output!r} is no judged float output of {model.source}, which has"
            f" {', '.join(map(repr, floats))}."
        )
    if case.class_output is None and len(floats) != 1:
        raise CaseError(
            f"{case.where}: top-1, top-5 or labels are asked, and {model.source} has {len(floats)} float outputs"
            f" ({', '.join(map(repr, floats))}): name one with class_output."
        )
    return case.class_output or floats[0]


def _names_factory(case: Case) -> bool:
    """Whether the reference is a torch factory, and no file."""
    return case.reference is not None and is_reference(case.reference) and not (case.base / case.reference).exists()


def _exported(factory: str, case: Case, field: str) -> Reference:
    exported = _torch_model(factory, case, field)
    return Reference(exported.model, exported.run)


def _torch_model(factory: str, case: Case, field: str) -> TorchModel:
    return export(
        TorchSource(
            factory=factory,
            field=field,
            base=case.base,
            where=case.where,
            input=case.input,
            output_names=case.output_names,
            opset=case.opset,
            seed=case.seed,
            batch=case.batch,
        )
    )
