"""A modelopt that lowers by our own tools, so that each of its faults can be had one at a time."""

from __future__ import annotations

import logging
import sys
import types
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from pytest_trt.calibration.calibration import calibrate
from pytest_trt.lowering.lowering import lower
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import checked
from pytest_trt.ranges.amax import Ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class FakeModelopt:
    """What stands in sys.modules; ``fault`` is called in the middle of its work, ``change`` on what it made.

    Attributes:
        calls: arguments of each call of the quantizer or AutoCast.
        reads: whether the quantizer reads what it is given, or draws at random.
        scaled: how much larger its ranges are than the data's.
    """

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.reads = True
        self.scaled = 1.0
        self.fault: Callable[[], None] = lambda: None
        self.change: Callable[[onnx.ModelProto], onnx.ModelProto] = lambda proto: proto

    def quantize(self, path: str, **told: Any) -> None:
        self.calls.append({"path": path, **told})
        print("quantising")
        model = checked(onnx.load(path), "fake")
        drawn = [{"x": np.random.default_rng(0).random((1, 2, 6, 6), np.float32)}]
        samples = list(iter(told["calibration_data_reader"].get_next, None)) if self.reads else drawn
        self.fault()
        found = calibrate(model, quantised_activations(model.proto), samples, "fake")
        ranges = Ranges({name: amax * self.scaled for name, amax in found.amax.items()})
        onnx.save(self.change(lower(model.proto, "int8", ranges)), told["output_path"])

    def convert_to_mixed_precision(self, path: str, **told: Any) -> onnx.ModelProto:
        self.calls.append({"path": path, **told})
        logging.getLogger("modelopt.onnx").warning("shared constants\nwere found")
        self.fault()
        return self.change(lower(onnx.load(path), told["low_precision_type"], typed=True))

    def install(self, patch: pytest.MonkeyPatch) -> None:
        contents: dict[str, dict[str, Any]] = {
            "modelopt": {"__version__": "0.47.0"},
            "modelopt.onnx": {},
            "modelopt.onnx.autocast": {"convert_to_mixed_precision": self.convert_to_mixed_precision},
            "modelopt.onnx.quantization": {"quantize": self.quantize},
            "modelopt.onnx.export": {"NVFP4QuantExporter": FakeNvfp4(self), "MXFP8QuantExporter": FakeMxfp8(self)},
        }
        for name, members in contents.items():
            module = types.ModuleType(name)
            module.__dict__.update(members, __path__=[])
            patch.setitem(sys.modules, name, module)
            parent, _, own = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], own, module)


class FakeNvfp4:
    """Tells levels and scales of one weight by attributes of its node, as ModelOpt's exporter does."""

    def __init__(self, owner: FakeModelopt) -> None:
        self.owner = owner

    def compute_scales(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        self.owner.fault()
        return proto

    def compress_weights(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        weight = numpy_helper.to_array(proto.graph.initializer[0])
        blocks = weight.reshape(len(weight), -1, proto.graph.node[0].attribute[0].i)
        whole = np.float32(np.abs(weight).max() / (6 * 448))
        scales = (np.abs(blocks).max(2) / 6 / whole).astype(ml_dtypes.float8_e4m3fn)
        levels = np.clip(blocks / (scales.astype(np.float32)[..., None] * whole), -6, 6).astype(ml_dtypes.float4_e2m1fn)
        bits = levels.view(np.uint8).reshape(-1)
        packed = (bits[::2] | (bits[1::2] << 4)).reshape(len(weight) // 2, -1)
        proto.graph.node[0].attribute.extend(
            [
                helper.make_attribute("_sw_f32_per_tensor", [float(whole)]),
                helper.make_attribute("_w_f4", numpy_helper.from_array(packed)),
                helper.make_attribute("_sw_f8_per_block", numpy_helper.from_array(scales.view(np.uint8))),
            ]
        )
        return proto


class FakeMxfp8:
    """Puts levels and exponents of one weight in the place of it and of a Constant, as ModelOpt's exporter does."""

    def __init__(self, owner: FakeModelopt) -> None:
        self.owner = owner

    def compute_scales(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        self.owner.fault()
        blocks = numpy_helper.to_array(proto.graph.initializer[0])
        blocks = blocks.reshape(len(blocks), -1, 32)
        exponents = (np.floor(np.log2(np.abs(blocks).max(2))) - 8 + 127).astype(np.uint8)
        proto.graph.initializer.append(numpy_helper.from_array(exponents, "s_scale"))
        proto.graph.node.remove(proto.graph.node[0])
        proto.graph.node[0].input[1] = "s_scale"
        return proto

    def compress_weights(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        weight, exponents = map(numpy_helper.to_array, proto.graph.initializer)
        scale = np.exp2(np.repeat(exponents.astype(np.float32), 32, 1) - 127)
        levels = np.clip(weight / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn)
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(levels, "w.weight"))
        return proto
