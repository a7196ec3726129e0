"""A plan of the fake tensorrt: a header, the ONNX bytes, and the layers that an inspector shows of them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, shape_inference

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"ftrt"
COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTIZED = ("QuantizeLinear", "DequantizeLinear")
TYPES: dict[int, str] = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
    TensorProto.FLOAT8E4M3FN: "FP8",
}
_WORDS_8 = {
    "fp32": "Row major linear FP32",
    "fp16": "Row major linear FP16 format",
    "int8": "Thirty-two wide channel vectorized row major Int8 format",
    "int32": "Row major INT32 format",
}
_WORDS = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16", "int8": "Int8", "fp8": "FP8", "int32": "Int32"}
_TACTICS = {"fp32": "f32f32", "fp16": "f16f16", "bf16": "bf16bf16", "int8": "int8int8", "fp8": "e4m3e4m3"}
_PRECISIONS = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}


def pack(header: dict[str, Any], model: bytes) -> bytes:
    text = json.dumps(header).encode()
    body = len(text).to_bytes(8, "little") + text + model
    return MAGIC + hashlib.sha256(body).digest() + body


def unpack(plan: bytes) -> tuple[dict[str, Any], bytes] | None:
    """The header and the ONNX bytes; None where the plan is damaged."""
    digest, body = plan[4:36], plan[36:]
    if plan[:4] != MAGIC or hashlib.sha256(body).digest() != digest:
        return None
    end = 8 + int.from_bytes(body[:8], "little")
    return json.loads(body[8:end]), body[end:]


def types_and_shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, list[int] | None]]:
    """Element type and shape (-1 for an unknown size; None for an unknown rank) of every tensor that ONNX can tell."""
    graph = shape_inference.infer_shapes(proto, data_prop=True).graph
    found: dict[str, tuple[int, list[int] | None]] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]
        found[value.name] = (tensor.elem_type, sizes if tensor.HasField("shape") else None)
    for weight in graph.initializer:
        found[weight.name] = (weight.data_type, list(weight.dims))
    return found


def precisions(proto: onnx.ModelProto, header: dict[str, Any]) -> dict[int, str]:
    """The precision of every compute node, by its place in the graph."""
    types = types_and_shapes(proto)
    makers = {name: node for node in proto.graph.node for name in node.output}
    asked = {
        place: _asked(node, types, makers, header)
        for place, node in enumerate(proto.graph.node)
        if node.op_type in COMPUTE
    }
    return _achieved(asked, header["achieved"])


def _asked(node: onnx.NodeProto, types: Any, makers: Any, header: dict[str, Any]) -> str:
    if node.name in header["layer_precisions"]:
        return _PRECISIONS[header["layer_precisions"][node.name]]
    maker = makers.get(node.input[0])
    if maker is not None and maker.op_type == "DequantizeLinear":
        return _PRECISIONS.get(TYPES.get(types.get(maker.input[0], (0,))[0], ""), "int8")
    kind = _PRECISIONS.get(TYPES.get(types.get(node.input[0], (1,))[0], ""), "fp32")
    if header["strongly_typed"] or kind != "fp32":
        return kind
    return next((name.lower() for name in ("INT8", "FP16", "BF16") if name in header["flags"]), "fp32")


def _achieved(asked: dict[int, str], achieved: dict[str, int]) -> dict[int, str]:
    """``achieved`` is what the builder really chose: so many layers of each precision in turn, fp32 for the rest."""
    if not achieved:
        return asked
    words = [word for word, count in achieved.items() for _ in range(count)]
    return {place: words.pop(0) if words else "fp32" for place in asked}


def information(header: dict[str, Any], model: bytes, shapes: dict[str, list[int]]) -> str:
    """What the inspector writes: one JSON text in the form of the header's release."""
    proto = onnx.load_from_string(model)
    ends = [value.name for value in (*proto.graph.input, *proto.graph.output)]
    layers = list(_layers(proto, header))
    if header["verbosity"] == "NONE":
        layers = []
    elif header["verbosity"] != "DETAILED":
        layers = [layer["Name"] for layer in layers]
    if header["release"].startswith(("11", "rtx")):
        types = types_and_shapes(proto)
        tensors = [{"Name": name, "Dimensions": shapes[name], "Datatype": TYPES[types[name][0]]} for name in ends]
        return json.dumps({"Layers": layers, "I/O Tensors": tensors}, indent=1)
    text = json.dumps({"Layers": layers, "Bindings": ends})
    return text.replace("\\u001e", "\x1e") if header["release"] == "8.6" else text


def _layers(proto: onnx.ModelProto, header: dict[str, Any]) -> Iterator[dict[str, Any]]:
    types, chosen = types_and_shapes(proto), precisions(proto, header)
    users: dict[str, list[tuple[int, onnx.NodeProto]]] = {}
    for place, node in enumerate(proto.graph.node):
        for name in node.input:
            users.setdefault(name, []).append((place, node))
    fused: set[int] = set()
    for place, node in enumerate(proto.graph.node):
        if place in fused or node.op_type in (*QUANTIZED, "Constant", "Identity"):
            continue
        group, after = [node], users.get(node.output[0], [])
        if place in chosen and len(after) == 1 and after[0][1].op_type == "Relu":
            fused.add(after[0][0])
            group.append(after[0][1])
        yield _layer(group, chosen.get(place), types, header)


def _layer(group: list[onnx.NodeProto], precision: str | None, types: Any, header: dict[str, Any]) -> dict[str, Any]:
    node, names = group[0], [node.name or f"{node.op_type}_{node.output[0]}" for node in group]
    layer: dict[str, Any] = {
        "Name": " + ".join([names[0], *(f"PWN({name})" for name in names[1:])]),
        "LayerType": {"Conv": "CaskConvolution", "Gemm": "gemm", "MatMul": "gemm"}.get(node.op_type, node.op_type),
        "Inputs": [_tensor(name, precision, types, header) for name in node.input[:1]],
        "Outputs": [_tensor(name, precision, types, header) for name in group[-1].output],
        "TacticName": _tactic(precision, header),
        "Metadata": "\x1e".join(f"[ONNX Layer: {name}]" for name in names),
    }
    if precision:
        kind = {**_WORDS, "fp32": "Float"}[precision]
        shape = types.get(node.input[1], (1, []))[1] or []
        layer["Weights"] = {"Type": kind, "Count": _volume(shape)}
    return layer


def _tactic(precision: str | None, header: dict[str, Any]) -> str:
    if precision is None:
        return "generic"
    word = "tf32f32" if precision == "fp32" and "TF32" in header["flags"] else _TACTICS[precision]
    return f"sm80_xmma_fprop_implicit_gemm_{word}_{word}_f32_nhwckrsc_nhwc_tilesize128x128"


def _tensor(name: str, precision: str | None, types: Any, header: dict[str, Any]) -> dict[str, Any]:
    kind, shape = types.get(name, (TensorProto.FLOAT, None))
    word = precision or _PRECISIONS.get(TYPES.get(kind, ""), "int32")
    tensor: dict[str, Any] = {"Name": name, "Location": "Device", "Dimensions": shape or []}
    if header["release"] == "8.6":
        return tensor | {"Format/Datatype": _WORDS_8[word]}
    if header["release"].startswith("10"):
        return tensor | {"Format/Datatype": _WORDS[word]}
    return tensor | {"Format": "Row major linear", "Datatype": _WORDS[word]}


def _volume(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
