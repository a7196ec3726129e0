"""The least that times a TensorRT engine: a CUDA graph replayed between two events, by cuda-bindings alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def bare_loop(plan: bytes, feeds: Mapping[str, np.ndarray], inferences: int = 1) -> Callable[[int], np.ndarray]:
    """Replays so many samples of so many inferences, and returns seconds an inference."""
    import tensorrt as trt
    from cuda.bindings import runtime as cuda

    def ok(result: tuple[Any, ...]) -> Any:
        assert not int(result[0]), result[0]
        return result[1] if len(result) > 1 else None

    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)
    context, stream = engine.create_execution_context(), ok(cuda.cudaStreamCreate())
    handle = int(stream)
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    for name, value in feeds.items():
        assert context.set_input_shape(name, value.shape)
    for name in names:
        address = ok(cuda.cudaMalloc(8 * int(np.prod(context.get_tensor_shape(name)))))
        assert context.set_tensor_address(name, address)
        if name in feeds:
            kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
            ok(cuda.cudaMemcpy(address, feeds[name].ctypes.data, feeds[name].nbytes, kind))
    assert context.execute_async_v3(handle)
    ok(cuda.cudaStreamSynchronize(handle))
    ok(cuda.cudaStreamBeginCapture(handle, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
    assert context.execute_async_v3(handle)
    graph = ok(cuda.cudaGraphInstantiate(ok(cuda.cudaStreamEndCapture(handle)), 0))

    def replay(samples: int) -> np.ndarray:
        pairs = [(ok(cuda.cudaEventCreate()), ok(cuda.cudaEventCreate())) for _ in range(samples)]
        for start, stop in pairs:
            ok(cuda.cudaEventRecord(start, handle))
            for _ in range(inferences):
                ok(cuda.cudaGraphLaunch(graph, handle))
            ok(cuda.cudaEventRecord(stop, handle))
        ok(cuda.cudaStreamSynchronize(handle))
        took = [ok(cuda.cudaEventElapsedTime(start, stop)) / 1000 / inferences for start, stop in pairs]
        for event in (event for pair in pairs for event in pair):
            ok(cuda.cudaEventDestroy(event))
        return np.array(took)

    replay.keeps = engine, context  # type: ignore[attr-defined]
    return replay
