"""Parser: what TensorRT's ONNX parser refuses of a graph, by release, told before an engine is tried.

Sources: the lists of operators and the importers of onnx-tensorrt (release/8.6-GA and 10.1-GA); the release notes of
TensorRT 10.14 (Attention), 11.0 (Swish) and 11.2 (DFT by a plugin); and the parser of TensorRT-RTX 1.7.1, the 11 kind,
which was asked about every operator of ONNX 1.23 and about files of each format of weights. What it lacks plugins for
is not put down to 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import TensorProto

from pytest_trt.backends.tensorrt._log import logger_of
from pytest_trt.backends.tensorrt._network import parse
from pytest_trt.backends.tensorrt._release import label, open_release
from pytest_trt.errors import BackendError, ModelError
from pytest_trt.model.graph import array_of, constants, element_types, is_standard
from pytest_trt.model.model import nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import ModelProto, NodeProto

    from pytest_trt.model.model import Model

__all__ = ["NEWEST", "RELEASES", "ParserAnswer", "Unparsed", "answer_of_rtx", "unparsed"]

RELEASES = ("8.6", "10.1", "11", "RTX 1.7")
"""The releases that the table knows."""

NEWEST = frozenset({"11", "RTX 1.7"})
"""Those that a file of today is made for."""

_BEFORE_11 = ("8.6", "10.1")

_NOWHERE = (
    "AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
    "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "CumProd", "Det",
    "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix",
    "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement", "QLinearConv",
    "QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat",
    "StringNormalizer", "StringSplit", "SwiGLU", "TfIdfVectorizer", "Unique",
)  # fmt: skip

_OPERATORS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_NOWHERE, RELEASES),
    **dict.fromkeys(("CastLike", "Gelu", "Hardmax", "Mish"), ("8.6",)),
    **dict.fromkeys(
        ("Attention", "BlackmanWindow", "CausalConvWithState", "HammingWindow", "HannWindow", "LinearAttention",
         "RMSNormalization", "RotaryEmbedding", "STFT", "Swish", "TensorScatter"),
        _BEFORE_11,
    ),
    "DFT": ("8.6", "10.1", "RTX 1.7"),
    "DeformConv": ("8.6", "RTX 1.7"),
    "NonZero": ("RTX 1.7",),
}  # fmt: skip
"""By operator of ONNX, the releases whose parser has no import for it, or only by a plugin that the release lacks."""

_OF_MICROSOFT = {"MultiHeadAttention", "GroupQueryAttention", "SkipSimplifiedLayerNormalization", "QMoE"}
"""Of ``com.microsoft``, what the parser of 11 imports as it is."""

_TYPES: Mapping[int, tuple[str, tuple[str, ...]]] = {
    TensorProto.UINT4: ("uint4", RELEASES),
    TensorProto.UINT2: ("uint2", RELEASES),
    TensorProto.INT2: ("int2", RELEASES),
    TensorProto.UINT8: ("uint8", RELEASES),
    TensorProto.INT16: ("int16", RELEASES),
    TensorProto.UINT16: ("uint16", RELEASES),
    TensorProto.FLOAT8E5M2: ("float8e5m2", RELEASES),
    TensorProto.INT4: ("int4", ("8.6",)),
    TensorProto.FLOAT8E4M3FN: ("float8e4m3fn", ("8.6",)),
    TensorProto.FLOAT4E2M1: ("float4e2m1", _BEFORE_11),
}
"""By the type of a stored weight behind a DequantizeLinear, its name and the releases that refuse it."""

_FIRST_PAST = 4  # of Attention's inputs: the keys that a cache holds
_MOST_BYTES = 2**31 - 2**20  # of a message of protobuf


@dataclass(frozen=True)
class Unparsed:
    """A node that TensorRT's parser refuses.

    Attributes:
        node: its name, or its operator and what it computes.
        tensor: what it reads first.
        what: "operator", "type", "scales", "asymmetric", "cache" or "activations".
        why: a clause for people.
        releases: of TensorRT, those of :data:`RELEASES` that refuse it.
    """

    node: str
    tensor: str
    what: str
    why: str
    releases: tuple[str, ...]


@dataclass(frozen=True)
class ParserAnswer:
    """What an installed parser says of a file.

    Attributes:
        release: of TensorRT-RTX, in words.
        refuses: its errors; empty where it takes the file.
    """

    release: str
    refuses: str


def unparsed(model: ModelProto) -> tuple[Unparsed, ...]:
    """Every node that the parser of some release refuses, in the graph's order, those of subgraphs included."""
    held = constants(model)
    nodes = list(nodes_of(model.graph))
    packed = any(node.op_type == "MatMulNBits" for node in nodes)
    types = element_types(model) if packed else {}
    return tuple(fault for node in nodes for fault in _faults(node, held, types))


