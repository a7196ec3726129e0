"""NVIDIA ModelOpt as a lowering in place of our own: AutoCast for fp16 and bf16, its quantizer for int8 and fp8.

Without calibration data ModelOpt calibrates on one random input and says nothing, so it is never called without: our
samples go in through a reader, and a result is refused unless that was read to its end and the scales fit what it
gave. AutoCast too would run random inputs, to find layers beyond a largest value: that rule is off.

Source: nvidia-modelopt 0.47.0, ``modelopt/onnx/quantization/quantize.py`` and ``modelopt/onnx/autocast/convert.py``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.errors import DataError, LoweringError, ModelError, PytestTrtError
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.lowering.weight_only import Format, WeightOnly, with_weights_in
from pytest_trt.model.external_data import write_graph
from pytest_trt.model.feeds import finite, fit, is_float, split
from pytest_trt.model.graph import MATRIX_OPERANDS, array_of, constants, copy_at_opset, element_types
from pytest_trt.model.model import checked, nodes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    from pytest_trt.model.feeds import Arrays, TensorSpec
    from pytest_trt.model.model import Model
    from pytest_trt.model.samples import Samples

__all__ = ["PRECISIONS", "lower_by_modelopt", "weights_by_modelopt"]

PRECISIONS = ("fp16", "bf16", "int8", "fp8")
"""What ModelOpt lowers to; the others are ours alone."""

_OPSETS = {
    "fp16": 13,
    "bf16": 22,
    "int8": 19,
    "fp8": 19,
}  # raised here: where onnx can't, ModelOpt writes the number in
_LEVELS = {"int8": 127, "fp8": 448}
_METHODS = {"minmax": "max", "entropy": "entropy"}
_NEAR = 0.01  # of a scale that is the largest value itself
_BINS = 0.05  # of an entropy threshold, which ends a bin after the largest value

_TYPED = (TensorProto.FLOAT16, TensorProto.BFLOAT16)

_TOO_SMALL = (
    "Its quantizer leaves out convolutions of few channels and products with a side under 16, which are no faster"
    " there: take --trt-lowering=own, or another precision."
)

_INSTALL = (
    'pip install "pytest-trt[modelopt]", in an environment of its own: it pins onnx 1.21, brings torch for CUDA, CuPy'
    " and onnxruntime-gpu, and the last overwrites onnxruntime"
)


@dataclass(frozen=True)
class LoweredByModelopt:
    """What ModelOpt made of a model.

    Attributes:
        model: with the precision in its graph, inputs and outputs as they were.
        by: name and version of what lowered it, for the record.
        notes: what it warned of.
    """

    model: Model
    by: str
    notes: tuple[str, ...] = ()


def lower_by_modelopt(
    model: Model,
    precision: str,
    samples: Samples | None = None,
    *,
    source: str = "calibration",
    batch: int | None = None,
    method: str = "minmax",
    keep: Sequence[str] = (),
    ops: Sequence[str] = (),
) -> LoweredByModelopt:
    """The same network lowered by NVIDIA ModelOpt, on the CPU; the argument is left alone.

    Args:
        model: fp32.
        precision: fp16 or bf16, as a typed graph; int8 or fp8, as Q/DQ with the rest left in fp32.
        samples: calibration batches of arrays by input name, called anew for each pass; for int8 and fp8.
        source: what messages call the samples.
        batch: the most samples at once where the first axis is dynamic; as they come, if not given.
        method: of calibration: minmax or entropy.
        keep: names of nodes left in fp32.
        ops: kinds of operators to quantise; ModelOpt's own choice, if not given.

    Raises:
        LoweringError: ModelOpt is not installed, fails, has no such method, or its result can't be trusted: it did not
            calibrate on these samples, holds another precision, or has other inputs or outputs.
        DataError: no samples, samples that do not fit, or a NaN or infinite value among them.
    """
    try:
        return _lowered(
            model, precision, _reader_of(model, precision, samples, source, batch, method), method, keep, ops
        )
    except LoweringError as error:
        raise LoweringError(f"{model.source} at {precision} by ModelOpt: {error}") from error


def weights_by_modelopt(model: Model, precision: str, keep: Iterable[str] = ()) -> WeightOnly:
    """fp32 -> weights of MatMul and Gemm in nvfp4 or mxfp8, with levels and scales of ModelOpt's exporters.

    nvfp4 is written with two DequantizeLinear of opset 23, mxfp8 with TensorRT's TRT_MXFP8DequantizeLinear, which its
    parser takes where it takes no DequantizeLinear with such scales. Weights that blocks of 16 or 32 do not divide stay
    in fp32.

    Raises:
        LoweringError: ModelOpt is not installed or fails, or as
            :func:`~pytest_trt.lowering.weight_only.int4_weights`.
    """
    formats = {
        "nvfp4": Format("nvfp4", 16, 23, 11, _nvfp4, even=True),
        "mxfp8": Format("mxfp8", 32, 21, 11, _mxfp8),
    }
    with _quiet():
        try:
            _imported()
        except LoweringError as error:
            raise LoweringError(f"{model.source} at {precision} by ModelOpt: {error}") from error
        return with_weights_in(formats[precision], model, keep)


def _nvfp4(model: ModelProto, values: NDArray[Any], axis: int, name: str) -> tuple[str, list[NodeProto]]:
    from modelopt.onnx.export import NVFP4QuantExporter

    rows = np.ascontiguousarray(values.T if axis == 0 else values)
    asked = helper.make_node("TRT_FP4QDQ", ["w.weight"], ["y"], domain="trt", block_size=16)
    found = _exported(NVFP4QuantExporter, [asked], rows)
    told = {attribute.name: attribute for attribute in found.graph.node[0].attribute}
    levels, scales = (numpy_helper.to_array(told[key].t) for key in ("_w_f4", "_sw_f8_per_block"))
    model.graph.initializer.extend(
        [
            _raw(name, TensorProto.FLOAT4E2M1, rows.shape, levels),
            _raw(f"{name}/scale", TensorProto.FLOAT8E4M3FN, scales.shape, scales),
            numpy_helper.from_array(np.float32(told["_sw_f32_per_tensor"].floats[0]), f"{name}/whole"),
        ]
    )
    blocks: dict[str, Any] = {"axis": 1, "block_size": 16}
    scaled = f"{name}/scales"
    nodes = [
        helper.make_node("DequantizeLinear", [f"{name}/scale", f"{name}/whole"], [scaled], scaled),
        helper.make_node("DequantizeLinear", [name, scaled], [f"{name}/rows"], f"{name}/levels", **blocks),
    ]
    return _turned(nodes, axis, name)


def _mxfp8(model: ModelProto, values: NDArray[Any], axis: int, name: str) -> tuple[str, list[NodeProto]]:
    from modelopt.onnx.export import MXFP8QuantExporter

    rows = np.ascontiguousarray(values.T if axis == 0 else values)
    told: dict[str, Any] = {"axis": -1, "block_size": 32, "output_dtype": int(TensorProto.FLOAT)}
    scale = helper.make_node("Constant", [], ["s_Constant_output_0"], value=numpy_helper.from_array(np.uint8(0)))
    reads = ["w.weight", "s_Constant_output_0"]
    asked = helper.make_node("TRT_MXFP8DequantizeLinear", reads, ["y"], domain="trt", **told)
    found = _exported(MXFP8QuantExporter, [scale, asked], rows)
    held = {tensor.name: tensor for tensor in found.graph.initializer}
    for source, place in zip(found.graph.node[-1].input, (name, f"{name}/scale"), strict=True):
        held[source].name = place
        model.graph.initializer.append(held[source])
    if not any(entry.domain == "trt" for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("trt", 1))
    reads, made = [name, f"{name}/scale"], f"{name}/rows"
    node = helper.make_node("TRT_MXFP8DequantizeLinear", reads, [made], f"{name}/levels", domain="trt", **told)
    return _turned([node], axis, name)


def _exported(exporter: Any, nodes: list[NodeProto], weight: NDArray[Any]) -> ModelProto:
    """What an exporter makes of one weight."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, weight.shape)
    graph = helper.make_graph(nodes, "weight", [], [output], [numpy_helper.from_array(weight, "w.weight")])
    try:
        return exporter.compress_weights(exporter.compute_scales(helper.make_model(graph)))  # type: ignore[no-any-return]
    except Exception as error:  # whatever ModelOpt, torch and numpy raise
        raise LoweringError(f"ModelOpt's exporter fails: {_plain(error)}") from error


