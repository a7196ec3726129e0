"""Golden: inputs, the reference outputs for them, and what errors a correct implementation may have.

One safetensors file a case: ``input.<name>`` and ``output.<name>`` with samples along axis 0, ``onnx.<name>``
beside them where the outputs are PyTorch's, ``labels`` where the true classes are known. Metadata tell the
model's hash, who made it, the envelope of each precision and how much each output moves with the inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.comparison.parts import Part
from pytest_trt.errors import DamagedGolden, DataError, EmptyGolden, GoldenMismatch, GoldenRefused, MissingGolden
from pytest_trt.model.feeds import conform, fit, is_float
from pytest_trt.storage.atomic_write import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pytest_trt.model.feeds import Arrays, TensorSpec
    from pytest_trt.model.model import Model

__all__ = [
    "SCHEMA",
    "SUFFIX",
    "Golden",
    "Run",
    "has_declared_shape",
    "is_candidate",
    "movement",
    "read",
    "require_evidence",
    "require_fit",
    "write",
]

SCHEMA = 2
_READ = ("1", "2")  # of 1 no output has parts
SUFFIX = ".safetensors"
LEAST_MOVEMENT = 1e-3
"""Std over samples / RMS under which agreeing with an output proves nothing: a network whose activations died
gives 1e-7 and passes at every precision, live ones give 8e-3 and more."""

_LATER = ("overflow", "kept")  # tables that goldens have only where there is something to tell

Envelope = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By precision and part of an output: ``error`` simulated when the golden was made, and the ``bound`` that follows; of
a part that is no whole output, which it is (``part``) and how much it moves (``moved``)."""


@dataclass(frozen=True, eq=False)
class Run:
    """Inputs that belong together, and the reference outputs for them.

    Attributes:
        inputs: arrays by input name, samples along axis 0.
        outputs: arrays by output name, in the same order of samples.
        name: of the data set, if it has one.
    """

    inputs: Arrays
    outputs: Arrays
    name: str = ""


