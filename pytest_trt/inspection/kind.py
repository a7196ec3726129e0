"""Kind: whether a file is a model, a plan, a golden or a record, by what it holds; its name does not count."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pytest_trt.errors import DataError
from pytest_trt.inspection.plan import TAGS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KINDS", "kind_of"]

KINDS = ("onnx", "plan", "golden", "record")

_HEAD = 4096
_LONGEST_HEADER = 100_000_000  # safetensors' own limit

_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch what it points to (git lfs pull)"),
    (b"TRT-", "a TensorRT calibration cache: pytest-trt ranges show prints it"),
    (b"PK\x03\x04", "a zip archive, such as .npz or a PyTorch checkpoint: name an ONNX file, a plan, golden or record"),
    (b"\x93NUMPY", "a numpy array: name an ONNX file, a plan, a golden or a record"),
    (b"\x89HDF", "an HDF5 file: export the model to ONNX first"),
)


def kind_of(path: Path) -> str:
    """One of :data:`KINDS`.

    Raises:
        DataError: it is none of them, or can't be read; says what it looks like.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    if not head:
        raise DataError(f"{path} is empty (0 bytes).")
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise DataError(f"{path} is {what}.")
    if head[:4] in TAGS:
        return "plan"
    if _is_safetensors(head):
        return "golden"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _json_kind(path)
    return _protobuf_kind(path)


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def _json_kind(path: Path) -> str:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} begins as JSON and can't be read: {error}.") from error
    if isinstance(document, dict) and "schema" in document and "results" in document:
        return "record"
    raise DataError(f"{path} is JSON and no record of --trt-report: it has no `schema` and `results`.")


def _protobuf_kind(path: Path) -> str:
    import onnx
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise _unknown(path) from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise _unknown(path)
    return "onnx"


def _unknown(path: Path) -> DataError:
    return DataError(
        f"{path} is no ONNX model, no TensorRT plan, no golden and no record, by its content; it may be cut short."
    )