def _raw(name: str, kind: int, shape: Sequence[int], values: NDArray[Any]) -> TensorProto:
    return helper.make_tensor(name, kind, list(shape), values.tobytes(), raw=True)


def _turned(nodes: list[NodeProto], axis: int, name: str) -> tuple[str, list[NodeProto]]:
    """The weight as its product reads it: ModelOpt's blocks lie along the last axis."""
    made = nodes[-1].output[0]
    if axis == 1:
        return made, nodes
    turn = helper.make_node("Transpose", [made], [f"{name}/dequantised"], f"{name}/turn", perm=[1, 0])
    return turn.output[0], [*nodes, turn]


def _lowered(
    model: Model, precision: str, reader: _Reader | None, method: str, keep: Sequence[str], ops: Sequence[str]
) -> LoweredByModelopt:
    _require_taken(model, keep)
    proto = copy_at_opset(model.proto, _OPSETS[precision])
    with _quiet() as said, _folder() as folder:
        modelopt = _imported()
        _write(proto, folder / "model.onnx")
        if reader is None:
            found = _told(lambda: _autocast(folder / "model.onnx", precision, keep))
        else:
            found = _told(
                lambda: _quantised(folder / "model.onnx", precision, reader, _METHODS[method], keep, ops), reader
            )
    lowered = _sound(found, model, precision)
    if reader is not None:
        _require_calibrated(lowered.proto, reader, precision, method)
    said.extend(_left(lowered.proto, precision, keep))
    by = f"modelopt {getattr(modelopt, '__version__', 'of unknown version')}"
    return LoweredByModelopt(lowered, by, tuple(f"ModelOpt: {text}" for text in dict.fromkeys(said)))


