"""ONNX test data: folders ``test_data_set_N`` of ``input_0.pb``, ``output_0.pb``, read as goldens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import onnx
from onnx import numpy_helper

from pytest_trt.errors import DamagedGolden, GoldenMismatch
from pytest_trt.golden import Golden, Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import TensorProto

    from pytest_trt.feeds import Arrays
    from pytest_trt.model import Model

__all__ = ["data_sets_beside", "input_sets", "read_data_sets"]

_FOLDER = re.compile(r"test_data_set_(\d+)")


def data_sets_beside(model: Path) -> bool:
    """Whether the model's folder holds test data, and no other model that it could belong to."""
    folder = model.parent
    return bool(_folders(folder)) and len(list(folder.glob("*.onnx"))) == 1


def read_data_sets(folder: Path, model: Model) -> Golden:
    """All data sets of a folder (or the one that it is) as a golden.

    Tensors go by position, as in ONNX's own tests: ``input_0.pb`` is the model's first input.

    Raises:
        DamagedGolden: a file is missing or can't be read.
        GoldenMismatch: there are not as many tensors as the model has.
    """
    folders = _folders(folder) or [folder]
    inputs = [spec.name for spec in model.inputs]
    outputs = [spec.name for spec in model.outputs]
    runs = tuple(Run(_read(part, "input", inputs), _read(part, "output", outputs), part.name) for part in folders)
    return Golden(runs, str(folder))


def input_sets(folder: Path, names: list[str]) -> Iterator[tuple[Path, Arrays]]:
    """The inputs of all data sets of a folder (or the one that it is), set after set; no outputs are looked for.

    Args:
        folder: holds ``test_data_set_N``, or ``input_0.pb``.
        names: the model's inputs.

    Raises:
        DamagedGolden: a file can't be read.
        GoldenMismatch: there are not as many tensors as the model has inputs.
    """
    for part in _folders(folder) or [folder]:
        yield part, _read(part, "input", names)


def _folders(folder: Path) -> list[Path]:
    found = [(_FOLDER.fullmatch(path.name), path) for path in folder.glob("test_data_set_*") if path.is_dir()]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def _read(folder: Path, kind: str, names: list[str]) -> Arrays:
    present = {path.name for path in folder.glob(f"{kind}_*.pb")}
    wanted = [f"{kind}_{number}.pb" for number in range(len(names))]
    if present != set(wanted):
        raise GoldenMismatch(
            f"{folder} holds {', '.join(sorted(present)) or f'no {kind}_*.pb'}, and the model has the {kind}s"
            f" {', '.join(map(repr, names))}, which are {', '.join(wanted)}."
        )
    files = [folder / name for name in wanted]
    tensors = [_tensor(file) for file in files]
    stored = [tensor.name for tensor in tensors]
    ordered = stored if sorted(stored) == sorted(names) else names
    return {name: numpy_helper.to_array(tensor) for name, tensor in zip(ordered, tensors, strict=True)}


def _tensor(file: Path) -> TensorProto:
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(file.read_bytes())
        numpy_helper.to_array(tensor)
    except Exception as error:  # protobuf, onnx (external data) and the file system, each in its own way
        raise DamagedGolden(f"{file} is not a whole ONNX tensor: {error}. Fetch the test data again.") from error
    return tensor
