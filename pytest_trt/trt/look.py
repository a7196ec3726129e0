"""Look: the layers and ends of a plan that was built elsewhere, by TensorRT on this GPU; the plan's code is loaded."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.cuda import open_gpu, using
from pytest_trt.errors import ForeignPlan
from pytest_trt.trt.deserialize import read_plan
from pytest_trt.trt.execution import tensors_of
from pytest_trt.trt.layers import layers_of
from pytest_trt.trt.log import heard, logger_of
from pytest_trt.trt.release import label, open_release

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

__all__ = ["look_into"]


def look_into(path: Path, backend: str = "tensorrt", device: int = 0) -> dict[str, Any]:
    """What TensorRT tells of a plan, plain as JSON is.

    Args:
        path: the plan.
        backend: tensorrt or tensorrt-rtx.
        device: index of the GPU.

    Raises:
        BackendError: TensorRT or a GPU is missing, or the file can't be read.
        ForeignPlan: TensorRT can't load it here.
    """
    trt, data = open_release(backend), read_plan(path)
    gpu = open_gpu(device)
    with using(gpu.index):
        engine = _engine(trt, data, path, gpu.name)
        text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        ends = [
            f"{'input' if one.is_input else 'output'} {one.name!r} {one.dtype}{list(one.shape)}"
            for one in tensors_of(trt, engine)
        ]
    return {"release": label(trt), "gpu": gpu.name, "ends": ends, "layers": [asdict(one) for one in layers_of(text)]}


def _engine(trt: ModuleType, data: bytes, path: Path, gpu: str) -> Any:
    with heard(trt) as said:
        engine = trt.Runtime(logger_of(trt)).deserialize_cuda_engine(data)
        if engine is None:
            raise ForeignPlan(
                said.told(
                    f"the plan {path} can't be loaded by {label(trt)} on {gpu}: it is damaged, or was built with"
                    " another release or for another GPU"
                ),
                {"plan": str(path), "release": label(trt), "gpu": gpu},
            )
    return engine