def _left(lowered: ModelProto, precision: str, keep: Sequence[str]) -> list[str]:
    """A sentence about the matrix operators that it left in fp32 unasked; all of them are no lowering."""
    nodes = [node for node in nodes_of(lowered.graph) if node.op_type in MATRIX_OPERANDS]
    typed = element_types(lowered) if precision not in _LEVELS else {}
    made = {name for node in nodes_of(lowered.graph) if node.op_type == "DequantizeLinear" for name in node.output}
    left = [node for node in nodes if not (typed.get(node.output[0]) in _TYPED or made.issuperset(node.input[:2]))]
    if nodes and len(left) == len(nodes):
        raise LoweringError(f"it left all {len(nodes)} matrix operators in fp32. {_TOO_SMALL}")
    names = [node.name for node in left if node.name not in keep]
    listed = f"{', '.join(map(repr, names[:5]))}{' ...' if len(names) > 5 else ''}"
    return [f"{len(names)} of {len(nodes)} matrix operators stay in fp32: {listed}"] if names else []


def _reader_of(
    model: Model,
    precision: str,
    samples: Samples | None,
    source: str,
    batch: int | None,
    method: str,
) -> _Reader | None:
    """The reader of the samples, where the precision is calibrated; refused here, before ModelOpt draws its own."""
    if precision not in _LEVELS:
        return None
    if samples is None:
        raise LoweringError(
            "it calibrates itself, and there are no samples: without them it would calibrate on random numbers. Give"
            " samples as calibration, not ranges."
        )
    if method not in _METHODS:
        raise LoweringError(
            f"it has no calibration method {method!r}: take {' or '.join(_METHODS)}, or --trt-lowering=own."
        )
    reader = _Reader(samples, model.inputs, source, batch)
    if reader.get_first() is None:
        raise DataError(f"{source} holds no samples.")
    return reader