def answer_of_rtx(model: Model) -> ParserAnswer | None:
    """What TensorRT-RTX's parser says of a model; None where it is not installed, or the model too large for a message.

    It needs no GPU: nothing is built.
    """
    if model.proto.ByteSize() > _MOST_BYTES:
        return None
    try:
        trt = open_release("tensorrt-rtx")
        parse(trt, trt.Builder(logger_of(trt)), model, "strong")
    except BackendError:
        return None
    except ModelError as error:
        return ParserAnswer(label(trt), " ".join(str(error).split("\n", 1)[-1].split()))
    return ParserAnswer(label(trt), "")


def _faults(node: NodeProto, held: Mapping[str, TensorProto], types: Mapping[str, int]) -> Iterator[Unparsed]:
    if is_standard(node) and node.op_type in _OPERATORS:
        yield _fault(node, "operator", f"is a {node.op_type}, which it does not import", _OPERATORS[node.op_type])
    elif node.domain == "com.microsoft":
        yield from _of_microsoft(node, types)
    if is_standard(node) and node.op_type == "Attention" and _has_cache(node):
        yield _fault(node, "cache", "is an Attention with a cache of keys and values, and only one output is taken")
    if node.op_type == "DequantizeLinear" and node.input and node.input[0] in held:
        yield from _of_weight(node, held)


def _of_microsoft(node: NodeProto, types: Mapping[str, int]) -> Iterator[Unparsed]:
    if node.op_type == "MatMulNBits":
        if types.get(node.input[0]) == TensorProto.FLOAT16:
            yield _fault(node, "operator", "is a MatMulNBits of com.microsoft, which it does not import", _BEFORE_11)
        else:
            yield _fault(node, "activations", "is a MatMulNBits whose activations are not fp16, the only ones it takes")
    elif node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        releases = _BEFORE_11 if node.op_type in _OF_MICROSOFT else RELEASES
        why = f"is a {node.op_type} of com.microsoft, which it does not import"
        yield _fault(node, "operator", why, releases)


def _of_weight(node: NodeProto, held: Mapping[str, TensorProto]) -> Iterator[Unparsed]:
    name, releases = _TYPES.get(held[node.input[0]].data_type, ("", ()))
    scale, zero = held.get(node.input[1]), held.get(node.input[2]) if len(node.input) > 2 else None
    if scale is not None and scale.data_type == TensorProto.FLOAT8E8M0:
        yield _fault(node, "scales", "has scales of float8e8m0, which it does not import behind a DequantizeLinear")
    elif releases:
        yield _fault(node, "type", f"reads weights of {name}", releases)
    if zero is not None and releases != RELEASES and array_of(zero).astype("float32").any():
        yield _fault(node, "asymmetric", f"has zero points in {zero.name!r} that are not 0")


def _has_cache(node: NodeProto) -> bool:
    return any(node.input[_FIRST_PAST:]) or any(node.output[1:])


def _fault(node: NodeProto, what: str, why: str, releases: tuple[str, ...] = RELEASES) -> Unparsed:
    name = node.name or f"{node.op_type} of {next(iter(node.output), '')}"
    return Unparsed(name, next(iter(node.input), ""), what, why, releases)
