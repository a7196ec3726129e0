"""A modelopt that lowers by our own tools, so that each of its faults can be had one at a time."""

from __future__ import annotations

import logging
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

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
        }
        for name, members in contents.items():
            module = types.ModuleType(name)
            module.__dict__.update(members, __path__=[])
            patch.setitem(sys.modules, name, module)
            parent, _, own = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], own, module)
