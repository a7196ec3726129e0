"""Values of the fake tensorrt: shapes, buffers, element types."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any

import numpy as np

from fakes.api import Object

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


class Dims:
    """A sequence that equals tuples and lists, slices to tuples and has no hash; no tuple itself."""

    MAX_DIMS = 8
    __hash__ = None  # type: ignore[assignment]  # as the real one has none

    def __init__(self, sizes: Any = ()) -> None:
        self._sizes = tuple(int(size) for size in sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: Any) -> Any:
        return self._sizes[index]

    if TYPE_CHECKING:  # __getitem__ alone makes it iterable, as the real one

        def __iter__(self) -> Iterator[int]: ...

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (tuple, list)):
            raise TypeError("__eq__(): incompatible function arguments.")
        return self._sizes == tuple(other)

    def __repr__(self) -> str:
        return repr(self._sizes)


class IHostMemory(array.array, Object):  # type: ignore[type-arg]  # it has no arguments at run time
    """A buffer of bytes: bytes() and memoryview() work, len() and indices do not."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name in type(self)._listed:
            return object.__getattribute__(self, name)
        return Object.__getattr__(self, name)

    @property
    def nbytes(self) -> int:
        return memoryview(self).nbytes

    @property
    def dtype(self) -> Any:
        return self._world.trt.DataType.INT8

    def __repr__(self) -> str:
        return f"<{self._world.trt.__name__}.IHostMemory object of {memoryview(self).nbytes} bytes>"

    def __len__(self) -> int:
        raise TypeError("object of type 'IHostMemory' has no len()")

    def __getitem__(self, index: Any) -> Any:
        raise TypeError("'IHostMemory' object is not subscriptable")

    def __iter__(self) -> Any:
        raise TypeError("'IHostMemory' object is not iterable")


def host_memory(world: Any, data: bytes) -> Any:
    return array.array.__new__(world.trt.IHostMemory, "B", data)
