"""Folders of ONNX test data, written as onnx's own tests are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networks
from onnx import numpy_helper

from pytest_trt.model.onnx_session import open_session

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx


def write(folder: Path, proto: onnx.ModelProto, number: int, inputs: list[np.ndarray]) -> Path:
    """model.onnx and one data set, its outputs computed in fp32."""
    networks.save(proto, folder / "model.onnx")
    session = open_session(proto, "model")
    names = [spec.name for spec in session.get_inputs()]
    outputs = session.run(None, dict(zip(names, inputs, strict=True)))
    place = folder / f"test_data_set_{number}"
    place.mkdir()
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for index, array in enumerate(arrays):
            (place / f"{kind}_{index}.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())
    return place
