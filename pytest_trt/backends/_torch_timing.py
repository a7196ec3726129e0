"""torch on the GPU, timed: its inputs in place, eager or as a CUDA graph."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from pytest_trt.backends._cuda_events import EVENTS, DeviceStopwatch
from pytest_trt.backends.stopwatch import HostStopwatch, batch_of, shapes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import ModuleType

    from pytest_trt.backends.stopwatch import Timing

__all__ = ["Inference", "device_stopwatch", "host_stopwatch"]


class Inference:
    """A module with one run's inputs in place.

    Attributes:
        outputs: of the last run, tensors.
    """

    def __init__(self, module: Any, tensors: tuple[Any, ...], values: Callable[[Any], list[Any]]) -> None:
        self.module, self.tensors, self._values = module, tensors, values
        self.outputs: list[Any] = []

    def __call__(self) -> None:
        """Run it once; on the GPU, put it on the current stream."""
        self.outputs = self._values(self.module(*self.tensors))

    @property
    def weights(self) -> int:
        """Bytes of parameters and buffers."""
        held = (*self.module.parameters(), *self.module.buffers())
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


class _Events:
    """See :class:`pytest_trt.backends._cuda_events.EventClock`."""

    def __init__(self, torch: ModuleType, count: int, *, spin: bool) -> None:
        self._events = [torch.cuda.Event(enable_timing=True, blocking=not spin) for _ in range(count)]

    def record(self, number: int) -> None:
        self._events[number].record()

    def wait(self, number: int) -> None:
        self._events[number].synchronize()

    def seconds(self, first: int, second: int) -> float:
        return float(self._events[first].elapsed_time(self._events[second])) / 1000


class _Copies:
    """Copies of inputs and outputs by pinned memory."""

    def __init__(self, torch: ModuleType, inference: Inference) -> None:
        def pinned(tensor: Any) -> Any:
            return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)

        self._inference = inference
        self._ins = [pinned(tensor).copy_(tensor) for tensor in inference.tensors]
        self._outs = [pinned(tensor) for tensor in inference.outputs]

    def go_in(self) -> None:
        for source, target in zip(self._ins, self._inference.tensors, strict=True):
            target.copy_(source, non_blocking=True)

    def go_out(self) -> None:
        for source, target in zip(self._inference.outputs, self._outs, strict=True):
            target.copy_(source, non_blocking=True)


def host_stopwatch(
    inference: Inference, feeds: Any, what: str, around: Callable[[], AbstractContextManager[Any]]
) -> HostStopwatch:
    """On the CPU."""
    with around():
        inference()
    return HostStopwatch(inference, what, batch_of(feeds), shapes_of(feeds), around=around)


def device_stopwatch(
    inference: Inference,
    feeds: Any,
    what: str,
    timing: Timing,
    device: str,
    modes: Callable[[], AbstractContextManager[Any]],
) -> DeviceStopwatch:
    """On the GPU, by torch's events, on a stream of its own.

    Args:
        inference: its tensors on the GPU, in the precision.
        feeds: the same as arrays by name.
        what: what messages call it.
        timing: with a CUDA graph or not, with copies or not.
        device: as torch names it.
        modes: entered while it runs: no gradients, TF32 or not.
    """
    import torch

    cuda: Any = torch.cuda
    stream = cuda.Stream(device)

    @contextmanager
    def around() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.cuda.device(device))
            stack.enter_context(torch.cuda.stream(stream))
            stack.enter_context(modes())
            yield

    torch.cuda.synchronize(device)
    with around():
        memory = _warmed(torch, inference, device)
        graph = _captured(torch, inference, stream) if timing.graph else None
        copies = _Copies(torch, inference) if timing.transfers else None
        events = _Events(torch, EVENTS, spin=timing.spin)
        torch.cuda.synchronize(device)
    replays = graph is not None and not isinstance(graph, str)
    return DeviceStopwatch(
        infer=graph.replay if graph is not None and not isinstance(graph, str) else inference,
        events=events,
        what=what,
        batch=batch_of(feeds),
        shapes=shapes_of(feeds),
        graph=replays,
        spin=timing.spin,
        copies=(copies.go_in, copies.go_out) if copies else None,
        memory=memory,
        notes=(f"no CUDA graph is replayed: {graph}.",) if isinstance(graph, str) else (),
        around=around,
        keeps=(graph, inference),
    )


def _warmed(torch: ModuleType, inference: Inference, device: str) -> int:
    """Bytes of weights and of what a run takes beside them, after runs that set up libraries."""
    for _ in range(3):
        inference()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    inference()
    torch.cuda.synchronize(device)
    return inference.weights + int(torch.cuda.max_memory_allocated(device) - before)


def _captured(torch: ModuleType, inference: Inference, stream: Any) -> Any:
    """The graph, or why there is none."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            inference()
        graph.replay()
        torch.cuda.synchronize(stream.device)
    except RuntimeError as error:
        inference()  # what it holds would be of the capture that failed
        return f"torch can't capture it ({str(error).splitlines()[0].rstrip('.')})"
    return graph
