"""Arrays of other libraries on a GPU, read where they lie. Skipped, with the reason, where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest

from pytest_trt.backends.cuda import device_view, download, is_on_device, open_gpu, upload
from pytest_trt.errors import DataError, PytestTrtError

Test = TypeVar("Test", bound=Callable[..., None])


def _why_not() -> str:
    try:
        open_gpu(0)
    except PytestTrtError as error:
        return str(error)
    return ""


WHY_NOT = _why_not()


def on_gpu(test: Test) -> Test:
    return pytest.mark.gpu(pytest.mark.skipif(bool(WHY_NOT), reason=f"needs a GPU: {WHY_NOT}")(test))


@pytest.fixture
def torch() -> Any:
    found = pytest.importorskip("torch")
    if not found.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return found


@on_gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "uint8"])
def test_a_tensor_of_torch_is_viewed_at_its_own_address(torch: Any, dtype: str) -> None:
    tensor = torch.arange(24, device="cuda").reshape(2, 3, 4).to(getattr(torch, dtype))

    view = device_view(tensor, "x")

    assert is_on_device(tensor)
    assert (view.address, view.shape, view.dtype.name) == (tensor.data_ptr(), (2, 3, 4), dtype)
    assert np.array_equal(download(view).astype(np.float32), tensor.float().cpu().numpy())


def test_a_tensor_of_torch_on_the_host_is_none_of_the_gpus() -> None:
    torch = pytest.importorskip("torch")

    assert not is_on_device(torch.zeros(3))
    assert not is_on_device(np.zeros(3))


@on_gpu
def test_a_transposed_tensor_is_refused(torch: Any) -> None:
    with pytest.raises(DataError, match="not C-contiguous"):
        device_view(torch.zeros(2, 3, device="cuda").T, "x")


@on_gpu
def test_an_output_is_a_tensor_of_torch_without_a_copy(torch: Any) -> None:
    array = upload(np.arange(6, dtype=np.float32).reshape(2, 3))

    tensor = torch.as_tensor(array, device="cuda")

    assert tensor.data_ptr() == array.address
    assert tensor.cpu().tolist() == [[0, 1, 2], [3, 4, 5]]


@on_gpu
def test_an_array_of_cupy_is_viewed_at_its_own_address_and_an_output_is_one() -> None:
    cupy = pytest.importorskip("cupy")
    array = cupy.arange(6, dtype=cupy.float32).reshape(2, 3)

    view = device_view(array, "x")
    back = cupy.asarray(view)

    assert view.address == array.data.ptr == back.data.ptr
    assert np.array_equal(download(view), array.get())