class _Reader:
    """Samples as ModelOpt takes them (onnxruntime's CalibrationDataReader), and a record of whether it took them.

    Attributes:
        amax: the largest absolute value of each float input that was given so far.
        ended: whether they were read to the end.
        fault: what was wrong with them; ModelOpt may swallow what is raised.
    """

    def __init__(
        self,
        samples: Samples,
        specs: tuple[TensorSpec, ...],
        source: str,
        batch: int | None,
    ) -> None:
        self.amax = {spec.name: 0.0 for spec in specs if is_float(spec.dtype)}
        self.source = source
        self.ended = False
        self.fault: PytestTrtError | None = None
        self._pieces: Callable[[], Iterator[Arrays]] = lambda: _pieces(samples(batch), specs, source, batch)
        self._open: Iterator[Arrays] | None = None

    def get_first(self) -> Arrays | None:
        """The first piece, beside the pass that goes on."""
        return self._taken(self._pieces())

    def get_next(self) -> Arrays | None:
        """The next piece; None at the end of the pass."""
        self._open = self._pieces() if self._open is None else self._open
        piece = self._taken(self._open)
        self.ended = self.ended or piece is None
        for name in self.amax if piece else ():
            self.amax[name] = max(self.amax[name], float(np.abs(piece[name]).max(initial=0.0)))  # type: ignore[index]
        return piece

    def rewind(self) -> None:
        """Begin anew."""
        self._open = None

    def _taken(self, pieces: Iterator[Arrays]) -> Arrays | None:
        try:
            return next(pieces, None)
        except PytestTrtError as fault:
            self.fault = fault
            raise


def _pieces(
    samples: Iterable[Arrays], specs: tuple[TensorSpec, ...], source: str, batch: int | None
) -> Iterator[Arrays]:
    for arrays in samples:
        fit(arrays, specs, source)
        finite(arrays, source)
        yield from split(arrays, specs, batch)


def _require_taken(model: Model, keep: Sequence[str]) -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    custom = sorted({node.op_type for node in nodes_of(model.proto.graph)} - known)
    if custom:  # ModelOpt would run these through TensorRT on a GPU, on random inputs
        raise LoweringError(f"the model has operators beyond ONNX's own ({', '.join(custom[:5])}): take lowering=own.")
    unknown = [name for name in keep if name not in {node.name for node in model.proto.graph.node}]
    if unknown:
        raise LoweringError(f"keep names nodes that the model has not: {', '.join(map(repr, unknown[:5]))}.")


def _autocast(path: Path, precision: str, keep: Sequence[str]) -> ModelProto:
    from modelopt.onnx.autocast import convert_to_mixed_precision

    return convert_to_mixed_precision(  # type: ignore[no-any-return]
        str(path),
        low_precision_type=precision,
        nodes_to_exclude=_patterns(keep),
        data_max=np.inf,  # else it runs a reference on random inputs
        keep_io_types=True,
        providers=["cpu"],
    )


def _quantised(
    path: Path, precision: str, reader: _Reader, method: str, keep: Sequence[str], ops: Sequence[str]
) -> ModelProto:
    from modelopt.onnx.quantization import quantize

    out = path.with_name("lowered.onnx")
    quantize(
        str(path),
        quantize_mode=precision,
        calibration_data_reader=reader,
        calibration_method=method,
        calibration_eps=["cpu"],
        op_types_to_quantize=list(ops) or None,
        nodes_to_exclude=_patterns(keep),
        output_path=str(out),
        high_precision_dtype="fp32",
        log_level="WARNING",
    )
    return onnx.load(str(out))


def _patterns(names: Iterable[str]) -> list[str]:
    """ModelOpt takes regular expressions, and matches them at the start alone."""
    return [f"{re.escape(name)}$" for name in names]


def _told(work: Callable[[], ModelProto], reader: _Reader | None = None) -> ModelProto:
    """ModelOpt's exceptions as sentences; what was wrong with our samples is said as that."""
    try:
        return work()
    except PytestTrtError:
        raise
    except (Exception, SystemExit) as error:  # it asserts, raises and exits as it comes
        if reader is not None and reader.fault is not None:
            raise reader.fault from error
        raise LoweringError(f"it fails: {_plain(error)}") from error


