from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fakes import cuda as fake_cuda

DATA = np.arange(4, dtype=np.float32)


def allocated(cuda: Any, size: int = 16) -> Any:
    error, pointer = cuda.cudaMalloc(size)
    assert error == cuda.cudaError_t.cudaSuccess
    return pointer


def to_device(cuda: Any, pointer: int, data: np.ndarray = DATA) -> None:
    cuda.cudaMemcpy(pointer, data, data.nbytes, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)


def test_data_comes_back_and_every_byte_is_counted() -> None:
    cuda, back = fake_cuda.runtime(), np.empty_like(DATA)
    pointer = allocated(cuda)
    to_device(cuda, pointer)
    cuda.cudaMemcpy(back.ctypes.data, pointer, 16, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)
    cuda.cudaFree(pointer)
    assert back.tolist() == DATA.tolist()
    assert (cuda._device.bytes_to_device, cuda._device.bytes_to_host, cuda._device.allocated) == (16, 16, 0)


def test_an_asynchronous_copy_has_not_happened_before_its_stream_is_waited_for() -> None:
    cuda, back = fake_cuda.runtime(), np.zeros_like(DATA)
    pointer = allocated(cuda)
    to_device(cuda, pointer)
    _, stream = cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)
    cuda.cudaMemcpyAsync(back, pointer, 16, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)
    assert back.tolist() == [0] * 4
    cuda.cudaStreamSynchronize(stream)
    assert back.tolist() == DATA.tolist()


def test_a_copy_past_the_end_is_an_overrun() -> None:
    cuda = fake_cuda.runtime()
    with pytest.raises(AssertionError, match="overrun"):
        to_device(cuda, allocated(cuda, 8))


def test_freed_memory_is_neither_used_nor_freed_again() -> None:
    cuda = fake_cuda.runtime()
    pointer = allocated(cuda)
    cuda.cudaFree(pointer)
    with pytest.raises(AssertionError, match="use after free"):
        to_device(cuda, pointer)
    with pytest.raises(AssertionError, match="double free"):
        cuda.cudaFree(pointer)


def test_a_copy_the_wrong_way_round_is_refused() -> None:
    cuda = fake_cuda.runtime()
    with pytest.raises(AssertionError, match="the addresses are cudaMemcpyHostToDevice"):
        cuda.cudaMemcpy(allocated(cuda), DATA, 16, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)


def test_a_destroyed_stream_is_not_used_again() -> None:
    cuda = fake_cuda.runtime()
    _, stream = cuda.cudaStreamCreate()
    cuda.cudaStreamDestroy(stream)
    assert cuda._device.open_streams == 0
    with pytest.raises(AssertionError, match="destroyed stream"):
        cuda.cudaStreamSynchronize(stream)


def test_faults_are_the_errors_of_cuda() -> None:
    error = fake_cuda.cudaError_t
    assert fake_cuda.runtime(device_count=0).cudaGetDeviceCount() == (error.cudaErrorNoDevice, None)
    assert fake_cuda.runtime(driver_error=35).cudaGetDeviceCount() == (error.cudaErrorInsufficientDriver, None)
    assert fake_cuda.runtime(out_of_memory_above=15).cudaMalloc(16) == (error.cudaErrorMemoryAllocation, None)
    assert fake_cuda.runtime().cudaSetDevice(1) == (error.cudaErrorInvalidDevice,)


def test_every_name_and_number_is_that_of_the_real_bindings() -> None:
    real = pytest.importorskip("cuda.bindings.runtime")
    fake = fake_cuda.runtime()
    assert [name for name in vars(fake) if name.startswith("cuda") and not hasattr(real, name)] == []
    kinds = (fake.cudaError_t, fake.cudaMemcpyKind, fake.cudaDeviceAttr, fake.cudaStreamCaptureMode)
    for kind in kinds:
        theirs = getattr(real, kind.__name__)
        assert {name: int(getattr(theirs, name)) for name in kind.__members__} == dict(kind.__members__)
    flags = ("cudaEventDefault", "cudaEventBlockingSync", "cudaStreamDefault", "cudaStreamNonBlocking")
    assert [getattr(fake, name) for name in flags] == [getattr(real, name) for name in flags]