@dataclass(frozen=True, eq=False)
class Golden:
    """What a case is compared with.

    Attributes:
        runs: one for a file, one a folder for ``test_data_set_N``.
        source: the file or folder, for messages.
        model_sha256: hash of the fp32 model that it was made from; None for ONNX test data.
        origin: "onnx", "torch" or "test data": who computed the outputs.
        envelope: bounds by precision and output.
        refused: why a precision has no envelope, by precision.
        evidence: movement of each float output, measured when the golden was made.
        onnx_outputs: the ONNX model's outputs, where those of ``runs`` are PyTorch's.
        labels: true classes of the samples, if known.
        provenance: producer, versions, seed, reason.
        overflow: by precision what is odd inside its simulation ("suspects"), and what overflows there ("found"), whose
            nodes the envelope was made without.
        kept: "keep" and "ops" of the case that the envelope was made for; empty where it had none.
        schema: of the file.
    """

    runs: tuple[Run, ...]
    source: str
    model_sha256: str | None = None
    origin: str = "test data"
    envelope: Envelope = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    evidence: Mapping[str, float] = field(default_factory=dict)
    onnx_outputs: Arrays = field(default_factory=dict)
    labels: NDArray[Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    overflow: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kept: Mapping[str, list[str]] = field(default_factory=dict)
    schema: int = SCHEMA

    def parts(self, precision: str) -> dict[str, tuple[Part, ...]]:
        """The parts that outputs fall into at a precision, by output, the largest scale first.

        Args:
            precision: its label; of one without an envelope every output is whole.
        """
        found: dict[str, tuple[Part, ...]] = {}
        for name, entry in self.envelope.get(precision, {}).items():
            part = Part.of_table(entry["part"]) if "part" in entry else Part(name)
            found[part.output] = (*found.get(part.output, ()), part)
        return found

    @property
    def inputs(self) -> Arrays:
        """Input arrays by name; of several data sets, the first one's."""
        return self.runs[0].inputs

    @property
    def outputs(self) -> Arrays:
        """Reference outputs by name; of several data sets, the first one's."""
        return self.runs[0].outputs


def is_candidate(golden: Golden) -> bool:
    """Whether it was made to be looked at, and was not adopted yet."""
    return bool(golden.provenance.get("candidate"))


def write(golden: Golden, path: Path, case: str) -> None:
    """Write the file whole or not at all; the folder is made.

    Raises:
        GoldenRefused: it can't be written there.
    """
    from safetensors.numpy import save

    tensors = {f"input.{name}": array for name, array in golden.inputs.items()}
    tensors |= {f"output.{name}": array for name, array in golden.outputs.items()}
    tensors |= {f"onnx.{name}": array for name, array in golden.onnx_outputs.items()}
    if golden.labels is not None:
        tensors["labels"] = golden.labels
    metadata = {
        "schema": str(SCHEMA),
        "case": case,
        "model_sha256": golden.model_sha256 or "",
        "origin": golden.origin,
        **{key: _json(getattr(golden, key)) for key in ("envelope", "refused", "evidence", "provenance")},
        **{key: _json(getattr(golden, key)) for key in _LATER if getattr(golden, key)},
    }
    data = save({key: np.asarray(array, order="C") for key, array in tensors.items()}, metadata)
    try:
        write_whole(path, _in_order(data))
    except OSError as error:
        raise GoldenRefused(f"the golden {path} can't be written: {error.strerror or error}.") from error


def read(path: Path, mend: str) -> Golden:
    """Read a golden's file.

    Args:
        path: the file.
        mend: the command that makes it anew, for messages.

    Raises:
        MissingGolden: there is no such file.
        DamagedGolden: it is cut short, is no safetensors file, or its metadata are not ours.
    """
    if not path.is_file():
        raise MissingGolden(f"there is no golden {path}. Make it, look at it and commit it: {mend}")
    try:
        metadata, tensors = _open(path)
        return _golden(path, metadata, tensors)
    except Exception as error:  # the format's own errors, JSON's, and missing keys: all say "damaged"
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DamagedGolden(
            f"the golden {path} can't be read ({what}): it was cut short, is a Git LFS pointer, or was not written"
            f" by pytest-trt. Fetch it again, or make it anew: {mend}"
        ) from error


def movement(output: NDArray[Any], parts: int) -> float | None:
    """Std over samples / RMS of a float output; None where it is not made of ``parts`` equal parts, or of one.

    The std is taken element by element over the parts along axis 0, and its RMS over the elements is reported:
    the relative RMS of an engine that always answers the mean.

    Args:
        output: samples along axis 0; NaN and infinities are left out.
        parts: samples, or runs of several where the model's first axis is fixed.
    """
    if parts < 2 or not output.ndim or output.shape[0] % parts:
        return None
    values = output.astype(np.float64).reshape(parts, -1)
    finite = np.isfinite(values)
    values = np.where(finite, values, 0.0)
    largest = float(np.abs(values).max(initial=0.0))
    if not largest:
        return 0.0
    values /= largest
    mean = values.sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    return float(np.sqrt((np.where(finite, values - mean, 0.0) ** 2).sum() / (values**2).sum()))


def require_fit(golden: Golden, model: Model, mend: str, *, exact: bool) -> None:
    """Refuse a golden whose names, shapes or dtypes are not the model's.

    Args:
        golden: what will be compared with.
        model: the model under test.
        mend: the command that makes the golden anew.
        exact: whether inputs must have the model's very dtypes; else float may stand for float.

    Raises:
        GoldenMismatch: they do not fit, or the golden holds NaN.
    """
    wanted = {spec.name: spec for spec in model.outputs}
    for run in golden.runs:
        where = f"the golden {golden.source}{f' ({run.name})' if run.name else ''}"
        try:
            (fit if exact else conform)(run.inputs, model.inputs, where)
        except DataError as error:
            raise GoldenMismatch(f"{error} Make it anew for this model: {mend}") from error
        if set(run.outputs) != set(wanted):
            raise GoldenMismatch(
                f"{where} has the outputs {_names(run.outputs)}, and {model.source} has {_names(wanted)}."
                f" Make it anew: {mend}"
            )
        for name, array in () if golden.origin == "test data" else {**run.inputs, **run.outputs}.items():
            if name not in golden.provenance.get("nan_outputs", ()):
                _require_numbers(array, name, where, mend)
        for name, spec in wanted.items():
            told = replace(spec, shape=None) if name in golden.provenance.get("misdeclared", ()) else spec
            _require_output(run.outputs[name], told, where, mend, exact=exact)


def require_evidence(golden: Golden, movements: Mapping[str, float | None], still: tuple[str, ...], mend: str) -> None:
    """Refuse a golden whose outputs do not move with its inputs.

    Args:
        golden: what will be compared with.
        movements: std over samples / RMS by float output; None where it could not be told.
        still: outputs that may stand still.
        mend: the command that makes the golden anew.

    Raises:
        EmptyGolden: an output moves less than :data:`LEAST_MOVEMENT`.
    """
    for name, moved in movements.items():
        if name in still or (moved is not None and moved >= LEAST_MOVEMENT):
            continue
        figure = _standing(golden.runs[0], name, moved)
        how = f"Give inputs that tell samples apart (`inputs`), or list an output that is constant by design in\
 `constant_outputs`; then: {mend}"
        raise EmptyGolden(
            f"the golden {golden.source} holds no evidence: output {name!r} {figure} over the samples (at least"
            f" {LEAST_MOVEMENT:g} is needed), so even a broken engine would agree with it."
            f" {mend if mend.startswith('write ') else how}"
        )


def _standing(run: Run, name: str, moved: float | None) -> str:
    if not run.outputs[name].size:
        return "has no elements, and can't be seen to move"
    if any(is_float(array.dtype) and not array.size for array in run.inputs.values()):
        return "has inputs without values, and can't be seen to move"
    return "can't be seen to move" if moved is None else f"moves by {moved:.1e} of its size"


def _in_order(data: bytes) -> bytes:
    """The same safetensors file with its metadata sorted, so that the same golden is the same bytes.

    The format: eight bytes of the header's length, the header as JSON padded with spaces, the tensors.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _open(path: Path) -> tuple[dict[str, str], Arrays]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return dict(file.metadata() or {}), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _golden(path: Path, metadata: dict[str, str], tensors: Arrays) -> Golden:
    if metadata.get("schema") not in _READ:
        raise ValueError(f"schema {metadata.get('schema')!r}, this release reads {' and '.join(_READ)}")
    inputs, outputs, hop = (_under(prefix, tensors) for prefix in ("input.", "output.", "onnx."))
    if not outputs or not inputs or not set(hop) <= set(outputs):
        raise ValueError("its inputs and outputs are not whole")
    told = {key: json.loads(metadata[key]) for key in ("envelope", "refused", "evidence", "provenance")}
    told |= {key: json.loads(metadata[key]) for key in _LATER if key in metadata}
    if not all(isinstance(table, dict) for table in told.values()):
        raise ValueError("its metadata are not tables")
    for entry in (entry for entries in told["envelope"].values() for entry in entries.values()):
        float(entry["bound"])
        Part.of_table(entry.get("part", {"output": ""}))
    _ = {float(value) for value in told["evidence"].values()}
    return Golden(
        runs=(Run(inputs, outputs),),
        source=str(path),
        model_sha256=metadata["model_sha256"],
        origin=metadata["origin"],
        schema=int(metadata["schema"]),
        onnx_outputs=hop,
        labels=tensors.get("labels"),
        **told,
    )


def _under(prefix: str, tensors: Arrays) -> Arrays:
    return {key.removeprefix(prefix): array for key, array in tensors.items() if key.startswith(prefix)}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _names(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"


def _require_numbers(array: NDArray[Any], name: str, where: str, mend: str) -> None:
    if is_float(array.dtype) and np.isnan(array.astype(np.float32)).any():
        raise GoldenMismatch(f"{where}: {name!r} holds NaN, which nothing can be compared with. Make it anew: {mend}")


def has_declared_shape(array: NDArray[Any], spec: TensorSpec) -> bool:
    """Whether an output has the rank that its file declares, and the sizes of its axes behind the samples'."""
    if spec.shape is None:
        return True
    fixed = ((size, axis) for size, axis in zip(array.shape[1:], spec.shape[1:], strict=False) if isinstance(axis, int))
    ranked = array.ndim == len(spec.shape) or (not spec.shape and array.ndim == 1)
    return ranked and all(size == axis for size, axis in fixed)


def _require_output(array: NDArray[Any], spec: TensorSpec, where: str, mend: str, *, exact: bool) -> None:
    kinds = {is_float(array.dtype), is_float(spec.dtype)}
    other = array.dtype != spec.dtype if exact else len(kinds) > 1 or (array.dtype == bool) != (spec.dtype == bool)
    if other:
        raise GoldenMismatch(
            f"{where}: {spec.name!r} is {array.dtype}, and the model gives {spec}. Make it anew: {mend}"
        )
    if not has_declared_shape(array, spec):
        raise GoldenMismatch(
            f"{where}: {spec.name!r} has shape {list(array.shape)}, and the model gives {spec}. Make it anew: {mend}"
        )