def _plain(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}".rstrip(": ")


def _sound(found: ModelProto, model: Model, precision: str) -> Model:
    """What came back, if it is the same network at its ends, valid, and holds what was asked."""
    try:
        lowered = checked(found, model.source)
    except ModelError as error:
        raise LoweringError(f"it made no valid model: {error}") from error
    for ends, were, are in (("inputs", model.inputs, lowered.inputs), ("outputs", model.outputs, lowered.outputs)):
        if [_end(spec) for spec in were] != [_end(spec) for spec in are]:
            raise LoweringError(
                f"it changed the {ends}: they were {', '.join(map(str, were))}, and are"
                f" {', '.join(map(str, are)) or 'none'}."
            )
    held = held_precision(lowered.proto)
    if held != precision:
        raise LoweringError(f"its result holds {held}, and nothing in {precision}. {_TOO_SMALL}")
    return lowered


def _end(spec: TensorSpec) -> tuple[str, str, object]:
    """What must stay: name, dtype, and the axes whose size is fixed."""
    return spec.name, spec.dtype.name, spec.shape and tuple(a if isinstance(a, int) else None for a in spec.shape)


def _require_calibrated(lowered: ModelProto, reader: _Reader, precision: str, method: str) -> None:
    """Refuse a result that was not calibrated on our samples, as far as it tells."""
    if reader.fault is not None:
        raise reader.fault
    if not reader.ended:
        raise LoweringError(
            f"it did not read {reader.source} to the end, so its scales are of other numbers. Not used."
        )
    for name, amax in _scaled_inputs(lowered, _LEVELS[precision]).items():
        given = reader.amax.get(name, amax)
        too_small = method == "minmax" and amax < given * (1 - _NEAR)
        if given and (too_small or amax > given * (1 + (_NEAR if method == "minmax" else _BINS))):
            raise LoweringError(
                f"it scaled input {name!r} for values up to {amax:.6g}, and the largest of {reader.source} is"
                f" {given:.6g}, so its scales are of other numbers. Not used."
            )


def _scaled_inputs(lowered: ModelProto, levels: int) -> Mapping[str, float]:
    """The largest value that each quantised input was scaled for, but where a Concat gives it the scale of others."""
    held = constants(lowered)
    joined = {name for node in lowered.graph.node if node.op_type == "Concat" for name in node.input}
    inputs = {value.name for value in lowered.graph.input} - joined
    found = {}
    for node in lowered.graph.node:
        scaled = node.op_type == "QuantizeLinear" and node.input[0] in inputs and node.input[1] in held
        if scaled and not joined.intersection(_read_back(lowered, node.output[0])):
            found[node.input[0]] = float(array_of(held[node.input[1]]).max()) * levels
    return found


def _read_back(lowered: ModelProto, quantised: str) -> Iterator[str]:
    return (output for node in lowered.graph.node if quantised in node.input for output in node.output)


def _write(proto: ModelProto, path: Path) -> None:
    try:
        write_graph(proto, path)
    except ValueError as error:  # over 2 GiB, which protobuf can't write
        raise LoweringError(f"the model can't be written for it: {_plain(error)}") from error


def _imported() -> ModuleType:
    try:
        import modelopt
        import modelopt.onnx.autocast
        import modelopt.onnx.quantization
    except Exception as error:  # a package half there raises as it comes
        raise LoweringError(f"it can't be imported ({_plain(error)}): {_INSTALL}.") from error
    return modelopt  # type: ignore[no-any-return]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder, that of ModelOpt and onnxruntime's quantizer too, which leave files on Ctrl-C."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="pytest-trt-", ignore_cleanup_errors=os.name == "nt") as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """Nothing printed, and warnings of ModelOpt's log caught: its loggers hand them to the one that all stand under."""
    said: list[str] = []
    logger = logging.getLogger("modelopt")
    handler = _Hearing(said)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        unheard = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with unheard[0], unheard[1], warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the 60 packages that it imports
            yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


class _Hearing(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if not text.startswith("Failed to get GPU count"):  # it runs on the CPU
            self.said.append(text)
